//! Contractions: one accumulator, ascending, one fused multiply-add a step (SEMANTICS.md, section 2).

use crate::{fma, fma64};

/// `acc = fma(a_k, b_k, acc)` for k ascending, from `acc`.
pub fn chain(acc: f32, pairs: impl IntoIterator<Item = (f32, f32)>) -> f32 {
    pairs.into_iter().fold(acc, |acc, (a, b)| fma(a, b, acc))
}

/// As [`chain`], in f64.
pub fn chain64(acc: f64, pairs: impl IntoIterator<Item = (f64, f64)>) -> f64 {
    pairs.into_iter().fold(acc, |acc, (a, b)| fma64(a, b, acc))
}

/// The contraction of two vectors, from +0.
///
/// # Panics
/// When their lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    chain(0.0, a.iter().copied().zip(b.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_single_rounding_show() {
        // With separate rounding or another order, the small terms would be lost differently.
        let big = 16777216.0; // 2^24: adding 1 to it rounds back.
        assert_eq!(dot(&[1.0, 1.0, big], &[1.0, 1.0, 1.0]), big + 2.0);
        assert_eq!(dot(&[big, 1.0, 1.0], &[1.0, 1.0, 1.0]), big);
        assert_eq!(dot(&[], &[]).to_bits(), 0);
    }
}
