//! Independent implementations to compare with: CORE-MATH's correctly rounded C functions; for the logistic
//! function and softplus, which CORE-MATH lacks, its f64 functions with an error interval, and big floats where that leaves a doubt.
#![allow(unreachable_pub)] // shared by a test and an example
#![allow(clippy::disallowed_methods)] // the oracle has no NaN and no -0 to order

use astro_float::{BigFloat, Consts, RoundingMode};

/// A function of the profile and its oracle.
#[derive(Clone, Copy)]
pub struct Function {
    pub name: &'static str,
    pub ours: fn(f32) -> f32,
    pub oracle: fn(f32) -> f32,
}

pub const FUNCTIONS: &[Function] = &[
    Function { name: "exp", ours: isobit_numerics::exp, oracle: |x| core_math::expf(x) },
    Function { name: "ln", ours: isobit_numerics::ln, oracle: |x| core_math::logf(x) },
    Function { name: "erf", ours: isobit_numerics::erf, oracle: |x| core_math::erff(x) },
    Function { name: "tanh", ours: isobit_numerics::tanh, oracle: |x| core_math::tanhf(x) },
    Function { name: "sigmoid", ours: isobit_numerics::sigmoid, oracle: sigmoid },
    Function { name: "sin", ours: isobit_numerics::sin, oracle: |x| core_math::sinf(x) },
    Function { name: "cos", ours: isobit_numerics::cos, oracle: |x| core_math::cosf(x) },
    Function { name: "tan", ours: isobit_numerics::tan, oracle: |x| core_math::tanf(x) },
    Function { name: "asin", ours: isobit_numerics::asin, oracle: |x| core_math::asinf(x) },
    Function { name: "acos", ours: isobit_numerics::acos, oracle: |x| core_math::acosf(x) },
    Function { name: "atan", ours: isobit_numerics::atan, oracle: |x| core_math::atanf(x) },
    Function { name: "sinh", ours: isobit_numerics::sinh, oracle: |x| core_math::sinhf(x) },
    Function { name: "cosh", ours: isobit_numerics::cosh, oracle: |x| core_math::coshf(x) },
    Function { name: "asinh", ours: isobit_numerics::asinh, oracle: |x| core_math::asinhf(x) },
    Function { name: "acosh", ours: isobit_numerics::acosh, oracle: |x| core_math::acoshf(x) },
    Function { name: "atanh", ours: isobit_numerics::atanh, oracle: |x| core_math::atanhf(x) },
    Function { name: "softplus", ours: isobit_numerics::softplus, oracle: softplus },
];

fn sigmoid(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let y = 1.0 / (1.0 + core_math::exp(-f64::from(x)));
    // Three roundings of half a unit each: 2^-51 covers them. (e^-x overflows only where the result rounds to 0.)
    let (a, b) = ((y * (1.0 - 4e-16)) as f32, (y * (1.0 + 4e-16)) as f32);
    if a == b { a } else { big_sigmoid(x) }
}

fn softplus(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let d = f64::from(x);
    let y = d.max(0.0) + core_math::log1p(core_math::exp(-d.abs()));
    let (a, b) = ((y * (1.0 - 4e-16)) as f32, (y * (1.0 + 4e-16)) as f32);
    if a == b { a } else { big_softplus(x) }
}

const PRECISION: usize = 256;

fn big_sigmoid(x: f32) -> f32 {
    let (p, rm) = (PRECISION, RoundingMode::ToEven);
    let one = BigFloat::from_f64(1.0, p);
    let y = one.div(&one.add(&big_exp(-f64::from(x)), p, rm), p, rm);
    nearest(&y, (1.0 / (1.0 + core_math::exp(-f64::from(x)))) as f32)
}

fn big_softplus(x: f32) -> f32 {
    let (p, rm) = (PRECISION, RoundingMode::ToEven);
    let d = f64::from(x);
    let mut consts = Consts::new().expect("constants");
    // e^-110 is 2^-159: enough of it is left in 1 + e^-|x| at this precision.
    let log = BigFloat::from_f64(1.0, p).add(&big_exp(-d.abs()), p, rm).ln(p, rm, &mut consts);
    let y = log.add(&BigFloat::from_f64(d.max(0.0), p), p, rm);
    nearest(&y, (d.max(0.0) + core_math::log1p(core_math::exp(-d.abs()))) as f32)
}

fn big_exp(x: f64) -> BigFloat {
    let mut consts = Consts::new().expect("constants");
    BigFloat::from_f64(x, PRECISION).exp(PRECISION, RoundingMode::ToEven, &mut consts)
}

/// The f32 nearest to `y`, the estimate or a neighbour of it.
fn nearest(y: &BigFloat, estimate: f32) -> f32 {
    let (p, rm) = (PRECISION, RoundingMode::ToEven);
    let bits = estimate.to_bits(); // not negative
    let candidates = [bits.saturating_sub(1), bits, bits + 1].map(f32::from_bits);
    let distance = |c: f32| BigFloat::from_f64(f64::from(c), p).sub(y, p, rm).abs();
    let mut best = candidates[0];
    for c in candidates {
        if distance(c).cmp(&distance(best)).is_some_and(|o| o < 0) {
            best = c;
        }
    }
    best
}

/// Whether two results are one: equal bits, or both NaN.
pub fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}
