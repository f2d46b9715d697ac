//! Integer products and quantisation equal their definitions, on every kernel set and thread count.

mod common;

use common::{cases, machines};
use isobit_kernels::Exec;
use isobit_kernels::conv::Conv2d;
use isobit_kernels::integer::{
    Bytes, PackedBytes, PackedFilters, PackedInts, Requantize, Results, conv, dequantize, gemm, product,
    quantize,
};

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
        for (set, pool) in machines() {
            let exec = Exec::new(set, &pool);
            let packed = PackedInts::new(exec, k, n, &b);
            let mut c = vec![7; m * n];
            gemm(exec, m, &a, &packed, &mut c);
            assert_eq!(c, expected, "{m} {n} {k} {set} {}", pool.0);
        }
    });
}

/// The product of two matrices of bytes by its definition.
fn of_bytes(m: usize, n: usize, k: usize, a: Bytes<'_>, b: Bytes<'_>) -> Vec<i32> {
    let number = |v: u8, signed: bool| if signed { i32::from(v as i8) } else { i32::from(v) };
    let less = |x: Bytes<'_>, at: usize, line: usize| {
        number(x.values[at], x.signed) - number(x.zeros[line % x.zeros.len()], x.signed)
    };
    let element = |i: usize, j: usize| {
        (0..k).fold(0i32, |sum, p| sum.wrapping_add(less(a, i * k + p, i) * less(b, p * n + j, j)))
    };
    (0..m * n).map(|c| element(c / n, c % n)).collect()
}

#[test]
fn products_of_bytes() {
    cases("products of bytes", 200, |rng| {
        let (m, n, k) = match rng.below(3) {
            0 => (rng.below(4), rng.below(4), rng.below(6)),
            _ => (rng.below(40), rng.below(100), rng.below(200)),
        };
        // Extremes meet often: a sum of pairs that saturates in 16 bits would show.
        let extreme = rng.below(2) == 0;
        let mut bytes = |len: usize| -> Vec<u8> {
            (0..len)
                .map(|_| if extreme { [0, 127, 128, 255][rng.below(4)] } else { rng.below(256) as u8 })
                .collect()
        };
        let (x, y) = (bytes(m * k), bytes(k * n));
        let (of_rows, of_columns) = (bytes(m.max(1)), bytes(n.max(1)));
        for (i, signed) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let a = Bytes { values: &x, signed: signed.0, zeros: [&of_rows[..], &of_rows[..1]][i % 2] };
            let b =
                Bytes { values: &y, signed: signed.1, zeros: [&of_columns[..1], &of_columns, &[0]][i % 3] };
            let expected = of_bytes(m, n, k, a, b);
            for (set, pool) in machines() {
                let exec = Exec::new(set, &pool);
                let packed = PackedBytes::new(exec, k, n, b);
                assert_eq!(packed.extents(), [k, n]);
                let mut c = vec![7; m * n];
                product(exec, m, a, &packed, &mut c);
                assert_eq!(c, expected, "{m} {n} {k} {signed:?} {set} {}", pool.0);
            }
        }
    });
}

/// Sums beyond 32 bits wrap and do not stop at the end.
#[test]
fn sums_of_bytes_wrap() {
    let k = 70_001;
    let (x, y) = (vec![255; 2 * k], vec![128; k]);
    let a = Bytes { values: &x, signed: false, zeros: &[0, 3] };
    let b = Bytes { values: &y, signed: true, zeros: &[0] };
    let expected = [255, 252].map(|v: i64| (-128 * v * k as i64) as i32);
    assert_eq!(of_bytes(2, 1, k, a, b), expected);
    for (set, pool) in machines() {
        let exec = Exec::new(set, &pool);
        let mut c = [0; 2];
        product(exec, 2, a, &PackedBytes::new(exec, k, 1, b), &mut c);
        assert_eq!(c, expected, "{set}");
    }
}

/// A convolution of bytes by its definition, biases added.
fn convolution(c: &Conv2d, x: Bytes<'_>, w: Bytes<'_>, bias: &[i32]) -> Vec<i32> {
    let number = |v: u8, signed: bool| if signed { i32::from(v as i8) } else { i32::from(v) };
    let less = |x: Bytes<'_>, at: usize, line: usize| {
        number(x.values[at], x.signed) - number(x.zeros[line % x.zeros.len()], x.signed)
    };
    let (channels, filters) = (c.channels / c.groups, c.filters / c.groups);
    let ([h, width], [kh, kw], [oh, ow]) = (c.input, c.kernel, c.output);
    let mut y = Vec::new();
    for i in 0..c.batch * c.filters * oh * ow {
        let (n, f, row, column) = (i / (c.filters * oh * ow), i / (oh * ow) % c.filters, i / ow % oh, i % ow);
        let mut sum = bias[f];
        for tap in 0..channels * kh * kw {
            let (channel, r, s) = (tap / (kh * kw), tap / kw % kh, tap % kw);
            let ih = (row * c.strides[0] + r * c.dilations[0]).wrapping_sub(c.pads[0]);
            let iw = (column * c.strides[1] + s * c.dilations[1]).wrapping_sub(c.pads[1]);
            if ih < h && iw < width {
                let from = ((n * c.channels + f / filters * channels + channel) * h + ih) * width + iw;
                sum = sum.wrapping_add(less(x, from, 0) * less(w, f * channels * kh * kw + tap, f));
            }
        }
        y.push(sum);
    }
    y
}

#[test]
fn convolutions() {
    cases("convolutions of bytes", 150, |rng| {
        // One filter a channel is a case of its own.
        let (groups, most) = match rng.below(4) {
            0 => (1 + rng.below(3), [9, 30]),
            1 => (1 + rng.below(20), [1, 1]),
            _ => (1, [9, 30]),
        };
        let (channels, filters) = (groups * (1 + rng.below(most[0])), groups * (1 + rng.below(most[1])));
        let kernel = [1 + rng.below(4), 1 + rng.below(4)];
        let mut pick = |most| [1 + rng.below(most), 1 + rng.below(most)];
        let (strides, dilations) = (pick(3), pick(2));
        let pads = [rng.below(3), rng.below(3)];
        let span = [0, 1].map(|d| (kernel[d] - 1) * dilations[d] + 1);
        let input = [0, 1].map(|d| span[d] + rng.below(if d == 0 { 6 } else { 50 }));
        // Windows may begin anywhere up to where padding after the image of any extent lets them.
        let output = [0, 1].map(|d| (input[d] + pads[d] + rng.below(3) - span[d]) / strides[d] + 1);
        let batch = 1 + rng.below(2);
        let c = Conv2d { batch, channels, filters, groups, input, kernel, output, strides, dilations, pads };
        let extreme = rng.below(2) == 0;
        let mut bytes = |len: usize| -> Vec<u8> {
            (0..len)
                .map(|_| if extreme { [0, 127, 128, 255][rng.below(4)] } else { rng.below(256) as u8 })
                .collect()
        };
        let taps = channels / groups * kernel[0] * kernel[1];
        let x = bytes(batch * channels * input[0] * input[1]);
        let w = bytes(filters * taps);
        let (zero, zeros) = (bytes(1), bytes(filters));
        let bias: Vec<i32> = zeros.iter().map(|&z| i32::from(z) * 8_400_000).collect();
        let factors: Vec<f32> = zeros.iter().map(|&z| f32::from(z) * 1e-4 - 5e-3).collect();
        for (i, signed) in
            [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate()
        {
            let x = Bytes { values: &x, signed: signed.0, zeros: &zero };
            // With a zero point of 0, or for unsigned numbers of 128, weights are bytes; with others pairs.
            let none = if signed.1 { 0 } else { 128 };
            let of_filters =
                if rng.below(3) > 0 { vec![none; 1 + i % 2 * (filters - 1)] } else { zeros.clone() };
            let w = Bytes { values: &w, signed: signed.1, zeros: &of_filters };
            let expected = convolution(&c, x, w, &bias);
            let factors = if i < 2 { &factors[..] } else { &factors[..1] };
            let y_zero = if signed.0 { -3 } else { 7 };
            let (low, high) = if signed.0 { (-128, 127) } else { (0, 255) };
            let pixels = output[0] * output[1];
            let bytes: Vec<u8> = expected
                .iter()
                .enumerate()
                .map(|(at, &sum)| {
                    let factor = factors[at / pixels % filters % factors.len()];
                    ((sum as f32 * factor).round_ties_even() as i64 + y_zero).clamp(low, high) as u8
                })
                .collect();
            for (set, pool) in machines() {
                let exec = Exec::new(set, &pool);
                let packed =
                    PackedFilters::new(exec, groups, [filters, channels / groups, kernel[0] * kernel[1]], w);
                let mut sums = vec![7; expected.len()];
                conv(exec, &c, x, &packed, Some(&bias), Results::Sums(&mut sums));
                assert_eq!(sums, expected, "{c:?} {signed:?} {set} {}", pool.0);
                let mut y = vec![7; expected.len()];
                let requantize = Requantize { factors, zero: y_zero as i32, signed: signed.0 };
                conv(exec, &c, x, &packed, Some(&bias), Results::Bytes(&mut y, requantize));
                assert_eq!(y, bytes, "{c:?} {signed:?} {set} {}", pool.0);
                let less = packed.numbers();
                assert!(less.iter().enumerate().all(|(at, &n)| {
                    let of = |v: u8| if signed.1 { i32::from(v as i8) } else { i32::from(v) };
                    n == of(w.values[at]) - of(w.zeros[at / taps % w.zeros.len()])
                }));
            }
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
                for (q, b) in y.iter().zip(back) {
                    assert_eq!(b.to_bits(), ((number(*q) - zero) as f32 * 0.3).to_bits());
                }
            }
        }
    });
}
