//! Elementary functions of f32, correctly rounded (SEMANTICS.md, section 4).
//!
//! Each function has two programs. The *fast* one computes in f64 with an error below a stated bound and says
//! whether rounding the bound's two ends gives one and the same f32; if so, that is the correctly rounded result,
//! whatever the exact intermediate values were, so a vector unit may compute them in its own way. Otherwise the
//! *accurate* one decides, in double-double arithmetic of about 100 bits.

mod accurate;
mod dd;
mod double;
mod fast;
mod hyperbolic_accurate;
mod hyperbolic_double;
mod hyperbolic_fast;
mod pow;
mod reduce;
mod trig_accurate;
mod trig_double;
mod trig_fast;

pub use double::{cos64, erf64, exp64, ln64, pow64, sigmoid64, sin64, tanh64};
pub use fast::{erf_fast, exp_fast, ln_fast, sigmoid_fast, tanh_fast};
pub use hyperbolic_double::{acosh64, asinh64, atanh64, cosh64, sinh64, softplus64};
pub use hyperbolic_fast::{acosh_fast, asinh_fast, atanh_fast, cosh_fast, sinh_fast, softplus_fast};
pub use pow::{cube, pow};
pub use trig_double::{acos64, asin64, atan64, tan64};
pub use trig_fast::{acos_fast, asin_fast, atan_fast, cos_fast, sin_fast, tan_fast};

macro_rules! function {
    ($(#[$doc:meta])* $accurate:ident :: $name:ident, $fast:ident) => {
        $(#[$doc])*
        pub fn $name(x: f32) -> f32 {
            let (y, sure) = $fast::<false>(x);
            if sure { y } else { $accurate::$name(x) }
        }
    };
}

function! {
    /// e^x, correctly rounded.
    accurate::exp, exp_fast
}
function! {
    /// Natural logarithm, correctly rounded; -infinity at zero, NaN below.
    accurate::ln, ln_fast
}
function! {
    /// The error function, correctly rounded.
    accurate::erf, erf_fast
}
function! {
    /// Hyperbolic tangent, correctly rounded.
    accurate::tanh, tanh_fast
}
function! {
    /// The logistic function 1 / (1 + e^-x), correctly rounded as one function.
    accurate::sigmoid, sigmoid_fast
}
function! {
    /// Sine, correctly rounded for angles (in radians) of any size; NaN at infinity.
    trig_accurate::sin, sin_fast
}
function! {
    /// Cosine, correctly rounded for angles (in radians) of any size; NaN at infinity.
    trig_accurate::cos, cos_fast
}
function! {
    /// Tangent, correctly rounded for angles (in radians) of any size; NaN at infinity.
    trig_accurate::tan, tan_fast
}
function! {
    /// Inverse sine, correctly rounded; NaN outside of -1..=1.
    trig_accurate::asin, asin_fast
}
function! {
    /// Inverse cosine, correctly rounded; NaN outside of -1..=1.
    trig_accurate::acos, acos_fast
}
function! {
    /// Inverse tangent, correctly rounded.
    trig_accurate::atan, atan_fast
}
function! {
    /// Hyperbolic sine, correctly rounded.
    hyperbolic_accurate::sinh, sinh_fast
}
function! {
    /// Hyperbolic cosine, correctly rounded.
    hyperbolic_accurate::cosh, cosh_fast
}
function! {
    /// Inverse hyperbolic sine, correctly rounded.
    hyperbolic_accurate::asinh, asinh_fast
}
function! {
    /// Inverse hyperbolic cosine, correctly rounded; NaN below 1.
    hyperbolic_accurate::acosh, acosh_fast
}
function! {
    /// Inverse hyperbolic tangent, correctly rounded; infinite at -1 and 1, NaN beyond.
    hyperbolic_accurate::atanh, atanh_fast
}
function! {
    /// ln(1 + e^x), correctly rounded as one function.
    hyperbolic_accurate::softplus, softplus_fast
}

/// A function and values of it.
#[cfg(test)]
type Values<'a> = (fn(f64) -> f64, &'a [(f64, f64)]);

/// Asserts values of functions, to the bit, and that each keeps NaN.
#[cfg(test)]
fn have_values(functions: &[Values<'_>]) {
    for (f, cases) in functions {
        assert!(f(f64::NAN).is_nan());
        for &(x, expected) in *cases {
            let y = f(x);
            assert!(y.to_bits() == expected.to_bits() || y.is_nan() && expected.is_nan(), "{x}: {y}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Fast = fn(f32) -> (f32, bool);
    type Row = (&'static str, Fast, Fast, fn(f32) -> f32);

    #[test]
    fn cubes_are_powers() {
        let mut x: u32 = 0;
        while let Some(next) = x.checked_add(25_013) {
            for bits in [x, x ^ 0xfff] {
                let x = f32::from_bits(bits);
                let (cube, power) = (cube(x), pow(x, 3.0));
                assert!(cube.to_bits() == power.to_bits() || cube.is_nan() && power.is_nan(), "{x:e}");
            }
            x = next;
        }
    }

    /// Both forms of a fast program are right wherever they are sure; the accurate one is independent of them.
    #[test]
    fn fast_and_accurate_programs_agree() {
        let functions: [Row; 17] = [
            ("exp", exp_fast::<true>, exp_fast::<false>, accurate::exp),
            ("ln", ln_fast::<true>, ln_fast::<false>, accurate::ln),
            ("erf", erf_fast::<true>, erf_fast::<false>, accurate::erf),
            ("tanh", tanh_fast::<true>, tanh_fast::<false>, accurate::tanh),
            ("sigmoid", sigmoid_fast::<true>, sigmoid_fast::<false>, accurate::sigmoid),
            ("sin", sin_fast::<true>, sin_fast::<false>, trig_accurate::sin),
            ("cos", cos_fast::<true>, cos_fast::<false>, trig_accurate::cos),
            ("tan", tan_fast::<true>, tan_fast::<false>, trig_accurate::tan),
            ("asin", asin_fast::<true>, asin_fast::<false>, trig_accurate::asin),
            ("acos", acos_fast::<true>, acos_fast::<false>, trig_accurate::acos),
            ("atan", atan_fast::<true>, atan_fast::<false>, trig_accurate::atan),
            ("sinh", sinh_fast::<true>, sinh_fast::<false>, hyperbolic_accurate::sinh),
            ("cosh", cosh_fast::<true>, cosh_fast::<false>, hyperbolic_accurate::cosh),
            ("asinh", asinh_fast::<true>, asinh_fast::<false>, hyperbolic_accurate::asinh),
            ("acosh", acosh_fast::<true>, acosh_fast::<false>, hyperbolic_accurate::acosh),
            ("atanh", atanh_fast::<true>, atanh_fast::<false>, hyperbolic_accurate::atanh),
            ("softplus", softplus_fast::<true>, softplus_fast::<false>, hyperbolic_accurate::softplus),
        ];
        for (name, fused, plain, accurate) in functions {
            for bits in (0..=u32::MAX).step_by(40_009) {
                let x = f32::from_bits(bits);
                let expected = accurate(x);
                for (y, sure) in [fused(x), plain(x)] {
                    assert!(!sure || y.to_bits() == expected.to_bits(), "{name}({x:e}): {y:e}, {expected:e}");
                }
            }
        }
    }
}
