//! The logistic function and x times it for AVX-512: 16 elements in a vector of f32, by sums of two f32 where one is too
//! coarse. Where the bound of the error does not decide how to round, about once in 1,000 elements, the program in f64 does, and
//! where that is in doubt the definition.

use std::arch::x86_64::*;

use super::avx512::{self, Function};
use super::doubts::{Some512, bits, each_step, mul_add, splat, zip};
use super::exponential::{IN_TWO, in_two};

/// What is below this is in doubt: from 2^24 on, the sum of 1 and e^-x would lose more than its error holds.
const LEAST: f32 = -16.5;
/// From here on the function is rounded to 1.
const MOST: f32 = 40.0;
/// The bound of the error, relative to the result, of which e^-x has its part. In units of 2^-38 there are one each for the sum of the
/// two small parts, for taking that off f, for f + f^2 and for adding the bound, half for f and half for f^3, which is left out
/// (|f| is below 2^-13, as the estimate of the inverse is within 2^-14 and so is the small part); and one for whoever goes on from there.
pub(super) const BOUND: f32 = IN_TWO + 6.0 / (1u64 << 38) as f32;

/// `x[i]` = the logistic function of `x[i]`, times `x[i]` where `TIMES_X`; `definition` is asked about what stays in doubt.
///
/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
pub(super) unsafe fn apply<const TIMES_X: bool>(x: &mut [f32], definition: fn(f32) -> f32) {
    // NaN stays that: it is the second operand.
    let first = |x: Some512| in_two::<true>(x.map(|x| _mm512_min_ps(splat(MOST), x)));
    let second = |x, e| {
        let (y, doubt) = logistic(x, e);
        (if TIMES_X { zip(x, y, |x, y| _mm512_mul_ps(x, y)) } else { y }, doubt)
    };
    let settle = |x: &mut [f32]| {
        let function = if TIMES_X { Function::Silu } else { Function::Sigmoid };
        // SAFETY: the caller's promise.
        unsafe { avx512::apply(function, x, definition) };
    };
    // SAFETY: the caller's promise.
    unsafe { each_step(x, first, second, settle) };
}

/// 1 / (1 + e), e = e^-x in two parts, and which of them are in doubt.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn logistic(x: Some512, e: [Some512; 2]) -> (Some512, u32) {
    let (z, f) = inverse(e);
    let high = zip(z, f, |z, f| _mm512_fmadd_ps(z, _mm512_add_ps(f, splat(BOUND)), z));
    let low = zip(z, f, |z, f| _mm512_fmadd_ps(z, _mm512_sub_ps(f, splat(BOUND)), z));
    let sure = bits(|i| {
        let inside = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(x[i], splat(LEAST));
        _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(inside, high[i], low[i])
    });
    (high, !sure)
}

/// (z, f) with 1 / (1 + e) = z + z f for e = e^-x in two parts and x up to 40: within [`BOUND`] from [`LEAST`] on, and below that
/// within 2^-23 of a result that is itself below that.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn inverse([e, low]: [Some512; 2]) -> (Some512, Some512) {
    // 1 + e in two: below 2^24 the sum less 1 is exact.
    let one = splat(1.0);
    let sum = e.map(|e| _mm512_add_ps(e, one));
    let error = zip(e, sum, |e, sum| _mm512_sub_ps(e, _mm512_sub_ps(sum, one)));
    let low = zip(error, low, |a, b| _mm512_add_ps(a, b));
    // Its inverse.
    let z = sum.map(|s| _mm512_rcp14_ps(s));
    let f = zip(sum, z, |s, z| _mm512_fnmadd_ps(s, z, one));
    let f = [_mm512_fnmadd_ps(low[0], z[0], f[0]), _mm512_fnmadd_ps(low[1], z[1], f[1])];
    (z, mul_add(f, f, f))
}
