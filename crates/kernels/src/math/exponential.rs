//! e^x for AVX-512: 16 elements in a vector of f32, the result in two of them. Where the bound of the error does not decide how to
//! round, about once in 1,400 elements, the program in f64 does.

use std::arch::x86_64::*;

use super::avx512::{self, Function, Lines};
use super::doubts::{Some512, each_step, mul_add, splat, zip};

/// The bound of the error, relative to the result: five roundings of 2^-38 and what the polynomial leaves, below 2^-39.
const BOUND: f32 = 1.0 / (1u64 << 35) as f32;
/// e^x is computed for |x| below this, where every number of the table times 2^n has an exponent; the others are in doubt,
const LIMIT: f32 = 45.0;
/// but e^x is below half of the least f32 from here on, and rounded to 0.
const NOTHING: f32 = -104.0;
/// Adding this leaves the nearest integer in the low bits.
const ROUND: f32 = 12582912.0;
/// 32 / ln 2.
const PER_LN2: f32 = 46.166_24;
/// ln 2 / 32 in three parts: the products of the first two, of 12 bits each, with integers are exact, and so is what they leave of x.
const STEP: [f32; 3] = [0.021_659_851, 9.983_778e-7, -5.952_044_4e-11];
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

/// `x[i]` = e^`x[i]`; `definition` is asked about what stays in doubt.
///
/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,fma")]
pub(super) unsafe fn apply(x: &mut [f32], definition: fn(f32) -> f32) {
    let settle = |x: &mut [f32]| {
        // SAFETY: the caller's promise.
        unsafe { avx512::apply(Function::Exp, x, definition) };
    };
    // SAFETY: the caller's promise.
    unsafe { each_step(x, |x| exp(x), settle) };
}

/// e^x, and which of them are in doubt.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn exp(x: Some512) -> (Some512, u32) {
    let (e, low) = in_two::<false>(x);
    let end = |bound: f32| {
        let low = zip(e, low, |e, low| _mm512_fmadd_ps(e, splat(bound), low));
        zip(e, low, |e, low| _mm512_add_ps(e, low))
    };
    let (high, low) = (end(BOUND), end(-BOUND));
    let mut sure = [0; 2];
    let y = [0, 1].map(|i| {
        let inside = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x[i]), splat(LIMIT));
        let nothing = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x[i], splat(NOTHING));
        sure[i] = _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(inside, high[i], low[i]) | nothing;
        _mm512_mask_mov_ps(high[i], nothing, _mm512_setzero_ps())
    });
    (y, !(u32::from(sure[0]) | u32::from(sure[1]) << 16))
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

/// e^x, or e^-x, in two parts; in doubt where |x| is [`LIMIT`] or more.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn in_two<const OF_MINUS_X: bool>(x: Some512) -> (Some512, Some512) {
    // x (or -x) = n ln 2 / 32 + r, r in two parts.
    let per_ln2 = if OF_MINUS_X { -PER_LN2 } else { PER_LN2 };
    let index = x.map(|x| _mm512_fmadd_ps(x, splat(per_ln2), splat(ROUND)));
    let n = index.map(|i| _mm512_sub_ps(i, splat(ROUND)));
    let first = zip(n, x, |n, x| match OF_MINUS_X {
        true => _mm512_fnmsub_ps(n, splat(STEP[0]), x),
        false => _mm512_fnmadd_ps(n, splat(STEP[0]), x),
    });
    let second = zip(n, first, |n, first| _mm512_fnmadd_ps(n, splat(STEP[1]), first));
    let r = zip(n, second, |n, second| _mm512_fnmadd_ps(n, splat(STEP[2]), second));
    let rest = zip(second, r, |second, r| _mm512_sub_ps(second, r));
    let rest = zip(n, rest, |n, rest| _mm512_fnmadd_ps(n, splat(STEP[2]), rest));
    // e^r = 1 + r + m.
    let p = r.map(|r| _mm512_fmadd_ps(r, splat(1.0 / 24.0), splat(1.0 / 6.0)));
    let p = zip(p, r, |p, r| _mm512_fmadd_ps(p, r, splat(0.5)));
    let m = mul_add(zip(r, r, |a, b| _mm512_mul_ps(a, b)), p, rest);
    // The result in two parts, from 2^(n/32) in two.
    let t = index.map(|i| power(&POWERS.0[0], i));
    let lost = index.map(|i| power(&POWERS.0[1], i));
    let e = mul_add(t, r, t);
    let low = mul_add(t, r, zip(t, e, |t, e| _mm512_sub_ps(t, e)));
    let low = mul_add(t, m, low);
    let low = zip(low, mul_add(lost, r, lost), |a, b| _mm512_add_ps(a, b));
    (e, low)
}
