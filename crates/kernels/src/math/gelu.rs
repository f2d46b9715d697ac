//! (0.5 x) * (1 + erf(x sqrt(1/2))) for AVX-512: 16 elements in a vector of f32. What is wanted is 1 + erf, rounded, so that an error of
//! erf counts in absolute terms. erf is a polynomial about one of 32 centres, its large parts sums of two f32. Where the bound
//! of the error does not decide how to round, about once in 200 elements, the program in f64 does.

use std::arch::x86_64::*;

use super::avx512::{self, Function, Lines};
use super::doubts::{Some512, bits, each_step, mul_add, splat, zip};

/// The bound of the error of erf: roundings of 2^-34 of the polynomial, of the square (half as much), of the sum and of its bounds
/// add up to seven eighths of it, what is left of erf is below 2^-38.
const BOUND: f32 = 1.0 / (1u64 << 32) as f32;
/// Adding this leaves the nearest integer in the low bits.
const ROUND: f32 = 12582912.0;
/// From here erf is rounded to 1.
const FAR: f32 = 3.93;

/// Where the pieces of erf are expanded: near each eighth, and so that the coefficient of the square is within 2^-48 of an f32.
const CENTRE: usize = 0;
/// erf there, and what is lost by rounding it.
const VALUE: [usize; 2] = [1, 2];
/// Its derivative, and what is lost.
const SLOPE: [usize; 2] = [3, 4];
/// Coefficients of the square and of higher powers.
const HIGHER: std::ops::RangeInclusive<usize> = 5..=11;
/// All of these for each of the 32 pieces.
static PIECES: Lines<[[u32; 32]; 12]> = Lines([
    [
        0x00000000, 0x3dff54c1, 0x3e7fc3c5, 0x3ec0ce77, 0x3efe7178, 0x3f1fa697, 0x3f3f35f4, 0x3f5f18b4,
        0x3f801c91, 0x3f900259, 0x3fa0418a, 0x3fafce0a, 0x3fc05d00, 0x3fcfba6f, 0x3fe0119b, 0x3ff045d1,
        0x3fffb418, 0x4007c8f4, 0x400fc53d, 0x401838ee, 0x401ff7c3, 0x4028253f, 0x402fc985, 0x4037e6bb,
        0x403ffe3d, 0x4047d7a8, 0x40501f65, 0x405801f9, 0x406018c5, 0x4067d626, 0x406fc6f3, 0x40782f05,
    ],
    [
        0x00000000, 0x3e0f4fee, 0x3e8d5aba, 0x3ecfb2b3, 0x3f04901a, 0x3f1f4864, 0x3f358c18, 0x3f483f65,
        0x3f57d2ef, 0x3f636ee8, 0x3f6c621c, 0x3f72aa37, 0x3f7768b2, 0x3f7a700e, 0x3f7c985f, 0x3f7df7ba,
        0x3f7eca4a, 0x3f7f4f54, 0x3f7f9e72, 0x3f7fcd98, 0x3f7fe542, 0x3f7ff2b6, 0x3f7ff947, 0x3f7ffcd6,
        0x3f7ffe8d, 0x3f7fff57, 0x3f7fffb9, 0x3f7fffe2, 0x3f7ffff4, 0x3f7ffffb, 0x3f7ffffe, 0x3f7fffff,
    ],
    [
        0x00000000, 0x307dff2c, 0x32574a55, 0x32087eb9, 0x32ad7b52, 0x3285838d, 0xb24a736c, 0x32dee2b4,
        0x32986001, 0xb25777de, 0xb2a3717f, 0x322b861e, 0xb2b2f47a, 0xb29f54ed, 0x30822dd6, 0xb23b53e6,
        0xb29b36e7, 0x32251ae5, 0x32dedf42, 0x31f6338d, 0x31a1bf63, 0xb1e84a5c, 0xb227aeea, 0xb2d42230,
        0x3206d3a6, 0x32875899, 0xb2832129, 0xb2dbf73a, 0xb2a96ad0, 0xb1427b45, 0x31230754, 0x329b17bd,
    ],
    [
        0x3f906ebb, 0x3f8e3475, 0x3f87b288, 0x3f7aac62, 0x3f61a6bd, 0x3f43ca04, 0x3f255a08, 0x3f072a52,
        0x3ed42a25, 0x3ea2ee14, 0x3e70fd18, 0x3e2f2e55, 0x3df18093, 0x3da5f28f, 0x3d57c29d, 0x3d084f44,
        0x3caae10b, 0x3c4d18f7, 0x3bedd827, 0x3b812238, 0x3b0f1d88, 0x3a94ab25, 0x3a1c8623, 0x399984ae,
        0x39121c95, 0x3889ea0a, 0x37f1d2d9, 0x3755c3d1, 0x36b34460, 0x36177c8f, 0x3572dd84, 0x34b26d26,
    ],
    [
        0xb37bd649, 0x31915e65, 0x32706329, 0x32b1f072, 0x31d49bd9, 0x316d4bb7, 0x32c79379, 0xb2ffc2e0,
        0x32602223, 0x32603f77, 0xb18b13d3, 0xb1ac6e9b, 0x2fe1a67b, 0x30e75789, 0x2f990264, 0x2fdd486c,
        0xafd7930d, 0x2ff9c67b, 0x2f3ae7aa, 0xaf791c4d, 0x2d20e23c, 0xada129dd, 0xacbc63e8, 0x2d4232ff,
        0xace9bdd9, 0x2bd7413a, 0xab1e9889, 0xa90a03c5, 0xaa539a04, 0x29c8e7d3, 0xa7d0122e, 0xa831a3e3,
    ],
    [
        0x00000000, 0xbe0dd555, 0xbe87929b, 0xbebccb75, 0xbee04774, 0xbef433c2, 0xbef7020b, 0xbeeb95d0,
        0xbed4597f, 0xbeb74ed4, 0xbe96dbe1, 0xbe709b54, 0xbe35782a, 0xbe06a7fc, 0xbdbcd920, 0xbd7fdef9,
        0xbd2aae60, 0xbcd99253, 0xbc8592fe, 0xbc199211, 0xbbb2dbb4, 0xbb434be3, 0xbad6f5d1, 0xba5c906c,
        0xb9db28dc, 0xb9575238, 0xb8c498f8, 0xb8345ede, 0xb79ced2c, 0xb709301e, 0xb663798c, 0xb5acfa82,
    ],
    [
        0xbec093a3, 0xbeb7b657, 0xbe9e5aed, 0xbe6f6ff1, 0xbe18421e, 0xbd67fa70, 0x3ccc3087, 0x3dbb0a71,
        0x3e0defc1, 0x3e265c01, 0x3e2b8117, 0x3e21eb00, 0x3e0d8ff8, 0x3dec0ede, 0x3db86e32, 0x3d896200,
        0x3d46d4d9, 0x3d08c730, 0x3cb438b7, 0x3c5dfca4, 0x3c09179e, 0x3b9ea4b1, 0x3b37c3d3, 0x3ac677a7,
        0x3a4ef9cd, 0x39d49f90, 0x394b07be, 0x38c2046b, 0x382fb0c3, 0x379f570c, 0x3708fae4, 0x36582963,
    ],
    [
        0x00000000, 0x3d8c5d15, 0x3e01ef27, 0x3e2af23d, 0x3e3b5a3d, 0x3e34e29c, 0x3e1b23d3, 0x3de89d03,
        0x3d8d1291, 0x3ce4fa30, 0xbbd9401d, 0xbcf7f17b, 0xbd37880f, 0xbd4b8d38, 0xbd44f41f, 0xbd2c985d,
        0xbd0db51a, 0xbcd9ab85, 0xbc9de6bd, 0xbc54ce0d, 0xbc0d856a, 0xbbafd9ac, 0xbb588b68, 0xbaf86215,
        0xba88f685, 0xba1409a2, 0xb994ad1c, 0xb914ad52, 0xb88cb7e7, 0xb804de29, 0xb76da491, 0xb6c32596,
    ],
    [
        0x3de7178b, 0x3dd5746e, 0x3da4102e, 0x3d38537e, 0x3c06f52f, 0xbcddcb21, 0xbd5807ed, 0xbd8932ce,
        0xbd8da3dd, 0xbd7b2789, 0xbd40348d, 0xbcfc62b8, 0xbc6e30cf, 0xbb17fcaa, 0x3bda032e, 0x3c3ca7b2,
        0x3c565741, 0x3c4d51ff, 0x3c2fa2ee, 0x3c07dd49, 0x3bc8bae7, 0x3b8935b2, 0x3b36c814, 0x3ae1f27a,
        0x3a854da5, 0x3a1901f7, 0x39a2f039, 0x392b9e4d, 0x38aabcaa, 0x38289f08, 0x379d84eb, 0x37072360,
    ],
    [
        0x80000000, 0xbcb93449, 0xbd25ea4b, 0xbd4d7ae9, 0xbd4d6e58, 0xbd29e400, 0xbcdf6431, 0xbc31661d,
        0x3b9a2958, 0x3c7ea25f, 0x3caee935, 0x3cb5aa89, 0x3c9d8b6f, 0x3c6dacdb, 0x3c127a40, 0x3b841dea,
        0x3a06d216, 0xbae8e9d9, 0xbb3d360c, 0xbb4be063, 0xbb3786d6, 0xbb1289e7, 0xbadb3401, 0xba962e55,
        0xba418cd9, 0xb9ef8ff4, 0xb988f921, 0xb9196e32, 0xb8a1c0dd, 0xb8282db0, 0xb7a508f4, 0xb714a8e3,
    ],
    [
        0xbcdbd64c, 0xbcc47a10, 0xbc8471fb, 0xbbae3678, 0x3ba8aff1, 0x3c625b1c, 0x3c965bfd, 0x3c989948,
        0x3c779185, 0x3c1d4ee1, 0x3b6800fc, 0xbab1f823, 0xbb9cd750, 0xbbca0c7b, 0xbbc64244, 0xbba0a00b,
        0xbb5f6380, 0xbafa1c06, 0xba37ddc2, 0x39106beb, 0x3a0d8789, 0x3a3269f7, 0x3a29dc41, 0x3a0af96f,
        0x39cce017, 0x398cf107, 0x393118f7, 0x38d6734f, 0x3872b7fd, 0x38062814, 0x378b71d6, 0x3704de7b,
    ],
    [
        0x00000000, 0x3bb75885, 0x3c1ea671, 0x3c381e5c, 0x3c24ca89, 0x3bdb7018, 0x3b195336, 0xbaecc37d,
        0xbb9c75b5, 0xbbc569e1, 0xbbba605c, 0xbb8bcca8, 0xbb19ec4c, 0xba1a0912, 0x3a3f1399, 0x3abb806d,
        0x3ad061b3, 0x3ab59ac3, 0x3a83845c, 0x3a1ae7e3, 0x39891b2a, 0x380ec51f, 0xb8b87ed4, 0xb90de930,
        0xb90d3b8f, 0xb8e9aeb3, 0xb8aaf1a4, 0xb8661f6c, 0xb80f8418, 0xb7a959c5, 0xb73c0800, 0xb6c39569,
    ],
]);

/// `x[i] = (0.5 x[i]) * (1 + erf(x[i] sqrt(1/2)))`; `definition` is asked about what stays in doubt.
///
/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) unsafe fn apply(x: &mut [f32], definition: fn(f32) -> f32) {
    let f = |x: Some512| {
        let (sum, doubt) = one_plus_erf(x.map(|x| _mm512_mul_ps(x, splat(std::f32::consts::FRAC_1_SQRT_2))));
        (zip(x, sum, |x, sum| _mm512_mul_ps(_mm512_mul_ps(splat(0.5), x), sum)), doubt)
    };
    // SAFETY: the caller's promise.
    unsafe { each_step(x, |_| [], |x, []| f(x), |x| avx512::apply(Function::Gelu, x, definition)) };
}

/// 1 + erf(t), erf rounded and then the sum, and which of them are in doubt.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn one_plus_erf(t: Some512) -> (Some512, u32) {
    // NaN stays that: it is the second operand.
    let a = t.map(|t| _mm512_min_ps(splat(FAR), _mm512_abs_ps(t)));
    let index = a.map(|a| _mm512_castps_si512(_mm512_fmadd_ps(a, splat(8.0), splat(ROUND))));
    let of = |row: usize| {
        // SAFETY: the row's two halves.
        let (low, high) = unsafe {
            let row = PIECES.0[row].as_ptr();
            (_mm512_loadu_epi32(row.cast()), _mm512_loadu_epi32(row.add(16).cast()))
        };
        index.map(|index| _mm512_castsi512_ps(_mm512_permutex2var_epi32(low, index, high)))
    };
    let h = zip(a, of(CENTRE), |a, centre| _mm512_sub_ps(a, centre));
    let square = zip(h, h, |a, b| _mm512_mul_ps(a, b));
    let mut q = of(*HIGHER.end());
    for row in (*HIGHER.start()..*HIGHER.end()).rev() {
        q = mul_add(q, h, of(row));
    }
    // The value and slope * h in two parts; the sum of the large ones, which is exact with what it loses.
    let (value, slope) = (VALUE.map(of), SLOPE.map(of));
    let p = zip(slope[0], h, |a, b| _mm512_mul_ps(a, b));
    let lost = [0, 1].map(|i| _mm512_fmsub_ps(slope[0][i], h[i], p[i]));
    let lost = mul_add(slope[1], h, lost);
    let sum = zip(value[0], p, |a, b| _mm512_add_ps(a, b));
    let rest = zip(p, zip(sum, value[0], |a, b| _mm512_sub_ps(a, b)), |a, b| _mm512_sub_ps(a, b));
    let rest = zip(zip(rest, value[1], |a, b| _mm512_add_ps(a, b)), lost, |a, b| _mm512_add_ps(a, b));
    let low = mul_add(square, q, rest);
    let end = |bound: f32| {
        let erf = zip(sum, low, |sum, low| _mm512_add_ps(sum, _mm512_add_ps(low, splat(bound))));
        // 1 + erf or 1 - erf, as t is positive or not.
        zip(erf, t, |erf, t| _mm512_fmadd_ps(erf, sign(t), splat(1.0)))
    };
    let (high, low) = (end(BOUND), end(-BOUND));
    (high, bits(|i| _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(high[i], low[i])))
}

/// 1 with the sign of `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn sign(x: __m512) -> __m512 {
    // (x and the sign's bit) or 1.
    let (x, bit, one) = (_mm512_castps_si512(x), splat(-0.0), splat(1.0));
    _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xf8>(
        _mm512_castps_si512(one),
        x,
        _mm512_castps_si512(bit),
    ))
}
