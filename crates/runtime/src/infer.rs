use std::collections::BTreeMap;

use isobit_graph::{Dim, Graph, Model, ValueId};
use isobit_kernels::{Exec, KernelSet, Serial};
use isobit_ops::{Fact, OpError};
use isobit_tensor::Tensor;

use crate::program::{Step, build};

/// Results of constants up to this many elements are computed during inference, so that shapes that
/// are computed from shapes become known.
const FOLD_ELEMENTS: usize = 4096;

/// What is known of every value of a graph before it runs.
#[derive(Debug)]
pub struct Inference {
    /// A fact for each value, indexed by [`ValueId`].
    pub facts: Vec<Fact>,
    /// Metered cost of each step; `None` where its shapes are not known beforehand.
    pub costs: Vec<Option<u64>>,
    /// Steps that cannot be built or whose operands do not fit.
    pub errors: Vec<(usize, OpError)>,
}

impl Inference {
    /// Metered cost of the whole graph, where all shapes are known.
    pub fn cost(&self) -> Option<u64> {
        self.costs.iter().try_fold(0u64, |sum, c| Some(sum.saturating_add((*c)?)))
    }
}

/// Propagates types and shapes through the model, with symbolic extents bound as in `dims`.
///
/// Never fails: what does not fit is listed, and everything after it is unknown.
pub fn infer(model: &Model, dims: &BTreeMap<String, usize>) -> Inference {
    let graph = &model.graph;
    let exec = Exec::new(KernelSet::Scalar, &Serial);
    let constant = |v: ValueId| graph.initializers.get(&v).cloned();
    let mut steps = Vec::with_capacity(graph.nodes.len());
    let mut errors = Vec::new();
    for (step, node) in graph.nodes.iter().enumerate() {
        let constants = node.inputs.iter().map(|v| v.and_then(constant)).collect::<Vec<_>>();
        match build(node, &constants, &constant, None, &exec) {
            Ok(built) => steps.push(Some(built)),
            Err(e) => {
                errors.push((step, e));
                steps.push(None);
            }
        }
    }
    let steps: Vec<Option<&Step>> = steps.iter().map(Option::as_ref).collect();
    let inputs = graph.inputs.iter().map(|&v| declared(graph, v, dims)).collect();
    let mut inference = propagate(graph, &steps, inputs, Vec::new(), &|_| None, &BTreeMap::new());
    errors.append(&mut inference.errors);
    errors.sort_by_key(|(step, _)| *step);
    Inference { errors, ..inference }
}

/// Propagates facts of the graph inputs, and of what the graph captures, through steps that are already built.
/// `known` are constants besides the initializers, `taken` those of which no more is left than these facts.
pub(crate) fn propagate(
    graph: &Graph,
    steps: &[Option<&Step>],
    inputs: Vec<Fact>,
    captured: Vec<Fact>,
    known: &dyn Fn(ValueId) -> Option<Tensor>,
    taken: &BTreeMap<ValueId, Fact>,
) -> Inference {
    let mut facts = vec![Fact::unknown(); graph.values.len()];
    for (&value, tensor) in &graph.initializers {
        facts[value.0 as usize] = constant(tensor);
    }
    for (value, fact) in taken {
        facts[value.0 as usize] = fact.clone();
    }
    let captures = graph.captures.iter().map(|(inner, _)| inner);
    for (&value, fact) in graph.inputs.iter().zip(inputs).chain(captures.zip(captured)) {
        facts[value.0 as usize] = fact;
    }
    let mut costs = Vec::with_capacity(graph.nodes.len());
    let mut errors = Vec::new();
    for (step, (node, built)) in graph.nodes.iter().zip(steps).enumerate() {
        let operands: Vec<Option<Fact>> =
            node.inputs.iter().map(|v| v.map(|v| facts[v.0 as usize].clone())).collect();
        let results = match built {
            None => Ok(Vec::new()),
            Some(Step::Op(op)) => op.infer(&operands),
            Some(Step::Control(c)) => c.infer(&operands, &|v| facts[v.0 as usize].clone()),
        };
        let results = results.unwrap_or_else(|e| {
            errors.push((step, e));
            Vec::new()
        });
        // Of what was computed at load more is known than its step could tell.
        let found = |v: &ValueId| known(*v).map(|t| constant(&t)).or_else(|| taken.get(v).cloned());
        let outputs = node.outputs.iter().map(|v| v.as_ref().and_then(found));
        let results: Vec<Fact> = outputs.zip(results).map(|(found, fact)| found.unwrap_or(fact)).collect();
        let all_known = operands.iter().flatten().chain(&results).all(|f| f.known_shape().is_some());
        costs.push(match built {
            Some(Step::Op(op)) if all_known && results.len() == node.outputs.len() => {
                Some(op.cost(&operands, &results))
            }
            _ => None,
        });
        for (value, fact) in node.outputs.iter().zip(results) {
            if let Some(value) = value {
                facts[value.0 as usize] = fact;
            }
        }
    }
    Inference { facts, costs, errors }
}

/// What is known of a constant: its content where it is short.
pub(crate) fn constant(tensor: &Tensor) -> Fact {
    let mut fact = Fact::fixed(tensor.dtype(), tensor.shape());
    if tensor.len() <= FOLD_ELEMENTS {
        fact.value = Some(tensor.clone());
    }
    fact
}

fn declared(graph: &Graph, value: ValueId, dims: &BTreeMap<String, usize>) -> Fact {
    let value = graph.value(value);
    let shape = value.shape.as_ref().map(|shape| {
        shape
            .iter()
            .map(|d| match d {
                Dim::Known(n) => Some(*n),
                Dim::Symbol(s) => dims.get(s).copied(),
                Dim::Unknown => None,
            })
            .collect()
    });
    Fact::new(value.dtype, shape)
}
