//! Independent implementations to compare with: CORE-MATH's correctly rounded C functions; for the logistic
//! function and softplus, which CORE-MATH lacks, its f64 functions or sums of two f64 with an error interval, and big floats where that leaves
//! a doubt.
#![allow(unreachable_pub, dead_code)] // shared by a test and two examples, each with its part
#![allow(clippy::disallowed_methods)] // the oracle has no NaN and no -0 to order

mod double_double;

use astro_float::{BigFloat, Consts, RoundingMode};
use double_double::Double;
use isobit_numerics::rng::Rng;

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

/// A function of f64 and its oracle. Arguments are drawn from all bits, from around 0, and up to `reach` on both sides.
#[derive(Clone, Copy)]
pub struct Function64 {
    pub name: &'static str,
    pub ours: fn(f64) -> f64,
    pub oracle: fn(f64) -> f64,
    pub reach: f64,
}

const fn f64_function(
    name: &'static str,
    ours: fn(f64) -> f64,
    oracle: fn(f64) -> f64,
    reach: f64,
) -> Function64 {
    Function64 { name, ours, oracle, reach }
}

pub const FUNCTIONS64: &[Function64] = &[
    f64_function("exp64", isobit_numerics::exp64, core_math::exp, 750.0),
    f64_function("ln64", isobit_numerics::ln64, core_math::log, 1e6),
    f64_function("erf64", isobit_numerics::erf64, core_math::erf, 7.0),
    f64_function("tanh64", isobit_numerics::tanh64, core_math::tanh, 25.0),
    f64_function("sigmoid64", isobit_numerics::sigmoid64, sigmoid64, 750.0),
    f64_function("sin64", isobit_numerics::sin64, core_math::sin, 1e6),
    f64_function("cos64", isobit_numerics::cos64, core_math::cos, 1e6),
    f64_function("tan64", isobit_numerics::tan64, core_math::tan, 1e6),
    f64_function("asin64", isobit_numerics::asin64, core_math::asin, 1.0),
    f64_function("acos64", isobit_numerics::acos64, core_math::acos, 1.0),
    f64_function("atan64", isobit_numerics::atan64, core_math::atan, 1e3),
    f64_function("sinh64", isobit_numerics::sinh64, core_math::sinh, 715.0),
    f64_function("cosh64", isobit_numerics::cosh64, core_math::cosh, 715.0),
    f64_function("asinh64", isobit_numerics::asinh64, core_math::asinh, 1e3),
    f64_function("acosh64", isobit_numerics::acosh64, core_math::acosh, 1e3),
    f64_function("atanh64", isobit_numerics::atanh64, core_math::atanh, 1.0),
    f64_function("softplus64", isobit_numerics::softplus64, softplus64, 100.0),
];

/// The argument of case `i` of a function of f64.
pub fn argument64(i: u64, rng: &mut Rng, reach: f64) -> f64 {
    let signed = |rng: &mut Rng| rng.f64_unit() * 2.0 - 1.0;
    match i % 7 {
        0 => f64::from_bits(rng.next_u64()),
        1 | 2 => signed(rng) * reach,
        3 => signed(rng),
        // Close to 1, where some of them begin or end, and close to 0.
        4 => (1.0 + signed(rng) / (1u64 << rng.below(54)) as f64).copysign(signed(rng)),
        5 => signed(rng) / (1u64 << rng.below(60)) as f64,
        // Of few bits: results next to a number, or to the middle of two.
        _ => (rng.below(256) as f64 / (1u64 << rng.below(63)) as f64).copysign(signed(rng)),
    }
}

/// The arguments of case `i` of a function of two f64, quiet where NaN.
pub fn pair64(i: u64, rng: &mut Rng) -> (f64, f64) {
    const SPECIAL: [f64; 10] =
        [0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN];
    let one = |kind: u64, rng: &mut Rng| match kind {
        0 => f64::from_bits(rng.next_u64()),
        1 => rng.f64_unit() * 10.0,
        2 => 1.0 + (rng.f64_unit() - 0.5) / (1u64 << rng.below(50)) as f64,
        3 => SPECIAL[rng.below(SPECIAL.len())],
        4 => rng.below(64) as f64 / 2.0 - 16.0,
        5 => 1.0 + (rng.below(64) as f64 - 32.0) / (1u64 << rng.below(53)) as f64,
        _ => (rng.f64_unit() * 2.0 - 1.0) * 200.0,
    };
    // The profile knows one NaN, the quiet one; C tells signalling ones apart.
    let quiet = |v: f64| if v.is_nan() { f64::NAN } else { v };
    (quiet(one(i % 7, rng)), quiet(one(i / 7 % 7, rng)))
}

/// Units in the last place between two results; both NaN is none.
pub fn distance64(a: f64, b: f64) -> u64 {
    if a.is_nan() || b.is_nan() {
        return if a.is_nan() && b.is_nan() { 0 } else { u64::MAX };
    }
    if a.is_sign_negative() != b.is_sign_negative() { u64::MAX } else { a.to_bits().abs_diff(b.to_bits()) }
}

fn sigmoid64(x: f64) -> f64 {
    match x {
        x if x.is_nan() => x,
        x if x > 40.0 => 1.0,
        x if x < -80.0 => core_math::exp(x),
        x => fast_sigmoid64(x).nearest().unwrap_or_else(|| {
            let (p, rm) = (PRECISION, RoundingMode::ToEven);
            let one = BigFloat::from_f64(1.0, p);
            nearest64(&one.div(&one.add(&big_exp(-x), p, rm), p, rm), 1.0 / (1.0 + core_math::exp(-x)))
        }),
    }
}

fn fast_sigmoid64(x: f64) -> Double {
    Double::from(1.0) / (Double::from(1.0) + double_double::exp(-x))
}

fn fast_softplus64(x: f64) -> Double {
    Double::from(x.max(0.0)) + double_double::log1p(double_double::exp(-x.abs()))
}

fn softplus64(x: f64) -> f64 {
    match x {
        x if x.is_nan() || x > 80.0 => x,
        x if x < -80.0 => core_math::exp(x),
        x => fast_softplus64(x).nearest().unwrap_or_else(|| {
            let (p, rm) = (PRECISION, RoundingMode::ToEven);
            let mut consts = Consts::new().expect("constants");
            let log = BigFloat::from_f64(1.0, p).add(&big_exp(-x.abs()), p, rm).ln(p, rm, &mut consts);
            let y = log.add(&BigFloat::from_f64(x.max(0.0), p), p, rm);
            nearest64(&y, x.max(0.0) + core_math::log1p(core_math::exp(-x.abs())))
        }),
    }
}

#[test]
fn sums_of_two_agree_with_big_floats() {
    let mut rng = Rng::new(3, 0);
    let (p, rm) = (PRECISION, RoundingMode::ToEven);
    let one = BigFloat::from_f64(1.0, p);
    let mut consts = Consts::new().expect("constants");
    for i in 0..3000 {
        let x = argument64(i, &mut rng, 40.0).clamp(-80.0, 40.0);
        if x.is_nan() {
            continue;
        }
        let exact = one.div(&one.add(&big_exp(-x), p, rm), p, rm);
        assert!(error(fast_sigmoid64(x), &exact) < 1e-26, "sigmoid of {x:e}");
        let exact = one.add(&big_exp(-x.abs()), p, rm).ln(p, rm, &mut consts);
        let exact = exact.add(&BigFloat::from_f64(x.max(0.0), p), p, rm);
        assert!(error(fast_softplus64(x), &exact) < 1e-26, "softplus of {x:e}");
    }
}

/// The relative error of a sum of two, roughly.
fn error(y: Double, exact: &BigFloat) -> f64 {
    let (p, rm) = (PRECISION, RoundingMode::ToEven);
    let own = BigFloat::from_f64(y.hi, p).add(&BigFloat::from_f64(y.lo, p), p, rm);
    let relative = own.sub(exact, p, rm).div(exact, p, rm).abs();
    relative.to_string().parse().unwrap_or(f64::INFINITY)
}

/// The f64 nearest to `y`, the estimate or one close to it.
fn nearest64(y: &BigFloat, estimate: f64) -> f64 {
    let (p, rm) = (PRECISION, RoundingMode::ToEven);
    let distance = |c: f64| BigFloat::from_f64(c, p).sub(y, p, rm).abs();
    let mut best = estimate;
    for step in -2..=2i64 {
        let c = f64::from_bits(estimate.to_bits().wrapping_add_signed(step)); // not negative
        if distance(c).cmp(&distance(best)).is_some_and(|o| o < 0) {
            best = c;
        }
    }
    best
}

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
