//! Axes and small integer operands: normalised once, with errors that say what would be accepted.

use isobit_tensor::{Data, MAX_EXTENT, Tensor};

use crate::{Code, Fact, OpError};

/// `axis` counted from the front, for a tensor of `rank` dimensions; negative ones count from the back.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let n = rank as i64;
    if !(-n..n).contains(&axis) {
        return Err(OpError::index(format!(
            "axis {axis} of a rank-{rank} tensor; accepted: -{rank} up to, not including, {rank}"
        )));
    }
    Ok(if axis < 0 { axis + n } else { axis } as usize)
}

/// As [`axis`], where `rank` itself is also meant (a position between dimensions).
pub(crate) fn split_axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let n = rank as i64;
    if !(-n..=n).contains(&axis) {
        return Err(OpError::index(format!(
            "axis {axis} of a rank-{rank} tensor; accepted: -{rank} to {rank}"
        )));
    }
    Ok(if axis < 0 { axis + n } else { axis } as usize)
}

/// All of `axes` normalised, in the given order; none may appear twice.
pub(crate) fn axes(axes: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
    let normal = axes.iter().map(|&a| axis(a, rank)).collect::<Result<Vec<_>, _>>()?;
    let mut seen = vec![false; rank];
    for &a in &normal {
        if std::mem::replace(&mut seen[a], true) {
            return Err(OpError::attribute(format!("axis {a} is given twice in {axes:?}")));
        }
    }
    Ok(normal)
}

/// A bounds check of an index along an extent; negative indices count from the back.
pub(crate) fn index(i: i64, extent: usize) -> Result<usize, OpError> {
    let n = extent as i64;
    if !(-n..n).contains(&i) {
        return Err(OpError::index(format!(
            "index {i} along an extent of {extent}; accepted: -{extent} up to, not including, {extent}"
        )));
    }
    Ok(if i < 0 { i + n } else { i } as usize)
}

/// The elements of an int64 or int32 tensor: indices, extents, axes, repeats.
pub(crate) fn ints(tensor: &Tensor) -> Result<Vec<i64>, OpError> {
    match tensor.data() {
        Data::I64(b) => Ok(b.to_vec()),
        Data::I32(b) => Ok(b.iter().map(|&v| v.into()).collect()),
        _ => Err(OpError::input(format!(
            "expected an int64 or int32 tensor of numbers, got {}",
            tensor.dtype()
        ))),
    }
}

/// The one element of an int64 or int32 tensor.
pub(crate) fn int(tensor: &Tensor) -> Result<i64, OpError> {
    match ints(tensor)?.as_slice() {
        [v] => Ok(*v),
        other => Err(OpError::input(format!("expected one number, got {} of them", other.len()))),
    }
}

/// The extents in a tensor of numbers, none negative.
pub(crate) fn extents(values: &[i64]) -> Result<Vec<usize>, OpError> {
    values.iter().map(|&v| extent(v)).collect()
}

/// An extent in an operand: not negative, and no longer than a dimension may be.
pub(crate) fn extent(n: i64) -> Result<usize, OpError> {
    match usize::try_from(n) {
        Ok(n) if n <= MAX_EXTENT => Ok(n),
        _ if n < 0 => Err(OpError::input(format!("an extent of {n}; it must be 0 or more"))),
        _ => {
            Err(OpError::new(Code::LimitExceeded, format!("an extent of {n}; accepted: up to {MAX_EXTENT}")))
        }
    }
}

/// Refuses tensors whose extents, zeros left out, have a product that index arithmetic could not hold. Only a tensor
/// without elements can be refused: others were counted when they were made.
pub(crate) fn bounded<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<(), OpError> {
    for tensor in tensors {
        let product = tensor.shape().iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1)));
        if product.is_none_or(|n| n > isize::MAX as usize / 16) {
            let shape = tensor.shape();
            return Err(OpError::new(Code::LimitExceeded, format!("an operand of shape {shape:?}")));
        }
    }
    Ok(())
}

/// The product of extents, for metering: saturates.
pub(crate) fn volume(extents: &[usize]) -> u64 {
    extents.iter().fold(1, |n: u64, &d| n.saturating_mul(d as u64))
}

static UNKNOWN: Fact = Fact { dtype: None, shape: None, value: None };

/// What is known of operand `i`; nothing where it is left out.
pub(crate) fn fact(inputs: &[Option<Fact>], i: usize) -> &Fact {
    given(inputs, i).unwrap_or(&UNKNOWN)
}

/// What is known of operand `i`, where it is given at all.
pub(crate) fn given(inputs: &[Option<Fact>], i: usize) -> Option<&Fact> {
    inputs.get(i).and_then(Option::as_ref)
}

/// The numbers in operand `i`, where they are constant.
pub(crate) fn known_ints(inputs: &[Option<Fact>], i: usize) -> Result<Option<Vec<i64>>, OpError> {
    fact(inputs, i).value.as_ref().map(ints).transpose()
}

/// The extents of a run-time shape as facts hold them.
pub(crate) fn known(shape: &[usize]) -> Vec<Option<usize>> {
    shape.iter().map(|&d| Some(d)).collect()
}

/// Extents computed from a run-time shape, which are all known.
pub(crate) fn settled(dims: Vec<Option<usize>>) -> Result<Vec<usize>, OpError> {
    dims.into_iter()
        .map(|d| d.ok_or_else(|| OpError::shape("an extent of the result follows from no operand")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_normalised_and_bounded() {
        assert_eq!(axis(-1, 3), Ok(2));
        assert_eq!(axis(2, 3), Ok(2));
        assert_eq!(axis(3, 3).unwrap_err().code, Code::IndexOutOfRange);
        assert_eq!(axis(-4, 3).unwrap_err().code, Code::IndexOutOfRange);
        assert_eq!(axis(i64::MIN, 0).unwrap_err().code, Code::IndexOutOfRange);
        assert_eq!(split_axis(3, 3), Ok(3));
        assert_eq!(axes(&[-1, 0], 3), Ok(vec![2, 0]));
        assert_eq!(axes(&[-1, 2], 3).unwrap_err().code, Code::InvalidAttribute);
        assert_eq!(index(-3, 3), Ok(0));
        assert_eq!(index(0, 0).unwrap_err().code, Code::IndexOutOfRange);
    }
}
