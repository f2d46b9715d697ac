use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use isobit_graph::{Dim, Model, ValueId};
use isobit_kernels::{Exec, KernelSet, fp};
use isobit_ops::{Fact, Inputs, Memory, Op, OpError, RunCtx};
use isobit_tensor::{Shape, Tensor};

use crate::infer::{build, propagate};
use crate::plan::Plan;
use crate::{LoadError, NodeRef, Pool, RunError};

/// How to load a model. Nothing here can change a result.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Instruction set; by default the best this machine has.
    pub kernel_set: KernelSet,
    /// Threads of one run, the caller's included; by default 1.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { kernel_set: KernelSet::best(), threads: 1 }
    }
}

impl Options {
    /// These options with another instruction set.
    pub fn kernel_set(mut self, set: KernelSet) -> Self {
        self.kernel_set = set;
        self
    }

    /// These options with another number of threads.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }
}

/// Bounds of one run. They are part of what nodes agree on: reaching one is an agreed failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Metered cost, in units of about one multiply-add.
    pub cost: u64,
    /// Bytes of any one tensor.
    pub tensor_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cost: 1 << 50, tensor_bytes: 8 << 30 }
    }
}

/// What a run depends on besides model and inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// The only source of randomness.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
    /// Whether to take the time of each step.
    pub profile: bool,
}

/// The outcome of a run.
#[derive(Debug, Clone)]
pub struct RunResult {
    /// Name and tensor of each graph output, in the model's order.
    pub outputs: Vec<(String, Tensor)>,
    /// Metered cost in units: a function of the model and the shapes.
    pub cost: u64,
    /// Time of each step, when asked for.
    pub steps: Vec<StepTime>,
}

/// Time of one step.
#[derive(Debug, Clone)]
pub struct StepTime {
    /// Which step.
    pub node: NodeRef,
    /// Wall time of this run's execution of it.
    pub time: Duration,
    /// Its metered cost in units.
    pub cost: u64,
}

/// A model ready to run, any number of times, from any thread.
pub struct Session {
    model: Model,
    ops: Vec<Box<dyn Op>>,
    /// Results of steps whose operands are all constant, computed once.
    folded: BTreeMap<ValueId, Tensor>,
    /// For each step that was folded, its metered cost: a run is charged for it all the same.
    folded_costs: Vec<Option<u64>>,
    plan: Plan,
    set: KernelSet,
    pool: Pool,
    /// Metered cost by input shapes, for graphs whose shapes follow from those of their inputs.
    costs: Mutex<BTreeMap<Vec<Shape>, Option<u64>>>,
}

/// Input shapes whose cost is remembered; a caller with ever new shapes must not fill the memory.
const REMEMBERED_SHAPES: usize = 64;

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({} steps, {}, {:?})", self.ops.len(), self.set, self.pool)
    }
}

impl Session {
    /// Builds every operator of a canonical model (constants are packed for the kernel set).
    ///
    /// The model has its functions inlined and its operators in their newest form, as
    /// `isobit_graph` leaves it.
    pub fn load(model: &Model, options: &Options) -> Result<Self, LoadError> {
        let set = options.kernel_set;
        if !set.is_available() {
            return Err(LoadError::KernelSet(set));
        }
        let pool = Pool::new(options.threads)?;
        let plan = Plan::new(model)?;
        let graph = &model.graph;
        let mut session = Self {
            model: model.clone(),
            ops: Vec::with_capacity(graph.nodes.len()),
            folded: BTreeMap::new(),
            folded_costs: Vec::with_capacity(graph.nodes.len()),
            plan,
            set,
            pool,
            costs: Mutex::default(),
        };
        fp::with_profile_env(|| (0..graph.nodes.len()).try_for_each(|step| session.prepare(step)))?;
        Ok(session)
    }

    /// Builds the operator of a step and, where all its operands are constant, runs it.
    fn prepare(&mut self, step: usize) -> Result<(), LoadError> {
        let node = &self.model.graph.nodes[step];
        let constant =
            |v: ValueId| self.model.graph.initializers.get(&v).or_else(|| self.folded.get(&v)).cloned();
        let constants: Vec<Option<Tensor>> = node.inputs.iter().map(|v| v.and_then(constant)).collect();
        let op = build(node, &constants, self.set)
            .map_err(|source| LoadError::Op { node: NodeRef::new(&self.model, step, node), source })?;
        let cost = fold_step(node, &*op, constants, Exec::new(self.set, &self.pool));
        let cost = cost.map(|(results, cost)| {
            for (v, tensor) in node.outputs.iter().zip(results) {
                self.folded.extend(v.map(|v| (v, tensor)));
            }
            cost
        });
        self.ops.push(op);
        self.folded_costs.push(cost);
        Ok(())
    }

    /// The model as loaded.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The instruction set in use.
    pub fn kernel_set(&self) -> KernelSet {
        self.set
    }

    /// Runs the model on named inputs, in any order.
    pub fn run(&self, inputs: Vec<(String, Tensor)>, options: &RunOptions) -> Result<RunResult, RunError> {
        let inputs = self.bind(inputs)?;
        let known_cost = self.known_cost(&inputs);
        if known_cost.is_some_and(|cost| cost > options.limits.cost) {
            return Err(RunError::Cost { limit: options.limits.cost });
        }
        fp::with_profile_env(|| self.execute(inputs, options, known_cost))
    }

    /// Metered cost of a run on inputs of these shapes (in the model's order), where it follows from
    /// the shapes alone.
    pub fn known_cost(&self, inputs: &[Tensor]) -> Option<u64> {
        let key: Vec<Shape> = inputs.iter().map(|t| t.shape().into()).collect();
        let mut costs = self.costs.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(&cost) = costs.get(&key) {
            return cost;
        }
        let facts = inputs.iter().map(|t| Fact::fixed(t.dtype(), t.shape())).collect();
        let ops: Vec<Option<&dyn Op>> = self.ops.iter().map(|op| Some(&**op)).collect();
        let cost = propagate(&self.model.graph, &ops, facts).cost();
        if costs.len() >= REMEMBERED_SHAPES {
            costs.pop_first();
        }
        costs.insert(key, cost);
        cost
    }

    /// Puts inputs in the model's order, checked against its signature.
    fn bind(&self, inputs: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, RunError> {
        let graph = &self.model.graph;
        let names =
            || graph.inputs.iter().map(|v| graph.value(*v).name.as_str()).collect::<Vec<_>>().join(", ");
        let mut given: BTreeMap<String, Tensor> = BTreeMap::new();
        for (name, tensor) in inputs {
            if !graph.inputs.iter().any(|v| graph.value(*v).name == name) {
                let message = format!("the model has no such input; it takes: {}", names());
                return Err(RunError::Input { name, message });
            }
            if given.contains_key(&name) {
                return Err(RunError::Input { name, message: "given twice".into() });
            }
            given.insert(name, tensor);
        }
        let mut symbols: BTreeMap<&str, usize> = BTreeMap::new();
        let mut bound = Vec::with_capacity(graph.inputs.len());
        for &v in &graph.inputs {
            let value = graph.value(v);
            let error = |message: String| RunError::Input { name: value.name.clone(), message };
            let tensor = given
                .remove(&value.name)
                .ok_or_else(|| error(format!("missing; the model takes: {}", names())))?;
            if let Some(dtype) = value.dtype.filter(|&d| d != tensor.dtype()) {
                return Err(error(format!("expected {dtype}, got {}", tensor.dtype())));
            }
            if let Some(shape) = &value.shape {
                check_shape(shape, tensor.shape(), &mut symbols).map_err(error)?;
            }
            bound.push(tensor);
        }
        Ok(bound)
    }

    fn execute(
        &self,
        inputs: Vec<Tensor>,
        options: &RunOptions,
        known_cost: Option<u64>,
    ) -> Result<RunResult, RunError> {
        let graph = &self.model.graph;
        let memory = Memory::new(options.limits.tensor_bytes);
        let exec = Exec::new(self.set, &self.pool);
        let mut values: Vec<Option<Tensor>> = vec![None; graph.values.len()];
        for (v, tensor) in graph.inputs.iter().zip(inputs) {
            values[v.0 as usize] = Some(tensor);
        }
        let mut metered = 0u64;
        let mut times = Vec::new();
        for (step, (node, op)) in graph.nodes.iter().zip(&self.ops).enumerate() {
            if let Some(cost) = self.folded_costs[step] {
                metered = metered.saturating_add(cost);
                continue;
            }
            let at = |source: OpError| RunError::Op { node: NodeRef::new(&self.model, step, node), source };
            let operands = Inputs::new(self.operands(step, &mut values));
            let meter = known_cost.is_none() || options.profile;
            let facts = meter.then(|| operand_facts(&operands));
            if let (None, Some(facts)) = (known_cost, &facts) {
                // Shapes depend on values here: what the step will cost is known once it is reached,
                // as far as its result shapes follow from its operands.
                let results = op.infer(facts).map_err(at)?;
                let ahead = metered.saturating_add(op.cost(facts, &results));
                if ahead > options.limits.cost {
                    return Err(RunError::Cost { limit: options.limits.cost });
                }
            }
            let start = options.profile.then(Instant::now);
            let ctx = RunCtx { exec, memory: &memory, seed: options.seed, step: step as u64 };
            let results = op.run(&ctx, operands).map_err(at)?;
            let time = start.map(|s| s.elapsed());
            if let Some(facts) = facts {
                let produced: Vec<Fact> = results.iter().map(|t| Fact::fixed(t.dtype(), t.shape())).collect();
                let cost = op.cost(&facts, &produced);
                metered = metered.saturating_add(cost);
                if metered > options.limits.cost {
                    return Err(RunError::Cost { limit: options.limits.cost });
                }
                if let Some(time) = time {
                    times.push(StepTime { node: NodeRef::new(&self.model, step, node), time, cost });
                }
            }
            assert_eq!(results.len(), node.outputs.len(), "{} returned a wrong number of results", node.op);
            for (v, tensor) in node.outputs.iter().zip(results) {
                if let Some(v) = v {
                    values[v.0 as usize] = Some(tensor);
                }
            }
        }
        let outputs = graph.outputs.iter().map(|&v| (graph.value(v).name.clone(), self.output(v, &values)));
        Ok(RunResult { outputs: outputs.collect(), cost: known_cost.unwrap_or(metered), steps: times })
    }

    /// The operands of a step; one that nobody needs afterwards is moved out of `values`.
    fn operands(&self, step: usize, values: &mut [Option<Tensor>]) -> Vec<Option<Tensor>> {
        let graph = &self.model.graph;
        let operands = graph.nodes[step].inputs.iter().zip(&self.plan.last[step]);
        operands
            .map(|(v, &last)| {
                let v = (*v)?;
                let slot = &mut values[v.0 as usize];
                let value = if last { slot.take() } else { slot.clone() };
                value.or_else(|| graph.initializers.get(&v).or_else(|| self.folded.get(&v)).cloned())
            })
            .collect()
    }

    fn output(&self, v: ValueId, values: &[Option<Tensor>]) -> Tensor {
        let computed = values[v.0 as usize].as_ref();
        let constant = || self.model.graph.initializers.get(&v).or_else(|| self.folded.get(&v));
        computed.or_else(constant).expect("the plan checked that every output is defined").clone()
    }
}

/// Most bytes of a result that is computed at load.
const FOLDED_BYTES: usize = 1 << 30;

/// Results and cost of a step whose operands are all constant. A step that fails is left to the run, which then
/// fails in its place; one without operands may be random.
fn fold_step(
    node: &isobit_graph::Node,
    op: &dyn Op,
    operands: Vec<Option<Tensor>>,
    exec: Exec<'_>,
) -> Option<(Vec<Tensor>, u64)> {
    let random = ["RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"];
    let known = |(v, t): (&Option<ValueId>, &Option<Tensor>)| v.is_none() || t.is_some();
    let constant = !operands.is_empty() && node.inputs.iter().zip(&operands).all(known);
    if !constant || random.contains(&node.op.as_str()) {
        return None;
    }
    let operands = Inputs::new(operands);
    let facts = operand_facts(&operands);
    let memory = Memory::new(FOLDED_BYTES);
    let results = op.run(&RunCtx { exec, memory: &memory, seed: 0, step: 0 }, operands).ok()?;
    let produced: Vec<Fact> = results.iter().map(|t| Fact::fixed(t.dtype(), t.shape())).collect();
    let cost = op.cost(&facts, &produced);
    Some((results, cost))
}

fn operand_facts(operands: &Inputs) -> Vec<Option<Fact>> {
    let fact = |t: &Tensor| Fact::fixed(t.dtype(), t.shape());
    (0..operands.len()).map(|i| operands.opt(i).map(fact)).collect()
}

/// Compares a shape with its declaration; a symbol stands for one number throughout.
fn check_shape<'m>(
    declared: &'m [Dim],
    shape: &[usize],
    symbols: &mut BTreeMap<&'m str, usize>,
) -> Result<(), String> {
    let text = || {
        let dims = declared.iter().map(|d| match d {
            Dim::Known(n) => n.to_string(),
            Dim::Symbol(s) => s.clone(),
            Dim::Unknown => "?".into(),
        });
        format!("expected shape [{}], got {shape:?}", dims.collect::<Vec<_>>().join(", "))
    };
    if declared.len() != shape.len() {
        return Err(text());
    }
    for (d, &n) in declared.iter().zip(shape) {
        match d {
            Dim::Known(k) if *k != n => return Err(text()),
            Dim::Symbol(s) => {
                let bound = *symbols.entry(s).or_insert(n);
                if bound != n {
                    return Err(format!("{}; {s} is {bound} elsewhere", text()));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
