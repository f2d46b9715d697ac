//! Integer products and quantisation equal their definitions, on every kernel set and thread count.

mod common;

use common::{cases, machines};
use isobit_kernels::Exec;
use isobit_kernels::integer::{PackedInts, centre, dequantize, gemm, quantize};

#[test]
fn products() {
    cases("integer gemm", 100, |rng| {
        let (m, n, k) = match rng.below(3) {
            0 => (rng.below(4), rng.below(4), rng.below(4)),
            _ => (rng.below(40), rng.below(100), rng.below(200)),
        };
        let wide = if rng.below(3) == 0 { 32_767 } else { 383 };
        let mut ints = |len: usize| -> Vec<i16> {
            (0..len).map(|_| (rng.below(2 * wide + 1) as i32 - wide as i32) as i16).collect()
        };
        let (a, b) = (ints(m * k), ints(k * n));
        let mut expected = vec![0i32; m * n];
        for i in 0..m {
            for j in 0..n {
                for p in 0..k {
                    let product = i32::from(a[i * k + p]) * i32::from(b[p * n + j]);
                    expected[i * n + j] = expected[i * n + j].wrapping_add(product);
                }
            }
        }
        let packed = PackedInts::new(k, n, &b);
        for (set, pool) in machines() {
            let mut c = vec![7; m * n];
            gemm(Exec::new(set, &pool), m, &a, &packed, &mut c);
            assert_eq!(c, expected, "{m} {n} {k} {set} {}", pool.0);
        }
    });
}

#[test]
fn quantisation() {
    cases("quantisation", 100, |rng| {
        let n = rng.below(300);
        let x: Vec<f32> = (0..n)
            .map(|_| match rng.below(8) {
                0 => f32::from_bits(rng.next_u64() as u32),
                1 => (rng.below(600) as f32 - 300.0) * 0.5,
                _ => rng.f32_unit() * 300.0 - 150.0,
            })
            .collect();
        let scale = [1.0, 0.5, 0.037, 1e-30, -2.0, f32::INFINITY][rng.below(6)];
        for signed in [false, true] {
            let zero = rng.below(256) as i32 - if signed { 128 } else { 0 };
            let (low, high) = if signed { (-128, 127) } else { (0, 255) };
            let whole = |x: f32| (x / scale).round_ties_even() as i64;
            let expected: Vec<u8> =
                x.iter().map(|&x| (whole(x).saturating_add(zero.into())).clamp(low, high) as u8).collect();
            let number = |q: u8| if signed { i32::from(q as i8) } else { i32::from(q) };
            for (set, pool) in machines() {
                let exec = Exec::new(set, &pool);
                let mut y = vec![0; n];
                quantize(exec, &x, scale, zero, signed, &mut y);
                assert_eq!(y, expected, "{set} {scale} {zero}");
                let mut back = vec![0.0; n];
                dequantize(exec, &y, signed, 0.3, zero, &mut back);
                let mut less = vec![0; n];
                centre(exec, &y, signed, zero as i16, &mut less);
                for ((q, b), l) in y.iter().zip(back).zip(less) {
                    assert_eq!(b.to_bits(), ((number(*q) - zero) as f32 * 0.3).to_bits());
                    assert_eq!(i32::from(l), number(*q) - zero);
                }
            }
        }
    });
}
