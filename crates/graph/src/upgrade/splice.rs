//! A body put in place of the node that ran it.

use super::Rewriter;
use crate::ir::attr_bodies_mut;
use crate::{Graph, Node, ValueId};

/// Pushes the nodes of `body`, which reads `inputs` as its own. Returns its outputs.
pub(super) fn splice(r: &mut Rewriter<'_>, body: Graph, inputs: &[ValueId]) -> Vec<ValueId> {
    let mut map: Vec<Option<ValueId>> = vec![None; body.values.len()];
    for (own, &outer) in body.inputs.iter().zip(inputs) {
        map[own.0 as usize] = Some(outer);
    }
    for &(own, outer) in &body.captures {
        map[own.0 as usize] = Some(outer);
    }
    for (id, value) in body.values.into_iter().enumerate() {
        if map[id].is_none() {
            map[id] = Some(r.graph.add_value(value));
        }
    }
    let place = |v: ValueId| map[v.0 as usize].unwrap_or(v);
    for (id, tensor) in body.initializers {
        r.graph.initializers.insert(place(id), tensor);
    }
    for node in body.nodes {
        r.push(renamed(node, &place));
    }
    body.outputs.into_iter().map(place).collect()
}

/// The node on other values.
pub(super) fn renamed(mut node: Node, place: &dyn Fn(ValueId) -> ValueId) -> Node {
    for v in node.inputs.iter_mut().chain(&mut node.outputs).flatten() {
        *v = place(*v);
    }
    for body in node.attrs.values_mut().flat_map(attr_bodies_mut) {
        body.captures.iter_mut().for_each(|(_, outer)| *outer = place(*outer));
    }
    node
}
