//! (0.5 x) * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) for AVX-512: 16 elements in a vector of f32. 1 + tanh(u) is twice the logistic
//! function of 2 u, so an error counts as it does there. Where the bound of the error does not decide how to round, about once in
//! 1,000 elements, the program in f64 does.

use std::arch::x86_64::*;

use super::avx512::{self, Function, gelu_inner};
use super::doubts::{Some512, bits, each_step, splat, zip};
use super::exponential::in_two;
use super::logistic;

/// From here on tanh is rounded to 1.
const FAR: f32 = 19.0;
/// What x^3 may lose besides its last rounding, in relative terms of what is added to its first part.
const LOST: f32 = 1.0 / (1u64 << 20) as f32;

/// `x[i]` = the function of `x[i]`, x^3 rounded once where `NEW`, otherwise twice; `definition` is asked about what stays in doubt.
///
/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
pub(super) unsafe fn apply<const NEW: bool>(x: &mut [f32], definition: fn(f32) -> f32) {
    let first = |x: Some512| {
        let cube = if NEW { cube(x) } else { x.map(|x| _mm512_mul_ps(_mm512_mul_ps(x, x), x)) };
        let double = zip(x, cube, |x, cube| {
            let u = gelu_inner(x, cube);
            // NaN stays that: it is the second operand.
            let near = _mm512_min_ps(splat(FAR), _mm512_max_ps(splat(-FAR), u));
            _mm512_add_ps(near, near)
        });
        in_two::<true>(double)
    };
    let second = |x: Some512, e| {
        let (tanh, sure) = one_and_tanh(e);
        let half = x.map(|x| _mm512_mul_ps(splat(0.5), x));
        (zip(half, tanh, |half, tanh| _mm512_mul_ps(half, tanh)), !sure)
    };
    let settle = |x: &mut [f32]| {
        let function = if NEW { Function::GeluNew } else { Function::GeluTanh };
        // SAFETY: the caller's promise.
        unsafe { avx512::apply(function, x, definition) };
    };
    // SAFETY: the caller's promise.
    unsafe { each_step(x, first, second, settle) };
}

/// x^3 where it is sure to be correctly rounded, otherwise NaN. (Of those too small to have a second part it does not matter: what
/// they are added to is 2^40 times as large.)
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn cube(x: Some512) -> Some512 {
    let square = x.map(|x| _mm512_mul_ps(x, x));
    let rest = zip(x, square, |x, square| _mm512_fmsub_ps(x, x, square));
    let first = zip(x, square, |x, square| _mm512_mul_ps(x, square));
    let second = [0, 1].map(|i| _mm512_fmsub_ps(x[i], square[i], first[i]));
    let second = [0, 1].map(|i| _mm512_fmadd_ps(x[i], rest[i], second[i]));
    let end = |by: f32| zip(first, second, |first, second| _mm512_fmadd_ps(second, splat(by), first));
    let (high, low) = (end(1.0 + LOST), end(1.0 - LOST));
    zip(high, low, |high, low| {
        let differ = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(high, low);
        _mm512_mask_mov_ps(high, differ, splat(f32::NAN))
    })
}

/// 1 + tanh(u), e^-2u given in two parts, tanh rounded and then the sum, and which of them are sure.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn one_and_tanh(e: [Some512; 2]) -> (Some512, u32) {
    let one = splat(1.0);
    // 2 z + 2 z f, less 1.
    let (z, f) = logistic::inverse(e);
    let z = z.map(|z| _mm512_add_ps(z, z));
    let less = z.map(|z| _mm512_sub_ps(z, one));
    let lost = zip(z, less, |z, less| _mm512_sub_ps(z, _mm512_add_ps(less, one)));
    let end = |bound: f32| {
        let f = f.map(|f| _mm512_add_ps(f, splat(bound)));
        let rest = [0, 1].map(|i| _mm512_fmadd_ps(z[i], f[i], lost[i]));
        let tanh = zip(less, rest, |less, rest| _mm512_add_ps(less, rest));
        tanh.map(|tanh| _mm512_add_ps(one, tanh))
    };
    let (high, low) = (end(logistic::BOUND), end(-logistic::BOUND));
    (high, bits(|i| _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(high[i], low[i])))
}
