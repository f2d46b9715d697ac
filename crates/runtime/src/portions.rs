//! Batches a portion at a time: the images that the first layers of a network make of a whole batch are many times larger
//! than a core's cache, those of one entry are not. Each thread takes portions of its own through all of these layers; the layers
//! after them, whose weights are larger than their images, take the batch as one.
//!
//! Nothing of it shows: an operator in a portion computes what it would have computed of these entries in the batch
//! ([`isobit_ops::Op::entrywise`]). A run that could reach a limit, or that fails, is one without portions.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use isobit_graph::ValueId;
use isobit_kernels::{Exec, Serial};
use isobit_ops::{Fact, OpError, Value};
use isobit_tensor::recycle::Spares;
use isobit_tensor::{DType, Datum};

use crate::Limits;
use crate::meter::{Run, Stop, Timed};
use crate::program::{Frame, Program, Step};

/// What of a core's cache is for images.
const CACHE: f64 = (1 << 20) as f64;
/// What a step costs besides its work, in bytes moved.
const STEP: f64 = 20_000.0;
/// Weights that the next portion finds in the last cache.
const KEPT: f64 = (16 << 20) as f64;
/// What a byte of weights costs from there, and from memory, where one of an image costs 1: it is asked for ahead of its use.
const WEIGHT: [f64; 2] = [0.05, 0.4];

/// How a program computes batches of some extents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Portions {
    /// The steps before this one are those that take portions.
    until: usize,
    /// Entries of a batch, and of a portion.
    batch: usize,
    entries: usize,
    /// For each input of the graph, whether it is a batch.
    inputs: Vec<bool>,
    /// What these steps compute and others need.
    results: Vec<ValueId>,
    /// Bytes of the largest tensor, and of all.
    largest: u64,
    all: u64,
}

/// What a step moves: bytes of images for each entry, and of weights, less where they are kept.
#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    images: f64,
    weights: f64,
}

impl Moved {
    /// What an entry costs a thread in a portion (or a share of the batch) of so many.
    fn cost(self, entries: f64) -> f64 {
        let beyond = (1.0 - CACHE / (self.images * entries).max(CACHE)).max(0.0);
        self.images * beyond + (self.weights + STEP) / entries
    }
}

/// The steps from the first that compute each entry of a batch by itself.
struct Prefix<'a> {
    program: &'a Program,
    facts: &'a [Fact],
    batch: usize,
    /// For each value, whether it is a batch.
    inside: Vec<bool>,
    /// For each step, whether an earlier one may do it.
    fused: Vec<bool>,
    /// For each value, the last step that needs it.
    ends: Vec<usize>,
    /// Bytes of the steps' weights.
    weights: f64,
    /// What each of the steps moves.
    moved: Vec<Moved>,
    /// For each of them, whether none up to it may do one that comes after it.
    closed: Vec<bool>,
}

impl<'a> Prefix<'a> {
    fn new(program: &'a Program, facts: &'a [Fact]) -> Option<Self> {
        let graph = &program.graph;
        let shape = |v: &ValueId| facts[v.0 as usize].known_shape();
        let batch = *graph.inputs.first().and_then(shape)?.first()?;
        let mut inside = vec![false; facts.len()];
        for v in &graph.inputs {
            inside[v.0 as usize] = batch > 1 && shape(v).is_some_and(|s| s.first() == Some(&batch));
        }
        let (fused, ends) = (program.fused(), program.ends());
        let (moved, closed) = (Vec::new(), Vec::new());
        let mut prefix = Self { program, facts, batch, inside, fused, ends, weights: 0.0, moved, closed };
        let mut reaches = 0;
        for step in 0..graph.nodes.len() {
            let Some(moved) = prefix.take(step) else { break };
            reaches = program.reach(step).max(reaches);
            prefix.moved.push(moved);
            prefix.closed.push(reaches == step);
        }
        (!prefix.moved.is_empty()).then_some(prefix)
    }

    /// One step more, where it computes each entry by itself.
    fn take(&mut self, step: usize) -> Option<Moved> {
        let node = &self.program.graph.nodes[step];
        if self.program.is_folded(step) {
            return Some(Moved::default());
        }
        let Step::Op(op) = &self.program.steps[step] else { return None };
        let fact = |v: &Option<ValueId>| v.map(|v| self.facts[v.0 as usize].clone());
        let operands: Vec<_> = node.inputs.iter().map(fact).collect();
        let batch = |v: &Option<ValueId>| v.is_some_and(|v| self.inside[v.0 as usize]);
        let marks: Vec<bool> = node.inputs.iter().map(batch).collect();
        if !marks.contains(&true) || !op.entrywise(&operands, &marks) {
            return None;
        }
        let mut moved = Moved::default();
        for (v, batch) in node.inputs.iter().zip(marks) {
            let bytes = v.map_or(0.0, |v| self.bytes(v));
            *(if batch { &mut moved.images } else { &mut moved.weights }) += bytes;
        }
        for &v in node.outputs.iter().flatten() {
            let fact = &self.facts[v.0 as usize];
            if fact.dtype? == DType::String || fact.known_shape()?.first() != Some(&self.batch) {
                return None;
            }
            self.inside[v.0 as usize] = true;
            // What an earlier step does with its result is read nowhere, and written nowhere else.
            moved.images += self.bytes(v) * if self.fused[step] { -1.0 } else { 1.0 };
        }
        self.weights += moved.weights;
        moved.weights *= WEIGHT[usize::from(self.weights > KEPT)];
        moved.images = moved.images.max(0.0) / self.batch as f64;
        Some(moved)
    }

    fn bytes(&self, v: ValueId) -> f64 {
        bytes(&self.facts[v.0 as usize]) as f64
    }

    /// Where the prefix is best cut for portions of so many entries, and what an entry costs less.
    fn cut(&self, entries: usize, threads: usize) -> (f64, usize) {
        let share = (self.batch as f64 / threads as f64).max(1.0);
        let (mut best, mut gain, mut live) = ((0.0, 0), 0.0, 0.0);
        let mut dropped = vec![0.0; self.moved.len()];
        for (step, moved) in self.moved.iter().enumerate() {
            if !self.program.is_folded(step) {
                gain += moved.cost(share) - moved.cost(entries as f64);
                for &v in self.program.graph.nodes[step].outputs.iter().flatten() {
                    let bytes = self.bytes(v) / self.batch as f64;
                    live += bytes;
                    if let Some(dropped) = dropped.get_mut(self.ends[v.0 as usize]) {
                        *dropped += bytes;
                    }
                }
            }
            live -= dropped[step];
            // What is live is written once more, and read.
            if self.closed[step] && gain - 2.0 * live > best.0 {
                best = (gain - 2.0 * live, step + 1);
            }
        }
        best
    }

    /// The longest cut there is.
    fn whole(&self) -> usize {
        self.closed.iter().rposition(|&closed| closed).map_or(0, |step| step + 1)
    }

    fn portions(self, until: usize, entries: usize) -> Portions {
        let graph = &self.program.graph;
        let made = |step: usize| graph.nodes[step].outputs.iter().flatten().copied();
        let made = (0..until).filter(|&step| !self.program.is_folded(step)).flat_map(made);
        let results = made.filter(|v| self.ends[v.0 as usize] >= until).collect();
        let sizes =
            || graph.nodes.iter().flat_map(|n| &n.outputs).flatten().map(|v| &self.facts[v.0 as usize]);
        Portions {
            until,
            batch: self.batch,
            entries,
            inputs: graph.inputs.iter().map(|v| self.inside[v.0 as usize]).collect(),
            results,
            largest: sizes().map(bytes).max().unwrap_or(0),
            all: sizes().map(bytes).fold(0, u64::saturating_add),
        }
    }
}

fn bytes(fact: &Fact) -> u64 {
    let width = fact.dtype.map_or(8, |t| t.bits().div_ceil(8) as u64);
    fact.numel().map_or(u64::MAX, |n| (n as u64).saturating_mul(width))
}

impl Portions {
    /// The portions that suit a batch of which these facts are known, where any do; of `entries` each, where that is given.
    pub(crate) fn find(
        program: &Program,
        facts: &[Fact],
        threads: usize,
        entries: Option<usize>,
    ) -> Option<Self> {
        let prefix = Prefix::new(program, facts)?;
        if let Some(entries) = entries {
            let cut = prefix.whole();
            return (cut > 0 && (1..prefix.batch).contains(&entries)).then(|| prefix.portions(cut, entries));
        }
        // Every thread is to have some; a portion that is the whole batch gains nothing.
        let sizes = (0..usize::BITS).map(|i| 1 << i).take_while(|n| n * threads <= prefix.batch);
        let cuts = sizes.map(|n| (prefix.cut(n, threads), n)).filter(|((gain, _), _)| *gain > 0.0);
        let ((_, cut), entries) = cuts.max_by(|(a, _), (b, _)| a.0.total_cmp(&b.0))?;
        Some(prefix.portions(cut, entries))
    }

    /// Whether a run of which no limit can be reached; results may be as large as several of them together.
    pub(crate) fn within(&self, limits: &Limits) -> bool {
        self.largest <= limits.tensor_bytes / 4 && self.all <= limits.held_bytes / 4
    }

    /// Runs the program on inputs of these extents.
    pub(crate) fn run(
        &self,
        program: &Program,
        run: &mut Run<'_>,
        inputs: Vec<Datum>,
        spares: &Spares,
    ) -> Result<Vec<Datum>, Stop> {
        let (exec, threads) = (run.exec, run.exec.pool().threads());
        // However many portions take them.
        (0..self.until).try_for_each(|_| run.step())?;
        let portions = self.batch / self.entries / threads * threads;
        let one = |range: Range<usize>, mut run: Run<'_>| {
            let inputs = inputs.iter().zip(&self.inputs).map(|(x, &batch)| {
                let x = Value::from(x.clone());
                if batch { x.entries(range.clone()).ok_or_else(not_a_batch) } else { Ok(x) }
            });
            let mut frame = Frame::new(&program.graph, inputs.collect::<Result<_, _>>()?);
            program.run_steps(0..self.until, &mut run, &mut frame)?;
            let results = self.results.iter().map(|&v| frame.take(v).ok_or_else(not_a_batch));
            Ok((results.collect::<Result<Vec<_>, Stop>>()?, run.times))
        };
        let done: Vec<_> = (0..portions).map(|_| Mutex::new(None)).collect();
        let alone = Exec::new(exec.set(), &Serial);
        let shared = &*run;
        exec.pool().for_each(portions, &|i| {
            let range = i * self.entries..(i + 1) * self.entries;
            let result = spares.with(|| one(range, shared.part(alone)));
            *done[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        let mut parts = Vec::with_capacity(portions + 1);
        for result in done {
            let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            let (values, times) = result.expect("every portion was run")?;
            // Threads do them side by side.
            run.times.extend(times.into_iter().map(|t| Timed { time: t.time / threads as u32, ..t }));
            parts.push(values);
        }
        // What is left is too little for all threads.
        let rest = portions * self.entries..self.batch;
        if !rest.is_empty() {
            let (values, times) = one(rest, run.part(exec))?;
            run.times.extend(times);
            parts.push(values);
        }
        run.times = summed(std::mem::take(&mut run.times));
        let mut frame = Frame::new(&program.graph, inputs.into_iter().map(Value::from).collect());
        let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
        for &v in &self.results {
            let parts: Vec<Value> = parts.iter_mut().filter_map(Iterator::next).collect();
            let value = Value::together(&program.ctx(run, 0), parts);
            frame.hold(v, value.map_err(|error| Stop::Step { step: self.until, error })?, run)?;
        }
        program.run_steps(self.until..program.steps.len(), run, &mut frame)?;
        Ok(program.outputs(frame))
    }
}

fn not_a_batch() -> Stop {
    Stop::Step { step: 0, error: OpError::input("not a batch") }
}

/// The times of each step together, in the order of steps.
fn summed(mut times: Vec<Timed>) -> Vec<Timed> {
    times.sort_by_key(|t| t.step);
    let mut sums: Vec<Timed> = Vec::new();
    for t in times {
        match sums.last_mut().filter(|sum| sum.step == t.step) {
            Some(sum) => {
                sum.time += t.time;
                sum.cost = sum.cost.saturating_add(t.cost);
            }
            None => sums.push(t),
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use isobit_graph::{Attr, Graph, Model, Node, Value as GraphValue};
    use isobit_kernels::KernelSet;
    use isobit_tensor::Tensor;

    use super::*;
    use crate::{Options, RunError, RunOptions, Session};

    struct Build(Graph);

    impl Build {
        fn new() -> Self {
            let mut build = Self(Graph::default());
            let x = build.value();
            build.0.inputs.push(x);
            build
        }

        fn value(&mut self) -> ValueId {
            let name = format!("v{}", self.0.values.len());
            self.0.add_value(GraphValue { name, ..GraphValue::default() })
        }

        fn constant(&mut self, t: Tensor) -> ValueId {
            let v = self.value();
            self.0.initializers.insert(v, t);
            v
        }

        fn node(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
            let y = self.value();
            self.0.nodes.push(Node {
                op: op.into(),
                inputs: inputs.iter().map(|&v| Some(v)).collect(),
                outputs: vec![Some(y)],
                attrs: attrs.iter().map(|(name, attr)| ((*name).to_owned(), attr.clone())).collect(),
                ..Node::default()
            });
            y
        }

        fn conv(&mut self, x: ValueId, [m, c, k]: [usize; 3], stride: i64) -> ValueId {
            let w = self.constant(Tensor::zeros(DType::F32, &[m, c, k, k]).unwrap());
            let (pads, strides) = (vec![k as i64 / 2; 4], vec![stride; 2]);
            self.node("Conv", &[x, w], &[("pads", Attr::Ints(pads)), ("strides", Attr::Ints(strides))])
        }

        fn load(mut self, outputs: &[ValueId], options: &Options) -> Session {
            self.0.outputs = outputs.to_vec();
            let opsets = BTreeMap::from([(String::new(), 22)]);
            Session::load(Model { graph: self.0, opsets, ir_version: 10, ..Model::default() }, options)
                .unwrap()
        }
    }

    fn portions(session: &Session, shape: &[usize]) -> Option<Portions> {
        let x = Datum::Tensor(Tensor::zeros(DType::F32, shape).unwrap());
        session.known(&[x]).portions.map(|p| (*p).clone())
    }

    /// Large images and then large weights: the batch is whole again where weights begin to weigh more.
    #[test]
    fn images_go_alone_as_long_as_they_weigh_more_than_weights() {
        for threads in [1, 2] {
            let mut b = Build::new();
            let mut x = b.0.inputs[0];
            for (m, c) in [(32, 3), (64, 32), (64, 64)] {
                x = b.conv(x, [m, c, 3], 1);
                x = b.node("Relu", &[x], &[]);
            }
            x = b.conv(x, [64, 64, 3], 16);
            for (m, c) in [(1024, 64), (1024, 1024), (1024, 1024)] {
                x = b.conv(x, [m, c, 3], 2);
            }
            let session = b.load(&[x], &Options::default().threads(threads));
            let found = portions(&session, &[8, 3, 112, 112]).unwrap();
            assert_eq!((found.entries, found.batch, &found.inputs[..]), (1, 8, &[true][..]));
            assert_eq!((found.until, found.results.len()), (7, 1));
            // One image, as many as there are threads at most, small ones.
            assert_eq!(portions(&session, &[1, 3, 112, 112]), None);
            assert_eq!(portions(&session, &[8, 3, 16, 16]), None);
        }
    }

    #[test]
    fn a_batch_ends_where_entries_meet() {
        let portion = Options::default().portion(1);
        let axes = |b: &mut Build, axis: i64| b.constant(Tensor::vector(vec![axis]));
        let until = |f: &dyn Fn(&mut Build, ValueId) -> ValueId| {
            let mut b = Build::new();
            let x = b.0.inputs[0];
            let relu = b.node("Relu", &[x], &[]);
            let y = f(&mut b, relu);
            portions(&b.load(&[y], &portion), &[4, 4, 6]).map_or(0, |p| p.until)
        };
        let reduce = |axis: i64| {
            move |b: &mut Build, x| {
                let axes = axes(b, axis);
                b.node("ReduceMean", &[x, axes], &[])
            }
        };
        assert_eq!(until(&reduce(0)), 1);
        assert_eq!(until(&reduce(-3)), 1);
        assert_eq!(until(&reduce(1)), 2);
        assert_eq!(until(&|b, x| b.node("ReduceMean", &[x], &[])), 1);
        let concat =
            |axis: i64| move |b: &mut Build, x| b.node("Concat", &[x, x], &[("axis", Attr::Int(axis))]);
        assert_eq!(until(&concat(0)), 1);
        assert_eq!(until(&concat(-1)), 2);
        // One value an entry, by its place; one a row, for all; one for everything.
        let add = |shape: &[usize]| {
            let t = Tensor::zeros(DType::F32, shape).unwrap();
            move |b: &mut Build, x| {
                let c = b.constant(t.clone());
                b.node("Add", &[x, c], &[])
            }
        };
        assert_eq!(until(&add(&[4, 1, 1])), 1);
        assert_eq!(until(&add(&[2, 4, 4, 6])), 1);
        assert_eq!(until(&add(&[4, 1])), 2);
        assert_eq!(until(&add(&[1, 4, 6])), 2);
        assert_eq!(until(&add(&[])), 2);
        // The batch's own axis elsewhere.
        assert_eq!(until(&|b, x| b.node("Transpose", &[x], &[("perm", Attr::Ints(vec![1, 0, 2]))])), 1);
        let mean = |b: &mut Build, x| {
            let axes = axes(b, 0);
            let mean = b.node("ReduceMean", &[x, axes], &[("keepdims", Attr::Int(0))]);
            b.node("Add", &[x, mean], &[])
        };
        assert_eq!(until(&mean), 1);
    }

    /// The failure is the whole batch's: its first in the order of steps, not of entries.
    #[test]
    fn a_failure_is_that_of_the_whole_batch() {
        let run = |portion: Option<usize>| {
            let mut b = Build::new();
            let x = b.0.inputs[0];
            let six = b.constant(Tensor::scalar(6i32));
            let first = b.node("Div", &[six, x], &[]);
            let less = b.node("Sub", &[first, six], &[]);
            let second = b.node("Div", &[six, less], &[]);
            let kernel_set = KernelSet::Scalar;
            let session = b.load(&[second], &Options { portion, kernel_set, ..Options::default() });
            // 6 / 0 in entry 2; in entry 0 it is a later step that fails: 6 / (6 / 1 - 6).
            let outcome = |x: Vec<i32>| {
                let x = Tensor::new(&[4, 1], x).unwrap();
                assert_eq!(session.known(&[Datum::Tensor(x.clone())]).portions.is_some(), portion.is_some());
                session.run(vec![("v0".into(), x)], &RunOptions::default())
            };
            assert!(outcome(vec![2, 3, 6, 7]).is_ok());
            match outcome(vec![1, 2, 0, 3]).unwrap_err() {
                RunError::Op { node, source } => (node.step, source.code, source.message),
                other => panic!("{other}"),
            }
        };
        assert_eq!(run(None).0, 0);
        assert_eq!(run(Some(1)), run(None));
    }

    #[test]
    fn limits_of_a_run_are_those_of_the_whole_batch() {
        let mut failed = 0;
        let outcomes = [None, Some(1), Some(3)].map(|portion| {
            let mut b = Build::new();
            let x = b.0.inputs[0];
            let y = b.conv(x, [4, 3, 3], 1);
            let y = b.node("Neg", &[y], &[]);
            let y = b.node("Softmax", &[y], &[]);
            let session = b.load(&[y], &Options { portion, ..Options::default() });
            let run = |limits: Limits| {
                let x = Tensor::zeros(DType::F32, &[5, 3, 8, 8]).unwrap();
                let options = RunOptions { limits, ..RunOptions::default() };
                session.run(vec![("v0".into(), x)], &options).map(|r| r.cost).map_err(|e| e.to_string())
            };
            let by_steps = (0..5).map(|steps| run(Limits { steps, ..Limits::default() }));
            let bytes = |n: u64| n * 5 * 4 * 64;
            let by_held = (0..40).map(|n| run(Limits { held_bytes: bytes(n), ..Limits::default() }));
            let outcomes: Vec<_> = by_steps.chain(by_held).collect();
            failed = outcomes.iter().filter(|r| r.is_err()).count();
            outcomes
        });
        assert!(failed > 5, "{failed} runs met a limit");
        assert_eq!(outcomes[0], outcomes[1]);
        assert_eq!(outcomes[0], outcomes[2]);
    }

    #[test]
    fn times_of_portions_are_those_of_their_steps() {
        let mut b = Build::new();
        let x = b.0.inputs[0];
        let y = b.conv(x, [4, 3, 3], 1);
        let y = b.node("Sigmoid", &[y], &[]);
        let session = b.load(&[y], &Options::default().portion(2));
        let x = Tensor::zeros(DType::F32, &[5, 3, 8, 8]).unwrap();
        let result =
            session.run(vec![("v0".into(), x)], &RunOptions { profile: true, ..RunOptions::default() });
        let steps: Vec<_> = result.unwrap().steps.iter().map(|s| (s.node.step, s.cost)).collect();
        assert_eq!(steps, [(0, 5 * 4 * 64 * 27), (1, 5 * 4 * 64 * 8)]);
    }
}
