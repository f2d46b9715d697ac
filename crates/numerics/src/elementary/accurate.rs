//! The functions in double-double arithmetic: slow, plain, about 2^-90 or better.

use super::dd::{Dd, INVERSE_FACTORIALS, INVERSE_ODD, power_of_two};

/// ln 2 in three parts; the first has 32 bits, so that its product with a small integer is exact.
const LN2: [f64; 3] = [0.6931471803691238, 1.908214929249646e-10, 2.0941744292700725e-21];
/// 2 / sqrt(pi).
pub(super) const TWO_OVER_SQRT_PI: Dd = Dd::new(std::f64::consts::FRAC_2_SQRT_PI, 1.533545961316588e-17);

/// Below this, cancellation costs more than a few terms of a series do.
pub(super) const SMALL: f64 = 1.0 / 4096.0;

/// e^x for |x| below about 700.
pub(super) fn exp_dd(x: Dd) -> Dd {
    let (y, k) = exp_parts(x);
    // In two steps, neither of which leaves the range of f64.
    let half = (k * 0.5).floor();
    y.scale(power_of_two(half)).scale(power_of_two(k - half))
}

/// e^x rounded once to f64, for |x| below about 750.
pub(super) fn exp_to_f64(x: Dd) -> f64 {
    if x.hi.abs() < SMALL {
        // Powers of numbers next to 1 are next to the middle of two numbers.
        return exp_m1(x).beside(1.0);
    }
    let (y, k) = exp_parts(x);
    y.to_f64_scaled(k)
}

/// e^x - 1 for |x| below 2^-5, by Taylor's series.
fn exp_m1(x: Dd) -> Dd {
    INVERSE_FACTORIALS[1..14].iter().rev().fold(Dd::from(0.0), |sum, &term| (sum + term) * x)
}

/// e^x as a number about 1 and the exponent of a power of two.
fn exp_parts(x: Dd) -> (Dd, f64) {
    let k = (x.hi / LN2[0]).round_ties_even();
    let r = x - Dd::from(k * LN2[0]) - Dd::from(k) * Dd::new(LN2[1], LN2[2]);
    // The series at r / 16, then four squarings.
    let r = r.scale(1.0 / 16.0);
    let mut y = exp_m1(r) + Dd::ONE;
    for _ in 0..4 {
        y = y * y;
    }
    (y, k)
}

pub(super) fn exp(x: f32) -> f32 {
    match x {
        _ if x.is_nan() => f32::NAN,
        _ if x > 100.0 => f32::INFINITY,
        _ if x < -110.0 => 0.0,
        _ => exp_dd(Dd::from(f64::from(x))).to_f32(),
    }
}

/// ln x for a positive finite x, by one Newton step from f64.
pub(super) fn ln_dd(x: f64) -> Dd {
    ln_of(Dd::from(x))
}

/// As [`ln_dd`]. The error is absolute: near 1 there is [`ln_1p`].
pub(super) fn ln_of(x: Dd) -> Dd {
    let y = super::fast::ln_f64::<false>(x.hi);
    let z = x * exp_dd(Dd::from(-y)) - Dd::ONE;
    Dd::from(y) + z - z * z.scale(0.5)
}

/// Below this magnitude [`ln_1p`] has its series, and [`atanh_series`] enough terms.
pub(super) const NEAR: f64 = 1.0 / 64.0;

/// ln(1 + x) for x above -1, as precise where it is small.
pub(super) fn ln_1p(x: Dd) -> Dd {
    if x.hi.abs() >= NEAR {
        return ln_of(Dd::ONE + x);
    }
    // ln x = 2 atanh((x - 1) / (x + 1)).
    atanh_series(x / (x + Dd::from(2.0))).scale(2.0)
}

/// atanh s = s + s^3 / 3 + s^5 / 5 + .. for |s| up to [`NEAR`].
pub(super) fn atanh_series(s: Dd) -> Dd {
    let square = s * s;
    s * INVERSE_ODD[..11].iter().rev().fold(Dd::from(0.0), |sum, &term| sum * square + term)
}

pub(super) fn ln(x: f32) -> f32 {
    match x {
        _ if x.is_nan() || x < 0.0 => f32::NAN,
        _ if x == 0.0 => f32::NEG_INFINITY,
        _ if x == f32::INFINITY => x,
        _ => ln_dd(f64::from(x)).to_f32(),
    }
}

/// By the series 2/sqrt(pi) e^(-x^2) sum 2^n x^(2n+1) / (1 3 5 ... (2n+1)), whose terms are all of one sign.
pub(super) fn erf(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    if x.abs() >= 4.0 {
        return if x > 0.0 { 1.0 } else { -1.0 };
    }
    if x == 0.0 {
        return x;
    }
    erf_dd(f64::from(x)).to_f32()
}

/// erf x for an x other than 0, |x| up to 6.
pub(super) fn erf_dd(x: f64) -> Dd {
    let x = Dd::from(x);
    let square = x * x;
    let (mut term, mut sum) = (x, x);
    // Less than 150 of them are needed at 6.
    for &inverse in &INVERSE_ODD[1..] {
        if term.hi.abs() <= sum.hi.abs() * 1e-33 {
            break;
        }
        term = term * square.scale(2.0) * inverse;
        sum = sum + term;
    }
    TWO_OVER_SQRT_PI * exp_dd(square.neg()) * sum
}

pub(super) fn tanh(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    if x == 0.0 {
        return x;
    }
    if x.abs() > 20.0 {
        return if x > 0.0 { 1.0 } else { -1.0 };
    }
    tanh_dd(f64::from(x)).to_f32()
}

/// tanh x for |x| up to about 300.
pub(super) fn tanh_dd(x: f64) -> Dd {
    let d = Dd::from(x);
    if x.abs() < SMALL {
        // Taylor: x - x^3/3 + 2x^5/15 - 17x^7/315.
        let s = d * d;
        const TERMS: [Dd; 3] =
            [Dd::new(-1.0, 0.0).over(3), Dd::new(2.0, 0.0).over(15), Dd::new(-17.0, 0.0).over(315)];
        let poly = TERMS[0] + s * (TERMS[1] + s * TERMS[2]);
        return d + d * s * poly;
    }
    let t = exp_dd(Dd::from(-2.0 * d.hi.abs()));
    let y = (Dd::ONE - t) / (Dd::ONE + t);
    if x > 0.0 { y } else { y.neg() }
}

pub(super) fn sigmoid(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    if x < -110.0 {
        return 0.0;
    }
    if x > 110.0 {
        return 1.0;
    }
    let e = exp_dd(Dd::from(-f64::from(x).abs()));
    let y = if x >= 0.0 { Dd::ONE / (Dd::ONE + e) } else { e / (Dd::ONE + e) };
    y.to_f32()
}
