//! Attention in its several forms, all by the standard's Attention.

use isobit_tensor::{DType, Tensor};

use super::Call;
use crate::{Attr, GraphError, ValueId};

type Done = Result<(), GraphError>;

fn heads(c: &Call<'_, '_>, name: &str) -> Result<i64, GraphError> {
    Some(c.int(name, 0)).filter(|&n| n > 0).ok_or_else(|| c.error(&format!("{name} must be positive")))
}

/// A vector of one element as a scalar.
fn scalar(c: &mut Call<'_, '_>, x: ValueId) -> ValueId {
    let none = c.ints(&[]);
    c.op("Reshape", &[x, none], &[])
}

/// 0, 1, .. below a vector of one element.
fn range(c: &mut Call<'_, '_>, n: ValueId) -> ValueId {
    let n = scalar(c, n);
    let (zero, one) = (c.r.constant(Tensor::scalar(0i64)), c.r.constant(Tensor::scalar(1i64)));
    c.op("Range", &[zero, n, one], &[])
}

fn to_int64(c: &mut Call<'_, '_>, x: ValueId) -> ValueId {
    c.op("Cast", &[x], &[("to", Attr::Int(DType::I64.onnx().into()))])
}

/// The caches come after the positions here.
pub(super) fn rotary(c: &mut Call<'_, '_>) -> Done {
    let (x, positions, cos, sin) = (c.need(0)?, c.need(1)?, c.need(2)?, c.need(3)?);
    if c.float("scale").is_some_and(|s| s != 1.0) || c.int("is_packed_batching", 0) != 0 {
        return Err(c.error("scale and is_packed_batching have no equivalent"));
    }
    let attrs = ["interleaved", "num_heads", "rotary_embedding_dim"].map(|n| (n, Attr::Int(c.int(n, 0))));
    if c.r.rank(x) != Some(4) && c.int("num_heads", 0) == 0 {
        return Err(c.error("num_heads must be given where the input is not declared to be of rank 4"));
    }
    let positions = match c.r.rank(positions) {
        Some(2) => positions,
        Some(1) => {
            // The first position; the others follow.
            let (batch, length) = (c.extents(x, 0, 1), c.extents(x, -2, -1));
            let steps = range(c, length);
            let all = c.op("Add", &[positions, steps], &[]);
            let shape = c.op("Concat", &[batch, length], &[("axis", Attr::Int(0))]);
            c.op("Expand", &[all, shape], &[])
        }
        _ => return Err(c.error("the rank of its position_ids must be declared")),
    };
    c.result(0, "RotaryEmbedding", &[x, cos, sin, positions], &attrs);
    Ok(())
}

/// The attributes that the standard's operator shares.
fn shared(c: &Call<'_, '_>, q: i64, kv: i64) -> Vec<(&'static str, Attr)> {
    let mut attrs = vec![("q_num_heads", Attr::Int(q)), ("kv_num_heads", Attr::Int(kv))];
    attrs.extend(c.float("scale").filter(|&s| s != 0.0).map(|s| ("scale", Attr::Float(s))));
    attrs.extend(c.float("softcap").filter(|&s| s > 0.0).map(|s| ("softcap", Attr::Float(s))));
    attrs.push(("is_causal", Attr::Int(c.int("unidirectional", 0))));
    attrs
}

/// The bias that a padding mask [B, L] of 0 and 1 and an attention bias make together.
fn bias(
    c: &mut Call<'_, '_>,
    mask: Option<ValueId>,
    bias: Option<ValueId>,
    like: ValueId,
) -> Result<Option<ValueId>, GraphError> {
    let Some(mask) = mask else { return Ok(bias) };
    if c.r.rank(mask) != Some(2) {
        return Err(c.error("only a mask declared as [batch, length] has an equivalent; export with one"));
    }
    let axes = c.ints(&[1, 2]);
    let wide = c.op("Unsqueeze", &[mask, axes], &[]);
    let keeps = c.op("Cast", &[wide], &[("to", Attr::Int(DType::Bool.onnx().into()))]);
    let low = c.float("mask_filter_value").unwrap_or(-10_000.0);
    let (low, zero) = (c.number(low, like), c.number(0.0, like));
    let masked = c.op("Where", &[keeps, zero, low], &[]);
    Ok(Some(match bias {
        Some(bias) => c.op("Add", &[bias, masked], &[]),
        None => masked,
    }))
}

/// Query, key, value, packed bias, padding mask, attention bias, past key and value.
pub(super) fn multi_head(c: &mut Call<'_, '_>) -> Done {
    let n = heads(c, "num_heads")?;
    if c.inputs.iter().skip(8).any(Option::is_some) || c.wanted(3) {
        return Err(
            c.error("past_sequence_length, cache_indirection and the fourth result have no equivalent")
        );
    }
    let (Some(mut q), Some(mut k), Some(mut v)) = (c.input(0), c.input(1), c.input(2)) else {
        return Err(c.error("only separate query, key and value have an equivalent; export unpacked"));
    };
    if [q, k, v].iter().any(|&x| c.r.rank(x) != Some(3)) {
        return Err(c.error("query, key and value must be declared as [batch, length, hidden]"));
    }
    if let Some(packed) = c.input(3) {
        // Bias of the query, of the key (as long), of the value.
        let (width, v_width) = (c.extents(q, 2, 3), c.extents(v, 2, 3));
        let sizes = c.op("Concat", &[width, width, v_width], &[("axis", Attr::Int(0))]);
        let parts = c.many("Split", vec![Some(packed), Some(sizes)], &[("axis", Attr::Int(0))], 3);
        (q, k, v) = (
            c.op("Add", &[q, parts[0]], &[]),
            c.op("Add", &[k, parts[1]], &[]),
            c.op("Add", &[v, parts[2]], &[]),
        );
    }
    let (mask, given) = (c.input(4), c.input(5));
    let mask = bias(c, mask, given, q)?;
    let past = [c.input(6), c.input(7)];
    let attrs = shared(c, n, n);
    let out = c.many("Attention", vec![Some(q), Some(k), Some(v), mask, past[0], past[1]], &attrs, 3);
    for (i, value) in out.into_iter().enumerate() {
        c.result(i, "Identity", &[value], &[]);
    }
    Ok(())
}

/// Input, weights and bias of query, key and value together, mask, past [2, B, heads, length, size], attention bias.
pub(super) fn packed(c: &mut Call<'_, '_>) -> Done {
    let (x, weights) = (c.need(0)?, c.need(1)?);
    if c.input(6).is_some() {
        return Err(c.error("a buffer that past and present share has no equivalent here"));
    }
    let product = c.op("MatMul", &[x, weights], &[]);
    let product = c.plus(product, 2);
    let others = [c.input(3), c.input(4), c.input(5)];
    of_packed(c, product, others)
}

/// Attention of query, key and value side by side; the mask, past [2, B, heads, length, size] and attention bias.
pub(super) fn of_packed(
    c: &mut Call<'_, '_>,
    product: ValueId,
    [mask, past, given]: [Option<ValueId>; 3],
) -> Done {
    let n = heads(c, "num_heads")?;
    if c.attrs.contains_key("qkv_hidden_sizes")
        || ["do_rotary", "past_present_share_buffer"].iter().any(|name| c.int(name, 0) != 0)
    {
        return Err(
            c.error("qkv_hidden_sizes, do_rotary and past_present_share_buffer have no equivalent here")
        );
    }
    let qkv =
        c.many("Split", vec![Some(product)], &[("axis", Attr::Int(-1)), ("num_outputs", Attr::Int(3))], 3);
    let mask = bias(c, mask, given, product)?;
    let mut halves = [None, None];
    if let Some(both) = past {
        let attrs = [("axis", Attr::Int(0)), ("num_outputs", Attr::Int(2))];
        let axis = c.ints(&[0]);
        let parts = c.many("Split", vec![Some(both)], &attrs, 2);
        halves = [0, 1].map(|i| Some(c.op("Squeeze", &[parts[i], axis], &[])));
    }
    let attrs = shared(c, n, n);
    let inputs = vec![Some(qkv[0]), Some(qkv[1]), Some(qkv[2]), mask, halves[0], halves[1]];
    let out = c.many("Attention", inputs, &attrs, 3);
    c.result(0, "Identity", &[out[0]], &[]);
    if c.wanted(1) {
        let axis = c.ints(&[0]);
        let (k, v) = (c.op("Unsqueeze", &[out[1], axis], &[]), c.op("Unsqueeze", &[out[2], axis], &[]));
        c.result(1, "Concat", &[k, v], &[("axis", Attr::Int(0))]);
    }
    Ok(())
}

/// [batch, length, heads * size] as [batch, heads, length, size].
fn by_head(c: &mut Call<'_, '_>, x: ValueId, heads: i64) -> ValueId {
    let (front, heads, rest) = (c.extents(x, 0, 2), c.ints(&[heads]), c.ints(&[-1]));
    let apart = c.reshape(x, &[front, heads, rest]);
    c.op("Transpose", &[apart], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))])
}

/// Query, key, value (or all in the first), past key and value, lengths less one, total length, caches of cosines and sines,
/// positions, attention bias. A cache holds its past at the front; what is new follows each entry's own past.
pub(super) fn group_query(c: &mut Call<'_, '_>) -> Done {
    let (n, g) = (heads(c, "num_heads")?, heads(c, "kv_num_heads")?);
    let (mut q, mut k, mut v) = (c.need(0)?, c.input(1), c.input(2));
    let (lengths, total) = (c.need(5)?, c.need(6)?);
    if c.int("smooth_softmax", 0) == 1 || c.inputs.iter().skip(11).any(Option::is_some) || c.wanted(3) {
        return Err(c.error("smooth_softmax and head_sink have no equivalent"));
    }
    if k.is_none() {
        // Heads of the query, of the key, of the value, side by side.
        let parts = c.ints(&[n, g, g]);
        let width = c.extents(q, 2, 3);
        let all = c.ints(&[n + 2 * g]);
        let size = c.op("Div", &[width, all], &[]);
        let sizes = c.op("Mul", &[parts, size], &[]);
        let split = c.many("Split", vec![Some(q), Some(sizes)], &[("axis", Attr::Int(2))], 3);
        (q, k, v) = (split[0], Some(split[1]), Some(split[2]));
    }
    let (Some(k), Some(v)) = (k, v) else { return Err(c.error("it has a key or a value but not both")) };
    let (q, k, v) = (by_head(c, q, n), by_head(c, k, g), by_head(c, v, g));
    // Where each entry's new tokens begin: lengths + 1 less their number, at least 0.
    let fresh = c.extents(q, 2, 3);
    let flat = c.ints(&[-1, 1]);
    let lengths = to_int64(c, lengths);
    let lengths = c.op("Reshape", &[lengths, flat], &[]);
    let (one, zero) = (c.ints(&[1]), c.ints(&[0]));
    let ends = c.op("Add", &[lengths, one], &[]);
    let start = c.op("Sub", &[ends, fresh], &[]);
    let start = c.op("Max", &[start, zero], &[]);
    let steps = range(c, fresh);
    let own = c.op("Add", &[start, steps], &[]);
    let (q, k) = match c.int("do_rotary", 0) {
        0 => (q, k),
        _ => {
            let (cos, sin) = (c.need(7)?, c.need(8)?);
            let positions = c.input(9).unwrap_or(own);
            let attrs = [("interleaved", Attr::Int(c.int("rotary_interleaved", 0)))];
            (rotated(c, q, [cos, sin, positions], &attrs), rotated(c, k, [cos, sin, positions], &attrs))
        }
    };
    let total = to_int64(c, total);
    let total = {
        let shape = c.ints(&[1]);
        c.op("Reshape", &[total, shape], &[])
    };
    let (past_k, past_v) = (c.input(3), c.input(4));
    let (k, keys) = joined(c, past_k, k, start, total);
    let (v, _) = joined(c, past_v, v, start, total);
    // Key j is seen by the query at p where j <= p, and p - j < window.
    let column = c.ints(&[-1]);
    let p = {
        let axes = c.ints(&[1, 3]);
        c.op("Unsqueeze", &[own, axes], &[])
    };
    let j = range(c, keys);
    let j = c.op("Reshape", &[j, column], &[]);
    let mut sees = c.op("LessOrEqual", &[j, p], &[]);
    let window = c.int("local_window_size", -1);
    if window > 0 {
        let width = c.ints(&[window]);
        let behind = c.op("Sub", &[p, j], &[]);
        let near = c.op("Less", &[behind, width], &[]);
        sees = c.op("And", &[sees, near], &[]);
    }
    let mask = match c.input(10) {
        None => sees,
        Some(bias) => {
            let low = c.number(f32::NEG_INFINITY, q);
            c.op("Where", &[sees, bias, low], &[])
        }
    };
    let mut attrs = shared(c, n, g);
    attrs.retain(|(name, _)| !name.ends_with("num_heads"));
    let y = c.many("Attention", vec![Some(q), Some(k), Some(v), Some(mask)], &attrs, 1)[0];
    let y = c.op("Transpose", &[y], &[("perm", Attr::Ints(vec![0, 2, 1, 3]))]);
    let shape = c.ints(&[0, 0, -1]);
    c.result(0, "Reshape", &[y, shape], &[]);
    c.result(1, "Identity", &[k], &[]);
    c.result(2, "Identity", &[v], &[]);
    Ok(())
}

fn rotated(
    c: &mut Call<'_, '_>,
    x: ValueId,
    [cos, sin, positions]: [ValueId; 3],
    attrs: &[(&str, Attr)],
) -> ValueId {
    c.op("RotaryEmbedding", &[x, cos, sin, positions], attrs)
}

/// A past cache with new entries from `start` on, as long as the cache or the total length, whichever is longer; and that length.
fn joined(
    c: &mut Call<'_, '_>,
    past: Option<ValueId>,
    new: ValueId,
    start: ValueId,
    total: ValueId,
) -> (ValueId, ValueId) {
    let Some(past) = past else {
        let length = c.extents(new, 2, 3);
        return (new, length);
    };
    let (had, fresh) = (c.extents(past, 2, 3), c.extents(new, 2, 3));
    let length = c.op("Max", &[had, total], &[]);
    let both = c.op("Concat", &[past, new], &[("axis", Attr::Int(2))]);
    // Position j is the past's own before `start`, then one of the new ones, then the past's own again.
    let j = range(c, length);
    let offset = c.op("Sub", &[j, start], &[]);
    let zero = c.ints(&[0]);
    let (after, before) = (c.op("GreaterOrEqual", &[offset, zero], &[]), c.op("Less", &[offset, fresh], &[]));
    let is_new = c.op("And", &[after, before], &[]);
    let there = c.op("Add", &[had, offset], &[]);
    let one = c.ints(&[1]);
    let last = c.op("Sub", &[had, one], &[]);
    let last = c.op("Max", &[last, zero], &[]);
    let here = c.op("Min", &[j, last], &[]);
    let index = c.op("Where", &[is_new, there, here], &[]);
    let axes = c.ints(&[1, 3]);
    let index = c.op("Unsqueeze", &[index, axes], &[]);
    let (front, size) = (c.extents(new, 0, 2), c.extents(new, 3, 4));
    let shape = c.op("Concat", &[front, length, size], &[("axis", Attr::Int(0))]);
    let index = c.op("Expand", &[index, shape], &[]);
    (c.op("GatherElements", &[both, index], &[("axis", Attr::Int(2))]), length)
}
