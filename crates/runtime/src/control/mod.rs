//! Control flow: If, Loop, Scan, SequenceMap. Their bodies are graphs, which run here as programs; operators that
//! run no graph live in `isobit-ops`.

mod branch;
mod repeat;
mod scan;
mod sequence_map;

use isobit_graph::{Attr, Graph, Node, ValueId};
use isobit_ops::{Fact, OpError, Packs};
use isobit_tensor::{DType, Datum, Tensor};

use crate::infer::propagate;
use crate::meter::{Run, Stop};
use crate::program::Program;

/// A control-flow step.
pub(crate) enum Control {
    If(Box<branch::If>),
    Loop(repeat::Loop),
    Scan(scan::Scan),
    SequenceMap(sequence_map::SequenceMap),
}

/// What control flow exists, for lists.
pub const OPERATORS: [&str; 4] = ["If", "Loop", "Scan", "SequenceMap"];

/// Constants of the enclosing graph.
type Outer<'a> = &'a dyn Fn(ValueId) -> Option<Tensor>;

impl Control {
    /// The step of `node`, where it is control flow.
    pub(crate) fn build(node: &Node, outer: Outer<'_>, packs: &dyn Packs) -> Result<Option<Self>, OpError> {
        if !node.domain.is_empty() || !OPERATORS.contains(&node.op.as_str()) {
            return Ok(None);
        }
        let body = |name: &str| Body::build(node, name, outer, packs);
        Ok(Some(match node.op.as_str() {
            "If" => Control::If(Box::new(branch::If::new(body("then_branch")?, body("else_branch")?, node)?)),
            "Loop" => Control::Loop(repeat::Loop::new(body("body")?, node)?),
            "Scan" => Control::Scan(scan::Scan::new(body("body")?, node)?),
            _ => Control::SequenceMap(sequence_map::SequenceMap::new(body("body")?, node)?),
        }))
    }

    /// What is known of the results; `captured` says what is known of the enclosing graph's values.
    pub(crate) fn infer(
        &self,
        operands: &[Option<Fact>],
        captured: &dyn Fn(ValueId) -> Fact,
    ) -> Result<Vec<Fact>, OpError> {
        match self {
            Control::If(c) => c.infer(operands, captured),
            Control::Loop(c) => c.infer(operands, captured),
            Control::Scan(c) => c.infer(operands, captured),
            Control::SequenceMap(c) => Ok(vec![Fact::unknown(); c.results]),
        }
    }

    /// Runs it as step `step` of its graph.
    pub(crate) fn run(
        &self,
        run: &mut Run<'_>,
        step: usize,
        operands: Vec<Option<Datum>>,
        captured: &dyn Fn(ValueId) -> Datum,
    ) -> Result<Vec<Datum>, Stop> {
        let mut flow = Flow { run, step, captured };
        match self {
            Control::If(c) => c.run(&mut flow, operands),
            Control::Loop(c) => c.run(&mut flow, operands),
            Control::Scan(c) => c.run(&mut flow, operands),
            Control::SequenceMap(c) => c.run(&mut flow, operands),
        }
    }
}

/// A run of a control-flow step.
struct Flow<'r, 'a> {
    run: &'r mut Run<'a>,
    step: usize,
    captured: &'r dyn Fn(ValueId) -> Datum,
}

impl Flow<'_, '_> {
    fn error(&self, error: OpError) -> Stop {
        Stop::Step { step: self.step, error }
    }

    /// Runs a body once.
    fn body(&mut self, body: &Body, inputs: Vec<Datum>) -> Result<Vec<Datum>, Stop> {
        self.run.iteration()?;
        let graph = &body.program.graph;
        let captured = graph.captures.iter().map(|&(_, from)| (self.captured)(from)).collect();
        self.run.depth += 1;
        let outputs = body.program.run(self.run, inputs, captured);
        self.run.depth -= 1;
        outputs.map_err(|stop| stop.in_body(graph, self.step))
    }

    /// Tensors of all iterations along a new axis.
    fn stack(&self, parts: &[Tensor], axis: usize) -> Result<Tensor, Stop> {
        let Some(first) = parts.first() else { return Err(self.error(OpError::input("nothing to stack"))) };
        if axis > first.rank() {
            let message = format!("axis {axis} of results of {} dimensions", first.rank());
            return Err(self.error(OpError::index(message)));
        }
        let bytes = parts.iter().map(Tensor::byte_len).fold(0, usize::saturating_add);
        let stacked = self.run.memory.check::<u8>(&[bytes]).and_then(|_| Ok(Tensor::stack(parts, axis)?));
        stacked.map_err(|e| self.error(e))
    }

    /// What stands for the results of no iteration at all: the type and extents that follow from the operands,
    /// an unknown extent being 0.
    fn empty(&self, fact: &Fact, axis: usize) -> Result<Tensor, Stop> {
        let dtype = fact.dtype.ok_or_else(|| {
            self.error(OpError::input("no iteration ran, and nothing says which type its results have"))
        })?;
        let mut shape: Vec<usize> = fact.shape.iter().flatten().map(|d| d.unwrap_or(0)).collect();
        shape.insert(axis.min(shape.len()), 0);
        Tensor::zeros(dtype, &shape).map_err(|e| self.error(e.into()))
    }

    /// What is known of a body's outputs when it runs on these values.
    fn facts(&self, body: &Body, inputs: &[Fact]) -> Result<Vec<Fact>, Stop> {
        let captured = |v: ValueId| Fact::of(&(self.captured)(v));
        body.infer(inputs.to_vec(), &captured).map_err(|e| self.error(e))
    }
}

/// A body and how its outputs' names are looked up.
pub(crate) struct Body {
    pub(crate) program: Program,
}

impl Body {
    fn build(node: &Node, name: &str, outer: Outer<'_>, packs: &dyn Packs) -> Result<Self, OpError> {
        let Some(Attr::Graph(graph)) = node.attrs.get(name) else {
            return Err(OpError::attribute(format!("attribute '{name}' must be a graph")));
        };
        let graph: Graph = (**graph).clone();
        let program = Program::build(graph, outer, packs);
        match program {
            Ok(program) => Ok(Self { program }),
            Err(e) => {
                let Some(Attr::Graph(graph)) = node.attrs.get(name) else { unreachable!("seen above") };
                Err(e.in_body(graph))
            }
        }
    }

    fn inputs(&self) -> usize {
        self.program.graph.inputs.len()
    }

    fn outputs(&self) -> usize {
        self.program.graph.outputs.len()
    }

    fn infer(&self, inputs: Vec<Fact>, captured: &dyn Fn(ValueId) -> Fact) -> Result<Vec<Fact>, OpError> {
        let graph = &self.program.graph;
        let captured = graph.captures.iter().map(|&(_, from)| captured(from)).collect();
        let steps: Vec<_> = self.program.steps.iter().map(Some).collect();
        let known = |v: ValueId| self.program.constant(v).cloned();
        let inference = propagate(graph, &steps, inputs, captured, &known, &self.program.taken);
        match inference.errors.into_iter().next() {
            Some((step, error)) => Err(Stop::Step { step, error }.in_body(graph, 0).into_error()),
            None => Ok(graph.outputs.iter().map(|v| inference.facts[v.0 as usize].clone()).collect()),
        }
    }
}

/// Refuses a body with another number of inputs or outputs than the node has use for.
fn arity(what: &str, has: usize, wanted: usize) -> Result<(), OpError> {
    match has == wanted {
        true => Ok(()),
        false => Err(OpError::attribute(format!("the body has {has} {what}; it must have {wanted}"))),
    }
}

/// The one element of a boolean operand.
fn truth(datum: Option<&Datum>, what: &str) -> Result<bool, OpError> {
    let tensor = datum.and_then(Datum::as_tensor);
    match tensor.and_then(|t| t.as_slice::<bool>().ok()) {
        Some([value]) => Ok(*value),
        _ => Err(OpError::input(format!("{what} must be one bool"))),
    }
}

/// What is known of a value that has either of two facts.
fn either(a: &Fact, b: &Fact) -> Fact {
    let shape = match (&a.shape, &b.shape) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            Some(a.iter().zip(b).map(|(a, b)| if a == b { *a } else { None }).collect())
        }
        _ => None,
    };
    Fact::new(a.dtype.filter(|_| a.dtype == b.dtype), shape)
}

/// What is known of a body's outputs, from what is known of inputs.
type Infer<'a> = dyn Fn(&[Fact]) -> Result<Vec<Fact>, OpError> + 'a;

/// What is known of values carried from one iteration to the next, and of the body's other outputs: a state
/// that an iteration changes is unknown where it changes. The body yields the states after `skip` other outputs.
fn carried(states: Vec<Fact>, skip: usize, body: &Infer<'_>) -> Result<(Vec<Fact>, Vec<Fact>), OpError> {
    let mut states: Vec<Fact> = states.into_iter().map(|f| Fact { value: None, ..f }).collect();
    // Each round can only forget; two rounds see nearly every change, the third forgets what still moves.
    for round in 0..3 {
        let outputs = body(&states)?;
        let next: Vec<Fact> = states.iter().zip(&outputs[skip..]).map(|(s, o)| either(s, o)).collect();
        if next == states {
            return Ok((states, outputs));
        }
        states = if round < 2 {
            next
        } else {
            next.iter()
                .zip(&states)
                .map(|(n, s)| if n == s { n.clone() } else { Fact::typed(n.dtype) })
                .collect()
        };
    }
    let outputs = body(&states)?;
    Ok((states, outputs))
}

/// A scalar of type int64.
fn int64(value: i64) -> Datum {
    Tensor::scalar(value).into()
}

/// A fact without a known content.
fn scalar(dtype: DType) -> Fact {
    Fact::fixed(dtype, &[])
}
