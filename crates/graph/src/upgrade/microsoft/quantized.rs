//! Quantised operators: dequantised, computed, quantised again.

use isobit_tensor::{DType, Tensor};

use super::Call;
use crate::{Attr, GraphError, ValueId};

type Done = Result<(), GraphError>;

/// Operands `i`, `i + 1`, `i + 2`: numbers, scale, zero point.
fn dequantised(c: &mut Call<'_, '_>, i: usize) -> Result<ValueId, GraphError> {
    let (x, scale) = (c.need(i)?, c.need(i + 1)?);
    match c.input(i + 2) {
        Some(zero) => Ok(c.op("DequantizeLinear", &[x, scale, zero], &[])),
        None => Ok(c.op("DequantizeLinear", &[x, scale], &[])),
    }
}

/// Result 0: `y` with the scale and zero point in operands `i` and `i + 1`.
fn quantised(c: &mut Call<'_, '_>, y: ValueId, i: usize) -> Done {
    let scale = c.need(i)?;
    let inputs: Vec<ValueId> = [Some(y), Some(scale), c.input(i + 1)].into_iter().flatten().collect();
    c.result(0, "QuantizeLinear", &inputs, &[]);
    Ok(())
}

pub(super) fn binary(c: &mut Call<'_, '_>, op: &str) -> Done {
    let (a, b) = (dequantised(c, 0)?, dequantised(c, 3)?);
    let y = c.op(op, &[a, b], &[]);
    quantised(c, y, 6)
}

pub(super) fn unary(c: &mut Call<'_, '_>, op: &str) -> Done {
    let x = dequantised(c, 0)?;
    let alpha = c.float("alpha").map(|a| ("alpha", Attr::Float(a)));
    let y = c.op(op, &[x], alpha.as_slice());
    quantised(c, y, 3)
}

pub(super) fn softmax(c: &mut Call<'_, '_>) -> Done {
    if c.int("opset", 13) < 13 {
        return Err(c.error("its softmax over flattened dimensions (opset below 13) has no equivalent"));
    }
    let x = dequantised(c, 0)?;
    let axis = c.int("axis", -1);
    let y = c.op("Softmax", &[x], &[("axis", Attr::Int(axis))]);
    quantised(c, y, 3)
}

pub(super) fn pool(c: &mut Call<'_, '_>, op: &str) -> Done {
    if c.int("channels_last", 0) != 0 {
        return Err(c.error("channels_last has no equivalent; export with channels first"));
    }
    let x = dequantised(c, 0)?;
    c.attrs.remove("channels_last");
    let y = c.op(op, &[x], &[]);
    let attrs = std::mem::take(&mut c.attrs);
    if let Some(node) = c.r.graph.nodes.last_mut() {
        node.attrs = attrs;
    }
    quantised(c, y, 3)
}

/// Operands: the result's scale and zero point, then three for each part.
pub(super) fn concat(c: &mut Call<'_, '_>) -> Done {
    let mut parts = Vec::new();
    for i in (2..c.inputs.len()).step_by(3) {
        parts.push(dequantised(c, i)?);
    }
    let axis = c.int("axis", 0);
    let y = c.op("Concat", &parts, &[("axis", Attr::Int(axis))]);
    quantised(c, y, 0)
}

/// MatMulInteger as float, times the product of the scales, plus the bias.
fn scaled(c: &mut Call<'_, '_>, operands: [Option<ValueId>; 4], scales: [ValueId; 2], bias: usize) {
    let product = c.many("MatMulInteger", operands.to_vec(), &[], 1)[0];
    let float = c.op("Cast", &[product], &[("to", Attr::Int(DType::F32.onnx().into()))]);
    let scale = c.op("Mul", &scales, &[]);
    match c.input(bias) {
        None => c.result(0, "Mul", &[float, scale], &[]),
        Some(bias) => {
            let y = c.op("Mul", &[float, scale], &[]);
            c.result(0, "Add", &[y, bias], &[]);
        }
    }
}

pub(super) fn dynamic_matmul(c: &mut Call<'_, '_>) -> Done {
    let (a, b, b_scale) = (c.need(0)?, c.need(1)?, c.need(2)?);
    let quantised = c.many("DynamicQuantizeLinear", vec![Some(a)], &[], 3);
    let operands = [Some(quantised[0]), Some(b), Some(quantised[2]), c.input(3)];
    scaled(c, operands, [quantised[1], b_scale], 4);
    Ok(())
}

pub(super) fn integer_matmul(c: &mut Call<'_, '_>) -> Done {
    let (a, b, a_scale, b_scale) = (c.need(0)?, c.need(1)?, c.need(2)?, c.need(3)?);
    let operands = [Some(a), Some(b), c.input(4), c.input(5)];
    scaled(c, operands, [a_scale, b_scale], 6);
    Ok(())
}

/// Constant bytes read as a tensor of 4 or 8 bits, low bits first, which is how ONNX packs them.
fn packed(c: &Call<'_, '_>, v: ValueId, bits: i64, shape: &[usize]) -> Option<Tensor> {
    let bytes = c.r.content(v)?.as_slice::<u8>().ok()?;
    let dtype = if bits == 4 { DType::U4 } else { DType::U8 };
    Tensor::from_le_bytes(dtype, shape, bytes).ok()
}

/// A times the transpose of a matrix [N, K] of 4 or 8 bits with a scale and zero point for each block of K.
pub(super) fn matmul_bits(c: &mut Call<'_, '_>) -> Done {
    let (a, b, scales) = (c.need(0)?, c.need(1)?, c.need(2)?);
    let size = |c: &Call<'_, '_>, name: &str| {
        Some(c.int(name, 0)).filter(|n| (1..1 << 40).contains(n)).and_then(|n| usize::try_from(n).ok())
    };
    let bits = c.int("bits", 4);
    let (Some(n), Some(k), Some(block)) = (size(c, "N"), size(c, "K"), size(c, "block_size")) else {
        return Err(c.error("N, K and block_size must be positive"));
    };
    if !matches!(bits, 4 | 8) || c.input(4).is_some() {
        return Err(c.error("only 4 and 8 bits without g_idx have an equivalent; export with one of these"));
    }
    let blocks = k.div_ceil(block);
    let Some(weights) = packed(c, b, bits, &[n, blocks * block]) else {
        return Err(c.error("its weights are no constant of the size that N, K and block_size say"));
    };
    let weights = c.r.constant(weights);
    let grid = c.ints(&[n as i64, blocks as i64]);
    let scales = c.op("Reshape", &[scales, grid], &[]);
    let zeros = match c.input(3) {
        None => {
            let middle =
                vec![if bits == 4 { 0x88u8 } else { 0x80 }; (n * blocks * bits as usize).div_ceil(8)];
            let dtype = if bits == 4 { DType::U4 } else { DType::U8 };
            let zeros = Tensor::from_le_bytes(dtype, &[n, blocks], &trimmed(middle, bits, n * blocks));
            let zeros = zeros.map_err(|e| c.error(&e.to_string()))?;
            c.r.constant(zeros)
        }
        Some(given) => {
            // Rows are filled up to whole bytes.
            let row = (blocks * bits as usize).div_ceil(8) * 8 / bits as usize;
            let Some(zeros) = packed(c, given, bits, &[n, row]) else {
                return Err(c.error("its zero points are no constant of packed integers"));
            };
            let zeros = c.r.constant(zeros);
            slice(c, zeros, blocks)
        }
    };
    let attrs = [("axis", Attr::Int(1)), ("block_size", Attr::Int(block as i64))];
    let wide = c.op("DequantizeLinear", &[weights, scales, zeros], &attrs);
    let wide = slice(c, wide, k);
    let turned = c.op("Transpose", &[wide], &[("perm", Attr::Ints(vec![1, 0]))]);
    match c.input(5) {
        None => c.result(0, "MatMul", &[a, turned], &[]),
        Some(bias) => {
            let y = c.op("MatMul", &[a, turned], &[]);
            c.result(0, "Add", &[y, bias], &[]);
        }
    }
    Ok(())
}

/// With the unused half of the last byte 0.
fn trimmed(mut bytes: Vec<u8>, bits: i64, count: usize) -> Vec<u8> {
    if bits == 4
        && count % 2 == 1
        && let Some(last) = bytes.last_mut()
    {
        *last &= 15;
    }
    bytes
}

/// The first `n` columns.
fn slice(c: &mut Call<'_, '_>, x: ValueId, n: usize) -> ValueId {
    let (zero, end, axis) = (c.ints(&[0]), c.ints(&[n as i64]), c.ints(&[1]));
    c.op("Slice", &[x, zero, end, axis], &[])
}
