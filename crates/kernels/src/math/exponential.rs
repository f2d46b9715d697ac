//! e^x for AVX-512: 16 elements in a vector of f32, the result in two of them. Where the bound of the error does not decide how to
//! round, about once in 1,700 elements, the program in f64 does.

use std::arch::x86_64::*;

use super::avx512::{self, Function, Lines};
use super::doubts::{Some512, bits, each_step, mul_add, splat, zip};

/// The bound of the error, relative to the result: [`IN_TWO`], and 2^-38 for adding the bound.
const BOUND: f32 = IN_TWO + 1.0 / (1u64 << 38) as f32;
/// The bound of the error of both parts together, relative to e^x. In units of 2^-38, which is r^2 / 2 rounded, there are two for the
/// sum that is squared, one each for its square, for the polynomial and for the product with the table, half for the
/// sum before that, and a third for what the polynomial leaves out.
pub(super) const IN_TWO: f32 = 6.0 / (1u64 << 38) as f32;
/// e^x is computed for |x| below this, where e^x is above 2^-107 and what is added to it loses nothing; the others are in doubt,
const LIMIT: f32 = 74.0;
/// but e^x is below half of the least f32 from here on, and rounded to 0.
const NOTHING: f32 = -104.0;
/// Adding this leaves the nearest integer in the low bits.
const ROUND: f32 = 12582912.0;
/// 32 / ln 2.
const PER_LN2: f32 = 46.166_24;
/// ln 2 / 32 in two parts, the first the nearest f32. n times it is a multiple of 2^-29, and x, unless n is 0, of 2^-30: what is
/// left, below 2^-6, has an f32.
const STEP: [f32; 2] = [0.021_660_85, -5.952_044_4e-11];
/// 2^(j/32), with j taken off the bits from the 18th, and the logarithm of what was lost by rounding it.
static POWERS: Lines<[[u32; 32]; 2]> = Lines([
    powers([
        0x3f800000, 0x3f82cd87, 0x3f85aac3, 0x3f88980f, 0x3f8b95c2, 0x3f8ea43a, 0x3f91c3d3, 0x3f94f4f0,
        0x3f9837f0, 0x3f9b8d3a, 0x3f9ef532, 0x3fa27043, 0x3fa5fed7, 0x3fa9a15b, 0x3fad583f, 0x3fb123f6,
        0x3fb504f3, 0x3fb8fbaf, 0x3fbd08a4, 0x3fc12c4d, 0x3fc5672a, 0x3fc9b9be, 0x3fce248c, 0x3fd2a81e,
        0x3fd744fd, 0x3fdbfbb8, 0x3fe0ccdf, 0x3fe5b907, 0x3feac0c7, 0x3fefe4ba, 0x3ff5257d, 0x3ffa83b3,
    ]),
    [
        0x00000000, 0xb34a3a0b, 0x3346cb6a, 0xb36ed17f, 0xb24e0611, 0xb3517dda, 0x334b2481, 0xb31586de,
        0x33092801, 0xb2e6f467, 0x331b85f2, 0x3099b6f1, 0xb3051aa9, 0xb2e2a0db, 0xb2006c56, 0xb3365942,
        0x329302ae, 0x32c595dc, 0xb302e5a2, 0xb28e10a1, 0x31b3d0e5, 0xb31a472b, 0x31d1daf2, 0xb305bf64,
        0xb27ce183, 0xb2f26443, 0xb1b4b0da, 0xb1da8a8f, 0xb1d290be, 0xb2d5b899, 0x31b0a147, 0xb2156afc,
    ],
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
    unsafe { each_step(x, |_| [], |x, []| exp(x), settle) };
}

/// e^x, and which of them are in doubt.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn exp(x: Some512) -> (Some512, u32) {
    let [e, low] = in_two::<false>(x);
    let end = |bound: f32| {
        let low = zip(e, low, |e, low| _mm512_fmadd_ps(e, splat(bound), low));
        zip(e, low, |e, low| _mm512_add_ps(e, low))
    };
    let (high, low) = (end(BOUND), end(-BOUND));
    let nothing = x.map(|x| _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, splat(NOTHING)));
    let sure = bits(|i| {
        let inside = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(x[i]), splat(LIMIT));
        _mm512_mask_cmp_ps_mask::<_CMP_EQ_OQ>(inside, high[i], low[i]) | nothing[i]
    });
    ([0, 1].map(|i| _mm512_maskz_mov_ps(!nothing[i], high[i])), !sure)
}

/// One of 32 entries by the low bits of `index`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn entry(table: &[u32; 32], index: __m512i) -> __m512i {
    // SAFETY: the table's two halves.
    let (a, b) = unsafe {
        (_mm512_loadu_epi32(table.as_ptr().cast()), _mm512_loadu_epi32(table.as_ptr().add(16).cast()))
    };
    _mm512_permutex2var_epi32(a, index, b)
}

/// e^x, or e^-x, in two parts; of no meaning where |x| is [`LIMIT`] or more.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn in_two<const OF_MINUS_X: bool>(x: Some512) -> [Some512; 2] {
    // x (or -x) = n ln 2 / 32 + r + rest, where the rest makes up for the rounding of 2^(j/32), too.
    let per_ln2 = if OF_MINUS_X { -PER_LN2 } else { PER_LN2 };
    let index = x.map(|x| _mm512_fmadd_ps(x, splat(per_ln2), splat(ROUND)));
    let n = index.map(|i| _mm512_sub_ps(i, splat(ROUND)));
    let index = index.map(|i| _mm512_castps_si512(i));
    let r = zip(n, x, |n, x| match OF_MINUS_X {
        true => _mm512_fnmsub_ps(n, splat(STEP[0]), x),
        false => _mm512_fnmadd_ps(n, splat(STEP[0]), x),
    });
    let lost = index.map(|i| _mm512_castsi512_ps(entry(&POWERS.0[1], i)));
    let rest = zip(n, lost, |n, lost| _mm512_fnmadd_ps(n, splat(STEP[1]), lost));
    // e^(r + rest) = 1 + r + m.
    let sum = zip(r, rest, |r, rest| _mm512_add_ps(r, rest));
    let p = sum.map(|r| _mm512_fmadd_ps(r, splat(1.0 / 24.0), splat(1.0 / 6.0)));
    let p = zip(p, sum, |p, r| _mm512_fmadd_ps(p, r, splat(0.5)));
    let m = mul_add(zip(sum, sum, |a, b| _mm512_mul_ps(a, b)), p, rest);
    // Times 2^(n/32).
    let t = index.map(|i| {
        let power = _mm512_add_epi32(entry(&POWERS.0[0], i), _mm512_slli_epi32::<18>(i));
        _mm512_castsi512_ps(power)
    });
    let e = mul_add(t, r, t);
    let low = mul_add(t, r, zip(t, e, |t, e| _mm512_sub_ps(t, e)));
    [e, mul_add(t, m, low)]
}
