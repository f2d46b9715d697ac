//! Scan of operator set 8, which goes through a batch: a Scan over the batch whose body is a Scan. Where the entries have lengths of
//! their own, that body cuts the sequences to the entry's length, and fills the results up with zeros.

use isobit_tensor::Tensor;

use super::{Rewriter, fresh, push_op};
use crate::{Attr, Graph, GraphError, Node, Value, ValueId};

pub(super) fn batched(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let lengths = if node.inputs.is_empty() { None } else { node.inputs.remove(0) };
    let (Some(Attr::Graph(mut body)), Some(Attr::Int(scans))) =
        (node.attrs.remove("body"), node.attrs.remove("num_scan_inputs"))
    else {
        return Err(r.error(&node, "it has no body or num_scan_inputs"));
    };
    let mut outer = Graph { name: format!("{} of one entry", body.name), ..Graph::default() };
    let named = |outer: &mut Graph, name: String| outer.add_value(Value { name, ..Value::default() });
    let inputs: Vec<ValueId> = (0..node.inputs.len()).map(|i| named(&mut outer, format!("in{i}"))).collect();
    let outputs: Vec<ValueId> =
        (0..node.outputs.len()).map(|i| named(&mut outer, format!("out{i}"))).collect();
    for (own, from) in &mut body.captures {
        let through = named(&mut outer, format!("through{}", own.0));
        outer.captures.push((through, *from));
        *from = through;
    }
    let mut attrs =
        vec![("body".to_owned(), Attr::Graph(body)), ("num_scan_inputs".to_owned(), Attr::Int(scans))];
    if let Some(directions) = node.attrs.remove("directions") {
        attrs.push(("scan_input_directions".to_owned(), directions));
    }
    let mut scan = Node {
        op: "Scan".into(),
        inputs: inputs.iter().map(|&v| Some(v)).collect(),
        outputs: outputs.iter().map(|&v| Some(v)).collect(),
        attrs: attrs.into_iter().collect(),
        ..Node::default()
    };
    (outer.inputs, outer.outputs) = (inputs, outputs);
    match lengths {
        None => outer.nodes.push(scan),
        Some(lengths) => {
            let scans = usize::try_from(scans).ok().filter(|n| (1..=scan.inputs.len()).contains(n));
            let scans = scans.ok_or_else(|| r.error(&node, "it has no such number of scan inputs"))?;
            cut(&mut outer, &mut scan, scans);
            node.inputs.push(Some(lengths));
        }
    }
    node.attrs.insert("num_scan_inputs".into(), Attr::Int(node.inputs.len() as i64));
    node.attrs.insert("body".into(), Attr::Graph(Box::new(outer)));
    r.push(node);
    Ok(())
}

/// Puts the scan into `outer` with its last `scans` operands cut to a length that is one more input.
fn cut(outer: &mut Graph, scan: &mut Node, scans: usize) {
    let given = outer.add_value(Value { name: "length".into(), ..Value::default() });
    outer.inputs.push(given);
    let zero = outer.add_constant("zero", Tensor::vector(vec![0i64]));
    let one = outer.add_constant("one", Tensor::vector(vec![1i64]));
    let length = push_op(outer, "Reshape", &[given, one], &[]);
    let states = scan.inputs.len() - scans;
    // All have as many steps as the first; a length is none beyond them.
    let first = outer.inputs[states];
    let steps = push_op(outer, "Shape", &[first], &[("start", Attr::Int(0)), ("end", Attr::Int(1))]);
    let length = push_op(outer, "Max", &[length, zero], &[]);
    let length = push_op(outer, "Min", &[length, steps], &[]);
    for input in scan.inputs[states..].iter_mut().flatten() {
        *input = push_op(outer, "Slice", &[*input, zero, length, zero], &[]);
    }
    // The results of the scan, which are then filled up to those of the outer graph.
    let results: Vec<ValueId> = scan.outputs.iter().flatten().copied().collect();
    for output in &mut scan.outputs[states..] {
        *output = output.map(|_| fresh(outer));
    }
    outer.nodes.push(scan.clone());
    let rest = push_op(outer, "Sub", &[steps, length], &[]);
    let pads = push_op(outer, "Concat", &[zero, rest], &[("axis", Attr::Int(0))]);
    for (short, full) in scan.outputs.iter().zip(results).skip(states) {
        let inputs = vec![*short, Some(pads), None, Some(zero)];
        outer.nodes.push(Node { op: "Pad".into(), inputs, outputs: vec![Some(full)], ..Node::default() });
    }
}
