//! Hyperbolic functions, their inverses and softplus in f64, free of branches, as in [`super::fast`].

use super::fast::{LN_SERIES, LN2_HI, LN2_LO, SQRT_HALF, exp_f64, exp_parts, horner, limit, mul_add, round};

/// Where e^x has left f32's range on either side, softplus included.
const FAR: f64 = 110.0;

/// sinh x and whether it is sure.
#[inline(always)]
pub fn sinh_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = limit(f64::from(x).abs(), 0.0, FAR);
    // t = e^a - 1, exact in relative terms near zero.
    let (q, power) = exp_parts::<FMA>(a);
    let t = mul_add::<FMA>(q, power, power - 1.0);
    let (y, sure) = round((t + t / (t + 1.0)) * 0.5);
    (y.copysign(x), sure & !x.is_nan())
}

/// cosh x and whether it is sure.
#[inline(always)]
pub fn cosh_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let e = exp_f64::<FMA>(limit(f64::from(x).abs(), 0.0, FAR));
    let (y, sure) = round((e + 1.0 / e) * 0.5);
    (y, sure & !x.is_nan())
}

/// ln(1 + z) for 0 <= z < 2^300, exact in relative terms near zero.
#[inline(always)]
fn ln_1p<const FMA: bool>(z: f64) -> f64 {
    let u = 1.0 + z;
    // What the addition lost.
    let lost = if z < 1.0 { z - (u - 1.0) } else { 1.0 - (u - z) };
    let bits = u.to_bits().wrapping_sub(SQRT_HALF);
    let k = (bits as i64) >> 52;
    let m = f64::from_bits((bits & ((1 << 52) - 1)).wrapping_add(SQRT_HALF));
    let scale = f64::from_bits(((1023 - k) as u64) << 52);
    let f = mul_add::<FMA>(lost, scale, m - 1.0);
    let s = f / (2.0 + f);
    let p = horner::<FMA, 11>(&LN_SERIES, s * s);
    let k = f64::from(k as i32);
    mul_add::<FMA>(k, LN2_HI, mul_add::<FMA>(k, LN2_LO, 2.0 * s * p))
}

/// asinh x and whether it is sure.
#[inline(always)]
pub fn asinh_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = f64::from(x).abs();
    let square = a * a;
    let (y, sure) = round(ln_1p::<FMA>(a + square / (1.0 + (square + 1.0).sqrt())));
    (y.copysign(x), sure & x.is_finite())
}

/// acosh x and whether it is sure.
#[inline(always)]
pub fn acosh_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let z = limit(f64::from(x), 1.0, f64::from(f32::MAX)) - 1.0;
    let (y, sure) = round(ln_1p::<FMA>(z + (z * (z + 2.0)).sqrt()));
    (y, sure & (x >= 1.0) & x.is_finite())
}

/// atanh x and whether it is sure.
#[inline(always)]
pub fn atanh_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let a = f64::from(x).abs();
    let inside = a < 1.0;
    let a = if inside { a } else { 0.0 };
    let (y, sure) = round(0.5 * ln_1p::<FMA>(2.0 * a / (1.0 - a)));
    (y.copysign(x), sure & inside)
}

/// ln(1 + e^x) and whether it is sure.
#[inline(always)]
pub fn softplus_fast<const FMA: bool>(x: f32) -> (f32, bool) {
    let d = f64::from(x);
    let e = exp_f64::<FMA>(-limit(d.abs(), 0.0, FAR));
    let (y, sure) = round(if d > 0.0 { d } else { 0.0 } + ln_1p::<FMA>(e));
    (y, sure & !x.is_nan())
}
