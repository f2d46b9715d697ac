//! Circular functions and their inverses in double-double arithmetic.

use super::dd::{Dd, INVERSE_FACTORIALS};
use super::fast::round;
use super::reduce::reduce;
use super::trig_fast::{asin_f64, atan_f64, sin_reduced, tan_reduced};

pub(super) const PI_2: Dd = Dd::new(std::f64::consts::FRAC_PI_2, 6.123233995736766e-17);
pub(super) const PI: Dd = Dd::new(std::f64::consts::PI, 1.2246467991473532e-16);

/// sin r and cos r for |r| up to about 1.6, by Taylor's series.
fn sin_cos(r: Dd) -> (Dd, Dd) {
    let square = (r * r).neg();
    let (mut sine, mut cosine) = (Dd::from(0.0), Dd::from(0.0));
    for terms in INVERSE_FACTORIALS.chunks_exact(2).rev() {
        cosine = cosine * square + terms[0];
        sine = sine * square + terms[1];
    }
    (r * sine, cosine)
}

/// sin(k pi/2 + r).
pub(super) fn sin_dd(r: Dd, k: u64) -> Dd {
    let (s, c) = sin_cos(r);
    let y = if k & 1 == 0 { s } else { c };
    if k & 2 == 0 { y } else { y.neg() }
}

pub(super) fn tan_dd(r: Dd, k: u64) -> Dd {
    let (s, c) = sin_cos(r);
    if k & 1 == 0 { s / c } else { c.neg() / s }
}

/// The fast series on the exactly reduced argument, else the accurate one: large arguments come here too.
fn reduced(x: f32, turn: u64, fast: fn(f64, u64) -> f64, accurate: fn(Dd, u64) -> Dd) -> f32 {
    if !x.is_finite() {
        return f32::NAN;
    }
    let (r, k) = reduce(f64::from(x).abs());
    let (y, sure) = round(fast(r.hi, k + turn));
    if sure { y } else { accurate(r, k + turn).to_f32() }
}

pub(super) fn sin(x: f32) -> f32 {
    let y = reduced(x, 0, sin_reduced::<false>, sin_dd);
    if x < 0.0 { -y } else { y }
}

pub(super) fn cos(x: f32) -> f32 {
    reduced(x, 1, sin_reduced::<false>, sin_dd)
}

pub(super) fn tan(x: f32) -> f32 {
    let y = reduced(x, 0, tan_reduced::<false>, tan_dd);
    if x < 0.0 { -y } else { y }
}

/// atan v for 0 <= v <= 1, by one Newton step on tan y = v.
pub(super) fn atan_dd(v: Dd) -> Dd {
    let y = atan_f64::<false>(v.hi);
    let (s, c) = sin_cos(Dd::from(y));
    Dd::from(y) + (v * c - s) / (c + v * s)
}

pub(super) fn atan(x: f32) -> f32 {
    if x.is_nan() {
        return f32::NAN;
    }
    let a = Dd::from(f64::from(x).abs());
    let y = match a.hi {
        a if a.is_infinite() => PI_2,
        v if v <= 1.0 => atan_dd(a),
        _ => PI_2 - atan_dd(Dd::ONE / a),
    };
    y.to_f32().copysign(x)
}

/// asin a for 0 <= a < 1, by one Newton step on sin y = a.
pub(super) fn asin_dd(a: Dd) -> Dd {
    let y = asin_f64::<false>(a.hi);
    let (s, c) = sin_cos(Dd::from(y));
    Dd::from(y) + (a - s) / c
}

pub(super) fn asin(x: f32) -> f32 {
    match f64::from(x).abs() {
        a if a < 1.0 => asin_dd(Dd::from(a)).to_f32().copysign(x),
        1.0 => PI_2.to_f32().copysign(x),
        _ => f32::NAN,
    }
}

pub(super) fn acos(x: f32) -> f32 {
    match f64::from(x) {
        1.0 => 0.0,
        -1.0 => PI.to_f32(),
        d if d.abs() < 1.0 => {
            let y = asin_dd(Dd::from(d.abs()));
            (if d < 0.0 { PI_2 + y } else { PI_2 - y }).to_f32()
        }
        _ => f32::NAN,
    }
}
