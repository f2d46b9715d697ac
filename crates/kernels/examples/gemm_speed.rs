//! GFLOP/s of matrix multiplication on one thread, by kernel set.
//!
//! `cargo run --release -p isobit-kernels --example gemm_speed`

use std::time::Instant;

use isobit_kernels::gemm::{Epilogue, PackedB, View, gemm_packed};
use isobit_kernels::{Exec, KernelSet, Serial};

fn main() {
    for set in KernelSet::available().into_iter().filter(|&s| s != KernelSet::Scalar) {
        for (m, n, k) in [
            (1024, 1024, 1024),
            (128, 768, 768),
            (128, 3072, 768),
            (128, 768, 3072),
            (128, 50257, 768),
            (197, 3072, 768),
            (197, 768, 3072),
            (1, 3072, 768),
            (1, 200_000, 768),
            (2, 200_000, 768),
            (4, 200_000, 768),
            (6, 200_000, 768),
            (4, 1024, 256),
            (8, 1024, 256),
            (32, 1024, 256),
            (64, 1024, 256),
            (256, 1024, 256),
            (64, 3136, 64),
        ] {
            let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; k * n]);
            let packed = PackedB::new(Exec::new(set, &Serial), k, n, View::row_major(&b, n));
            let mut c = vec![0.0; m * n];
            let flops = 2.0 * (m * n * k) as f64;
            let runs = (2e10 / flops).clamp(3.0, 2000.0) as usize;
            let mut best = f64::INFINITY;
            for _ in 0..runs {
                let start = Instant::now();
                gemm_packed(
                    Exec::new(set, &Serial),
                    m,
                    View::row_major(&a, k),
                    &packed,
                    &mut c,
                    n,
                    &Epilogue::default(),
                );
                best =
                    if start.elapsed().as_secs_f64() < best { start.elapsed().as_secs_f64() } else { best };
            }
            println!("{set:8} {m:5} x {n:5} x {k:5}  {:7.1} GFLOP/s", flops / best / 1e9);
        }
    }
}
