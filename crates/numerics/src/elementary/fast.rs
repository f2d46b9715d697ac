//! The functions in f64, free of branches so that they compile to vector code. `FMA` says whether multiply-adds
//! are fused; either way the error stays below [`BOUND`], and only results that the bound leaves no doubt about
//! are used.

/// Relative error bound of every program here. The worst errors are near 2^-46.
const BOUND: f64 = 1.0 / (1u64 << 44) as f64;
/// Adding and subtracting this rounds to the nearest integer (|x| below 2^51).
pub(super) const ROUND: f64 = 6755399441055744.0;
const INV_LN2: f64 = std::f64::consts::LOG2_E;
pub(super) const LN2_HI: f64 = 0.6931471803691238;
pub(super) const LN2_LO: f64 = 1.9082149292705877e-10;

/// 1/(2n+1): artanh(s) / s in powers of s^2.
pub(super) const LN_SERIES: [f64; 11] = [
    1.0,
    1.0 / 3.0,
    1.0 / 5.0,
    1.0 / 7.0,
    1.0 / 9.0,
    1.0 / 11.0,
    1.0 / 13.0,
    1.0 / 15.0,
    1.0 / 17.0,
    1.0 / 19.0,
    1.0 / 21.0,
];
/// The bits of the f64 next to sqrt(1/2), where the logarithm's binades begin.
pub(super) const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcd;
/// erf(x) / x on |x| <= 1, in powers of 2x^2 - 1.
const ERF_SMALL: [f64; 12] = [
    0.9654687386698673,
    -0.1405360890227171,
    0.019852496688984218,
    -0.0022854855611440855,
    0.00021751715603563488,
    -1.75371694412802e-05,
    1.2233827638093572e-06,
    -7.51156925108609e-08,
    4.115751500265885e-09,
    -2.035231956483527e-10,
    9.21125018742823e-12,
    -3.80659122412214e-13,
];
/// -ln erfc(x) on 1 <= x <= 4, in powers of (x - 2.5) / 1.5.
const ERFC_LOG: [f64; 19] = [
    7.806815272727264,
    8.029021126479604,
    2.12376090042931,
    0.03664599549148462,
    -0.010962726800848237,
    0.0031964566573616853,
    -0.0008774290223108584,
    0.0002179453213474525,
    -4.533701578738632e-05,
    5.9966288237490765e-06,
    7.268231506873091e-07,
    -9.472636962049432e-07,
    4.563458544248571e-07,
    -1.6121865888288514e-07,
    4.652503793415845e-08,
    -1.2493994493621054e-08,
    1.6972215752157861e-09,
    1.4826060418595873e-09,
    -6.907648552892685e-10,
];

#[inline(always)]
#[allow(clippy::disallowed_methods)] // both forms are within the error bound
pub(super) fn mul_add<const FMA: bool>(a: f64, b: f64, c: f64) -> f64 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

#[inline(always)]
pub(super) fn horner<const FMA: bool, const N: usize>(c: &[f64; N], x: f64) -> f64 {
    let mut y = c[N - 1];
    let mut i = N - 1;
    while i > 0 {
        i -= 1;
        y = mul_add::<FMA>(y, x, c[i]);
    }
    y
}

/// Rounds both ends of the error interval of `y`; the result is sure where they agree.
#[inline(always)]
pub(super) fn round(y: f64) -> (f32, bool) {
    let (a, b) = ((y - y * BOUND) as f32, (y + y * BOUND) as f32);
    (a, a == b)
}

/// `x` limited to `low..=high`; NaN stays NaN.
#[inline(always)]
pub(super) fn limit(x: f64, low: f64, high: f64) -> f64 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

/// (e^r - 1, 2^k) with x = k ln2 + r.
#[inline(always)]
pub(super) fn exp_parts<const FMA: bool>(x: f64) -> (f64, f64) {
    /// 1/n!.
    const C: [f64; 12] = [
        1.0,
        1.0 / 2.0,
        1.0 / 6.0,
        1.0 / 24.0,
        1.0 / 120.0,
        1.0 / 720.0,
        1.0 / 5040.0,
        1.0 / 40320.0,
        1.0 / 362880.0,
        1.0 / 3628800.0,
        1.0 / 39916800.0,
        1.0 / 479001600.0,
    ];
    let shifted = mul_add::<FMA>(x, INV_LN2, ROUND);
    let k = shifted - ROUND;
    let r = mul_add::<FMA>(-k, LN2_LO, mul_add::<FMA>(-k, LN2_HI, x));
    // The integer k is in the low bits of `shifted`.
    let power = f64::from_bits((shifted.to_bits().wrapping_add(1023)) << 52);
    (r * horner::<FMA, 12>(&C, r), power)
}

#[inline(always)]
pub(super) fn exp_f64<const FMA: bool>(x: f64) -> f64 {
    let (q, power) = exp_parts::<FMA>(x);
    mul_add::<FMA>(q, power, power)
}

/// e^x and whether it is sure.
#[inline(always)]
pub fn exp_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    round(exp_f64::<FMA>(limit(f64::from(x), -110.0, 100.0)))
}

/// ln x for a positive finite x.
#[inline(always)]
pub(super) fn ln_f64<const FMA: bool>(x: f64) -> f64 {
    // m in [sqrt(1/2), sqrt(2)), x = m 2^k.
    let bits = x.to_bits().wrapping_sub(SQRT_HALF);
    let k = (bits as i64) >> 52;
    let m = f64::from_bits((bits & ((1 << 52) - 1)).wrapping_add(SQRT_HALF));
    let s = (m - 1.0) / (m + 1.0);
    let p = horner::<FMA, 11>(&LN_SERIES, s * s);
    // k fits 32 bits: a conversion that every vector unit has.
    let k = f64::from(k as i32);
    mul_add::<FMA>(k, LN2_HI, mul_add::<FMA>(k, LN2_LO, 2.0 * s * p))
}

/// ln x and whether it is sure.
#[inline(always)]
pub fn ln_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let (y, sure) = round(ln_f64::<FMA>(f64::from(x)));
    (y, sure & (x > 0.0) & (x < f32::INFINITY))
}

/// erf x and whether it is sure.
#[inline(always)]
pub fn erf_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let d = f64::from(x);
    let a = limit(d.abs(), 0.0, 4.0);
    let u = if a < 1.0 { a } else { 1.0 };
    let small = u * horner::<FMA, 12>(&ERF_SMALL, mul_add::<FMA>(2.0 * u, u, -1.0));
    let t = (if a > 1.0 { a } else { 1.0 } - 2.5) * (1.0 / 1.5);
    let large = 1.0 - exp_f64::<FMA>(-horner::<FMA, 19>(&ERFC_LOG, t));
    let y = if a < 1.0 { small } else { large };
    let (y, sure) = round(y);
    (y.copysign(x), sure & !x.is_nan())
}

/// tanh x and whether it is sure.
#[inline(always)]
pub fn tanh_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = limit(f64::from(x).abs(), 0.0, 20.0);
    // t = e^(-2a) - 1, exact in relative terms near zero.
    let (q, power) = exp_parts::<FMA>(-2.0 * a);
    let t = mul_add::<FMA>(q, power, power - 1.0);
    let (y, sure) = round(-t / (t + 2.0));
    (y.copysign(x), sure & !x.is_nan())
}

/// 1 / (1 + e^-x) and whether it is sure.
#[inline(always)]
pub fn sigmoid_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = limit(f64::from(x).abs(), 0.0, 110.0);
    let e = exp_f64::<FMA>(-a);
    let numerator = if x < 0.0 { e } else { 1.0 };
    let (y, sure) = round(numerator / (1.0 + e));
    (y, sure & !x.is_nan())
}
