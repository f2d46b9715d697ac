//! Operators whose channels are the last dimension, around those of the standard, where they are the second.

use super::Call;
use super::quantized::{dequantised, quantised};
use crate::{Attr, GraphError, ValueId};

type Done = Result<(), GraphError>;

/// `x`, of the rank of `like`, with its channels moved.
fn moved(c: &mut Call<'_, '_>, x: ValueId, like: ValueId, to_second: bool) -> ValueId {
    let (op, attrs) = move_channels(c.r.rank(like), to_second);
    c.op(op, &[x], &attrs)
}

/// The node that moves channels from the last dimension to the second or back: a Transpose, or an Einsum where no rank is declared.
fn move_channels(rank: Option<usize>, to_second: bool) -> (&'static str, [(&'static str, Attr); 1]) {
    match rank {
        Some(rank @ 2..) => {
            let mut perm: Vec<i64> = (0..rank as i64).collect();
            if to_second {
                perm[1..].rotate_right(1);
            } else {
                perm[1..].rotate_left(1);
            }
            ("Transpose", [("perm", Attr::Ints(perm))])
        }
        _ => {
            let equation: &[u8] = if to_second { b"n...c->nc..." } else { b"nc...->n...c" };
            ("Einsum", [("equation", Attr::String(equation.to_vec()))])
        }
    }
}

/// `op` of the standard with the node's attributes over [N, .., C].
pub(super) fn between(c: &mut Call<'_, '_>, op: &str) -> Done {
    let x = c.need(0)?;
    let mut inputs = std::mem::take(&mut c.inputs);
    inputs[0] = Some(moved(c, x, x, true));
    let y = c.many(op, inputs, &[], 1)[0];
    c.attributes_to_last();
    let (op, attrs) = move_channels(c.r.rank(x), false);
    c.result(0, op, &[y], &attrs);
    Ok(())
}

/// QLinearConv of channels first or last.
pub(super) fn conv(c: &mut Call<'_, '_>) -> Done {
    let is_last = c.int("channels_last", 0) != 0;
    c.attrs.remove("channels_last");
    if is_last {
        return between(c, "QLinearConv");
    }
    c.renamed();
    c.push_as_is();
    Ok(())
}

/// A quantised pool of channels first or last.
pub(super) fn pool(c: &mut Call<'_, '_>, op: &str) -> Done {
    let is_last = c.int("channels_last", 0) != 0;
    c.attrs.remove("channels_last");
    let given = c.need(0)?;
    let mut x = dequantised(c, 0)?;
    if is_last {
        x = moved(c, x, given, true);
    }
    let mut y = c.op(op, &[x], &[]);
    c.attributes_to_last();
    if is_last {
        y = moved(c, y, given, false);
    }
    quantised(c, y, 3)
}

/// GroupNormalization in the type of its scale, then x * Sigmoid(x) where `activation` is 1.
pub(super) fn group_norm(c: &mut Call<'_, '_>, x: ValueId) -> Done {
    let (gamma, beta) = (c.need(1)?, c.need(2)?);
    let is_last = c.int("channels_last", 1) != 0;
    let given = c.need(0)?;
    let attrs = [
        ("epsilon", Attr::Float(c.float("epsilon").unwrap_or(1e-5))),
        ("num_groups", Attr::Int(c.int("groups", 0))),
    ];
    let mut y = c.op("CastLike", &[x, gamma], &[]);
    if is_last {
        y = moved(c, y, given, true);
    }
    y = c.op("GroupNormalization", &[y, gamma, beta], &attrs);
    match c.int("activation", 0) {
        0 => {}
        1 => y = c.op("Swish", &[y], &[]),
        other => return Err(c.error(&format!("its activation {other} is neither 0 nor 1"))),
    }
    if is_last {
        y = moved(c, y, given, false);
    }
    c.result(0, "CastLike", &[y, x], &[]);
    Ok(())
}

/// GroupNorm of (x + skip) + bias; the sum is the second result. The skip may be [N, C].
pub(super) fn skip_group_norm(c: &mut Call<'_, '_>) -> Done {
    let (x, mut skip) = (c.need(0)?, c.need(3)?);
    if c.r.rank(skip) == Some(2) {
        let axes = c.ints(&[1, 2]);
        skip = c.op("Unsqueeze", &[skip, axes], &[]);
    }
    let sum = c.op("Add", &[x, skip], &[]);
    let sum = c.plus(sum, 4);
    group_norm(c, sum)?;
    c.result(1, "Identity", &[sum], &[]);
    Ok(())
}
