use std::collections::BTreeMap;

use isobit_graph::{Dim, Graph, Model, Node, ValueId};
use isobit_kernels::KernelSet;
use isobit_ops::{BuildCtx, Code, Fact, Op, OpError, find};
use isobit_tensor::Tensor;

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
    let mut ops = Vec::with_capacity(graph.nodes.len());
    let mut errors = Vec::new();
    for (step, node) in graph.nodes.iter().enumerate() {
        let constants = node
            .inputs
            .iter()
            .map(|v| v.and_then(|v| graph.initializers.get(&v)).cloned())
            .collect::<Vec<_>>();
        match build(node, &constants, KernelSet::Scalar) {
            Ok(op) => ops.push(Some(op)),
            Err(e) => {
                errors.push((step, e));
                ops.push(None);
            }
        }
    }
    let ops: Vec<Option<&dyn Op>> = ops.iter().map(Option::as_deref).collect();
    let inputs = graph.inputs.iter().map(|&v| declared(graph, v, dims)).collect();
    let mut inference = propagate(graph, &ops, inputs);
    errors.append(&mut inference.errors);
    errors.sort_by_key(|(step, _)| *step);
    Inference { errors, ..inference }
}

/// Propagates facts of the graph inputs through operators that are already built.
pub(crate) fn propagate(graph: &Graph, ops: &[Option<&dyn Op>], inputs: Vec<Fact>) -> Inference {
    let mut facts = vec![Fact::unknown(); graph.values.len()];
    for (&value, tensor) in &graph.initializers {
        let mut fact = Fact::fixed(tensor.dtype(), tensor.shape());
        if tensor.len() <= FOLD_ELEMENTS {
            fact.value = Some(tensor.clone());
        }
        facts[value.0 as usize] = fact;
    }
    for (&value, fact) in graph.inputs.iter().zip(inputs) {
        facts[value.0 as usize] = fact;
    }
    let mut costs = Vec::with_capacity(graph.nodes.len());
    let mut errors = Vec::new();
    for (step, (node, op)) in graph.nodes.iter().zip(ops).enumerate() {
        let operands: Vec<Option<Fact>> =
            node.inputs.iter().map(|v| v.map(|v| facts[v.0 as usize].clone())).collect();
        let results = match op.map(|op| (op, op.infer(&operands))) {
            Some((op, Ok(results))) => {
                let known = operands.iter().flatten().chain(&results).all(|f| f.known_shape().is_some());
                costs.push(known.then(|| op.cost(&operands, &results)));
                results
            }
            Some((_, Err(e))) => {
                errors.push((step, e));
                costs.push(None);
                Vec::new()
            }
            None => {
                costs.push(None);
                Vec::new()
            }
        };
        for (value, fact) in node.outputs.iter().zip(results) {
            if let Some(value) = value {
                facts[value.0 as usize] = fact;
            }
        }
    }
    Inference { facts, costs, errors }
}

/// Builds the operator of `node`.
pub(crate) fn build(
    node: &Node,
    constants: &[Option<Tensor>],
    set: KernelSet,
) -> Result<Box<dyn Op>, OpError> {
    let def = find(&node.domain, &node.op).ok_or_else(|| {
        OpError::new(Code::UnsupportedOperator, format!("operator {} is not implemented", node.qualified()))
    })?;
    (def.build)(&BuildCtx { node, constants, set })
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
