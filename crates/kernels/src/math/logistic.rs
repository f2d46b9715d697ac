//! The logistic function and x times it for AVX-512: 16 elements in a vector of f32, by sums of two f32 where one is too
//! coarse. Where the bound of the error does not decide how to round, about once in 700 elements, the program in f64 does, and
//! where that is in doubt the definition.

use std::arch::x86_64::*;

use isobit_numerics::elementary::sigmoid_fast;

use super::doubts::{Some512, each_step, mul_add, splat, zip};
use super::exponential::in_two;

/// e^-x is computed for |x| below this; the others are in doubt.
const LIMIT: f32 = 40.0;
/// The bound of the error, relative to the result: two roundings at 2^-37 and four at 2^-38 add up to half of it.
pub(super) const BOUND: f32 = 1.25 / (1u64 << 35) as f32;
/// `x[i]` = the logistic function of `x[i]`, times `x[i]` where `TIMES_X`; `definition` is asked about what stays in doubt.
///
/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
pub(super) unsafe fn apply<const TIMES_X: bool>(x: &mut [f32], definition: fn(f32) -> f32) {
    let f = |x: Some512| {
        let (y, doubt) = logistic(x);
        (if TIMES_X { zip(x, y, |x, y| _mm512_mul_ps(x, y)) } else { y }, doubt)
    };
    // SAFETY: the caller's promise.
    unsafe { each_step(x, f, |x| settle::<TIMES_X>(x, definition)) };
}

/// The program in f64, and the definition where that is in doubt.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
fn settle<const TIMES_X: bool>(x: &mut [f32], definition: fn(f32) -> f32) {
    for x in x {
        let (y, sure) = sigmoid_fast::<true>(*x);
        let y = if TIMES_X { *x * y } else { y };
        *x = if sure { y } else { definition(*x) };
    }
}

/// 1 / (1 + e^-x), and which of them are in doubt.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn logistic(x: Some512) -> (Some512, u32) {
    let (z, f) = inverse(x);
    let high = zip(z, f, |z, f| _mm512_fmadd_ps(z, _mm512_add_ps(f, splat(BOUND)), z));
    let low = zip(z, f, |z, f| _mm512_fmadd_ps(z, _mm512_sub_ps(f, splat(BOUND)), z));
    let sure = [0, 1].map(|i| {
        let inside = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x[i]), splat(LIMIT));
        _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(inside, high[i], low[i])
    });
    (high, !(u32::from(sure[0]) | u32::from(sure[1]) << 16))
}

/// (z, f) with 1 / (1 + e^-x) = z + z f within [`BOUND`], for |x| below [`LIMIT`].
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn inverse(x: Some512) -> (Some512, Some512) {
    // e^-x in two parts.
    let (e, low) = in_two::<true>(x);
    // 1 + e in two.
    let one = splat(1.0);
    let sum = e.map(|e| _mm512_add_ps(e, one));
    let error =
        zip(e, sum, |e, sum| _mm512_sub_ps(_mm512_min_ps(e, one), _mm512_sub_ps(sum, _mm512_max_ps(e, one))));
    let low = zip(error, low, |a, b| _mm512_add_ps(a, b));
    // Its inverse.
    let z = sum.map(|s| _mm512_rcp14_ps(s));
    let f = zip(sum, z, |s, z| _mm512_fnmadd_ps(s, z, one));
    let f = [_mm512_fnmadd_ps(low[0], z[0], f[0]), _mm512_fnmadd_ps(low[1], z[1], f[1])];
    (z, mul_add(f, f, f))
}
