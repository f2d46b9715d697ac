//! The rules, by operator. A version in a condition is the first whose form is the current one.

use isobit_tensor::{DType, Tensor, bf16, f16};

use super::{Rewriter, norm, resize, scan};
use crate::{Attr, Dim, GraphError, Node, ValueId};

pub(super) fn upgrade(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let v = r.opset;
    if v < 6 {
        node.attrs.remove("consumed_inputs"); // a hint for in-place execution
    }
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
        "Pad" if v < 11 => pad(r, &mut node)?,
        "Clip" if v < 11 => clip(r, &mut node)?,
        "TopK" if v < 10 => {
            let k = take_int(&mut node, "k").ok_or_else(|| r.error(&node, "it has no k"))?;
            let k = r.ints(&[k]);
            node.inputs.push(Some(k));
        }
        "Dropout" if v < 12 => {
            node.attrs.clear(); // ratio matters in training only, which these versions do not do
        }
        "BatchNormalization" if v < 14 => return norm::batch(r, node),
        "Softmax" | "LogSoftmax" | "Hardmax" if v < 13 => return flat_softmax(r, node),
        "Upsample" => resize::upsample(r, &mut node)?,
        "Resize" if v < 11 => return resize::resize_10(r, node),
        "Resize" if v < 19 => resize::resize_18(r, &mut node),
        "Scatter" => node.op = "ScatterElements".into(),
        "Cast" if v < 6 => cast_1(r, &mut node)?,
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "And" | "Or" | "Xor" | "Equal" | "Less" | "Greater"
            if v < 7 =>
        {
            legacy_broadcast(r, &mut node)?;
        }
        "PRelu" if v < 7 => prelu(r, &mut node)?,
        "Gemm" if v < 7 => {
            node.attrs.remove("broadcast");
        }
        "LSTM" | "GRU" | "RNN" if v < 7 => {
            node.attrs.remove("output_sequence");
        }
        "GroupNormalization" if v < 21 => norm::group(r, &mut node)?,
        "Concat" if v < 4 => {
            node.attrs.entry("axis".into()).or_insert(Attr::Int(1));
        }
        "Tile" if v < 6 => tile_1(r, &mut node)?,
        "LpPool" | "GlobalLpPool" if v < 2 => integral_p(r, &mut node)?,
        "MeanVarianceNormalization" if v < 9 => {
            return Err(r.error(&node, "across_channels and normalize_variance have no current form"));
        }
        "Scan" if v < 9 => return scan::batched(r, node),
        "RoiAlign" if v < 16 => {
            node.attrs
                .entry("coordinate_transformation_mode".into())
                .or_insert(Attr::String(b"output_half_pixel".to_vec()));
        }
        "GridSample" if v < 20 => grid_sample(&mut node),
        "DFT" if v < 20 => {
            let axis = take_int(&mut node, "axis").unwrap_or(1);
            let axis = r.constant(Tensor::scalar(axis));
            set_input(&mut node, 2, axis);
        }
        _ => {}
    }
    r.push(node);
    Ok(())
}

/// (X, tiles, axis), both of one number, became (X, repeats): ones, and the tiles at the axis.
fn tile_1(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    let &[Some(x), Some(tiles), Some(axis)] = &node.inputs[..] else {
        return Err(r.error(node, "it takes an input, tiles and an axis"));
    };
    let one = r.ints(&[1]);
    let mut number = |v: ValueId| {
        let v = r.op("Reshape", &[v, one], &[]);
        r.op("Cast", &[v], &[("to", Attr::Int(DType::I64.onnx().into()))])
    };
    let (tiles, axis) = (number(tiles), number(axis));
    let rank = r.op("Shape", &[x], &[]);
    let rank = r.op("Shape", &[rank], &[]);
    let ones = r.op("Expand", &[one, rank], &[]);
    let repeats = r.op("ScatterElements", &[ones, axis, tiles], &[("axis", Attr::Int(0))]);
    node.inputs = vec![Some(x), Some(repeats)];
    Ok(())
}

/// An attribute of integers that became an input.
fn ints_to_input(r: &mut Rewriter<'_>, node: &mut Node, name: &str, at: usize) {
    if let Some(Attr::Ints(values)) = node.attrs.remove(name) {
        let input = r.ints(&values);
        set_input(node, at, input);
    }
}

pub(super) fn set_input(node: &mut Node, at: usize, input: ValueId) {
    if node.inputs.len() <= at {
        node.inputs.resize(at + 1, None);
    }
    node.inputs[at] = Some(input);
}

pub(super) fn take_int(node: &mut Node, name: &str) -> Option<i64> {
    match node.attrs.remove(name) {
        Some(Attr::Int(v)) => Some(v),
        _ => None,
    }
}

pub(super) fn take_float(node: &mut Node, name: &str) -> Option<f32> {
    match node.attrs.remove(name) {
        Some(Attr::Float(v)) => Some(v),
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

fn pad(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    ints_to_input(r, node, "paddings", 1);
    ints_to_input(r, node, "pads", 1);
    // Zero of any type is what is padded with anyway.
    match take_float(node, "value") {
        Some(value) if value.to_bits() != 0 => float_to_input(r, node, value, 2),
        _ => Ok(()),
    }
}

fn clip(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    for (at, name) in [(1, "min"), (2, "max")] {
        if let Some(value) = take_float(node, name) {
            float_to_input(r, node, value, at)?;
        }
    }
    Ok(())
}

/// An attribute that became an input of the operand's type; float32 where that is not declared, so that a wrong
/// guess is a type error and never a wrong number.
fn float_to_input(r: &mut Rewriter<'_>, node: &mut Node, value: f32, at: usize) -> Result<(), GraphError> {
    let dtype = node.inputs.first().copied().flatten().and_then(|x| r.dtype(x));
    let tensor = match dtype.unwrap_or(DType::F32) {
        DType::F32 => Tensor::scalar(value),
        DType::F64 => Tensor::scalar(f64::from(value)),
        DType::F16 => Tensor::scalar(f16::from_f32(value)),
        DType::BF16 => Tensor::scalar(bf16::from_f32(value)),
        other => return Err(r.error(node, &format!("a float attribute beside a {other} operand"))),
    };
    let input = r.constant(tensor);
    set_input(node, at, input);
    Ok(())
}

fn integral_p(r: &Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    if let Some(p) = take_float(node, "p") {
        if p.fract() != 0.0 || !(1.0..=64.0).contains(&p) {
            return Err(r.error(node, "p is not a small whole number"));
        }
        node.attrs.insert("p".into(), Attr::Int(p as i64));
    }
    Ok(())
}

fn grid_sample(node: &mut Node) {
    if let Some(Attr::String(mode)) = node.attrs.get_mut("mode") {
        match mode.as_slice() {
            b"bilinear" => *mode = b"linear".to_vec(),
            b"bicubic" => *mode = b"cubic".to_vec(),
            _ => {}
        }
    }
}

/// Before opset 7 a slope of several elements was one a channel, axis 1; now it is aligned at the end.
fn prelu(r: &mut Rewriter<'_>, node: &mut Node) -> Result<(), GraphError> {
    let (Some(&Some(x)), Some(&Some(slope))) = (node.inputs.first(), node.inputs.get(1)) else {
        return Err(r.error(node, "it has fewer than two operands"));
    };
    let shared = r.shape(slope) == Some(&[Dim::Known(1)]);
    if shared || r.rank(slope) == Some(0) {
        return Ok(());
    }
    let rank = r.rank(x).ok_or_else(|| r.error(node, "its operand's rank is not declared"))?;
    if r.rank(slope) != Some(1) || rank < 2 {
        return Err(r.error(node, "its slope is not one number a channel"));
    }
    let axes: Vec<i64> = (1..rank as i64 - 1).collect();
    if !axes.is_empty() {
        let axes = r.ints(&axes);
        node.inputs[1] = Some(r.op("Unsqueeze", &[slope, axes], &[]));
    }
    Ok(())
}

/// Before opset 13 the input was seen as a matrix, cut at `axis`. The matrix is spelled out even where a declared
/// rank shows that it is the input itself: a declaration more or less must not change the canonical form.
fn flat_softmax(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let axis = take_int(&mut node, "axis").unwrap_or(1);
    let (Some(&Some(x)), Some(&Some(y))) = (node.inputs.first(), node.outputs.first()) else {
        return Err(r.error(&node, "it has no operand or no result"));
    };
    if axis == -1 {
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
