//! What turns numbers into small integers and back.

use crate::Exec;
use crate::dispatch::multiversion;

/// Rounds `q` to the nearest integer, ties to even, NaN to 0, adds `zero` and limits to `low..=high`, an 8-bit number's range.
#[inline(always)]
pub(super) fn rounded(q: f32, zero: i32, low: i32, high: i32) -> i32 {
    // Beyond these the result is a limit whatever the zero point.
    let q = if q > 1024.0 { 1024.0 } else { q };
    let q = if q < -1024.0 { -1024.0 } else { q };
    let q = if q.is_nan() { 0.0 } else { q };
    // Adding this rounds, ties to even, and leaves the integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let q = (q + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
    (q + zero).clamp(low, high)
}

multiversion! {
    fn quantize_part(x: &[f32], scale: f32, zero: i32, low: i32, high: i32, y: &mut [u8]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = rounded(x / scale, zero, low, high) as u8;
        }
    }
}

multiversion! {
    fn dequantize_part(x: &[u8], signed: bool, scale: f32, zero: i32, y: &mut [f32]) {
        if signed {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (i32::from(x as i8) - zero) as f32 * scale;
            }
        } else {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (i32::from(x) - zero) as f32 * scale;
            }
        }
    }
}

/// `y[i]` is `x[i] / scale` rounded to nearest even, NaN as 0, plus `zero`, limited to the range of u8, or of i8 (as its bits)
/// where `signed`.
///
/// # Panics
/// When the lengths differ.
pub fn quantize(exec: Exec<'_>, x: &[f32], scale: f32, zero: i32, signed: bool, y: &mut [u8]) {
    assert_eq!(x.len(), y.len());
    let (low, high) = if signed { (-128, 127) } else { (0, 255) };
    crate::split(exec, y, 1 << 14, |at, y| {
        quantize_part(exec.set(), &x[at..at + y.len()], scale, zero, low, high, y);
    });
}

/// `y[i] = (x[i] - zero) * scale`, with x of u8, or of i8 (as its bits) where `signed`.
///
/// # Panics
/// When the lengths differ.
pub fn dequantize(exec: Exec<'_>, x: &[u8], signed: bool, scale: f32, zero: i32, y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    crate::split(exec, y, 1 << 14, |at, y| {
        dequantize_part(exec.set(), &x[at..at + y.len()], signed, scale, zero, y);
    });
}

/// A sum in f32 times its factor, rounded to nearest even (NaN as 0), plus the zero point, limited to the range.
#[derive(Debug, Clone, Copy)]
pub struct Requantize<'a> {
    /// One, or one for each filter or column.
    pub factors: &'a [f32],
    /// The zero point.
    pub zero: i32,
    /// Whether results are i8 (as their bits) rather than u8.
    pub signed: bool,
}

multiversion! {
    /// A row of sums, with a factor for each or one.
    fn requantize_row(sums: &[i32], factors: &[f32], zero: i32, signed: bool, y: &mut [u8]) {
        let (low, high) = if signed { (-128, 127) } else { (0, 255) };
        if let &[factor] = factors {
            for (y, &sum) in y.iter_mut().zip(sums) {
                *y = rounded(sum as f32 * factor, zero, low, high) as u8;
            }
            return;
        }
        for ((y, &sum), factor) in y.iter_mut().zip(sums).zip(factors) {
            *y = rounded(sum as f32 * factor, zero, low, high) as u8;
        }
    }
}

/// What [`Requantize`] says of rows of `n` sums, with factors for columns.
///
/// # Panics
/// When the lengths do not fit.
pub fn requantize(exec: Exec<'_>, n: usize, sums: &[i32], r: Requantize<'_>, y: &mut [u8]) {
    assert!(sums.len() == y.len() && (r.factors.len() == 1 || r.factors.len() == n));
    if y.is_empty() {
        return;
    }
    crate::split::rows(exec, y, n, 1 << 14, |first, y| {
        for (i, y) in y.chunks_exact_mut(n).enumerate() {
            let sums = &sums[(first + i) * n..][..n];
            requantize_row(exec.set(), sums, r.factors, r.zero, r.signed, y);
        }
    });
}
