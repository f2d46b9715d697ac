//! Normalisations.

use isobit_tensor::Tensor;

use super::Call;
use crate::{Attr, GraphError};

type Done = Result<(), GraphError>;

fn epsilon(c: &Call<'_, '_>, default: f32) -> (&'static str, Attr) {
    ("epsilon", Attr::Float(c.float("epsilon").unwrap_or(default)))
}

/// RMSNormalization.
pub(super) fn simplified(c: &mut Call<'_, '_>) -> Done {
    if c.wanted(1) {
        return Err(c.error("its second result, the inverse deviation, has no equivalent"));
    }
    let (x, scale) = (c.need(0)?, c.need(1)?);
    let attrs = [epsilon(c, 1e-5), ("axis", Attr::Int(c.int("axis", -1)))];
    c.result(0, "RMSNormalization", &[x, scale], &attrs);
    Ok(())
}

/// A normalisation of (input + skip) + bias over the last axis; the sum is the fourth result.
pub(super) fn skip(c: &mut Call<'_, '_>, op: &str) -> Done {
    if c.wanted(1) || c.wanted(2) {
        return Err(c.error("its results mean and inverse deviation have no equivalent"));
    }
    let (x, skip, gamma) = (c.need(0)?, c.need(1)?, c.need(2)?);
    // RMSNormalization has no beta, so its bias comes one operand earlier.
    let (beta, bias) = if op == "RMSNormalization" { (None, 3) } else { (c.input(3), 4) };
    let sum = c.op("Add", &[x, skip], &[]);
    let sum = c.plus(sum, bias);
    let attrs = [epsilon(c, 1e-12), ("axis", Attr::Int(-1))];
    let inputs: Vec<_> = [Some(sum), Some(gamma), beta].into_iter().flatten().collect();
    c.result(0, op, &inputs, &attrs);
    c.result(3, "Identity", &[sum], &[]);
    Ok(())
}

/// LayerNormalization of (word + position) + segment embeddings; the sum is the third result, the tokens of each mask the second.
pub(super) fn embed(c: &mut Call<'_, '_>) -> Done {
    let (ids, words, positions) = (c.need(0)?, c.need(2)?, c.need(3)?);
    let word = c.op("Gather", &[words, ids], &[]);
    let at = match c.input(8) {
        Some(at) => at,
        None => {
            let length = c.extents(ids, 1, 2);
            let (none, zero, one) =
                (c.ints(&[]), c.r.constant(Tensor::scalar(0i64)), c.r.constant(Tensor::scalar(1i64)));
            let length = c.op("Reshape", &[length, none], &[]);
            c.op("Range", &[zero, length, one], &[])
        }
    };
    let position = c.op("Gather", &[positions, at], &[]);
    let mut sum = c.op("Add", &[word, position], &[]);
    if let (Some(segments), Some(table)) = (c.input(1), c.input(4)) {
        let segment = c.op("Gather", &[table, segments], &[]);
        sum = c.op("Add", &[sum, segment], &[]);
    }
    let (gamma, beta) = (c.need(5)?, c.need(6)?);
    let attrs = [epsilon(c, 1e-12), ("axis", Attr::Int(-1))];
    c.result(0, "LayerNormalization", &[sum, gamma, beta], &attrs);
    let axis = c.ints(&[1]);
    match c.input(7) {
        Some(mask) => c.result(1, "ReduceSum", &[mask, axis], &[("keepdims", Attr::Int(0))]),
        None => {
            let batch = c.extents(ids, 0, 1);
            let zero = Tensor::vector(vec![0i32]);
            c.result(1, "ConstantOfShape", &[batch], &[("value", Attr::Tensor(zero))]);
        }
    }
    c.result(2, "Identity", &[sum], &[]);
    Ok(())
}
