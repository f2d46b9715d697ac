//! Quantised operators: dequantised, computed, quantised again.

use isobit_tensor::{DType, Tensor};

use super::Call;
use super::dense::flat_softmax;
use crate::{Attr, GraphError, ValueId};

type Done = Result<(), GraphError>;

/// Operands `i`, `i + 1`, `i + 2`: numbers, scale, zero point.
pub(super) fn dequantised(c: &mut Call<'_, '_>, i: usize) -> Result<ValueId, GraphError> {
    let (x, scale) = (c.need(i)?, c.need(i + 1)?);
    match c.input(i + 2) {
        Some(zero) => Ok(c.op("DequantizeLinear", &[x, scale, zero], &[])),
        None => Ok(c.op("DequantizeLinear", &[x, scale], &[])),
    }
}

/// Result 0: `y` with the scale and zero point in operands `i` and `i + 1`.
pub(super) fn quantised(c: &mut Call<'_, '_>, y: ValueId, i: usize) -> Done {
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

/// Before opset 13 over all dimensions from the axis on.
pub(super) fn softmax(c: &mut Call<'_, '_>) -> Done {
    let x = dequantised(c, 0)?;
    let axis = c.int("axis", -1);
    let y = if c.int("opset", 13) < 13 {
        flat_softmax(c, x, axis)
    } else {
        c.op("Softmax", &[x], &[("axis", Attr::Int(axis))])
    };
    quantised(c, y, 3)
}

pub(super) fn mean(c: &mut Call<'_, '_>) -> Done {
    let x = dequantised(c, 0)?;
    let attrs = [("keepdims", Attr::Int(c.int("keepdims", 1)))];
    let mut inputs = vec![x];
    if let Some(Attr::Ints(axes)) = c.attrs.get("axes").cloned() {
        inputs.push(c.ints(&axes));
    }
    let y = c.op("ReduceMean", &inputs, &attrs);
    quantised(c, y, 3)
}

/// Where.
pub(super) fn choice(c: &mut Call<'_, '_>) -> Done {
    let (condition, x, y) = (c.need(0)?, dequantised(c, 1)?, dequantised(c, 4)?);
    let y = c.op("Where", &[condition, x, y], &[]);
    quantised(c, y, 7)
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

fn to_float(c: &mut Call<'_, '_>, x: ValueId) -> ValueId {
    c.op("Cast", &[x], &[("to", Attr::Int(DType::F32.onnx().into()))])
}

/// MatMulInteger as float, times the product of the scales.
fn product(c: &mut Call<'_, '_>, operands: [Option<ValueId>; 4], scales: [ValueId; 2]) -> ValueId {
    let product = c.many("MatMulInteger", operands.to_vec(), &[], 1)[0];
    let float = to_float(c, product);
    let scale = c.op("Mul", &scales, &[]);
    c.op("Mul", &[float, scale], &[])
}

/// Result 0: [`product`] plus the bias.
fn scaled(c: &mut Call<'_, '_>, operands: [Option<ValueId>; 4], scales: [ValueId; 2], bias: usize) {
    let y = product(c, operands, scales);
    match c.input(bias) {
        None => c.result(0, "Identity", &[y], &[]),
        Some(bias) => c.result(0, "Add", &[y, bias], &[]),
    }
}

/// A, scale, zero point, B, scale, zero point, C, the result's scale and zero point; without these it is float.
pub(super) fn gemm(c: &mut Call<'_, '_>) -> Done {
    let (mut a, mut b) = (c.need(0)?, c.need(3)?);
    let (a_scale, b_scale) = (c.need(1)?, c.need(4)?);
    for (name, x) in [("transA", &mut a), ("transB", &mut b)] {
        if c.int(name, 0) != 0 {
            *x = c.op("Transpose", &[*x], &[("perm", Attr::Ints(vec![1, 0]))]);
        }
    }
    let mut sum = c.many("MatMulInteger", vec![Some(a), Some(b), c.input(2), c.input(5)], &[], 1)[0];
    sum = c.plus(sum, 6);
    let alpha = c.float("alpha").unwrap_or(1.0);
    let alpha = c.number(alpha, a_scale);
    let scale = c.op("Mul", &[a_scale, b_scale], &[]);
    let scale = c.op("Mul", &[scale, alpha], &[]);
    let float = to_float(c, sum);
    if c.input(7).is_none() {
        c.result(0, "Mul", &[float, scale], &[]);
        return Ok(());
    }
    let y = c.op("Mul", &[float, scale], &[]);
    quantised(c, y, 7)
}

/// Input, weights, bias, scale of both, mask, zero point of both, past.
pub(super) fn attention(c: &mut Call<'_, '_>) -> Done {
    let (x, weights, scales) = (c.need(0)?, c.need(1)?, [c.need(3)?, c.need(4)?]);
    let y = product(c, [Some(x), Some(weights), c.input(6), c.input(7)], scales);
    let y = c.plus(y, 2);
    let others = [c.input(5), c.input(8), None];
    super::attention::of_packed(c, y, others)
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

/// The type of packed integers of 4 or 8 bits.
fn unsigned(bits: i64) -> DType {
    if bits == 4 { DType::U4 } else { DType::U8 }
}

/// Constant bytes read as a tensor of 4 or 8 bits, low bits first, which is how ONNX packs them.
fn packed(c: &Call<'_, '_>, v: ValueId, bits: i64, shape: &[usize]) -> Option<Tensor> {
    let bytes = c.r.content(v)?.as_slice::<u8>().ok()?;
    Tensor::from_le_bytes(unsigned(bits), shape, bytes).ok()
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
            let zeros =
                Tensor::from_le_bytes(unsigned(bits), &[n, blocks], &trimmed(middle, bits, n * blocks));
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

/// Rows, or slices along `gather_axis`, of numbers with a scale and zero point for each block of another axis.
pub(super) fn gather(c: &mut Call<'_, '_>) -> Done {
    let (mut data, indices, scales) = (c.need(0)?, c.need(1)?, c.need(2)?);
    let mut zeros = c.input(3);
    let Some(rank) = c.r.rank(data).or_else(|| c.r.content(data).map(|t| t.shape().len())) else {
        return Err(c.error("the rank of its data must be declared"));
    };
    let Some(added) = c.r.rank(indices) else {
        return Err(c.error("the rank of its indices must be declared"));
    };
    let axis = |name: &str, default: i64| {
        let axis = c.int(name, default);
        let axis = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(axis)
            .ok()
            .filter(|&a| a < rank)
            .ok_or_else(|| c.error(&format!("{name} is out of range")))
    };
    let (along, blocked) = (axis("gather_axis", 0)?, axis("quantize_axis", 1)?);
    if along == blocked {
        return Err(c.error("gather_axis and quantize_axis must differ"));
    }
    if c.r.content(data).is_some_and(|t| t.dtype() == DType::U8) {
        // Two in a byte where they have 4 bits.
        let bits = c.int("bits", 4);
        if !matches!(bits, 4 | 8) || blocked + 1 != rank {
            return Err(c.error(
                "only 4 and 8 bits, blocked along the last axis, have an equivalent; export with these",
            ));
        }
        let unpacked = |c: &Call<'_, '_>, v: ValueId| {
            let mut shape = c.r.content(v)?.shape().to_vec();
            *shape.last_mut()? *= usize::try_from(8 / bits).ok()?;
            packed(c, v, bits, &shape)
        };
        let Some(numbers) = unpacked(c, data) else {
            return Err(c.error("its data is no constant of packed integers"));
        };
        data = c.r.constant(numbers);
        zeros = Some(match zeros {
            Some(given) => {
                let Some(all) = unpacked(c, given) else {
                    return Err(c.error("its zero points are no constant of packed integers"));
                };
                let all = c.r.constant(all);
                // An odd number of them leaves half a byte.
                let (zero, end, last) = (c.ints(&[0]), c.extents(scales, -1, i64::MAX), c.ints(&[-1]));
                c.op("Slice", &[all, zero, end, last], &[])
            }
            None => {
                let middle = Tensor::from_le_bytes(unsigned(bits), &[1], &[if bits == 4 { 8 } else { 128 }]);
                let middle = middle.map_err(|e| c.error(&e.to_string()))?;
                let middle = c.r.constant(middle);
                let shape = c.op("Shape", &[scales], &[]);
                c.op("Expand", &[middle, shape], &[])
            }
        });
    }
    let attrs = [("axis", Attr::Int(along as i64))];
    let mut inputs = vec![data, scales];
    inputs.extend(zeros);
    let chosen: Vec<ValueId> = inputs.iter().map(|&x| c.op("Gather", &[x, indices], &attrs)).collect();
    // Where the blocked axis is after the indices' dimensions have taken the place of one.
    let axis = if blocked > along { blocked + added - 1 } else { blocked };
    let attrs = [("axis", Attr::Int(axis as i64)), ("block_size", Attr::Int(c.int("block_size", 128)))];
    c.result(0, "DequantizeLinear", &chosen, &attrs);
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
