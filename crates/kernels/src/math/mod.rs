//! Unary functions over slices: correctly rounded elementary functions, and what is composed of them.

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
mod avx512;
#[cfg(all(target_arch = "x86_64", isobit_avx512))]
mod doubts;
#[cfg(all(target_arch = "x86_64", isobit_avx512))]
mod exponential;
#[cfg(all(target_arch = "x86_64", isobit_avx512))]
mod gelu;
#[cfg(all(target_arch = "x86_64", isobit_avx512))]
mod gelu_tanh;
#[cfg(all(target_arch = "x86_64", isobit_avx512))]
mod logistic;

use isobit_numerics::elementary::{
    acos_fast, acosh_fast, asin_fast, asinh_fast, atan_fast, atanh_fast, cos_fast, cosh_fast, erf_fast,
    exp_fast, ln_fast, sigmoid_fast, sin_fast, sinh_fast, softplus_fast, tan_fast, tanh_fast,
};
use isobit_numerics::{self as num, convert};

use crate::dispatch::multiversion;
use crate::{Exec, KernelSet};

/// A function applied to each element. Composite ones are the written sequence of f32 operations, each rounded.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Unary {
    /// e^x, correctly rounded.
    Exp,
    /// Natural logarithm, correctly rounded.
    Ln,
    /// Error function, correctly rounded.
    Erf,
    /// Hyperbolic tangent, correctly rounded.
    Tanh,
    /// 1 / (1 + e^-x), correctly rounded.
    Sigmoid,
    /// Sine, correctly rounded.
    Sin,
    /// Cosine, correctly rounded.
    Cos,
    /// Tangent, correctly rounded.
    Tan,
    /// Inverse sine, correctly rounded.
    Asin,
    /// Inverse cosine, correctly rounded.
    Acos,
    /// Inverse tangent, correctly rounded.
    Atan,
    /// Hyperbolic sine, correctly rounded.
    Sinh,
    /// Hyperbolic cosine, correctly rounded.
    Cosh,
    /// Inverse hyperbolic sine, correctly rounded.
    Asinh,
    /// Inverse hyperbolic cosine, correctly rounded.
    Acosh,
    /// Inverse hyperbolic tangent, correctly rounded.
    Atanh,
    /// ln(1 + e^x), correctly rounded.
    Softplus,
    /// x * x, which is pow(x, 2).
    Square,
    /// pow(x, 3), correctly rounded.
    Cube,
    /// Square root.
    Sqrt,
    /// 1 / x.
    Reciprocal,
    /// -x.
    Neg,
    /// |x|.
    Abs,
    /// Largest integer not above.
    Floor,
    /// Smallest integer not below.
    Ceil,
    /// Nearest integer, ties to even.
    Round,
    /// max(x, +0).
    Relu,
    /// x below 0 times alpha, else x.
    LeakyRelu {
        /// Slope below zero.
        alpha: f32,
    },
    /// max(0, min(1, alpha x + beta)): multiplication and addition rounded apart.
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// x * HardSigmoid(x; 1/6, 0.5).
    HardSwish,
    /// x * Sigmoid(x).
    Silu,
    /// (0.5 x) * (1 + erf(x * sqrt(1/2))).
    Gelu,
    /// (0.5 x) * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3))), x^3 as (x * x) * x.
    GeluTanh,
    /// As [`Unary::GeluTanh`] with x^3 as pow(x, 3), correctly rounded: the "gelu_new" of GPT-2.
    GeluNew,
    /// x below 0: alpha * (e^x - 1), else x.
    Elu {
        /// Limit at -infinity, negated.
        alpha: f32,
    },
    /// gamma * (x above 0: x, else alpha * e^x - alpha).
    Selu {
        /// Limit at -infinity before scaling, negated.
        alpha: f32,
        /// Scale.
        gamma: f32,
    },
    /// max(0, x) + min(0, alpha * (e^(x / alpha) - 1)).
    Celu {
        /// Limit at -infinity, negated.
        alpha: f32,
    },
    /// x * tanh(softplus(x)).
    Mish,
    /// x / (1 + |x|).
    Softsign,
    /// x above alpha: x, else +0; NaN stays NaN.
    ThresholdedRelu {
        /// Threshold.
        alpha: f32,
    },
}

/// `y[i] = f(x[i])`, on the pool for long slices.
///
/// # Panics
/// When the lengths differ.
pub fn unary(exec: Exec<'_>, f: Unary, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    y.copy_from_slice(x);
    unary_in_place(exec, f, y);
}

/// `x[i] = f(x[i])`, on the pool for long slices.
pub fn unary_in_place(exec: Exec<'_>, f: Unary, x: &mut [f32]) {
    crate::split(exec, x, 1 << 14, |_, part| apply(exec.set(), f, part));
}

/// As [`unary_in_place`], on the calling thread.
pub(crate) fn apply(set: KernelSet, f: Unary, x: &mut [f32]) {
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    if set == KernelSet::Avx512 {
        use avx512::Function;
        type Definition = fn(f32) -> f32;
        let by_tanh: Definition = |x| half_of(x, num::tanh(gelu_tanh_inner(x)));
        let new: Definition = |x| half_of(x, num::tanh(gelu_new_inner(x)));
        match f {
            // SAFETY: the set comes from `Exec`, which checked the machine.
            Unary::Exp => return unsafe { exponential::apply(x, num::exp) },
            // SAFETY: as above.
            Unary::Sigmoid => return unsafe { logistic::apply::<false>(x, num::sigmoid) },
            // SAFETY: as above.
            Unary::Gelu => return unsafe { gelu::apply(x, |x| half_of(x, num::erf(gelu_inner(x)))) },
            // SAFETY: as above.
            Unary::GeluTanh => return unsafe { gelu_tanh::apply::<false>(x, by_tanh) },
            // SAFETY: as above.
            Unary::GeluNew => return unsafe { gelu_tanh::apply::<true>(x, new) },
            // SAFETY: as above.
            Unary::Silu => return unsafe { logistic::apply::<true>(x, |x| x * num::sigmoid(x)) },
            _ => {}
        }
        let function: Option<(Function, Definition)> = match f {
            Unary::Tanh => Some((Function::Tanh, num::tanh)),
            Unary::Erf => Some((Function::Erf, num::erf)),
            _ => None,
        };
        if let Some((function, definition)) = function {
            // SAFETY: the set comes from `Exec`, which checked the machine.
            return unsafe { avx512::apply(function, x, definition) };
        }
    }
    match f {
        Unary::Exp => elementary(set, x, exp, num::exp),
        Unary::Ln => elementary(set, x, ln, num::ln),
        Unary::Erf => elementary(set, x, erf, num::erf),
        Unary::Tanh => elementary(set, x, tanh, num::tanh),
        Unary::Sigmoid => elementary(set, x, sigmoid, num::sigmoid),
        Unary::Sin => elementary(set, x, sin, num::sin),
        Unary::Cos => elementary(set, x, cos, num::cos),
        Unary::Tan => elementary(set, x, tan, num::tan),
        Unary::Asin => elementary(set, x, asin, num::asin),
        Unary::Acos => elementary(set, x, acos, num::acos),
        Unary::Atan => elementary(set, x, atan, num::atan),
        Unary::Sinh => elementary(set, x, sinh, num::sinh),
        Unary::Cosh => elementary(set, x, cosh, num::cosh),
        Unary::Asinh => elementary(set, x, asinh, num::asinh),
        Unary::Acosh => elementary(set, x, acosh, num::acosh),
        Unary::Atanh => elementary(set, x, atanh, num::atanh),
        Unary::Softplus => elementary(set, x, softplus, num::softplus),
        Unary::Square => map(set, x, Square),
        Unary::Cube => map(set, x, Cube),
        Unary::Sqrt => map(set, x, Sqrt),
        Unary::Reciprocal => map(set, x, Reciprocal),
        Unary::Neg => map(set, x, Neg),
        Unary::Abs => map(set, x, Abs),
        Unary::Floor => map(set, x, Floor),
        Unary::Ceil => map(set, x, Ceil),
        Unary::Round => map(set, x, Round),
        Unary::Relu => map(set, x, Relu),
        Unary::LeakyRelu { alpha } => map(set, x, LeakyRelu(alpha)),
        Unary::HardSigmoid { alpha, beta } => map(set, x, HardSigmoid(alpha, beta)),
        Unary::HardSwish => map(set, x, HardSwish),
        Unary::Silu => with_inner(set, x, |x| x, &[Unary::Sigmoid], |x, s| x * s),
        Unary::Gelu => with_inner(set, x, gelu_inner, &[Unary::Erf], half_of),
        Unary::GeluTanh => with_inner(set, x, gelu_tanh_inner, &[Unary::Tanh], half_of),
        Unary::GeluNew => with_inner(set, x, gelu_new_inner, &[Unary::Tanh], half_of),
        Unary::Elu { alpha } => {
            with_inner(set, x, |x| x, &[Unary::Exp], |x, e| if x < 0.0 { alpha * (e - 1.0) } else { x })
        }
        Unary::Selu { alpha, gamma } => with_inner(
            set,
            x,
            |x| x,
            &[Unary::Exp],
            |x, e| gamma * if x > 0.0 { x } else { alpha * e - alpha },
        ),
        Unary::Celu { alpha } => with_inner(
            set,
            x,
            |x| x / alpha,
            &[Unary::Exp],
            |x, e| num::max(0.0, x) + num::min(0.0, alpha * (e - 1.0)),
        ),
        Unary::Mish => with_inner(set, x, |x| x, &[Unary::Softplus, Unary::Tanh], |x, t| x * t),
        Unary::Softsign => map(set, x, Softsign),
        Unary::ThresholdedRelu { alpha } => map(set, x, ThresholdedRelu(alpha)),
    }
}

/// sqrt(2 / pi) rounded to f32.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;

#[inline(always)]
fn gelu_inner(x: f32) -> f32 {
    x * std::f32::consts::FRAC_1_SQRT_2
}

#[inline(always)]
fn gelu_tanh_inner(x: f32) -> f32 {
    SQRT_2_OVER_PI * (x + 0.044715 * (x * x * x))
}

#[inline(always)]
fn gelu_new_inner(x: f32) -> f32 {
    SQRT_2_OVER_PI * (x + 0.044715 * num::elementary::cube(x))
}

#[inline(always)]
fn half_of(x: f32, inner: f32) -> f32 {
    (0.5 * x) * (1.0 + inner)
}

/// `combine(x, f(prepare(x)))`, f being the functions one after another, in pieces that stay in cache.
#[inline(always)]
fn with_inner(
    set: KernelSet,
    x: &mut [f32],
    prepare: impl Fn(f32) -> f32 + Copy,
    functions: &[Unary],
    combine: impl Fn(f32, f32) -> f32 + Copy,
) {
    let mut inner = [0.0f32; 512];
    for part in x.chunks_mut(512) {
        let inner = &mut inner[..part.len()];
        for (t, &x) in inner.iter_mut().zip(part.iter()) {
            *t = prepare(x);
        }
        for &f in functions {
            apply(set, f, inner);
        }
        for (x, &t) in part.iter_mut().zip(inner.iter()) {
            *x = combine(*x, t);
        }
    }
}

/// Elements whose doubt is looked at together.
const BLOCK: usize = 64;

/// The fast program on each block; elements that it leaves in doubt get the definition.
fn elementary(
    set: KernelSet,
    x: &mut [f32],
    fast: fn(KernelSet, &[f32], &mut [f32]) -> bool,
    definition: fn(f32) -> f32,
) {
    if set == KernelSet::Scalar {
        for x in x {
            *x = definition(*x);
        }
        return;
    }
    let mut out = [0.0f32; BLOCK];
    for part in x.chunks_mut(BLOCK) {
        let out = &mut out[..part.len()];
        if fast(set, part, out) {
            part.copy_from_slice(out);
        } else {
            for x in part {
                *x = definition(*x);
            }
        }
    }
}

macro_rules! elementary_blocks {
    ($($name:ident = $fast:ident;)*) => {$(
        multiversion! {
            /// The fast program on a block; true if every result is sure.
            fn $name(x: &[f32], y: &mut [f32]) -> bool {
                let mut doubt = 0u32;
                for (y, &x) in y.iter_mut().zip(x) {
                    let (value, sure) = $fast::<true>(x);
                    *y = value;
                    doubt |= u32::from(!sure);
                }
                doubt == 0
            }
        }
    )*};
}

elementary_blocks! {
    exp = exp_fast;
    ln = ln_fast;
    erf = erf_fast;
    tanh = tanh_fast;
    sigmoid = sigmoid_fast;
    sin = sin_fast;
    cos = cos_fast;
    tan = tan_fast;
    asin = asin_fast;
    acos = acos_fast;
    atan = atan_fast;
    sinh = sinh_fast;
    cosh = cosh_fast;
    asinh = asinh_fast;
    acosh = acosh_fast;
    atanh = atanh_fast;
    softplus = softplus_fast;
}

/// An element function without state to look up; compiled into each set's loop.
trait Map: Copy {
    fn call(self, x: f32) -> f32;
}

macro_rules! maps {
    ($($name:ident $(($($field:ident),*))? : |$x:ident| $body:expr;)*) => {$(
        #[derive(Clone, Copy)]
        struct $name $(($(maps!(@f32 $field)),*))?;
        impl Map for $name {
            #[inline(always)]
            fn call(self, $x: f32) -> f32 {
                $(let $name($($field),*) = self;)?
                $body
            }
        }
    )*};
    (@f32 $field:ident) => { f32 };
}

maps! {
    Square: |x| x * x;
    Cube: |x| num::elementary::cube(x);
    Sqrt: |x| x.sqrt();
    Reciprocal: |x| 1.0 / x;
    Neg: |x| -x;
    Abs: |x| x.abs();
    Floor: |x| x.floor();
    Ceil: |x| x.ceil();
    Round: |x| convert::round_ties_even(x);
    Relu: |x| num::relu(x);
    LeakyRelu(alpha): |x| if x < 0.0 { alpha * x } else { x };
    HardSigmoid(alpha, beta): |x| hard_sigmoid(x, alpha, beta);
    Softsign: |x| x / (1.0 + x.abs());
    ThresholdedRelu(alpha): |x| if x <= alpha { 0.0 } else { x };
    HardSwish: |x| hard_swish(x);
}

#[inline(always)]
fn hard_sigmoid(x: f32, alpha: f32, beta: f32) -> f32 {
    num::max(0.0, num::min(1.0, alpha * x + beta))
}

/// x times the hard sigmoid of slope 1/6. Where x is NaN the product is, so that the limits may be those of the machine.
#[inline(always)]
fn hard_swish(x: f32) -> f32 {
    let t = 1.0 / 6.0 * x + 0.5;
    let t = if t < 1.0 { t } else { 1.0 };
    x * if t > 0.0 { t } else { 0.0 }
}

fn map<M: Map>(set: KernelSet, x: &mut [f32], f: M) {
    #[inline(always)]
    fn body<M: Map>(x: &mut [f32], f: M) {
        for x in x {
            *x = f.call(*x);
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2<M: Map>(x: &mut [f32], f: M) {
        body(x, f);
    }
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn avx512<M: Map>(x: &mut [f32], f: M) {
        body(x, f);
    }
    match set {
        #[cfg(all(target_arch = "x86_64", isobit_avx512))]
        // SAFETY: sets other than Scalar come from `Exec`, which checked the machine.
        KernelSet::Avx512 => unsafe { avx512(x, f) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        KernelSet::Avx2 => unsafe { avx2(x, f) },
        _ => body(x, f),
    }
}
