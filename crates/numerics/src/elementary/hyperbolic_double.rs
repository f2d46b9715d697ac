//! Hyperbolic functions of f64, their inverses and softplus, as [`super::double`] defines them.

use super::accurate::{SMALL, exp_dd};
use super::dd::{Dd, INVERSE_FACTORIALS};
use super::double::{TINY, exp64, ln_positive};
use super::hyperbolic_accurate::{acosh_dd, asinh_dd, atanh_dd, sinh_series, softplus_dd};

/// ln 2.
const LN2: Dd = Dd::new(std::f64::consts::LN_2, 2.3190468138462996e-17);
/// Beyond this 1 is nothing beside a square, nor e^-x beside e^x.
const LARGE: f64 = 1e16;

/// (e^a + sign e^-a) / 2 for a >= 0.
fn half_sum(a: f64, sign: f64) -> f64 {
    match a {
        a if a > 711.0 => f64::INFINITY,
        // Half of e^a may be below infinity where e^a is not.
        a if a > 40.0 => exp_dd(Dd::from(a) - LN2).to_f64(),
        a => {
            let e = exp_dd(Dd::from(a));
            (e + Dd::from(sign) / e).scale(0.5).to_f64()
        }
    }
}

/// Hyperbolic sine.
pub fn sinh64(x: f64) -> f64 {
    match x.abs() {
        a if a.is_nan() => f64::NAN,
        a if a < TINY => x,
        a if a < SMALL => sinh_series(Dd::from(x)).to_f64(),
        a => half_sum(a, -1.0).copysign(x),
    }
}

/// Hyperbolic cosine.
pub fn cosh64(x: f64) -> f64 {
    match x.abs() {
        a if a.is_nan() => f64::NAN,
        a if a < SMALL => {
            let square = Dd::from(a) * Dd::from(a);
            let terms = [8, 6, 4, 2].map(|n| INVERSE_FACTORIALS[n]);
            terms.into_iter().fold(Dd::from(0.0), |sum, term| (sum + term) * square).beside(1.0)
        }
        a => half_sum(a, 1.0),
    }
}

/// Inverse hyperbolic sine.
pub fn asinh64(x: f64) -> f64 {
    match x.abs() {
        a if a.is_nan() => f64::NAN,
        a if a.is_infinite() || a < TINY => x,
        a if a > LARGE => (ln_positive(a) + LN2).to_f64().copysign(x),
        a => asinh_dd(Dd::from(a)).to_f64().copysign(x),
    }
}

/// Inverse hyperbolic cosine; NaN below 1.
pub fn acosh64(x: f64) -> f64 {
    match x {
        1.0 => 0.0,
        f64::INFINITY => x,
        x if x > LARGE => (ln_positive(x) + LN2).to_f64(),
        x if x > 1.0 => acosh_dd(Dd::from(x)).to_f64(),
        _ => f64::NAN,
    }
}

/// Inverse hyperbolic tangent; NaN outside of -1 to 1.
pub fn atanh64(x: f64) -> f64 {
    match x.abs() {
        1.0 => f64::INFINITY.copysign(x),
        a if a < TINY => x,
        a if a < 1.0 => atanh_dd(Dd::from(a)).to_f64().copysign(x),
        _ => f64::NAN,
    }
}

/// ln(1 + e^x).
pub fn softplus64(x: f64) -> f64 {
    match x {
        x if x.is_nan() => f64::NAN,
        x if x > 60.0 => x,
        x if x < -80.0 => exp64(x),
        x => softplus_dd(x).to_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementary::have_values;

    #[test]
    fn special_values() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        have_values(&[
            (sinh64, &[(-0.0, -0.0), (inf, inf), (-inf, -inf), (-720.0, -inf)]),
            (cosh64, &[(-0.0, 1.0), (-inf, inf), (711.0, inf)]),
            (asinh64, &[(-0.0, -0.0), (-inf, -inf), (5e-324, 5e-324)]),
            (acosh64, &[(1.0, 0.0), (inf, inf), (0.5, nan), (-inf, nan)]),
            (atanh64, &[(-0.0, -0.0), (1.0, inf), (-1.0, -inf), (1.5, nan)]),
            (softplus64, &[(inf, inf), (-inf, 0.0), (-800.0, 0.0), (100.0, 100.0)]),
        ]);
    }
}
