//! What the rest of this crate relies on: every value is defined exactly once, before it is used.

use crate::ir::bodies;
use crate::{Graph, GraphError, Node, ValueId};

/// Checks a graph and its bodies. `outer` is the number of values of the enclosing graph.
pub(crate) fn check(graph: &Graph, outer: usize) -> Result<(), GraphError> {
    let error = |message: String| GraphError::Graph { graph: graph.name.clone(), message };
    let mut defined = vec![false; graph.values.len()];
    let mut define = |v: ValueId| match defined.get_mut(v.0 as usize) {
        None => Err(error(format!("value {} does not exist", v.0))),
        Some(true) => Err(error(format!("'{}' is defined twice", graph.value(v).name))),
        Some(slot) => {
            *slot = true;
            Ok(())
        }
    };
    graph.inputs.iter().chain(graph.initializers.keys()).try_for_each(|&v| define(v))?;
    for &(inner, from) in &graph.captures {
        define(inner)?;
        if from.0 as usize >= outer {
            return Err(error(format!("captured value {} does not exist", from.0)));
        }
    }
    // Values are defined in the order of the nodes, so a use before the definition shows as well.
    for node in &graph.nodes {
        let captured = bodies(node).flat_map(|b| b.captures.iter().map(|&(_, from)| from));
        for v in node.inputs.iter().flatten().copied().chain(captured) {
            if !defined.get(v.0 as usize).copied().unwrap_or(false) {
                return Err(undefined(graph, node, v));
            }
        }
        for body in bodies(node) {
            check(body, graph.values.len())?;
        }
        for v in node.outputs.iter().flatten() {
            match defined.get_mut(v.0 as usize) {
                Some(slot) if !*slot => *slot = true,
                Some(_) => return Err(error(format!("'{}' is defined twice", graph.value(*v).name))),
                None => return Err(error(format!("value {} does not exist", v.0))),
            }
        }
    }
    match graph.outputs.iter().find(|v| !defined.get(v.0 as usize).copied().unwrap_or(false)) {
        Some(v) => {
            let name = graph.values.get(v.0 as usize).map_or("?", |v| &v.name);
            Err(error(format!("output '{name}' is never computed")))
        }
        None => Ok(()),
    }
}

fn undefined(graph: &Graph, node: &Node, v: ValueId) -> GraphError {
    let name = graph.values.get(v.0 as usize).map_or("?", |v| &v.name);
    GraphError::Node {
        node: format!("{} '{}'", node.qualified(), node.name),
        message: format!("input '{name}' is not computed before it"),
    }
}
