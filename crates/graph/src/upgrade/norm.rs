//! Normalisations.

use super::Rewriter;
use super::forms::take_int;
use crate::{Attr, GraphError, Node, ValueId};

pub(super) fn batch(r: &Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    if take_int(node, "spatial") == Some(0) {
        return Err(r.error(node, "spatial=0 normalises each position apart"));
    }
    if take_int(node, "is_test") != Some(1) && r.opset < 7 {
        return Err(r.error(node, "it is in training mode; export for inference"));
    }
    node.attrs.remove("consumed_inputs");
    node.outputs.truncate(1);
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
