//! Nanoseconds an element of each unary function, on one core and every kernel set of this machine.
//!
//! `cargo run --release -p isobit-kernels --example math_speed`

use std::hint::black_box;
use std::time::Instant;

use isobit_kernels::math::{Unary, unary};
use isobit_kernels::{Exec, KernelSet, Serial};
use isobit_numerics::rng::Rng;

fn main() {
    const N: usize = 1 << 14;
    let mut rng = Rng::new(1, 0);
    let mut x: Vec<f32> = (0..N).map(|_| rng.f32_unit() * 16.0 - 8.0).collect();
    let functions = [
        Unary::Exp,
        Unary::Erf,
        Unary::Tanh,
        Unary::Sigmoid,
        Unary::Ln,
        Unary::Softplus,
        Unary::Sin,
        Unary::Cos,
        Unary::Tan,
        Unary::Asin,
        Unary::Acos,
        Unary::Atan,
        Unary::Sinh,
        Unary::Cosh,
        Unary::Asinh,
        Unary::Acosh,
        Unary::Atanh,
        Unary::Sqrt,
        Unary::Silu,
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::GeluNew,
        Unary::Mish,
    ];
    let sets = KernelSet::available();
    print!("{:10}", "ns");
    for set in &sets {
        print!("{:>9}", set.name());
    }
    println!();
    let mut y = vec![0.0; N];
    for f in functions {
        // Arguments inside of the function's domain.
        match f {
            Unary::Ln | Unary::Sqrt => x.iter_mut().for_each(|x| *x = x.abs() + 0.01),
            Unary::Acosh => x.iter_mut().for_each(|x| *x = x.abs() + 1.0),
            Unary::Asin | Unary::Acos | Unary::Atanh => {
                x.iter_mut().for_each(|x| *x = rng.f32_unit() * 1.99 - 0.995);
            }
            _ => x.iter_mut().for_each(|x| *x = rng.f32_unit() * 16.0 - 8.0),
        }
        print!("{:10}", format!("{f:?}"));
        for &set in &sets {
            let mut best = f64::INFINITY;
            for _ in 0..30 {
                let start = Instant::now();
                unary(Exec::new(set, &Serial), f, black_box(&x), black_box(&mut y));
                let time = start.elapsed().as_secs_f64();
                best = if time < best { time } else { best };
            }
            print!("{:9.2}", best * 1e9 / N as f64);
        }
        println!();
    }
}
