//! Circular functions and their inverses in f64, free of branches, as in [`super::fast`].

use super::fast::{ROUND, horner, limit, mul_add, round};

/// Arguments up to here are reduced in three exact steps: the quotient has at most 20 bits.
const LIMIT: f64 = (1 << 20) as f64;
/// pi/2 in three parts, the first two of 33 bits.
const PI_2: [f64; 3] = [1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21];

/// atan(z) / z in powers of z^2, |z| <= tan(pi/8), to 2^-58.
const ATAN: [f64; 12] = [
    1.0,
    -0.3333333333333312,
    0.19999999999940868,
    -0.14285714279248055,
    0.11111110744810647,
    -0.09090896805912162,
    0.07692045274291998,
    -0.06662951162727927,
    0.05846873503411509,
    -0.05035080589113427,
    0.03796469507021349,
    -0.01780477396050943,
];
/// asin(z) / z in powers of z^2, |z| <= 1/2, to 2^-57.
const ASIN: [f64; 14] = [
    1.0,
    0.16666666666666796,
    0.07499999999966611,
    0.04464285717686322,
    0.030381942642327187,
    0.022372216106072148,
    0.017351600625343435,
    0.01398088299217101,
    0.011398850408440755,
    0.010778675120995992,
    0.0037180577483250537,
    0.02166805886905636,
    -0.02093065831518245,
    0.03257934796692842,
];

/// `value` with its sign changed where `x` is negative.
#[inline(always)]
fn odd(value: f32, x: f32) -> f32 {
    f32::from_bits(value.to_bits() ^ x.to_bits() & 0x8000_0000)
}

/// (r, k) with a = k pi/2 + r and |r| at most about pi/4, for `0 <= a <= LIMIT`; k counts modulo 4.
#[inline(always)]
fn reduce<const FMA: bool>(a: f64) -> (f64, u64) {
    let shifted = mul_add::<FMA>(a, std::f64::consts::FRAC_2_PI, ROUND);
    let k = shifted - ROUND;
    // The first step is exact; the second rounds once, and nothing cancels after it.
    let r = mul_add::<FMA>(-k, PI_2[0], a);
    let r = mul_add::<FMA>(-k, PI_2[1], r);
    (mul_add::<FMA>(-k, PI_2[2], r), shifted.to_bits())
}

/// sin r and cos r for |r| up to about pi/4, by Taylor's series.
#[inline(always)]
fn sin_cos<const FMA: bool>(r: f64) -> (f64, f64) {
    const S: [f64; 8] = [
        1.0,
        -1.0 / 6.0,
        1.0 / 120.0,
        -1.0 / 5040.0,
        1.0 / 362880.0,
        -1.0 / 39916800.0,
        1.0 / 6227020800.0,
        -1.0 / 1307674368000.0,
    ];
    const C: [f64; 9] = [
        1.0,
        -1.0 / 2.0,
        1.0 / 24.0,
        -1.0 / 720.0,
        1.0 / 40320.0,
        -1.0 / 3628800.0,
        1.0 / 479001600.0,
        -1.0 / 87178291200.0,
        1.0 / 20922789888000.0,
    ];
    let u = r * r;
    (r * horner::<FMA, 8>(&S, u), horner::<FMA, 9>(&C, u))
}

/// sin(k pi/2 + r).
#[inline(always)]
pub(super) fn sin_reduced<const FMA: bool>(r: f64, k: u64) -> f64 {
    let (s, c) = sin_cos::<FMA>(r);
    let y = if k & 1 == 0 { s } else { c };
    f64::from_bits(y.to_bits() ^ (k & 2) << 62)
}

/// tan(k pi/2 + r).
#[inline(always)]
pub(super) fn tan_reduced<const FMA: bool>(r: f64, k: u64) -> f64 {
    let (s, c) = sin_cos::<FMA>(r);
    let even = k & 1 == 0;
    let (top, bottom) = if even { (s, c) } else { (-c, s) };
    top / bottom
}

/// sin x and whether it is sure.
#[inline(always)]
pub fn sin_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = f64::from(x).abs();
    let (r, k) = reduce::<FMA>(limit(a, 0.0, LIMIT));
    let (y, sure) = round(sin_reduced::<FMA>(r, k));
    (odd(y, x), sure & (a <= LIMIT))
}

/// cos x and whether it is sure.
#[inline(always)]
pub fn cos_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = f64::from(x).abs();
    let (r, k) = reduce::<FMA>(limit(a, 0.0, LIMIT));
    let (y, sure) = round(sin_reduced::<FMA>(r, k.wrapping_add(1)));
    (y, sure & (a <= LIMIT))
}

/// tan x and whether it is sure.
#[inline(always)]
pub fn tan_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = f64::from(x).abs();
    let (r, k) = reduce::<FMA>(limit(a, 0.0, LIMIT));
    let (y, sure) = round(tan_reduced::<FMA>(r, k));
    (odd(y, x), sure & (a <= LIMIT))
}

/// atan a for a >= 0: a turn by 0, pi/4 or pi/2 leaves an argument of at most tan(pi/8).
#[inline(always)]
pub(super) fn atan_f64<const FMA: bool>(a: f64) -> f64 {
    use std::f64::consts::{FRAC_PI_2, FRAC_PI_4};
    const LOW: f64 = 0.414213562373095;
    const HIGH: f64 = 2.414213562373095;
    let (small, middle) = (a <= LOW, a <= HIGH);
    let top = if middle { a - 1.0 } else { -1.0 };
    let bottom = if middle { a + 1.0 } else { a };
    let turn = if middle { FRAC_PI_4 } else { FRAC_PI_2 };
    let (top, bottom) = if small { (a, 1.0) } else { (top, bottom) };
    let z = top / bottom;
    let y = z * horner::<FMA, 12>(&ATAN, z * z);
    if small { y } else { turn + y }
}

/// atan x and whether it is sure.
#[inline(always)]
pub fn atan_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let (y, sure) = round(atan_f64::<FMA>(f64::from(x).abs()));
    (odd(y, x), sure & !x.is_nan())
}

/// (asin z, whether the half angle was taken) for 0 <= a <= 1: z is a, or sqrt((1 - a) / 2), exact before the root.
#[inline(always)]
fn asin_parts<const FMA: bool>(a: f64) -> (f64, bool) {
    let half = a > 0.5;
    let u = if half { (1.0 - a) * 0.5 } else { a * a };
    let z = if half { u.sqrt() } else { a };
    (z * horner::<FMA, 14>(&ASIN, u), half)
}

#[inline(always)]
pub(super) fn asin_f64<const FMA: bool>(a: f64) -> f64 {
    let (y, half) = asin_parts::<FMA>(a);
    if half { std::f64::consts::FRAC_PI_2 - 2.0 * y } else { y }
}

/// asin x and whether it is sure.
#[inline(always)]
pub fn asin_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = f64::from(x).abs();
    let (y, sure) = round(asin_f64::<FMA>(limit(a, 0.0, 1.0)));
    (odd(y, x), sure & (a <= 1.0))
}

/// acos x and whether it is sure.
#[inline(always)]
pub fn acos_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    use std::f64::consts::{FRAC_PI_2, PI};
    let a = f64::from(x).abs();
    let (y, half) = asin_parts::<FMA>(limit(a, 0.0, 1.0));
    let far = if x < 0.0 { PI - 2.0 * y } else { 2.0 * y };
    let near = FRAC_PI_2 - if x < 0.0 { -y } else { y };
    let (y, sure) = round(if half { far } else { near });
    (y, sure & (a <= 1.0))
}
