//! A line: an operator and an element type.

use std::fmt;

use isobit_ops::Code;
use isobit_runtime::{KernelSet, Limits, Options, RunError, RunOptions, Session};
use isobit_tensor::{DType, Datum, Hash};

use crate::draw::Draw;
use crate::templates::Template;
use crate::vary::{fresh, operands};

/// Cases of a line.
pub const CASES: u64 = 1024;
/// Cases of a line's first hash, for slow machines.
pub const QUICK: u64 = 48;

/// What an operator computes for one element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashes {
    /// Over the first [`QUICK`] cases.
    pub quick: Hash,
    /// Over all [`CASES`], where they were run.
    pub all: Option<Hash>,
    /// How many of the cases gave results; the others failed with agreed codes.
    pub ok: u64,
}

/// An instruction set and a number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The instruction set.
    pub set: KernelSet,
    /// Threads, the caller's included.
    pub threads: usize,
}

impl Setting {
    /// Every kernel set of this machine on one thread, and the fastest on three.
    pub fn all() -> Vec<Self> {
        let mut all: Vec<Self> =
            KernelSet::available().into_iter().map(|set| Setting { set, threads: 1 }).collect();
        if !cfg!(target_family = "wasm") {
            all.push(Setting { set: KernelSet::best(), threads: 3 });
        }
        all
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.set, self.threads)
    }
}

/// The line's sessions under one setting.
pub(crate) struct Runner {
    sessions: Vec<Result<Session, Code>>,
    fresh: bool,
}

impl Runner {
    pub(crate) fn new(templates: &[Template], setting: Setting) -> Self {
        let options = Options::default().kernel_set(setting.set).threads(setting.threads);
        let load = |t: &Template| {
            Session::load(t.model.clone(), &options).map_err(|e| match e {
                isobit_runtime::LoadError::Op { source, .. } => source.code,
                _ => Code::InvalidInput,
            })
        };
        Self { sessions: templates.iter().map(load).collect(), fresh: setting.threads > 1 }
    }

    /// Runs `cases` of the line and hashes what comes out, with the type given to all operands of the templates' own type or,
    /// where there are any, to those in `alone`. `None` where the operator does not take the type: none of the first cases has a
    /// result.
    pub(crate) fn line(
        &self,
        templates: &[Template],
        op: &str,
        dtype: Option<DType>,
        alone: &[usize],
        cases: u64,
    ) -> Option<Hashes> {
        let mut hasher = blake3::Hasher::new();
        let (mut ok, mut quick) = (0, None);
        let seed = seed(op, dtype);
        let has_all = |t: &Template| alone.iter().all(|&i| i < t.inputs.len());
        let eligible: Vec<usize> = (0..templates.len()).filter(|&i| has_all(&templates[i])).collect();
        for number in 0..cases {
            let mut d = Draw::new(seed, number);
            let which = *eligible.get(d.below(eligible.len().max(1)))?;
            let inputs = operands(&mut d, &templates[which], dtype, alone);
            let _named = Named { op, dtype, number };
            match self.run(which, &templates[which], inputs, d.bits64()) {
                Ok(outputs) => {
                    ok += 1;
                    hasher.update(&[1, outputs.len() as u8]);
                    for root in &outputs {
                        hasher.update(root.as_bytes());
                    }
                }
                Err(code) => {
                    hasher.update(&[0]);
                    hasher.update(&(code as u16).to_le_bytes());
                }
            }
            if number + 1 == QUICK {
                quick = Some(Hash::from(hasher.finalize()));
                if ok == 0 {
                    return None;
                }
            }
        }
        let end = Hash::from(hasher.finalize());
        Some(Hashes { quick: quick.unwrap_or(end), all: (cases >= CASES).then_some(end), ok })
    }

    fn run(&self, which: usize, t: &Template, inputs: Vec<Datum>, seed: u64) -> Result<Vec<Hash>, Code> {
        let session = self.sessions[which].as_ref().map_err(|code| *code)?;
        let names = t.model.graph.inputs.iter().map(|&v| t.model.graph.value(v).name.clone());
        let inputs = inputs.into_iter().map(|d| if self.fresh { fresh(&d) } else { d });
        let limits =
            Limits { cost: 1 << 24, tensor_bytes: 1 << 20, iterations: 1 << 10, ..Limits::default() };
        let options = RunOptions { seed, limits, ..RunOptions::default() };
        match session.run_data(names.zip(inputs).collect(), &options) {
            Ok(result) => Ok(result.outputs.into_iter().map(|(_, d)| d.root()).collect()),
            Err(RunError::Op { source, .. }) => Err(source.code),
            Err(RunError::Limit { .. }) => Err(Code::LimitExceeded),
            Err(_) => Err(Code::InvalidInput),
        }
    }
}

/// A line's seed: so that lines stay as they are when others come and go.
fn seed(op: &str, dtype: Option<DType>) -> u64 {
    let hash = Hash::of(name(op, dtype).as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// A line's name: `Add float32`.
pub(crate) fn name(op: &str, dtype: Option<DType>) -> String {
    dtype.map_or_else(|| op.to_owned(), |t| format!("{op} {t}"))
}

/// Says which case it was when an operator panics.
struct Named<'a> {
    op: &'a str,
    dtype: Option<DType>,
    number: u64,
}

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in case {} of the line {}", self.number, name(self.op, self.dtype));
        }
    }
}
