use smallvec::SmallVec;

/// The extents of a tensor, outermost first. Rank 0 is a scalar.
pub type Shape = SmallVec<[usize; 6]>;

/// The most dimensions a tensor may have (what its canonical encoding has room for).
pub const MAX_RANK: usize = 126;

/// The longest that a dimension may be: so that shapes are the same on machines of 32 and of 64 bits.
pub const MAX_EXTENT: usize = i32::MAX as usize;

/// The number of elements of `shape`, or `None` when it has more than [`MAX_RANK`] dimensions, one beyond [`MAX_EXTENT`], or
/// more elements than a buffer can hold.
pub fn numel(shape: &[usize]) -> Option<usize> {
    if shape.len() > MAX_RANK || shape.iter().any(|&d| d > MAX_EXTENT) {
        return None;
    }
    if shape.contains(&0) {
        return Some(0);
    }
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    (n <= isize::MAX as usize / 16).then_some(n)
}

#[cfg(test)]
mod tests {
    use super::{MAX_EXTENT, numel};

    #[test]
    fn counts() {
        assert_eq!(numel(&[]), Some(1));
        assert_eq!(numel(&[2, 0, MAX_EXTENT]), Some(0));
        assert_eq!(numel(&[2, 0, MAX_EXTENT + 1]), None);
        assert_eq!(numel(&[2, 3]), Some(6));
        assert_eq!(numel(&[MAX_EXTENT; 3]), None);
        assert_eq!(numel(&[1; 127]), None);
    }
}
