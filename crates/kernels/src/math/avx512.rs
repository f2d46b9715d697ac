//! exp, tanh, the logistic function and erf for AVX-512: 16 elements at once, in f64, with tables in registers. As in
//! `isobit_numerics::elementary`: a program's error is below 2^-[`BITS`], and where rounding both ends of that interval gives
//! one f32, this is the correctly rounded result; the definition decides about the others.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// The relative error of every program here is below 2^-BITS; the worst errors are near 2^-46.
const BITS: u32 = 44;
/// Adding this leaves the nearest integer in the low bits (|x| below 2^51).
const ROUND: f64 = 6755399441055744.0;
/// 16 / ln 2.
const PER_LN2: f64 = 16.0 * std::f64::consts::LOG2_E;
/// ln 2 / 16.
const STEP: f64 = std::f64::consts::LN_2 / 16.0;
/// 2^(j/16).
const ROOTS: [f64; 16] = [
    1.0,
    1.0442737824274138,
    1.0905077326652577,
    1.1387886347566916,
    1.189207115002721,
    1.241857812073484,
    1.2968395546510096,
    1.3542555469368927,
    std::f64::consts::SQRT_2,
    1.4768261459394993,
    1.5422108254079407,
    1.6104903319492543,
    1.681792830507429,
    1.7562521603732995,
    1.8340080864093424,
    1.9152065613971474,
];
/// 2^(j/16), with j taken off the bits from the 48th.
const POWERS: [f64; 16] = {
    let mut powers = ROOTS;
    let mut j = 0;
    while j < 16 {
        powers[j] = f64::from_bits(ROOTS[j].to_bits() - ((j as u64) << 48));
        j += 1;
    }
    powers
};
/// (e^r - 1) / r for |r| up to ln 2 / 32, within 2^-50.
const EXPM1: [f64; 6] = [
    1.0000000000000007,
    0.5000000000000001,
    0.16666666664199864,
    0.04166666666358317,
    0.00833347325437616,
    0.0013889063789935463,
];
/// The same for e^r within 2^-47; near 0 alone (e^r - 1) / r is less exact.
const EXPM1_SHORT: [f64; 5] =
    [1.0, 0.4999999998682864, 0.1666666666478505, 0.041667573978852804, 0.00833346294909859];
/// Where the pieces of erf are expanded: 0, then the middle of each quarter.
const ERF_CENTRE: [f64; 16] = [
    0.0, 0.375, 0.625, 0.875, 1.125, 1.375, 1.625, 1.875, 2.125, 2.375, 2.625, 2.875, 3.125, 3.375, 3.625,
    3.875,
];
/// Coefficients of erf's pieces, lowest powers first.
const ERF: [[f64; 16]; 12] = [
    [
        0.0,
        0.4041169094348223,
        0.623240882188418,
        0.7840750610598597,
        0.8883882317017078,
        0.9481700727820903,
        0.9784437332399837,
        0.9919900576701199,
        0.9973459706405177,
        0.9992170617821089,
        0.9997946242638588,
        0.9999521451602562,
        0.9999901032653747,
        0.9999981847185726,
        0.9999997048598075,
        0.999999957486056,
    ],
    [
        1.1283791670955088,
        0.9803528095459079,
        0.7634995357606049,
        0.5247450452901482,
        0.3182739585007693,
        0.1703597736875156,
        0.08047225902251116,
        0.03354582842421607,
        0.012340820614333696,
        0.004006477861670219,
        0.001147875125882675,
        0.00029022828286249803,
        6.475868323471298e-05,
        1.2751740799765092e-05,
        2.2159202846331136e-06,
        3.3982238178091545e-07,
    ],
    [
        0.0,
        -0.3676323035797054,
        -0.47718720985037666,
        -0.4591519146288862,
        -0.3580582033133703,
        -0.23424468882033297,
        -0.13076742091157767,
        -0.06289842829540392,
        -0.026224243805459607,
        -0.009515384921467477,
        -0.003013172205442251,
        -0.0008344063132296136,
        -0.00020237088510838538,
        -4.303712519917073e-05,
        -8.032711031792303e-06,
        -1.316811729405598e-06,
    ],
    [
        -0.37612638902756185,
        -0.23487619395370823,
        -0.05567184114921415,
        0.09292360177012943,
        0.16245233298476933,
        0.15793770685613567,
        0.1148406196467085,
        0.06744109256118369,
        0.03303740518628887,
        0.013730533505099087,
        0.0048904263175627875,
        0.0015025360060694315,
        0.0004000197828977444,
        9.25829514316121e-05,
        1.8673744898621605e-05,
        3.2884895070255856e-06,
    ],
    [
        0.0,
        0.1665833875521023,
        0.17645985364155742,
        0.11239656244003153,
        0.02797329713741728,
        -0.030500610524191105,
        -0.049718863161298706,
        -0.04225988151188678,
        -0.026360828408239383,
        -0.01313321356295971,
        -0.005414293806484052,
        -0.0018817600710321018,
        -0.0005575739491435861,
        -0.00014188802216813322,
        -3.116859228684937e-05,
        -5.932511173357097e-06,
    ],
    [
        0.11283791592359903,
        0.0454753500530194,
        -0.02741341106338548,
        -0.06721587738262469,
        -0.06132368360690517,
        -0.030605976269976205,
        -0.0021349248404991957,
        0.011462583365398533,
        0.012495482591648104,
        0.008357392833700692,
        0.004217880601612916,
        0.0017132632797778034,
        0.0005769615014846317,
        0.00016377394447265965,
        3.959233534737997e-05,
        8.208845471931017e-06,
    ],
    [
        0.0,
        -0.05010665341861436,
        -0.041344833386919244,
        -0.010367787056694605,
        0.015536834485041602,
        0.0221612354554121,
        0.01441478172943051,
        0.004105187380108841,
        -0.001821412694459737,
        -0.0031140791848713266,
        -0.0022468338906564307,
        -0.0011400746105069753,
        -0.0004523151590120066,
        -0.00014640887430229189,
        -3.9529113384682354e-05,
        -9.021090000973275e-06,
    ],
    [
        -0.026866117777175364,
        -0.005458894300457226,
        0.013910007969566696,
        0.018595726567408273,
        0.009606894561690438,
        -0.0014190620760474377,
        -0.006184261543841765,
        -0.0049283940497808236,
        -0.0018692573148104807,
        0.00012326964959216276,
        0.0006808681257645452,
        0.0005285700495297613,
        0.0002664810482973812,
        0.00010218619353849007,
        3.151412041542059e-05,
        8.033147300114049e-06,
    ],
    [
        0.0,
        0.011248664232145125,
        0.0066861342078759385,
        -0.0018459862453184138,
        -0.006031142715707054,
        -0.004261057064228027,
        -0.0005765987356261459,
        0.0014304714585964154,
        0.0013833580196324004,
        0.000594128670362134,
        3.4650327590298226e-05,
        -0.00013560969409792057,
        -0.00011126591888389058,
        -5.484716671768205e-05,
        -2.008921477542354e-05,
        -5.848909006413655e-06,
    ],
    [
        0.005222368464622628,
        0.00012407024333927616,
        -0.0036332754633509744,
        -0.003256838461190937,
        -0.00036023314375066936,
        0.0015778763713795946,
        0.00141068851687401,
        0.0003622737859856984,
        -0.00028977274847198235,
        -0.0003375304425227156,
        -0.00015260390235020805,
        -1.614005451056191e-05,
        2.5450999515977382e-05,
        2.126555087703111e-05,
        1.0055310518813993e-05,
        3.474659634611765e-06,
    ],
    [
        0.0,
        -0.0019951227048788612,
        -0.0007325563210399417,
        0.0008890775012300402,
        0.001146593565665747,
        0.00032493004247874445,
        -0.00035183735165960484,
        -0.00038845192995682617,
        -0.00012347372286685592,
        5.372543453333979e-05,
        7.363922797851839e-05,
        3.3483318191923884e-05,
        4.0022197934582445e-06,
        -4.5530621608077506e-06,
        -3.714874601078739e-06,
        -1.6593596032645257e-06,
    ],
    [
        -0.0008322008702729458,
        0.00011510780944376045,
        0.0006733274887967333,
        0.00038868145329718786,
        -0.0001746290277831427,
        -0.00033713272870776397,
        -0.00012586155349057236,
        7.275024725000003e-05,
        9.445222867055585e-05,
        3.175601813525527e-05,
        -1.0130244957426726e-05,
        -1.4755613208323681e-05,
        -6.38492096187064e-06,
        -6.766135253567571e-07,
        7.980918596400033e-07,
        5.958594385280143e-07,
    ],
];

/// A function of this file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Exp,
    Tanh,
    Sigmoid,
    /// x * sigmoid(x).
    Silu,
    Erf,
    /// (0.5 x) * (1 + erf(x sqrt(1/2))).
    Gelu,
    /// (0.5 x) * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), x^3 by two products.
    GeluTanh,
    /// The same, x^3 rounded once.
    GeluNew,
}

/// `x[i] = f(x[i])`; `definition` is asked about elements in doubt.
///
/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) unsafe fn apply(f: Function, x: &mut [f32], definition: fn(f32) -> f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match f {
            Function::Exp => each::<true>(x, definition, |x| x, |x| exp(x), |_, y| y, |_, y| y),
            Function::Tanh => {
                each::<true>(x, definition, |x| x, |x| expm1_of_double(x), |x, t| tanh(x, t), |_, y| y)
            }
            Function::Sigmoid => {
                each::<true>(x, definition, |x| x, |x| exp_of_minus(x), |_, e| logistic(e), |_, y| y)
            }
            Function::Silu => {
                let times = |x, y| _mm512_mul_ps(x, y);
                each::<true>(x, definition, |x| x, |x| exp_of_minus(x), |_, e| logistic(e), times)
            }
            Function::Erf => each::<true>(x, definition, |x| x, |x| erf(x), |x, y| signed(x, y), |_, y| y),
            Function::Gelu => each::<false>(
                x,
                definition,
                |x| _mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::FRAC_1_SQRT_2)),
                |x| erf(x),
                |x, y| signed(x, y),
                |x, y| half_of(x, y),
            ),
            Function::GeluTanh => each::<false>(
                x,
                definition,
                |x| gelu_inner(x, _mm512_mul_ps(_mm512_mul_ps(x, x), x)),
                |x| expm1_of_double(x),
                |x, t| tanh(x, t),
                |x, y| half_of(x, y),
            ),
            Function::GeluNew => each::<false>(
                x,
                definition,
                |x| gelu_inner(x, cube(x)),
                |x| expm1_of_double(x),
                |x, t| tanh(x, t),
                |x, y| half_of(x, y),
            ),
        }
    }
}

/// sqrt(2/pi) (x + 0.044715 `cube`), each operation rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn gelu_inner(x: __m512, cube: __m512) -> __m512 {
    let sum = _mm512_add_ps(x, _mm512_mul_ps(_mm512_set1_ps(0.044715), cube));
    _mm512_mul_ps(_mm512_set1_ps(super::SQRT_2_OVER_PI), sum)
}

/// x^3, correctly rounded: as `isobit_numerics::elementary::cube`, the product in f64 rounded to odd.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn cube(x: __m512) -> __m512 {
    let half = |d: __m512d| {
        // Exact: 48 bits.
        let square = _mm512_mul_pd(d, d);
        let y = _mm512_mul_pd(square, d);
        // Exact too; NaN where y is infinite.
        let error = _mm512_fmsub_pd(square, d, y);
        let inexact = _mm512_cmp_pd_mask::<_CMP_NEQ_OQ>(error, _mm512_setzero_pd());
        let beyond = _mm512_movepi64_mask(_mm512_castpd_si512(_mm512_xor_pd(error, y))) & inexact;
        let (bits, one) = (_mm512_castpd_si512(y), _mm512_set1_epi64(1));
        let toward_zero = _mm512_mask_sub_epi64(bits, beyond, bits, one);
        let odd = _mm512_mask_or_epi64(toward_zero, inexact, toward_zero, one);
        _mm512_cvtpd_ps(_mm512_castsi512_pd(odd))
    };
    let [a, b] = [_mm512_castps512_ps256(x), _mm512_extractf32x8_ps::<1>(x)];
    join(half(_mm512_cvtps_pd(a)), half(_mm512_cvtps_pd(b)))
}

/// (0.5 x) * (1 + y), each operation rounded.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn half_of(x: __m512, y: __m512) -> __m512 {
    _mm512_mul_ps(_mm512_mul_ps(_mm512_set1_ps(0.5), x), _mm512_add_ps(_mm512_set1_ps(1.0), y))
}

/// Elements that are computed together, in four vectors of f64 whose operations alternate: a chain of one is too long for
/// the processor to find the next by itself.
const STEP_LEN: usize = 32;
type Four = [__m512d; 4];

/// Elements whose doubts are looked at together.
const BLOCK: usize = 256;

/// At the start of a cache line: a vector that crosses one costs twice.
#[repr(align(64))]
pub(super) struct Lines<T>(pub(super) T);

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
unsafe fn each<const AS_IT_IS: bool>(
    x: &mut [f32],
    definition: fn(f32) -> f32,
    before: impl Fn(__m512) -> __m512,
    first: impl Fn(Four) -> Four,
    second: impl Fn([__m512; 2], Four) -> Four,
    after: impl Fn(__m512, __m512) -> __m512,
) {
    // Written before they are read, as far as they are read.
    let mut between = Lines(MaybeUninit::<[f64; BLOCK]>::uninit());
    let mut out = Lines(MaybeUninit::<[f32; BLOCK]>::uninit());
    let (between, out) = (between.0.as_mut_ptr().cast::<f64>(), out.0.as_mut_ptr().cast::<f32>());
    for part in x.chunks_mut(BLOCK) {
        let whole = part.len() / STEP_LEN * STEP_LEN;
        let mut last = [1.0f32; STEP_LEN];
        last[..part.len() - whole].copy_from_slice(&part[whole..]);
        let source = |at: usize| if at < whole { part[at..].as_ptr() } else { last.as_ptr() };
        let (mut doubt, mut normal) = (0u8, 0xffffu16);
        // Two loops: one chain of operations would be too long for the processor to find the next beside it.
        for at in (0..part.len()).step_by(STEP_LEN) {
            // SAFETY: 32 elements of the part, or of its end; 32 places of the block.
            unsafe {
                let x = source(at);
                let y = first(if AS_IT_IS { load_wide(x) } else { widen(load(x).map(&before)) });
                for (i, y) in y.into_iter().enumerate() {
                    _mm512_storeu_pd(between.add(at + 8 * i), y);
                }
            }
        }
        for at in (0..part.len()).step_by(STEP_LEN) {
            // SAFETY: as above; the first loop wrote what is read.
            unsafe {
                let x = load(source(at));
                let y = [0, 1, 2, 3].map(|i| _mm512_loadu_pd(between.add(at + 8 * i)));
                let (y, n, d) = round(second(x.map(&before), y));
                _mm512_storeu_ps(out.add(at), after(x[0], y[0]));
                _mm512_storeu_ps(out.add(at + 16), after(x[1], y[1]));
                normal &= n;
                doubt |= d;
            }
        }
        if (doubt, normal) == (0, 0xffff) {
            // SAFETY: the second loop wrote as many elements.
            part.copy_from_slice(unsafe { std::slice::from_raw_parts(out, part.len()) });
        } else {
            // SAFETY: the caller's promise.
            unsafe { settle(part, definition, &before, &|x, y| second(x, first(y)), &after) };
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
unsafe fn load(x: *const f32) -> [__m512; 2] {
    // SAFETY: the caller has 32 elements there.
    unsafe { [_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16))] }
}

/// With doubts: both ends of each error interval, and the definition about what is not sure.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
unsafe fn settle(
    x: &mut [f32],
    definition: fn(f32) -> f32,
    before: &impl Fn(__m512) -> __m512,
    f: &impl Fn([__m512; 2], Four) -> Four,
    after: &impl Fn(__m512, __m512) -> __m512,
) {
    for part in x.chunks_mut(STEP_LEN) {
        let mut padded = [1.0f32; STEP_LEN];
        padded[..part.len()].copy_from_slice(part);
        let mut out = [0.0f32; STEP_LEN];
        let mut sure = [0u16; 2];
        // SAFETY: 32 elements each.
        unsafe {
            let x = [_mm512_loadu_ps(padded.as_ptr()), _mm512_loadu_ps(padded.as_ptr().add(16))];
            let prepared = [before(x[0]), before(x[1])];
            let y = f(prepared, widen(prepared));
            let end = |y, bound| _mm512_cvtpd_ps(_mm512_fmadd_pd(y, splat(bound), y));
            for i in 0..2 {
                let (a, b) = (y[2 * i], y[2 * i + 1]);
                // Zeros keep their sign here.
                let middle = join(_mm512_cvtpd_ps(a), _mm512_cvtpd_ps(b));
                let bound = 1.0 / (1u64 << BITS) as f64;
                let low = join(end(a, -bound), end(b, -bound));
                let high = join(end(a, bound), end(b, bound));
                _mm512_storeu_ps(out.as_mut_ptr().add(16 * i), after(x[i], middle));
                sure[i] = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(low, high);
            }
        }
        let mut doubt = !(u32::from(sure[0]) | u32::from(sure[1]) << 16);
        while doubt != 0 {
            let i = doubt.trailing_zeros() as usize;
            out[i] = definition(padded[i]);
            doubt &= doubt - 1;
        }
        part.copy_from_slice(&out[..part.len()]);
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn splat(x: f64) -> __m512d {
    _mm512_set1_pd(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn widen([x, y]: [__m512; 2]) -> Four {
    let low = |x| _mm512_cvtps_pd(_mm512_castps512_ps256(x));
    let high = |x| _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(x));
    [low(x), high(x), low(y), high(y)]
}

/// As [`load`], and widened.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
unsafe fn load_wide(x: *const f32) -> Four {
    // SAFETY: the caller has 32 elements there.
    [0, 8, 16, 24].map(|i| _mm512_cvtps_pd(unsafe { _mm256_loadu_ps(x.add(i)) }))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn join(a: __m256, b: __m256) -> __m512 {
    _mm512_insertf32x8::<1>(_mm512_castps256_ps512(a), b)
}

/// Rounds. Which results are normal numbers (pairs of lanes together; one that is NaN stays that and may count as either), and
/// of these, which are in doubt (four lanes together): a midpoint of two f32 is within the bound.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn round(y: Four) -> ([__m512; 2], u16, u8) {
    // An f32 has 29 bits fewer than 53. In units of the last of these the bound is below this.
    let near = 1i64 << (53 - BITS);
    let from = y.map(|y| _mm512_add_epi64(_mm512_castpd_si512(y), _mm512_set1_epi64(near - (1 << 28))));
    let far = _mm512_set1_epi64((1 << 29) - 2 * near);
    let doubt = from.map(|d| _mm512_testn_epi64_mask(d, far));
    let y = y.map(|y| _mm512_cvtpd_ps(y));
    let y = [join(y[0], y[1]), join(y[2], y[3])];
    let least = _mm512_set1_ps(2.0 * f32::MIN_POSITIVE);
    let lesser = _mm512_min_ps(_mm512_abs_ps(y[0]), _mm512_abs_ps(y[1]));
    let normal = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(lesser, least);
    (y, normal, doubt[0] | doubt[1] | doubt[2] | doubt[3])
}

/// One of 16 entries, by the low four bits of each lane.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn look_up(table: &[f64; 16], index: __m512i) -> __m512d {
    // SAFETY: the table's two halves.
    let (a, b) = unsafe { (_mm512_loadu_pd(table.as_ptr()), _mm512_loadu_pd(table.as_ptr().add(8))) };
    _mm512_permutex2var_pd(a, index, b)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn zip(a: Four, b: Four, f: impl Fn(__m512d, __m512d) -> __m512d) -> Four {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// `a * b + c`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn mul_add(a: Four, b: Four, c: f64) -> Four {
    zip(a, b, |a, b| _mm512_fmadd_pd(a, b, splat(c)))
}

/// (s, q) with e^x = s + s q, s = 2^(k/16), |q| up to 0.022, by a polynomial for (e^r - 1) / r.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn exp_parts<const N: usize>(x: Four, expm1: &[f64; N]) -> (Four, Four) {
    let shifted = x.map(|x| _mm512_fmadd_pd(x, splat(PER_LN2), splat(ROUND)));
    let k = shifted.map(|s| _mm512_sub_pd(s, splat(ROUND)));
    let r = zip(k, x, |k, x| _mm512_fnmadd_pd(k, splat(STEP), x));
    let mut p = mul_add([splat(expm1[N - 1]); 4], r, expm1[N - 2]);
    for &c in expm1[..N - 2].iter().rev() {
        p = mul_add(p, r, c);
    }
    // k = 16 q + j is in the low bits: shifted up it adds q to the exponent, and j where the table has j taken off.
    let s = shifted.map(|shifted| {
        let index = _mm512_castpd_si512(shifted);
        let power = _mm512_castpd_si512(look_up(&POWERS, index));
        _mm512_castsi512_pd(_mm512_add_epi64(power, _mm512_slli_epi64::<48>(index)))
    });
    (s, zip(p, r, |p, r| _mm512_mul_pd(p, r)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn exp64(x: Four) -> Four {
    let (s, q) = exp_parts(x, &EXPM1_SHORT);
    zip(s, q, |s, q| _mm512_fmadd_pd(s, q, s))
}

/// 1 / x within 2^-50, for x that is normal and whose inverse is.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn inverse(x: Four) -> Four {
    let better = |a: Four| {
        let e = zip(x, a, |x, a| _mm512_fnmadd_pd(x, a, splat(1.0)));
        zip(a, e, |a, e| _mm512_fmadd_pd(a, e, a))
    };
    better(better(x.map(|x| _mm512_rcp14_pd(x))))
}

/// `x` limited to `low..=high`; NaN stays NaN.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn limit(x: Four, low: f64, high: f64) -> Four {
    x.map(|x| _mm512_min_pd(splat(high), _mm512_max_pd(splat(low), x)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn exp(x: Four) -> Four {
    exp64(limit(x, -110.0, 100.0))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn exp_of_minus(x: Four) -> Four {
    exp64(limit(x, -110.0, 100.0).map(|x| _mm512_sub_pd(splat(0.0), x)))
}

/// 1 / (1 + e).
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn logistic(e: Four) -> Four {
    inverse(e.map(|e| _mm512_add_pd(e, splat(1.0))))
}

/// e^2|x| - 1, exact in relative terms near zero.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn expm1_of_double(x: Four) -> Four {
    let a = x.map(|x| _mm512_min_pd(splat(20.0), _mm512_abs_pd(x)));
    let (s, q) = exp_parts(a.map(|a| _mm512_add_pd(a, a)), &EXPM1);
    let less = s.map(|s| _mm512_sub_pd(s, splat(1.0)));
    [0, 1, 2, 3].map(|i| _mm512_fmadd_pd(s[i], q[i], less[i]))
}

/// t / (t + 2) with the sign of x.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn tanh(x: [__m512; 2], t: Four) -> Four {
    let inverse = inverse(t.map(|t| _mm512_add_pd(t, splat(2.0))));
    signed(x, zip(t, inverse, |t, i| _mm512_mul_pd(t, i)))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn erf(x: Four) -> Four {
    // The quarter, rounded down, is in the low bits.
    const FLOOR: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
    let a = x.map(|x| _mm512_min_pd(splat(3.999), _mm512_abs_pd(x)));
    let index = a.map(|a| _mm512_castpd_si512(_mm512_fmadd_round_pd::<FLOOR>(a, splat(4.0), splat(ROUND))));
    let u = [0, 1, 2, 3].map(|i| _mm512_sub_pd(a[i], look_up(&ERF_CENTRE, index[i])));
    let mut p = index.map(|i| look_up(&ERF[11], i));
    for c in ERF[..11].iter().rev() {
        p = [0, 1, 2, 3].map(|i| _mm512_fmadd_pd(p[i], u[i], look_up(c, index[i])));
    }
    p
}

/// `y` with the sign of `x`; NaN where `x` is.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn signed(x: [__m512; 2], y: Four) -> Four {
    let sign = splat(-0.0);
    zip(widen(x), y, |x, y| {
        let number = _mm512_cmp_pd_mask::<_CMP_ORD_Q>(x, x);
        let y = _mm512_or_pd(y, _mm512_and_pd(x, sign));
        _mm512_mask_mov_pd(x, number, y)
    })
}
