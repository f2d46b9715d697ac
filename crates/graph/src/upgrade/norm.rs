//! Normalisations.

use isobit_tensor::Tensor;

use super::Rewriter;
use super::forms::{take_float, take_int};
use crate::{Attr, GraphError, Node, ValueId};

/// Before version 14 a node was in training where it did not say that it was a test (before 7), or had results beside the first.
pub(super) fn batch(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let is_spatial = take_int(&mut node, "spatial") != Some(0);
    let is_test = take_int(&mut node, "is_test") == Some(1);
    let wants = |i: usize| node.outputs.get(i).is_some_and(Option::is_some);
    let trains = if r.opset < 7 { !is_test } else { (1..5).any(wants) };
    node.attrs.remove("consumed_inputs");
    if !trains {
        node.outputs.truncate(1);
        if !is_spatial {
            return by_position(r, node);
        }
    } else if !is_spatial || wants(3) || wants(4) {
        return Err(r.error(
            &node,
            "it trains with spatial=0 or wants saved_mean or saved_var; export for inference",
        ));
    } else {
        node.attrs.insert("training_mode".into(), Attr::Int(1));
        node.outputs.resize(3, None);
    }
    r.push(node);
    Ok(())
}

/// With `spatial` 0 each position has its own scale, bias, mean and variance: (x - mean) * (scale / sqrt(var + epsilon)) + bias.
fn by_position(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let epsilon = take_float(&mut node, "epsilon").unwrap_or(1e-5);
    let &[Some(x), Some(scale), Some(bias), Some(mean), Some(var)] = &node.inputs[..] else {
        return Err(r.error(&node, "it has no scale, bias, mean or variance"));
    };
    let epsilon = r.constant(Tensor::scalar(epsilon));
    let epsilon = r.op("CastLike", &[epsilon, var], &[]);
    let sum = r.op("Add", &[var, epsilon], &[]);
    let root = r.op("Sqrt", &[sum], &[]);
    let factor = r.op("Div", &[scale, root], &[]);
    let centred = r.op("Sub", &[x, mean], &[]);
    let scaled = r.op("Mul", &[centred, factor], &[]);
    let inputs = vec![Some(scaled), Some(bias)];
    r.push(Node { op: "Add".into(), inputs, outputs: node.outputs, name: node.name, ..Node::default() });
    Ok(())
}

/// Scale and bias were one number a group before opset 21, now one a channel: each is repeated for its channels.
pub(super) fn group(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    let (&[Some(x), Some(scale), Some(bias)], Some(Attr::Int(groups))) =
        (&node.inputs[..], node.attrs.get("num_groups"))
    else {
        return Err(r.error(node, "it has no scale, bias or num_groups"));
    };
    let groups = r.ints(&[*groups]);
    let channels = r.op("Shape", &[x], &[("start", Attr::Int(1)), ("end", Attr::Int(2))]);
    let repeats = r.op("Div", &[channels, groups], &[]);
    let shape = r.op("Concat", &[groups, repeats], &[("axis", Attr::Int(0))]);
    let (second, flat) = (r.ints(&[1]), r.ints(&[-1]));
    let mut per_channel = |v: ValueId| {
        let column = r.op("Unsqueeze", &[v, second], &[]);
        let matrix = r.op("Expand", &[column, shape], &[]);
        Some(r.op("Reshape", &[matrix, flat], &[]))
    };
    let (scale, bias) = (per_channel(scale), per_channel(bias));
    node.inputs = vec![Some(x), scale, bias];
    Ok(())
}
