//! Scan of operator set 8, which goes through a batch: a Scan over the batch whose body is a Scan.

use super::Rewriter;
use crate::{Attr, Graph, GraphError, Node, Value, ValueId};

pub(super) fn batched(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let lengths = if node.inputs.is_empty() { None } else { node.inputs.remove(0) };
    if lengths.is_some() {
        return Err(r.error(&node, "sequence_lens makes sequences of different lengths; give them as a mask"));
    }
    let (Some(Attr::Graph(mut body)), Some(scans)) =
        (node.attrs.remove("body"), node.attrs.remove("num_scan_inputs"))
    else {
        return Err(r.error(&node, "it has no body or num_scan_inputs"));
    };
    let mut outer = Graph { name: format!("{} of one entry", body.name), ..Graph::default() };
    let fresh = |outer: &mut Graph, name: String| outer.add_value(Value { name, ..Value::default() });
    let inputs: Vec<ValueId> = (0..node.inputs.len()).map(|i| fresh(&mut outer, format!("in{i}"))).collect();
    let outputs: Vec<ValueId> =
        (0..node.outputs.len()).map(|i| fresh(&mut outer, format!("out{i}"))).collect();
    for (own, from) in &mut body.captures {
        let through = fresh(&mut outer, format!("through{}", own.0));
        outer.captures.push((through, *from));
        *from = through;
    }
    let mut attrs = vec![("body".to_owned(), Attr::Graph(body)), ("num_scan_inputs".to_owned(), scans)];
    if let Some(directions) = node.attrs.remove("directions") {
        attrs.push(("scan_input_directions".to_owned(), directions));
    }
    outer.nodes.push(Node {
        op: "Scan".into(),
        inputs: inputs.iter().map(|&v| Some(v)).collect(),
        outputs: outputs.iter().map(|&v| Some(v)).collect(),
        attrs: attrs.into_iter().collect(),
        ..Node::default()
    });
    (outer.inputs, outer.outputs) = (inputs, outputs);
    node.attrs.insert("num_scan_inputs".into(), Attr::Int(node.inputs.len() as i64));
    node.attrs.insert("body".into(), Attr::Graph(Box::new(outer)));
    r.push(node);
    Ok(())
}
