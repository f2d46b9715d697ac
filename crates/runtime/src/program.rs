//! A graph made ready to run: its operators built, what is constant computed, last uses known. The model's
//! graph is one, and so is every body of control flow.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use isobit_graph::{Attr, Graph, Node, ValueId};
use isobit_kernels::Exec;
use isobit_ops::{
    BuildCtx, Code, Fact, Inputs, Memory, Op, OpError, Packs, RunCtx, Tail, Value, Wanted, find, plain,
    takes_turned,
};
use isobit_tensor::{DType, Datum, Tensor};

use crate::control::Control;
use crate::fuse::{self, Action, Link, Uses};
use crate::infer::constant;
use crate::layout;
use crate::meter::{Run, Stop, Timed};
use crate::plan::{Disorder, Plan};

/// Most bytes of a result that is computed at load.
const FOLDED_BYTES: u64 = 1 << 30;

/// One step of a graph.
pub(crate) enum Step {
    /// An operator.
    Op(Box<dyn Op>),
    /// Control flow: it runs bodies.
    Control(Box<Control>),
}

pub(crate) struct Program {
    pub(crate) graph: Graph,
    pub(crate) steps: Vec<Step>,
    /// Results of steps whose operands are all constant, computed once.
    folded: BTreeMap<ValueId, Tensor>,
    /// For each step that was folded, its metered cost: a run is charged for it all the same.
    folded_costs: Vec<Option<u64>>,
    plan: Plan,
    /// Constants that nobody needs any more, or that their only step has taken over in a form of its own, and what is known of them.
    pub(crate) taken: BTreeMap<ValueId, Fact>,
    /// What each step may do on its result, of the steps after it.
    tails: Vec<Vec<Link>>,
    /// How each step's result is wanted that is to be in blocks of channels.
    wanted: Vec<Option<Wanted>>,
}

/// The values of a run.
pub(crate) struct Frame {
    values: Vec<Option<Value>>,
    /// Only what the graph computes counts as held by it.
    own: Vec<bool>,
    /// For each step that an earlier one did, the operand that is its result.
    done: Vec<Option<usize>>,
}

impl Frame {
    /// With the graph's inputs and then what it captures, both in its order.
    pub(crate) fn new(graph: &Graph, given: Vec<Value>) -> Self {
        let mut values: Vec<Option<Value>> = vec![None; graph.values.len()];
        let captures = graph.captures.iter().map(|(inner, _)| inner);
        for (v, value) in graph.inputs.iter().chain(captures).zip(given) {
            values[v.0 as usize] = Some(value);
        }
        Self { values, own: vec![false; graph.values.len()], done: vec![None; graph.nodes.len()] }
    }

    /// Keeps what was computed.
    pub(crate) fn hold(&mut self, v: ValueId, value: Value, run: &mut Run<'_>) -> Result<(), Stop> {
        run.hold(&value)?;
        self.own[v.0 as usize] = true;
        self.values[v.0 as usize] = Some(value);
        Ok(())
    }

    /// Sets a value that the graph does not compute.
    pub(crate) fn give(&mut self, v: ValueId, value: Value) {
        self.values[v.0 as usize] = Some(value);
    }

    pub(crate) fn take(&mut self, v: ValueId) -> Option<Value> {
        self.values[v.0 as usize].take()
    }
}

/// Why a graph cannot be made ready.
#[derive(Debug)]
pub(crate) enum BuildError {
    Disorder(Disorder),
    Step { step: usize, error: OpError },
}

impl BuildError {
    /// As an error of the step that the graph is a body of.
    pub(crate) fn in_body(self, body: &Graph) -> OpError {
        match self {
            BuildError::Disorder(Disorder::NoOutput(name)) => {
                OpError::input(format!("output '{name}' of its body is never computed"))
            }
            BuildError::Disorder(Disorder::Undefined { step, .. }) => {
                OpError::input(format!("step {step} of its body uses a value that is not defined before it"))
            }
            BuildError::Step { step, error } => Stop::Step { step, error }.in_body(body, 0).into_error(),
        }
    }
}

/// The step of `node`.
pub(crate) fn build(
    node: &Node,
    constants: &[Option<Tensor>],
    outer: &dyn Fn(ValueId) -> Option<Tensor>,
    turned: Option<&Tensor>,
    packs: &dyn Packs,
) -> Result<Step, OpError> {
    if let Some(control) = Control::build(node, outer, packs)? {
        return Ok(Step::Control(Box::new(control)));
    }
    let def = find(&node.domain, &node.op).ok_or_else(|| {
        OpError::new(Code::UnsupportedOperator, format!("operator {} is not implemented", node.qualified()))
    })?;
    Ok(Step::Op((def.build)(&BuildCtx { node, constants, turned, packs })?))
}

impl Program {
    /// Makes a graph ready. `outer` knows the constants among the values of the enclosing graph.
    pub(crate) fn build(
        mut graph: Graph,
        outer: &dyn Fn(ValueId) -> Option<Tensor>,
        packs: &dyn Packs,
    ) -> Result<Self, BuildError> {
        let constants = &mut graph.initializers;
        graph.captures.retain(|&(inner, from)| match outer(from) {
            Some(tensor) => constants.insert(inner, tensor).is_some(),
            None => true,
        });
        let plan = Plan::new(&graph).map_err(BuildError::Disorder)?;
        let n = graph.nodes.len();
        let mut program = Self {
            graph,
            steps: Vec::with_capacity(n),
            folded: BTreeMap::new(),
            folded_costs: Vec::with_capacity(n),
            plan,
            taken: BTreeMap::new(),
            tails: Vec::new(),
            wanted: Vec::new(),
        };
        let uses = Uses::new(&program.graph);
        for step in 0..n {
            program.prepare(step, &uses, packs).map_err(|error| BuildError::Step { step, error })?;
            program.hand_over(step, &uses);
            program.let_go(step, &uses);
        }
        let constant = |v| program.constant(v);
        program.tails = fuse::tails(&program.graph, &program.steps, &program.folded_costs, &uses, &constant);
        let Self { graph, steps, folded_costs, tails, .. } = &program;
        let layout = layout::layout(graph, steps, folded_costs, &uses, tails);
        for step in (0..n).filter(|&step| layout.in_blocks(graph, step)) {
            program.prepare_blocks(step, packs).map_err(|error| BuildError::Step { step, error })?;
        }
        program.wanted = layout.wanted;
        Ok(program)
    }

    /// The content of a value, where it is constant.
    pub(crate) fn constant(&self, v: ValueId) -> Option<&Tensor> {
        self.graph.initializers.get(&v).or_else(|| self.folded.get(&v))
    }

    /// Builds a step and, where all its operands are constant, runs it.
    fn prepare(&mut self, step: usize, uses: &Uses, packs: &dyn Packs) -> Result<(), OpError> {
        let node = &self.graph.nodes[step];
        let constants = self.constants(step);
        let turned =
            self.turned_by(step, uses).and_then(|by| self.constants(by).into_iter().next().flatten());
        let built = build(node, &constants, &|v| self.constant(v).cloned(), turned.as_ref(), packs)?;
        if let (Step::Op(op), Some(x), &[Some(v)]) = (&built, self.turns(step, uses), &node.outputs[..]) {
            let facts = [Some(Fact::fixed(x.dtype(), x.shape()))];
            let results = op.infer(&facts)?;
            self.folded_costs.push(Some(op.cost(&facts, &results)));
            self.taken.extend(results.into_iter().map(|fact| (v, fact)));
            self.steps.push(built);
            return Ok(());
        }
        let folded = match &built {
            Step::Op(op) => fold_step(node, &**op, constants, packs.exec()),
            Step::Control(_) => None,
        };
        let cost = folded.map(|(results, cost)| {
            for (v, tensor) in node.outputs.iter().zip(results) {
                self.folded.extend(v.map(|v| (v, tensor)));
            }
            cost
        });
        self.steps.push(built);
        self.folded_costs.push(cost);
        Ok(())
    }

    /// The constant matrix that a step transposes, where only one step wants the result, and can do without it.
    fn turns(&self, step: usize, uses: &Uses) -> Option<&Tensor> {
        let node = &self.graph.nodes[step];
        let (&[Some(from)], &[Some(v)]) = (&node.inputs[..], &node.outputs[..]) else { return None };
        let swaps = match node.attrs.get("perm") {
            None => true,
            Some(Attr::Ints(perm)) => perm[..] == [1, 0],
            Some(_) => false,
        };
        let &[(user, 1)] = uses.of(v) else { return None };
        let matrix = self.constant(from).filter(|t| t.dtype() == DType::F32 && t.rank() == 2);
        let turns = node.domain.is_empty() && node.op == "Transpose" && swaps;
        // What is too long to be computed at load is a result of the run, and held as one.
        let short = |t: &&Tensor| t.byte_len() as u64 <= FOLDED_BYTES;
        matrix.filter(short).filter(|_| turns && takes_turned(&self.graph.nodes[user]))
    }

    /// The step that was to transpose operand 1 of a step, and has not ([`Program::turns`]).
    fn turned_by(&self, step: usize, uses: &Uses) -> Option<usize> {
        let v = self.graph.nodes[step].inputs.get(1).copied().flatten()?;
        uses.defined(v).filter(|&by| by < step && self.turns(by, uses).is_some())
    }

    /// For each operand of a step: its content, where it is constant.
    fn constants(&self, step: usize) -> Vec<Option<Tensor>> {
        let operands = self.graph.nodes[step].inputs.iter();
        operands.map(|v| v.and_then(|v| self.constant(v)).cloned()).collect()
    }

    /// Makes a step ready for images in blocks.
    fn prepare_blocks(&self, step: usize, packs: &dyn Packs) -> Result<(), OpError> {
        match &self.steps[step] {
            Step::Op(op) => op.blockwise().map_or(Ok(()), |op| op.prepare(&self.constants(step), packs)),
            Step::Control(_) => Ok(()),
        }
    }

    /// Lets go of constants that a step has taken over and nobody else needs.
    fn hand_over(&mut self, step: usize, uses: &Uses) {
        let Step::Op(op) = &self.steps[step] else { return };
        let operands = op.taken().iter().map(|&operand| (step, operand));
        // What it took over in place of a transpose.
        let turned = self.turned_by(step, uses).map(|by| (by, 0));
        for (step, operand) in operands.chain(turned).collect::<Vec<_>>() {
            let Some(v) = self.graph.nodes[step].inputs.get(operand).copied().flatten() else { continue };
            if uses.of(v) == [(step, operand)] {
                self.forget(v);
            }
        }
    }

    /// Lets go of constants that only steps computed at load needed, where this was the last of them.
    fn let_go(&mut self, step: usize, uses: &Uses) {
        let spent =
            |&(s, _): &(usize, usize)| s <= step && self.is_folded(s) && self.turns(s, uses).is_none();
        let operands = self.graph.nodes[step].inputs.iter().flatten();
        let spent = operands.filter(|&&v| !uses.of(v).is_empty() && uses.of(v).iter().all(spent));
        for v in spent.copied().collect::<Vec<_>>() {
            self.forget(v);
        }
    }

    /// Lets go of a constant, but for what is known of it: what a run costs is inferred once more.
    fn forget(&mut self, v: ValueId) {
        if let Some(t) = self.graph.initializers.remove(&v).or_else(|| self.folded.remove(&v)) {
            self.taken.insert(v, constant(&t));
        }
    }

    /// Facts of a step's operands, of those too that it has taken over.
    fn facts(&self, step: usize, operands: &[Option<Value>]) -> Vec<Option<Fact>> {
        let mut facts: Vec<_> = operands.iter().map(|v| v.as_ref().map(Value::fact)).collect();
        for (fact, v) in facts.iter_mut().zip(&self.graph.nodes[step].inputs) {
            if fact.is_none() {
                *fact = v.and_then(|v| self.taken.get(&v).cloned());
            }
        }
        facts
    }

    /// Whether a step was computed at load.
    pub(crate) fn is_folded(&self, step: usize) -> bool {
        self.folded_costs[step].is_some()
    }

    /// For each value, the last step that needs it ([`Plan::ends`]).
    pub(crate) fn ends(&self) -> Vec<usize> {
        self.plan.ends(&self.graph)
    }

    /// For each step, whether an earlier one may do it.
    pub(crate) fn fused(&self) -> Vec<bool> {
        let mut fused = vec![false; self.steps.len()];
        for &(step, _) in self.tails.iter().flatten().flat_map(|link| &link.steps) {
            fused[step] = true;
        }
        fused
    }

    /// The last step that a step may do with its own work.
    pub(crate) fn reach(&self, step: usize) -> usize {
        self.tails[step].iter().flat_map(|link| &link.steps).map(|&(s, _)| s).max().unwrap_or(step)
    }

    /// Runs the graph on its inputs, and on what it captures, both in its order.
    pub(crate) fn run(
        &self,
        run: &mut Run<'_>,
        inputs: Vec<Datum>,
        captured: Vec<Datum>,
    ) -> Result<Vec<Datum>, Stop> {
        let mut frame =
            Frame::new(&self.graph, inputs.into_iter().chain(captured).map(Value::Datum).collect());
        self.run_steps(0..self.steps.len(), run, &mut frame)?;
        for (value, _) in frame.values.iter().zip(&frame.own).filter(|(_, own)| **own) {
            value.iter().for_each(|v| run.release(v));
        }
        Ok(self.outputs(frame))
    }

    /// The results of the graph.
    pub(crate) fn outputs(&self, frame: Frame) -> Vec<Datum> {
        self.graph.outputs.iter().map(|&v| self.lookup(v, &frame.values)).collect()
    }

    /// Runs some of the steps.
    pub(crate) fn run_steps(
        &self,
        steps: Range<usize>,
        run: &mut Run<'_>,
        frame: &mut Frame,
    ) -> Result<(), Stop> {
        let graph = &self.graph;
        let stream = if run.depth == 0 { 0 } else { run.iterations << 32 };
        for step in steps {
            run.step()?;
            if run.part.is_some_and(|part| part.skips(step)) {
                continue;
            }
            let before = run.cost;
            let start = (run.profile && run.depth == 0).then(Instant::now);
            if let Some(cost) = self.folded_costs[step] {
                run.charge(cost)?;
                continue;
            }
            let results = self.step(step, run, frame, stream)?;
            if let Some(start) = start {
                let (time, cost) = (start.elapsed(), run.cost - before);
                run.times.push(Timed { step, time, cost, fused: frame.done[step].is_some() });
            }
            for (v, value) in graph.nodes[step].outputs.iter().zip(results) {
                if let Some(v) = *v {
                    frame.hold(v, value, run)?;
                }
            }
            for v in &self.plan.frees[step] {
                if let Some(value) = frame.take(*v).filter(|_| frame.own[v.0 as usize]) {
                    run.release(&value);
                }
            }
        }
        Ok(())
    }

    /// A value, computed or constant. One that nobody else needs (`last`) is moved out of the frame, and no longer held by `run`.
    pub(crate) fn value(
        &self,
        v: ValueId,
        frame: &mut Frame,
        last: bool,
        run: Option<&mut Run<'_>>,
    ) -> Option<Value> {
        let value = if last { frame.take(v) } else { frame.values[v.0 as usize].clone() };
        if let (Some(value), Some(run)) = (&value, run.filter(|_| last && frame.own[v.0 as usize])) {
            run.release(value);
        }
        value.or_else(|| self.constant(v).cloned().map(Value::from))
    }

    /// A value that is known to be defined, and not in blocks: results of the graph and what bodies capture are not.
    fn lookup(&self, v: ValueId, values: &[Option<Value>]) -> Datum {
        let computed = match &values[v.0 as usize] {
            Some(Value::Datum(datum)) => Some(datum.clone()),
            _ => None,
        };
        computed
            .or_else(|| self.constant(v).cloned().map(Datum::Tensor))
            .expect("the plan checked that every value is defined before it is used")
    }

    fn step(
        &self,
        step: usize,
        run: &mut Run<'_>,
        frame: &mut Frame,
        stream: u64,
    ) -> Result<Vec<Value>, Stop> {
        let node = &self.graph.nodes[step];
        let at = |error: OpError| Stop::Step { step, error };
        let tail = self.tail(step, &frame.values);
        let mut operands = self.operands(step, run, frame);
        let Frame { values, done, .. } = frame;
        if let Some((operand, extents)) = run.part.and_then(|part| part.extents(step)) {
            operands[operand] = Some(extents.into());
        }
        let results = match &self.steps[step] {
            Step::Control(control) => {
                run.charge(1)?;
                let operands = plain(&self.ctx(run, 0), operands).map_err(at)?.into_data();
                let results = control.run(run, step, operands, &|v| self.lookup(v, values))?;
                results.into_iter().map(Value::Datum).collect()
            }
            Step::Op(op) => {
                let facts = (run.metered || run.profile).then(|| self.facts(step, &operands));
                if let (true, Some(facts)) = (run.metered, &facts) {
                    // Shapes depend on values here: what the step will cost is known once it is reached,
                    // as far as its result shapes follow from its operands.
                    let results = op.infer(facts).map_err(at)?;
                    run.affords(op.cost(facts, &results))?;
                }
                let ctx = self.ctx(run, stream.wrapping_add(step as u64));
                let wanted = self.wanted[step];
                let in_blocks = wanted.is_some() || operands.iter().flatten().any(Value::in_blocks);
                let (results, links) = match op.blockwise().filter(|_| in_blocks) {
                    _ if done[step].is_some() => {
                        // An earlier step did this one: its operand is its result.
                        let value =
                            done[step].and_then(|operand| operands.into_iter().nth(operand).flatten());
                        (vec![value.expect("a step that was done has its operand")], 0)
                    }
                    Some(op) => {
                        let operands = if op.takes_gates() {
                            operands
                        } else {
                            let settle = |v: Option<Value>| v.map(|v| v.settled(&ctx)).transpose();
                            operands.into_iter().map(settle).collect::<Result<_, _>>().map_err(at)?
                        };
                        let (result, links) = op.run_blocked(&ctx, operands, &tail, wanted).map_err(at)?;
                        (vec![result], links)
                    }
                    None => {
                        let operands = plain(&ctx, operands).map_err(at)?;
                        if tail.is_empty() {
                            let results = op.run_any(&ctx, operands).map_err(at)?;
                            (results.into_iter().map(Value::Datum).collect(), 0)
                        } else {
                            let (results, links) = op.run_tail(&ctx, operands, &tail).map_err(at)?;
                            (results.into_iter().map(Value::from).collect(), links)
                        }
                    }
                };
                for link in &self.tails[step][..links] {
                    link.steps.iter().for_each(|&(step, operand)| done[step] = Some(operand));
                }
                if let Some(facts) = facts {
                    let produced: Vec<Fact> = results.iter().map(Value::fact).collect();
                    run.charge(op.cost(&facts, &produced))?;
                }
                results
            }
        };
        assert_eq!(results.len(), node.outputs.len(), "{} returned a wrong number of results", node.op);
        Ok(results)
    }

    pub(crate) fn ctx<'r>(&self, run: &Run<'r>, step: u64) -> RunCtx<'r> {
        RunCtx { exec: run.exec, memory: run.memory, seed: run.seed, step }
    }

    /// What a step may do on its result, with the values it takes; up to the first that is no tensor.
    fn tail(&self, step: usize, values: &[Option<Value>]) -> Vec<Tail> {
        let is_tensor = |v: &&Value| matches!(v, Value::Blocked(_)) || v.as_tensor().is_some();
        let action = |link: &Link| match link.action {
            Action::Unary(f) => Some(Tail::Unary(f)),
            Action::Add(v) => {
                let value = values[v.0 as usize].as_ref().filter(is_tensor).cloned();
                value.or_else(|| self.constant(v).cloned().map(Value::from)).map(Tail::Add)
            }
        };
        self.tails[step].iter().map_while(action).collect()
    }

    /// The operands of a step; one that nobody needs afterwards is moved out of the frame.
    fn operands(&self, step: usize, run: &mut Run<'_>, frame: &mut Frame) -> Vec<Option<Value>> {
        let node = &self.graph.nodes[step];
        let into_container = node.op.starts_with("Sequence") || node.op == "Optional";
        let operands = node.inputs.iter().zip(&self.plan.last[step]);
        operands
            .map(|(v, &last)| {
                self.value((*v)?, frame, last, if into_container { None } else { Some(&mut *run) })
            })
            .collect()
    }
}

/// Results and cost of a step whose operands are all constant. A step that fails is left to the run, which then
/// fails in its place; one without operands may be random.
fn fold_step(
    node: &Node,
    op: &dyn Op,
    operands: Vec<Option<Tensor>>,
    exec: Exec<'_>,
) -> Option<(Vec<Tensor>, u64)> {
    let known = |(v, t): (&Option<ValueId>, &Option<Tensor>)| v.is_none() || t.is_some();
    let constant = !operands.is_empty() && node.inputs.iter().zip(&operands).all(known);
    if !constant || node.is_random() {
        return None;
    }
    let operands = Inputs::new(operands);
    let facts = operand_facts(&operands);
    let memory = Memory::new(FOLDED_BYTES);
    let results = op.run_any(&RunCtx { exec, memory: &memory, seed: 0, step: 0 }, operands).ok()?;
    let produced: Vec<Fact> = results.iter().map(Fact::of).collect();
    let cost = op.cost(&facts, &produced);
    let tensors = results.into_iter().map(|d| d.into_tensor().ok()).collect::<Option<Vec<_>>>()?;
    Some((tensors, cost))
}

fn operand_facts(operands: &Inputs) -> Vec<Option<Fact>> {
    (0..operands.len()).map(|i| operands.datum(i).map(Fact::of)).collect()
}
