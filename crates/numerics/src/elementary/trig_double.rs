//! Tangent and the inverse circular functions of f64, as [`super::double`] defines them.

use super::dd::Dd;
use super::double::TINY;
use super::reduce::reduce;
use super::trig_accurate::{PI, PI_2, asin_dd, atan_dd, tan_dd};

/// Tangent of an angle in radians, of any size.
pub fn tan64(x: f64) -> f64 {
    match x {
        _ if !x.is_finite() => f64::NAN,
        _ if x.abs() < TINY => x,
        _ => {
            let (r, k) = reduce(x.abs());
            let y = tan_dd(r, k).to_f64();
            if x < 0.0 { -y } else { y }
        }
    }
}

/// asin a for 1/2 < a <= 1 is a quarter turn less twice this: near 1 the sine says little of its angle.
fn half_acos(a: f64) -> Dd {
    let square = Dd::from(1.0 - a).scale(0.5);
    if square.hi == 0.0 { square } else { asin_dd(square.sqrt()) }
}

/// Arc sine; NaN outside of -1 to 1.
pub fn asin64(x: f64) -> f64 {
    match x.abs() {
        a if a < TINY => x,
        a if a <= 0.5 => asin_dd(Dd::from(a)).to_f64().copysign(x),
        a if a <= 1.0 => (PI_2 - half_acos(a).scale(2.0)).to_f64().copysign(x),
        _ => f64::NAN,
    }
}

/// Arc cosine; NaN outside of -1 to 1.
pub fn acos64(x: f64) -> f64 {
    let y = match x.abs() {
        a if a <= 0.5 => {
            let y = asin_dd(Dd::from(a));
            if x < 0.0 { PI_2 + y } else { PI_2 - y }
        }
        a if a <= 1.0 => {
            let y = half_acos(a).scale(2.0);
            if x < 0.0 { PI - y } else { y }
        }
        _ => return f64::NAN,
    };
    y.to_f64()
}

/// Arc tangent.
pub fn atan64(x: f64) -> f64 {
    let y = match x.abs() {
        a if a.is_nan() => return f64::NAN,
        a if a < TINY => return x,
        a if a <= 1.0 => atan_dd(Dd::from(a)),
        a if a < 1e20 => PI_2 - atan_dd(Dd::ONE / Dd::from(a)),
        _ => PI_2,
    };
    y.to_f64().copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementary::have_values;
    use std::f64::consts::{FRAC_PI_2, PI};

    #[test]
    fn special_values() {
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        have_values(&[
            (tan64, &[(-0.0, -0.0), (inf, nan), (5e-324, 5e-324)]),
            (asin64, &[(-0.0, -0.0), (1.0, FRAC_PI_2), (-1.0, -FRAC_PI_2), (1.5, nan), (-inf, nan)]),
            (acos64, &[(1.0, 0.0), (-1.0, PI), (0.0, FRAC_PI_2), (-0.0, FRAC_PI_2), (2.0, nan)]),
            (atan64, &[(-0.0, -0.0), (inf, FRAC_PI_2), (-inf, -FRAC_PI_2)]),
        ]);
    }
}
