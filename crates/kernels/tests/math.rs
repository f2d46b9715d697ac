//! The vector programs of the elementary functions give the definition's bits.

use isobit_kernels::math::{Unary, unary, unary_in_place};
use isobit_kernels::{Exec, KernelSet, Serial};
use isobit_numerics as num;

type Definition = fn(f32) -> f32;
type Composite = (Unary, Box<dyn Fn(f32) -> f32>);

const FUNCTIONS: [(Unary, Definition); 21] = [
    (Unary::Exp, num::exp),
    (Unary::Erf, num::erf),
    (Unary::Tanh, num::tanh),
    (Unary::Sigmoid, num::sigmoid),
    (Unary::Ln, num::ln),
    (Unary::Softplus, num::softplus),
    (Unary::Sin, num::sin),
    (Unary::Cos, num::cos),
    (Unary::Tan, num::tan),
    (Unary::Asin, num::asin),
    (Unary::Acos, num::acos),
    (Unary::Atan, num::atan),
    (Unary::Sinh, num::sinh),
    (Unary::Cosh, num::cosh),
    (Unary::Asinh, num::asinh),
    (Unary::Acosh, num::acosh),
    (Unary::Atanh, num::atanh),
    (Unary::Silu, |x| x * num::sigmoid(x)),
    (Unary::GeluTanh, |x| (0.5 * x) * (1.0 + num::tanh(gelu_inner(x, x * x * x)))),
    (Unary::GeluNew, |x| (0.5 * x) * (1.0 + num::tanh(gelu_inner(x, num::elementary::cube(x))))),
    (Unary::Gelu, |x| (0.5 * x) * (1.0 + num::erf(x * std::f32::consts::FRAC_1_SQRT_2))),
];

fn gelu_inner(x: f32, cube: f32) -> f32 {
    (x + 0.044715 * cube) * 0.797_884_6
}

fn same(a: f32, b: f32) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

/// Every `stride`-th f32 from `first`, in pieces, through the function on each kernel set.
fn check(f: Unary, definition: Definition, first: u32, last: u32, stride: usize) {
    let mut bits = (first..=last).step_by(stride).peekable();
    while bits.peek().is_some() {
        let x: Vec<f32> = bits.by_ref().take(1 << 16).map(f32::from_bits).collect();
        let expected: Vec<f32> = x.iter().map(|&x| definition(x)).collect();
        for set in KernelSet::available() {
            if set == KernelSet::Scalar {
                continue; // it calls the definition
            }
            let mut y = x.clone();
            unary_in_place(Exec::new(set, &Serial), f, &mut y);
            for ((x, y), e) in x.iter().zip(&y).zip(&expected) {
                assert!(same(*y, *e), "{f:?} on {set}: f({x:e}) is {y:e}, expected {e:e}");
            }
        }
    }
}

/// By default a part of all inputs, spread evenly over both signs and all exponents; all 2^32 with
/// ISOBIT_EXHAUSTIVE=1 (and one function of them with ISOBIT_FUNCTION=Exp).
#[test]
fn elementary_functions() {
    let all = std::env::var_os("ISOBIT_EXHAUSTIVE").is_some();
    let only = std::env::var("ISOBIT_FUNCTION").ok();
    for (f, definition) in FUNCTIONS {
        if only.as_ref().is_some_and(|name| *name != format!("{f:?}")) {
            continue;
        }
        std::thread::scope(|scope| {
            for (first, last) in [(0, (1 << 31) - 1), (1 << 31, u32::MAX)] {
                scope.spawn(move || check(f, definition, first, last, if all { 1 } else { 8191 }));
            }
        });
        if all {
            println!("{f:?}: 4294967296 inputs agree on every kernel set");
        }
    }
}

/// Composite functions equal their written sequence of f32 operations.
#[test]
fn composite_functions() {
    let mut rng = num::rng::Rng::new(21, 0);
    let x: Vec<f32> =
        (0..5000).map(|i| if i % 2 == 0 { rng.f32_any() } else { rng.f32_unit() * 20.0 - 10.0 }).collect();
    let (alpha, gamma) = (1.67326, 1.0507);
    let functions: [Composite; 6] = [
        (Unary::Elu { alpha }, Box::new(move |x| if x < 0.0 { alpha * (num::exp(x) - 1.0) } else { x })),
        (
            Unary::Selu { alpha, gamma },
            Box::new(move |x| gamma * if x > 0.0 { x } else { alpha * num::exp(x) - alpha }),
        ),
        (
            Unary::Celu { alpha },
            Box::new(move |x| num::max(0.0, x) + num::min(0.0, alpha * (num::exp(x / alpha) - 1.0))),
        ),
        (Unary::Mish, Box::new(move |x| x * num::tanh(num::softplus(x)))),
        (Unary::Softsign, Box::new(move |x| x / (1.0 + x.abs()))),
        (Unary::ThresholdedRelu { alpha }, Box::new(move |x| if x <= alpha { 0.0 } else { x })),
    ];
    for (f, definition) in &functions {
        for set in KernelSet::available() {
            let mut y = vec![0.0; x.len()];
            unary(Exec::new(set, &Serial), *f, &x, &mut y);
            for (x, y) in x.iter().zip(&y) {
                let e = definition(*x);
                assert!(same(*y, e), "{f:?} on {set}: f({x:e}) is {y:e}, expected {e:e}");
            }
        }
    }
}
