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
