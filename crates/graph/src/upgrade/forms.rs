//! The rules, by operator. A version in a condition is the first whose form is the current one.

use isobit_tensor::{DType, Tensor};

use super::Rewriter;
use crate::{Attr, GraphError, Node, ValueId};

pub(super) fn upgrade(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let v = r.opset;
    match node.op.as_str() {
        "Squeeze" | "Unsqueeze" | "ReduceSum" if v < 13 => ints_to_input(r, &mut node, "axes", 1),
        "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
        | "ReduceLogSum" | "ReduceLogSumExp" | "ReduceSumSquare"
            if v < 18 =>
        {
            ints_to_input(r, &mut node, "axes", 1);
        }
        "Split" if v < 18 => split(r, &mut node),
        "Reshape" if v < 5 => ints_to_input(r, &mut node, "shape", 1),
        "Slice" if v < 10 => slice(r, &mut node),
        "Pad" if v < 11 => pad(r, &mut node),
        "Clip" if v < 11 => clip(r, &mut node)?,
        "TopK" if v < 10 => {
            let k = take_int(&mut node, "k").ok_or_else(|| r.error(&node, "it has no k"))?;
            let k = r.ints(&[k]);
            node.inputs.push(Some(k));
        }
        "Dropout" if v < 12 => {
            node.attrs.clear(); // ratio matters in training only, which these versions do not do
        }
        "BatchNormalization" if v < 14 => batch_norm(r, &mut node)?,
        "Softmax" | "LogSoftmax" | "Hardmax" if v < 13 => return flat_softmax(r, node),
        "Upsample" => upsample(r, &mut node)?,
        "Resize" if v < 11 => resize_10(&mut node),
        "Resize" if v < 19 => resize_18(&mut node, v),
        "Scatter" => node.op = "ScatterElements".into(),
        "Cast" if v < 6 => cast_1(r, &mut node)?,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "And" | "Or" | "Xor" | "Equal" | "Less" | "Greater"
        | "PRelu"
            if v < 7 =>
        {
            legacy_broadcast(r, &mut node)?;
        }
        "Gemm" if v < 7 => {
            node.attrs.remove("broadcast");
        }
        "LSTM" | "GRU" | "RNN" if v < 7 => {
            node.attrs.remove("output_sequence");
        }
        "GroupNormalization" if v < 21 => {
            return Err(
                r.error(&node, "its scale is per group before opset 21; export with opset 21 or newer")
            );
        }
        _ => {}
    }
    r.push(node);
    Ok(())
}

/// An attribute of integers that became an input.
fn ints_to_input(r: &mut Rewriter<'_>, node: &mut Node, name: &str, at: usize) {
    if let Some(Attr::Ints(values)) = node.attrs.remove(name) {
        let input = r.ints(&values);
        set_input(node, at, input);
    }
}

fn set_input(node: &mut Node, at: usize, input: ValueId) {
    if node.inputs.len() <= at {
        node.inputs.resize(at + 1, None);
    }
    node.inputs[at] = Some(input);
}

fn take_int(node: &mut Node, name: &str) -> Option<i64> {
    match node.attrs.remove(name) {
        Some(Attr::Int(v)) => Some(v),
        _ => None,
    }
}

fn split(r: &mut Rewriter<'_>, node: &mut Node) {
    ints_to_input(r, node, "split", 1);
    if node.inputs.get(1).copied().flatten().is_none() {
        node.inputs.truncate(1);
        node.attrs.insert("num_outputs".into(), Attr::Int(node.outputs.len() as i64));
    }
}

fn slice(r: &mut Rewriter<'_>, node: &mut Node) {
    ints_to_input(r, node, "starts", 1);
    ints_to_input(r, node, "ends", 2);
    ints_to_input(r, node, "axes", 3);
}

fn pad(r: &mut Rewriter<'_>, node: &mut Node) {
    ints_to_input(r, node, "paddings", 1);
    ints_to_input(r, node, "pads", 1);
    if let Some(Attr::Float(value)) = node.attrs.remove("value") {
        let value = r.constant(Tensor::scalar(value));
        set_input(node, 2, value);
    }
}

fn clip(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    let dtype = node.inputs.first().copied().flatten().and_then(|x| r.graph.value(x).dtype);
    if dtype.is_some_and(|d| d != DType::F32) {
        return Err(r.error(node, "bounds of another type than float32; export with opset 11 or newer"));
    }
    for (at, name) in [(1, "min"), (2, "max")] {
        if let Some(Attr::Float(value)) = node.attrs.remove(name) {
            let value = r.constant(Tensor::scalar(value));
            set_input(node, at, value);
        }
    }
    Ok(())
}

fn batch_norm(r: &Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    if take_int(node, "spatial") == Some(0) {
        return Err(r.error(node, "spatial=0 normalises each position apart"));
    }
    if r.opset < 7 && take_int(node, "is_test") != Some(1) {
        return Err(r.error(node, "it is in training mode; export for inference"));
    }
    node.attrs.remove("consumed_inputs");
    node.outputs.truncate(1);
    Ok(())
}

/// Before opset 13 the input was seen as a matrix, cut at `axis`; equal to the current form only on the last axis.
fn flat_softmax(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let axis = take_int(&mut node, "axis").unwrap_or(1);
    let (Some(&Some(x)), Some(&Some(y))) = (node.inputs.first(), node.outputs.first()) else {
        return Err(r.error(&node, "it has no operand or no result"));
    };
    let last = r.rank(x).map(|rank| axis == -1 || axis == rank as i64 - 1);
    if axis == -1 || last == Some(true) {
        node.attrs.insert("axis".into(), Attr::Int(-1));
        r.push(node);
        return Ok(());
    }
    let shape = r.op("Shape", &[x], &[]);
    let flat = r.op("Flatten", &[x], &[("axis", Attr::Int(axis))]);
    let flat = r.op(&node.op, &[flat], &[("axis", Attr::Int(-1))]);
    r.push(Node {
        op: "Reshape".into(),
        name: node.name,
        inputs: vec![Some(flat), Some(shape)],
        outputs: vec![Some(y)],
        // A zero extent means zero here, not "as the operand".
        attrs: [("allowzero".to_owned(), Attr::Int(1))].into(),
        ..Node::default()
    });
    Ok(())
}

fn upsample(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    if let Some(Attr::Floats(scales)) = node.attrs.remove("scales") {
        let scales = r.constant(Tensor::vector(scales));
        set_input(node, 1, scales);
    }
    if node.inputs.get(1).copied().flatten().is_none() {
        return Err(r.error(node, "it has no scales"));
    }
    node.op = "Resize".into();
    resize_10(node);
    Ok(())
}

/// Resize-10 took (X, scales) and mapped coordinates asymmetrically.
fn resize_10(node: &mut Node) {
    let scales = node.inputs.get(1).copied().flatten();
    node.inputs.truncate(1);
    node.inputs.push(None);
    node.inputs.push(scales);
    let text = |s: &str| Attr::String(s.as_bytes().to_vec());
    node.attrs.insert("coordinate_transformation_mode".into(), text("asymmetric"));
    node.attrs.entry("mode".into()).or_insert_with(|| text("nearest"));
    node.attrs.insert("nearest_mode".into(), text("floor"));
    if matches!(node.attrs.get("mode"), Some(Attr::String(m)) if m == b"bilinear") {
        node.attrs.insert("mode".into(), text("linear"));
    }
}

fn resize_18(node: &mut Node, version: i64) {
    // Resize-11 wants a roi operand even where it means nothing; an empty one is none.
    let cropping = matches!(
        node.attrs.get("coordinate_transformation_mode"),
        Some(Attr::String(m)) if m == b"tf_crop_and_resize"
    );
    if version < 13 && !cropping && node.inputs.len() > 1 {
        node.inputs[1] = None;
    }
}

fn cast_1(r: &Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    if let Some(Attr::String(name)) = node.attrs.get("to") {
        let wanted = String::from_utf8_lossy(name).to_lowercase();
        let wanted = match wanted.as_str() {
            "float" => "float32",
            "double" => "float64",
            other => other,
        };
        let dtype = DType::ALL.iter().find(|d| d.name() == wanted);
        let dtype = dtype.ok_or_else(|| r.error(node, "its target type is unknown"))?;
        node.attrs.insert("to".into(), Attr::Int(i64::from(dtype.onnx())));
    }
    Ok(())
}

/// Before opset 7 broadcasting was asked for, and aligned the right operand at `axis` instead of at the end.
fn legacy_broadcast(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    let broadcast = take_int(node, "broadcast").unwrap_or(0) != 0;
    let axis = take_int(node, "axis");
    node.attrs.remove("consumed_inputs");
    let (Some(axis), true) = (axis, broadcast) else { return Ok(()) };
    let (Some(&Some(a)), Some(&Some(b))) = (node.inputs.first(), node.inputs.get(1)) else {
        return Err(r.error(node, "it has fewer than two operands"));
    };
    let (Some(ra), Some(rb)) = (r.rank(a), r.rank(b)) else {
        return Err(r.error(node, "its operands' ranks are not declared"));
    };
    let axis = if axis < 0 { axis + ra as i64 } else { axis };
    let after = ra as i64 - axis - rb as i64;
    if after > 0 {
        let axes: Vec<i64> = (0..after).map(|i| rb as i64 + i).collect();
        let axes = r.ints(&axes);
        let b = r.op("Unsqueeze", &[b, axes], &[]);
        node.inputs[1] = Some(b);
    }
    Ok(())
}
