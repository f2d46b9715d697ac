use isobit_graph::{Graph, Model};

use crate::{LoadError, NodeRef};

/// For each step, which operands nobody needs after it: their buffers may be reused for its results.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `last[step][operand]`.
    pub(crate) last: Vec<Vec<bool>>,
}

impl Plan {
    /// Checks that every operand is defined before use, and finds last uses.
    pub(crate) fn new(model: &Model) -> Result<Self, LoadError> {
        let graph = &model.graph;
        let mut defined = vec![false; graph.values.len()];
        for v in graph.inputs.iter().chain(graph.initializers.keys()) {
            defined[v.0 as usize] = true;
        }
        for (step, node) in graph.nodes.iter().enumerate() {
            for (operand, v) in node.inputs.iter().enumerate() {
                if v.is_some_and(|v| !defined.get(v.0 as usize).copied().unwrap_or(false)) {
                    return Err(LoadError::Undefined { node: NodeRef::new(model, step, node), operand });
                }
            }
            for v in node.outputs.iter().flatten() {
                defined[v.0 as usize] = true;
            }
        }
        if let Some(v) = graph.outputs.iter().find(|v| !defined[v.0 as usize]) {
            return Err(LoadError::NoOutput(graph.value(*v).name.clone()));
        }
        Ok(Self { last: last_uses(graph) })
    }
}

fn last_uses(graph: &Graph) -> Vec<Vec<bool>> {
    let mut needed = vec![false; graph.values.len()];
    for v in &graph.outputs {
        needed[v.0 as usize] = true;
    }
    let mut last: Vec<Vec<bool>> = graph
        .nodes
        .iter()
        .rev()
        .map(|node| {
            // From the right: where a value is an operand twice, the later position is its last use.
            let mut flags: Vec<bool> = node
                .inputs
                .iter()
                .rev()
                .map(|v| v.is_some_and(|v| !std::mem::replace(&mut needed[v.0 as usize], true)))
                .collect();
            flags.reverse();
            flags
        })
        .collect();
    last.reverse();
    last
}
