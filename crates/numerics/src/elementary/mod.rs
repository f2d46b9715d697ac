//! Elementary functions of f32, correctly rounded (SEMANTICS.md, section 4).
//!
//! Each function has two programs. The *fast* one computes in f64 with an error below a stated bound and says
//! whether rounding the bound's two ends gives one and the same f32; if so, that is the correctly rounded result,
//! whatever the exact intermediate values were, so a vector unit may compute them in its own way. Otherwise the
//! *accurate* one decides, in double-double arithmetic of about 100 bits.

mod accurate;
mod dd;
mod fast;
mod pow;

pub use fast::{erf_fast, exp_fast, ln_fast, sigmoid_fast, tanh_fast};
pub use pow::pow;

macro_rules! function {
    ($(#[$doc:meta])* $name:ident, $fast:ident) => {
        $(#[$doc])*
        pub fn $name(x: f32) -> f32 {
            let (y, sure) = $fast::<false>(x);
            if sure { y } else { accurate::$name(x) }
        }
    };
}

function! {
    /// e^x, correctly rounded.
    exp, exp_fast
}
function! {
    /// Natural logarithm, correctly rounded; -infinity at zero, NaN below.
    ln, ln_fast
}
function! {
    /// The error function, correctly rounded.
    erf, erf_fast
}
function! {
    /// Hyperbolic tangent, correctly rounded.
    tanh, tanh_fast
}
function! {
    /// The logistic function 1 / (1 + e^-x), correctly rounded as one function.
    sigmoid, sigmoid_fast
}
