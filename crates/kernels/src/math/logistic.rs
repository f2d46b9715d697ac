//! The logistic function and x times it for AVX-512: 16 elements in a vector of f32, by sums of two f32 where one is too
//! coarse. Where the bound of the error does not decide how to round, about once in 700 elements, the program in f64 does, and
//! where that is in doubt the definition.

use std::arch::x86_64::*;

use isobit_numerics::elementary::sigmoid_fast;

use super::avx512::Lines;
use super::doubts::{Some512, each_step, mul_add, splat, zip};

/// e^-x is computed for |x| below this; the others are in doubt.
const LIMIT: f32 = 40.0;
/// The bound of the error, relative to the result: two roundings at 2^-37 and four at 2^-38 add up to half of it.
const BOUND: f32 = 1.0 / (1u64 << 34) as f32;
/// Adding this leaves the nearest integer in the low bits.
const ROUND: f32 = 12582912.0;
/// 32 / ln 2.
const PER_LN2: f32 = 46.166_24;
/// ln 2 / 32 in three parts: the products of the first, of 12 bits, with integers are exact.
const STEP: [f32; 3] = [0.021_659_851, 9.983_182e-7, 5.145_609e-14];
/// 2^(j/32) and what is lost by rounding it, with j taken off the bits from the 18th. (Of 1 nothing is lost: a number that is too
/// small to matter stands for the 0, which has no exponent to add to.)
static POWERS: Lines<[[u32; 32]; 2]> = Lines([
    powers([
        0x3f800000, 0x3f82cd87, 0x3f85aac3, 0x3f88980f, 0x3f8b95c2, 0x3f8ea43a, 0x3f91c3d3, 0x3f94f4f0,
        0x3f9837f0, 0x3f9b8d3a, 0x3f9ef532, 0x3fa27043, 0x3fa5fed7, 0x3fa9a15b, 0x3fad583f, 0x3fb123f6,
        0x3fb504f3, 0x3fb8fbaf, 0x3fbd08a4, 0x3fc12c4d, 0x3fc5672a, 0x3fc9b9be, 0x3fce248c, 0x3fd2a81e,
        0x3fd744fd, 0x3fdbfbb8, 0x3fe0ccdf, 0x3fe5b907, 0x3feac0c7, 0x3fefe4ba, 0x3ff5257d, 0x3ffa83b3,
    ]),
    powers([
        0x21800000, 0xb34ea7a9, 0x334f9891, 0xb37eda4b, 0xb260aba1, 0xb3697465, 0x33675624, 0xb32e0212,
        0x33231b71, 0xb30c5563, 0x33412342, 0x30c3125a, 0xb32c9d5e, 0xb3162b08, 0xb22deaf6, 0xb37c5aa8,
        0x32cfe77a, 0x330ec5f7, 0xb3414fe8, 0xb2d6663e, 0x320aa837, 0xb37323a2, 0x3228fc24, 0xb35c1daa,
        0xb2d4a58a, 0xb3504a1c, 0xb21eab59, 0xb2441be6, 0xb24116de, 0xb348464a, 0x32292436, 0xb2923758,
    ]),
]);

const fn powers(mut bits: [u32; 32]) -> [u32; 32] {
    let mut j = 0;
    while j < 32 {
        bits[j] = bits[j].wrapping_sub((j as u32) << 18);
        j += 1;
    }
    bits
}

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

/// One of 32 entries by the low bits of `index`, times 2 to the power that is above them there.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn power(table: &[u32; 32], index: __m512) -> __m512 {
    let index = _mm512_castps_si512(index);
    // SAFETY: the table's two halves.
    let (a, b) = unsafe {
        (_mm512_loadu_epi32(table.as_ptr().cast()), _mm512_loadu_epi32(table.as_ptr().add(16).cast()))
    };
    let entry = _mm512_permutex2var_epi32(a, index, b);
    _mm512_castsi512_ps(_mm512_add_epi32(entry, _mm512_slli_epi32::<18>(index)))
}

/// 1 / (1 + e^-x), and which of them are in doubt.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn logistic(x: Some512) -> (Some512, u32) {
    // -x = n ln 2 / 32 + r, r in two parts.
    let index = x.map(|x| _mm512_fnmadd_ps(x, splat(PER_LN2), splat(ROUND)));
    let n = index.map(|i| _mm512_sub_ps(i, splat(ROUND)));
    let first = zip(n, x, |n, x| _mm512_fnmsub_ps(n, splat(STEP[0]), x));
    let r = zip(n, first, |n, first| _mm512_fnmadd_ps(n, splat(STEP[1]), first));
    let rest = zip(first, r, |first, r| _mm512_sub_ps(first, r));
    let rest = zip(n, rest, |n, rest| _mm512_fnmadd_ps(n, splat(STEP[1]), rest));
    let rest = zip(n, rest, |n, rest| _mm512_fnmadd_ps(n, splat(STEP[2]), rest));
    // e^r = 1 + r + m.
    let p = r.map(|r| _mm512_fmadd_ps(r, splat(1.0 / 24.0), splat(1.0 / 6.0)));
    let p = zip(p, r, |p, r| _mm512_fmadd_ps(p, r, splat(0.5)));
    let m = mul_add(zip(r, r, |a, b| _mm512_mul_ps(a, b)), p, rest);
    // e = e^-x in two parts, from 2^(n/32) in two.
    let t = index.map(|i| power(&POWERS.0[0], i));
    let lost = index.map(|i| power(&POWERS.0[1], i));
    let e = mul_add(t, r, t);
    let low = mul_add(t, r, zip(t, e, |t, e| _mm512_sub_ps(t, e)));
    let low = mul_add(t, m, low);
    let low = zip(low, mul_add(lost, r, lost), |a, b| _mm512_add_ps(a, b));
    // 1 + e in two.
    let one = splat(1.0);
    let sum = e.map(|e| _mm512_add_ps(e, one));
    let error =
        zip(e, sum, |e, sum| _mm512_sub_ps(_mm512_min_ps(e, one), _mm512_sub_ps(sum, _mm512_max_ps(e, one))));
    let low = zip(error, low, |a, b| _mm512_add_ps(a, b));
    // Its inverse is z + z f.
    let z = sum.map(|s| _mm512_rcp14_ps(s));
    let f = zip(sum, z, |s, z| _mm512_fnmadd_ps(s, z, one));
    let f = [_mm512_fnmadd_ps(low[0], z[0], f[0]), _mm512_fnmadd_ps(low[1], z[1], f[1])];
    let f = mul_add(f, f, f);
    let high = zip(z, f, |z, f| _mm512_fmadd_ps(z, _mm512_add_ps(f, splat(BOUND)), z));
    let low = zip(z, f, |z, f| _mm512_fmadd_ps(z, _mm512_sub_ps(f, splat(BOUND)), z));
    let sure = [0, 1].map(|i| {
        let inside = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x[i]), splat(LIMIT));
        _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(inside, high[i], low[i])
    });
    (high, !(u32::from(sure[0]) | u32::from(sure[1]) << 16))
}
