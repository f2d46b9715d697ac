//! Hyperbolic functions, their inverses and softplus in double-double arithmetic.

use super::accurate::{exp_dd, ln_of};
use super::dd::Dd;

/// Below this, cancellation costs more than four terms of a series do.
pub(super) const SMALL: f64 = 1.0 / 4096.0;

/// x + c1 x^3 + c2 x^5 + c3 x^7, the coefficients as fractions.
pub(super) fn odd_series(x: Dd, c: [(f64, f64); 3]) -> Dd {
    let square = x * x;
    let [c1, c2, c3] = c.map(|(p, q)| Dd::from(p) / Dd::from(q));
    x + x * square * (c1 + square * (c2 + square * c3))
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
        v if v < SMALL => odd_series(a, [(1.0, 6.0), (1.0, 120.0), (1.0, 5040.0)]).to_f32(),
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
        v if v < SMALL => odd_series(a, [(-1.0, 6.0), (3.0, 40.0), (-15.0, 336.0)]).to_f32(),
        _ => ln_of(a + (a * a + Dd::ONE).sqrt()).to_f32(),
    })
}

pub(super) fn acosh(x: f32) -> f32 {
    match f64::from(x) {
        1.0 => 0.0,
        f64::INFINITY => f32::INFINITY,
        d if d > 1.0 => {
            let d = Dd::from(d);
            ln_of(d + (d * d - Dd::ONE).sqrt()).to_f32()
        }
        _ => f32::NAN,
    }
}

pub(super) fn atanh(x: f32) -> f32 {
    odd(x, |a| match a.hi {
        1.0 => f32::INFINITY,
        v if v > 1.0 => f32::NAN,
        v if v < SMALL => odd_series(a, [(1.0, 3.0), (1.0, 5.0), (1.0, 7.0)]).to_f32(),
        _ => ln_of((Dd::ONE + a) / (Dd::ONE - a)).scale(0.5).to_f32(),
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
        let [half, third, quarter] = [2.0, 3.0, 4.0].map(|n| Dd::ONE / Dd::from(n));
        return e - e * e * (half - e * (third - e * quarter));
    }
    let log = ln_of(Dd::ONE + exp_dd(Dd::from(-x.abs())));
    if x > 0.0 { Dd::from(x) + log } else { log }
}
