//! The numeric profile `isobit-1` as a program: slow, scalar, without `unsafe` and without dependencies.
//! Every fast kernel stands beside one of these functions and must give the same bits.
//!
//! ```
//! // The contraction rule: one accumulator, ascending, one fused multiply-add a step.
//! assert_eq!(isobit_numerics::dot(&[1.0, 2.0], &[3.0, 4.0]), 11.0);
//! // The sum rule: 32 virtual lanes, then halves.
//! assert_eq!(isobit_numerics::sum([1.0, 2.0, 3.0]), 6.0);
//! ```
//!
//! The normative text is SEMANTICS.md.

#![forbid(unsafe_code)]

pub mod chain;
pub mod convert;
pub mod elementary;
mod exact;
mod fma;
pub mod minmax;
pub mod rng;
pub mod small;
pub mod sum;

pub use chain::{chain, chain64, dot};
pub use elementary::{
    acos, acosh, asin, asinh, atan, atanh, cos, cosh, erf, exp, ln, pow, sigmoid, sin, sinh, softplus, tan,
    tanh,
};
pub use elementary::{
    acos64, acosh64, asin64, asinh64, atan64, atanh64, cos64, cosh64, erf64, exp64, ln64, pow64, sigmoid64,
    sin64, sinh64, softplus64, tan64, tanh64,
};
pub use fma::{fma, fma64};
pub use minmax::{max, max64, min, min64, relu, relu64};
pub use sum::{LANES, fold_lanes, fold_lanes64, sum, sum_abs, sum_abs64, sum_squares, sum_squares64, sum64};
