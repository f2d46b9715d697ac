//! Hyperbolic functions, their inverses and softplus in double-double arithmetic.

use super::accurate::{NEAR, SMALL, atanh_series, exp_dd, ln_1p, ln_of};
use super::dd::{Dd, INVERSE_FACTORIALS};

/// sinh x for |x| below [`SMALL`], by its series.
pub(super) fn sinh_series(x: Dd) -> Dd {
    let square = x * x;
    let [c1, c2, c3] = [3, 5, 7].map(|n| INVERSE_FACTORIALS[n]);
    x + x * square * (c1 + square * (c2 + square * c3))
}

/// asinh a for a >= 0.
pub(super) fn asinh_dd(a: Dd) -> Dd {
    let square = a * a;
    // sqrt(1 + a^2) - 1 without its cancellation.
    ln_1p(a + square / (Dd::ONE + (Dd::ONE + square).sqrt()))
}

/// acosh a for a > 1.
pub(super) fn acosh_dd(a: Dd) -> Dd {
    ln_1p(a - Dd::ONE + (a * a - Dd::ONE).sqrt())
}

/// atanh a for 0 <= a < 1.
pub(super) fn atanh_dd(a: Dd) -> Dd {
    if a.hi < NEAR { atanh_series(a) } else { ln_of((Dd::ONE + a) / (Dd::ONE - a)).scale(0.5) }
}

/// An odd function from its value on the magnitude.
fn odd(x: f32, f: impl Fn(Dd) -> f32) -> f32 {
    match x {
        _ if x.is_nan() => f32::NAN,
        _ if x == 0.0 => x,
        _ => f(Dd::from(f64::from(x).abs())).copysign(x),
    }
}

pub(super) fn sinh(x: f32) -> f32 {
    odd(x, |a| match a.hi {
        v if v > 100.0 => f32::INFINITY,
        v if v < SMALL => sinh_series(a).to_f32(),
        _ => {
            let e = exp_dd(a);
            (e - Dd::ONE / e).scale(0.5).to_f32()
        }
    })
}

pub(super) fn cosh(x: f32) -> f32 {
    match f64::from(x).abs() {
        a if a.is_nan() => f32::NAN,
        a if a > 100.0 => f32::INFINITY,
        a => {
            let e = exp_dd(Dd::from(a));
            (e + Dd::ONE / e).scale(0.5).to_f32()
        }
    }
}

pub(super) fn asinh(x: f32) -> f32 {
    odd(x, |a| match a.hi {
        v if v.is_infinite() => f32::INFINITY,
        _ => asinh_dd(a).to_f32(),
    })
}

pub(super) fn acosh(x: f32) -> f32 {
    match f64::from(x) {
        1.0 => 0.0,
        f64::INFINITY => f32::INFINITY,
        d if d > 1.0 => acosh_dd(Dd::from(d)).to_f32(),
        _ => f32::NAN,
    }
}

pub(super) fn atanh(x: f32) -> f32 {
    odd(x, |a| match a.hi {
        1.0 => f32::INFINITY,
        v if v > 1.0 => f32::NAN,
        _ => atanh_dd(a).to_f32(),
    })
}

pub(super) fn softplus(x: f32) -> f32 {
    match f64::from(x) {
        d if d.is_nan() => f32::NAN,
        d if d > 110.0 => x,
        d if d < -110.0 => 0.0,
        d => softplus_dd(d).to_f32(),
    }
}

/// ln(1 + e^x) for |x| up to about 700.
pub(super) fn softplus_dd(x: f64) -> Dd {
    if x < -20.0 {
        // ln(1 + e) by its series: e is below 2^-28.
        let e = exp_dd(Dd::from(x));
        const TERMS: [Dd; 3] = [Dd::ONE.over(2), Dd::ONE.over(3), Dd::ONE.over(4)];
        let [half, third, quarter] = TERMS;
        return e - e * e * (half - e * (third - e * quarter));
    }
    let log = ln_of(Dd::ONE + exp_dd(Dd::from(-x.abs())));
    if x > 0.0 { Dd::from(x) + log } else { log }
}
