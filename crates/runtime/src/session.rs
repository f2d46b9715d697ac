use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use isobit_graph::{Graph, Model};
use isobit_kernels::{Exec, KernelSet, Parallel, Threads, fp};
use isobit_ops::{Fact, Memory};
use isobit_tensor::recycle::Spares;
use isobit_tensor::{DType, Datum, Shape, Tensor};

use crate::infer::propagate;
use crate::meter::{Run, Stop};
use crate::packs::{Kept, Packer};
use crate::plan::Disorder;
use crate::pool::pool;
use crate::portions::Portions;
use crate::program::{BuildError, Program, Step};
use crate::{DataResult, LoadError, NodeRef, Options, RunError, RunOptions, RunResult, StepTime, signature};

/// A model ready to run, any number of times, from any thread.
pub struct Session {
    model: Model,
    pub(crate) program: Program,
    set: KernelSet,
    pub(crate) pool: Threads,
    kept: Kept,
    portion: Option<usize>,
    /// By input types and shapes.
    known: Mutex<BTreeMap<Signature, Known>>,
    /// Buffers kept from run to run, one set for each run at a time.
    pub(crate) spares: Arc<Spares>,
}

/// What is known of a run before it begins.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Metered cost, for graphs whose shapes follow from those of their inputs.
    cost: Option<u64>,
    /// How it computes a batch.
    pub(crate) portions: Option<Arc<Portions>>,
}

/// Types and shapes of the inputs.
type Signature = Vec<(DType, Shape)>;

/// Input shapes of which it is remembered; a caller with ever new shapes must not fill the memory.
const REMEMBERED_SHAPES: usize = 64;

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} steps, {}, {:?})", self.program.steps.len(), self.set, self.pool)
    }
}

impl Session {
    /// Builds every operator of a canonical model (constants are packed for the kernel set).
    ///
    /// The model has its functions inlined and its operators in their newest form, as
    /// `isobit_graph` leaves it.
    ///
    /// It takes the model, so that the memory of weights that operators hold in a form of their own is free again. Cloning a model
    /// shares its weights.
    pub fn load(mut model: Model, options: &Options) -> Result<Self, LoadError> {
        let set = options.kernel_set;
        if !set.is_available() {
            return Err(LoadError::KernelSet(set));
        }
        let pool = pool(options.threads)?;
        let constants = std::mem::take(&mut model.graph.initializers);
        let graph = Graph { initializers: constants, ..model.graph.clone() };
        let packer = Packer::new(Exec::new(set, &pool), &graph, options.packed.as_deref());
        let build = || Program::build(graph, &|_| None, &packer);
        let program = fp::with_profile_env(build).map_err(|e| load_error(&model, e))?;
        let kept = packer.keep();
        let (known, spares) = Default::default();
        Ok(Self { model, program, set, pool, kept, portion: options.portion, known, spares })
    }

    /// The model as loaded, without its constants.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The instruction set in use.
    pub fn kernel_set(&self) -> KernelSet {
        self.set
    }

    /// What became of the packed weights.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Runs a model whose inputs and outputs are tensors, on named inputs in any order.
    pub fn run(&self, inputs: Vec<(String, Tensor)>, options: &RunOptions) -> Result<RunResult, RunError> {
        let inputs = inputs.into_iter().map(|(name, t)| (name, Datum::Tensor(t))).collect();
        let DataResult { outputs, cost, steps } = self.run_data(inputs, options)?;
        let tensor = |(name, datum): (String, Datum)| match datum.into_tensor() {
            Ok(tensor) => Ok((name, tensor)),
            Err(datum) => Err(RunError::Output { name, kind: datum.kind() }),
        };
        Ok(RunResult { outputs: outputs.into_iter().map(tensor).collect::<Result<_, _>>()?, cost, steps })
    }

    /// Runs the model on named inputs of any kind, in any order.
    pub fn run_data(
        &self,
        inputs: Vec<(String, Datum)>,
        options: &RunOptions,
    ) -> Result<DataResult, RunError> {
        let inputs = signature::bind(&self.model.graph, inputs)?;
        let known = self.known(&inputs);
        if known.cost.is_some_and(|cost| cost > options.limits.cost) {
            return Err(RunError::Limit { what: "units of metered cost", limit: options.limits.cost });
        }
        self.spares.with(|| fp::with_profile_env(|| self.execute(inputs, options, known)))
    }

    /// Metered cost of a run on inputs of these shapes (in the model's order), where it follows from
    /// the shapes alone.
    pub fn known_cost(&self, inputs: &[Tensor]) -> Option<u64> {
        let inputs: Vec<Datum> = inputs.iter().cloned().map(Datum::Tensor).collect();
        self.known(&inputs).cost
    }

    pub(crate) fn known(&self, inputs: &[Datum]) -> Known {
        // Types too: what follows from the shapes is that every step takes its operands.
        let signatures = inputs.iter().map(|d| d.as_tensor().map(|t| (t.dtype(), t.shape().into())));
        let Some(key) = signatures.collect::<Option<Signature>>() else { return Known::default() };
        let mut all = self.known.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(known) = all.get(&key) {
            return known.clone();
        }
        let facts = inputs.iter().map(Fact::of).collect();
        let steps: Vec<Option<&Step>> = self.program.steps.iter().map(Some).collect();
        let known = |v| self.program.constant(v).cloned();
        let program = &self.program;
        let inference = propagate(&program.graph, &steps, facts, Vec::new(), &known, &program.taken);
        let cost = inference.cost();
        let portions = || Portions::find(program, &inference, self.pool.threads(), self.portion);
        let known = Known { cost, portions: cost.and_then(|_| portions()).map(Arc::new) };
        if all.len() >= REMEMBERED_SHAPES {
            all.pop_first();
        }
        all.insert(key, known.clone());
        known
    }

    fn execute(
        &self,
        inputs: Vec<Datum>,
        options: &RunOptions,
        known: Known,
    ) -> Result<DataResult, RunError> {
        let graph = &self.model.graph;
        let node = |step: usize| NodeRef::new(&self.model, step, &graph.nodes[step]);
        let memory = Memory::new(options.limits.tensor_bytes);
        let exec = Exec::new(self.set, &self.pool);
        let begin = || Run::new(exec, &memory, options, known.cost.is_none());
        let mut run = begin();
        let portions = known.portions.filter(|p| p.within(&options.limits));
        let in_portions =
            portions.and_then(|p| p.run(&self.program, &mut run, inputs.clone(), &self.spares).ok());
        let outputs = match in_portions {
            Some(outputs) => Ok(outputs),
            None => {
                // The failure that everybody agrees on is the one of the whole batch.
                run = begin();
                self.program.run(&mut run, inputs, Vec::new())
            }
        };
        let outputs = outputs.map_err(|stop| match stop {
            Stop::Limit { what, limit } => RunError::Limit { what, limit },
            Stop::Step { step, error } => RunError::Op { node: node(step), source: error },
        })?;
        let names = graph.outputs.iter().map(|&v| graph.value(v).name.clone());
        let cost = known.cost.unwrap_or(run.cost);
        let steps = run.times.into_iter();
        let steps = steps
            .map(|t| StepTime { node: node(t.step), time: t.time, cost: t.cost, fused: t.fused })
            .collect();
        let mut outputs: Vec<(String, Datum)> = names.zip(outputs).collect();
        for (_, output) in &mut outputs {
            if let Datum::Tensor(tensor) = output {
                tensor.come_back(&self.spares);
            }
        }
        Ok(DataResult { outputs, cost, steps })
    }
}

fn load_error(model: &Model, e: BuildError) -> LoadError {
    let node = |step: usize| NodeRef::new(model, step, &model.graph.nodes[step]);
    match e {
        BuildError::Disorder(Disorder::NoOutput(name)) => LoadError::NoOutput(name),
        BuildError::Disorder(Disorder::Undefined { step, operand }) => {
            LoadError::Undefined { node: node(step), operand }
        }
        BuildError::Step { step, error } => LoadError::Op { node: node(step), source: error },
    }
}
