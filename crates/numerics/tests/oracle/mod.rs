//! Independent implementations to compare with: CORE-MATH's correctly rounded C functions; for the logistic
//! function, which CORE-MATH lacks, its f64 exponential with an error interval, and big floats where that leaves a doubt.
#![allow(unreachable_pub)] // shared by a test and an example

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

fn big_sigmoid(x: f32) -> f32 {
    let (p, rm) = (192, RoundingMode::ToEven);
    let mut consts = Consts::new().expect("constants");
    let one = BigFloat::from_f64(1.0, p);
    let e = BigFloat::from_f64(-f64::from(x), p).exp(p, rm, &mut consts);
    let y = one.div(&one.add(&e, p, rm), p, rm);
    // To f32: between the two neighbours of the f64 estimate, the nearer one.
    let estimate = (1.0 / (1.0 + core_math::exp(-f64::from(x)))) as f32;
    let bits = estimate.to_bits(); // not negative
    let candidates = [bits.saturating_sub(1), bits, bits + 1].map(f32::from_bits);
    let distance = |c: f32| BigFloat::from_f64(f64::from(c), p).sub(&y, p, rm).abs();
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
