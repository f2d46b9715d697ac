//! Upsample and Resize.

use isobit_tensor::Tensor;

use super::forms::{set_input, take_float};
use super::{Rewriter, fresh};
use crate::{Attr, GraphError, Node};

pub(super) fn upsample(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    let (height, width) = (take_float(node, "height_scale"), take_float(node, "width_scale"));
    let scales = match (node.attrs.remove("scales"), height, width) {
        (Some(Attr::Floats(scales)), _, _) => Some(scales),
        (_, Some(height), Some(width)) => Some(vec![1.0, 1.0, height, width]),
        _ => None,
    };
    if let Some(scales) = scales {
        let scales = r.constant(Tensor::vector(scales));
        set_input(node, 1, scales);
    }
    if node.inputs.get(1).copied().flatten().is_none() {
        return Err(r.error(node, "it has no scales"));
    }
    node.op = "Resize".into();
    asymmetric(node, "floor"); // scales are at least 1
    Ok(())
}

/// Resize-10 took (X, scales) and mapped coordinates asymmetrically. Its nearest neighbour lay below where an axis
/// grew and above where it shrank; the current form has one rule for all axes, so where both may be they are two steps.
pub(super) fn resize_10(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let &[Some(x), Some(scales)] = &node.inputs[..] else {
        return Err(r.error(&node, "it takes an input and scales"));
    };
    let nearest = !matches!(node.attrs.get("mode"), Some(Attr::String(m)) if m != b"nearest");
    let one_rule = match r.content(scales).and_then(|t| t.as_slice::<f32>().ok()) {
        _ if !nearest => Some("floor"),
        Some(scales) if scales.iter().all(|&s| s >= 1.0) => Some("floor"),
        Some(scales) if scales.iter().all(|&s| s <= 1.0) => Some("ceil"),
        _ => None,
    };
    if let Some(rule) = one_rule {
        asymmetric(&mut node, rule);
        r.push(node);
        return Ok(());
    }
    let one = r.constant(Tensor::scalar(1.0f32));
    let (growing, shrinking) = (r.op("Max", &[scales, one], &[]), r.op("Min", &[scales, one], &[]));
    let grown = fresh(r.graph);
    let mut first = Node { inputs: vec![Some(x), Some(growing)], outputs: vec![Some(grown)], ..node.clone() };
    asymmetric(&mut first, "floor");
    r.push(first);
    node.inputs = vec![Some(grown), Some(shrinking)];
    asymmetric(&mut node, "ceil");
    r.push(node);
    Ok(())
}

fn asymmetric(node: &mut Node, nearest: &str) {
    let scales = node.inputs.get(1).copied().flatten();
    node.inputs.truncate(1);
    node.inputs.extend([None, scales]);
    let text = |s: &str| Attr::String(s.as_bytes().to_vec());
    node.attrs.insert("coordinate_transformation_mode".into(), text("asymmetric"));
    node.attrs.insert("nearest_mode".into(), text(nearest));
    if matches!(node.attrs.get("mode"), Some(Attr::String(m)) if m == b"bilinear") {
        node.attrs.insert("mode".into(), text("linear"));
    }
}

/// Resize-11 wanted operands even where they mean nothing: a roi without cropping, empty scales beside sizes.
pub(super) fn resize_18(r: &Rewriter<'_>, node: &mut Node) {
    let crops = matches!(
        node.attrs.get("coordinate_transformation_mode"),
        Some(Attr::String(m)) if m == b"tf_crop_and_resize"
    );
    for (i, input) in node.inputs.iter_mut().enumerate().skip(1) {
        let empty = input.and_then(|v| r.content(v)).is_some_and(Tensor::is_empty);
        if empty || i == 1 && !crops {
            *input = None;
        }
    }
    while node.inputs.len() > 1 && node.inputs.last() == Some(&None) {
        node.inputs.pop();
    }
}
