//! Elementary functions of f64. These programs define the bits: they use basic arithmetic and fused multiply-adds
//! only, so they give the same ones everywhere. Each computes about 95 bits and rounds once, subnormal results too. On a
//! billion random and special arguments each gave the correctly rounded result every time (EXHAUSTIVE.md), which is no
//! proof that it always does.
//! `cargo run --release -p isobit-numerics --example sampled` repeats that.

use super::accurate::{NEAR, SMALL, TWO_OVER_SQRT_PI, erf_dd, exp_dd, exp_to_f64, ln_1p, ln_of, tanh_dd};
use super::dd::Dd;
use super::pow::{exact, odd_parts};
use super::reduce::reduce;
use super::trig_accurate::sin_dd;

/// Below this an odd function with slope 1 at 0 is its argument, to more bits than there are.
pub(super) const TINY: f64 = 1e-10;

/// e^x.
pub fn exp64(x: f64) -> f64 {
    exp_rounded(Dd::from(x))
}

fn exp_rounded(x: Dd) -> f64 {
    match x.hi {
        v if v.is_nan() => f64::NAN,
        v if v > 710.0 => f64::INFINITY,
        v if v < -746.0 => 0.0,
        _ => exp_to_f64(x),
    }
}

/// ln x for a positive finite x, subnormal ones included.
pub(super) fn ln_positive(x: f64) -> Dd {
    /// 2^64.
    const SCALE: f64 = 18446744073709551616.0;
    /// 2^512.
    const LARGE: f64 = SCALE * SCALE * SCALE * SCALE * SCALE * SCALE * SCALE * SCALE;
    /// 64 ln 2.
    const SHIFT: Dd = Dd::new(44.3614195558365, 1.4841899608616317e-15);
    match x {
        x if x < f64::MIN_POSITIVE => ln_of(Dd::from(x * SCALE)) - SHIFT,
        // Its inverse would be subnormal and so have fewer bits.
        x if x > LARGE => ln_of(Dd::from(x / LARGE)) + SHIFT.scale(8.0),
        // Near 1 the logarithm is small, and so must be its error; the difference is exact.
        x if (x - 1.0).abs() < NEAR => ln_1p(Dd::from(x - 1.0)),
        x => ln_of(Dd::from(x)),
    }
}

/// Natural logarithm; -infinity at zero, NaN below.
pub fn ln64(x: f64) -> f64 {
    match x {
        _ if x.is_nan() || x < 0.0 => f64::NAN,
        0.0 => f64::NEG_INFINITY,
        f64::INFINITY => x,
        _ => ln_positive(x).to_f64(),
    }
}

/// The error function.
pub fn erf64(x: f64) -> f64 {
    match x {
        _ if x.is_nan() => f64::NAN,
        _ if x == 0.0 => x,
        _ if x.abs() >= 6.0 => 1.0f64.copysign(x),
        // The factor 2/sqrt(pi) alone is left; scaling keeps subnormal arguments exact.
        _ if x.abs() < 1e-30 => times_two_over_sqrt_pi(x.abs()).copysign(x),
        _ => erf_dd(x).to_f64(),
    }
}

/// The product rounded once, for a small positive x.
fn times_two_over_sqrt_pi(x: f64) -> f64 {
    // From 1/2 to 1, and the exponent that this takes away.
    let (m, e) = odd_parts(x);
    let bits = 64 - m.leading_zeros();
    let fraction = m as f64 / (1u64 << bits) as f64;
    (Dd::from(fraction) * TWO_OVER_SQRT_PI).to_f64_scaled((e + i64::from(bits)) as f64)
}

/// Hyperbolic tangent.
pub fn tanh64(x: f64) -> f64 {
    match x {
        _ if x.is_nan() => f64::NAN,
        _ if x.abs() < TINY => x,
        _ if x.abs() > 20.0 => 1.0f64.copysign(x),
        _ => tanh_dd(x).to_f64(),
    }
}

/// The logistic function 1 / (1 + e^-x).
pub fn sigmoid64(x: f64) -> f64 {
    match x {
        _ if x.is_nan() => f64::NAN,
        _ if x > 40.0 => 1.0,
        _ if x < -80.0 => exp64(x),
        _ if x.abs() < SMALL => {
            // 1/2 + x/4 - x^3/48 + x^5/480 - 17 x^7/80640.
            const TERMS: [Dd; 4] = [
                Dd::new(-17.0, 0.0).over(80640),
                Dd::ONE.over(480),
                Dd::new(-1.0, 0.0).over(48),
                Dd::new(0.25, 0.0),
            ];
            let d = Dd::from(x);
            let square = d * d;
            let slope = TERMS.into_iter().fold(Dd::from(0.0), |sum, term| sum * square + term);
            (d * slope).beside(0.5)
        }
        _ => {
            let e = exp_dd(Dd::from(-x.abs()));
            let top = if x < 0.0 { e } else { Dd::ONE };
            (top / (Dd::ONE + e)).to_f64()
        }
    }
}

/// Sine of an angle in radians, of any size.
pub fn sin64(x: f64) -> f64 {
    match x {
        _ if !x.is_finite() => f64::NAN,
        _ if x.abs() < TINY => x,
        _ => {
            let (r, k) = reduce(x.abs());
            let y = sin_dd(r, k).to_f64();
            if x < 0.0 { -y } else { y }
        }
    }
}

/// Cosine of an angle in radians, of any size.
pub fn cos64(x: f64) -> f64 {
    if !x.is_finite() {
        return f64::NAN;
    }
    let (r, k) = reduce(x.abs());
    sin_dd(r, k + 1).to_f64()
}

/// x^y; special values as in ISO C Annex F.
pub fn pow64(x: f64, y: f64) -> f64 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if x.is_nan() || y.is_nan() {
        return f64::NAN;
    }
    let a = x.abs();
    if y.is_infinite() {
        return match () {
            () if a == 1.0 => 1.0,
            () if (a > 1.0) == (y > 0.0) => f64::INFINITY,
            () => 0.0,
        };
    }
    let integer = y.trunc() == y;
    let odd = integer && y.abs() < 9007199254740992.0 && (y as i64) % 2 != 0;
    let signed = |v: f64| if x.is_sign_negative() && odd { -v } else { v };
    if a == 0.0 || a.is_infinite() {
        return signed(if (a == 0.0) != (y > 0.0) { f64::INFINITY } else { 0.0 });
    }
    if x < 0.0 && !integer {
        return f64::NAN;
    }
    if let Some((m, e)) = exact(a, y, 54) {
        // As a number from 1 to 2: its 54 bits are a sum of two.
        let bits = m.ilog2();
        let (high, low) = (m & !0xff, m & 0xff);
        let fraction = (Dd::from(high as f64) + Dd::from(low as f64)).scale(1.0 / (1u64 << bits) as f64);
        return signed(fraction.to_f64_scaled((e + i64::from(bits)) as f64));
    }
    let log = ln_positive(a);
    // The product's low part overflows long after the result has.
    if log.hi.abs() * y.abs() > 1000.0 {
        return signed(if (log.hi > 0.0) == (y > 0.0) { f64::INFINITY } else { 0.0 });
    }
    signed(exp_rounded(log * Dd::from(y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementary::have_values;

    #[test]
    fn special_values() {
        let inf = f64::INFINITY;
        have_values(&[
            (exp64, &[(0.0, 1.0), (-inf, 0.0), (inf, inf), (-800.0, 0.0)]),
            (ln64, &[(1.0, 0.0), (0.0, -inf), (-0.0, -inf), (inf, inf), (-1.0, f64::NAN)]),
            (erf64, &[(-0.0, -0.0), (inf, 1.0), (-inf, -1.0)]),
            (tanh64, &[(-0.0, -0.0), (5e-324, 5e-324), (-inf, -1.0)]),
            (sigmoid64, &[(0.0, 0.5), (inf, 1.0), (-inf, 0.0)]),
            (sin64, &[(-0.0, -0.0), (inf, f64::NAN)]),
            (cos64, &[(0.0, 1.0), (-inf, f64::NAN)]),
        ]);
        assert_eq!(pow64(-2.0, 3.0), -8.0);
        assert_eq!(pow64(2.0, -1074.0), 5e-324);
        assert_eq!(pow64(-0.0, -1.0), -inf);
        assert!(pow64(-2.0, 0.5).is_nan());
    }
}
