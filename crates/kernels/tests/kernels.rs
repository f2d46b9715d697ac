//! Kernels equal their definitions by bits, on every kernel set and thread count.

mod common;

use common::{cases, elements, machines, same_bits};
use isobit_kernels::conv::{Conv2d, Filters, conv2d};
use isobit_kernels::elementwise::{Binary, Operand, binary, binary_in_place};
use isobit_kernels::gemm::{Bias, Epilogue};
use isobit_kernels::math::{Unary, unary};
use isobit_kernels::pool::{Pool2d, average_pool, max_pool};
use isobit_kernels::reduce::{Reduction, reduce};
use isobit_kernels::{Exec, norm};
use isobit_numerics as num;
use num::rng::Rng;

type Definition = Box<dyn Fn(f32) -> f32>;

#[test]
fn unary_functions() {
    let (alpha, beta) = (0.2, 0.5);
    let hard = |x: f32, a: f32, b: f32| num::max(0.0, num::min(1.0, a * x + b));
    let functions: Vec<(Unary, Definition)> = vec![
        (Unary::Exp, Box::new(num::exp)),
        (Unary::Ln, Box::new(num::ln)),
        (Unary::Erf, Box::new(num::erf)),
        (Unary::Tanh, Box::new(num::tanh)),
        (Unary::Sigmoid, Box::new(num::sigmoid)),
        (Unary::Sqrt, Box::new(f32::sqrt)),
        (Unary::Reciprocal, Box::new(|x| 1.0 / x)),
        (Unary::Neg, Box::new(|x| -x)),
        (Unary::Abs, Box::new(f32::abs)),
        (Unary::Floor, Box::new(f32::floor)),
        (Unary::Ceil, Box::new(f32::ceil)),
        (Unary::Round, Box::new(f32::round_ties_even)),
        (Unary::Relu, Box::new(num::relu)),
        (Unary::LeakyRelu { alpha }, Box::new(move |x| if x < 0.0 { alpha * x } else { x })),
        (Unary::HardSigmoid { alpha, beta }, Box::new(move |x| hard(x, alpha, beta))),
        (Unary::HardSwish, Box::new(move |x| x * hard(x, 1.0 / 6.0, 0.5))),
        (Unary::Silu, Box::new(|x| x * num::sigmoid(x))),
        (Unary::Gelu, Box::new(|x| (0.5 * x) * (1.0 + num::erf(x * std::f32::consts::FRAC_1_SQRT_2)))),
        (
            Unary::GeluTanh,
            Box::new(|x| {
                let inner = 0.797_884_6 * (x + 0.044715 * (x * x * x));
                (0.5 * x) * (1.0 + num::tanh(inner))
            }),
        ),
        (
            Unary::GeluNew,
            Box::new(|x| {
                let inner = 0.797_884_6 * (x + 0.044715 * num::pow(x, 3.0));
                (0.5 * x) * (1.0 + num::tanh(inner))
            }),
        ),
        (Unary::Cube, Box::new(|x| num::pow(x, 3.0))),
    ];
    cases("unary", 60, |rng| {
        let n = rng.below(600);
        let any = rng.below(2) == 0;
        let x: Vec<f32> =
            (0..n).map(|_| if any { rng.f32_any() } else { rng.f32_unit() * 20.0 - 10.0 }).collect();
        for (f, definition) in &functions {
            let expected: Vec<f32> = x.iter().map(|&x| definition(x)).collect();
            for (set, pool) in machines() {
                let mut y = vec![0.0; n];
                unary(Exec::new(set, &pool), *f, &x, &mut y);
                same_bits(&y, &expected, (f, set, pool.0));
            }
        }
    });
}

/// The vector programs on a part of all inputs, spread evenly (the definitions are proved on all of them).
#[test]
fn vector_programs_on_a_part_of_all_inputs() {
    let x: Vec<f32> = (0..=u32::MAX).step_by(4099).map(f32::from_bits).collect();
    for f in [Unary::Exp, Unary::Ln, Unary::Erf, Unary::Tanh, Unary::Sigmoid] {
        let run = |set| {
            let mut y = vec![0.0; x.len()];
            unary(Exec::new(set, &isobit_kernels::Serial), f, &x, &mut y);
            y
        };
        let expected = run(isobit_kernels::KernelSet::Scalar);
        for set in isobit_kernels::KernelSet::available() {
            same_bits(&run(set), &expected, (f, set));
        }
    }
}

#[test]
fn binary_functions() {
    cases("binary", 100, |rng| {
        let (outer, inner) = (rng.below(9), rng.below(200));
        let all = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min];
        let f = all[rng.below(6)];
        let full = elements(rng, outer * inner);
        let other = [outer * inner, inner, outer];
        let kind = rng.below(3);
        let b = elements(rng, other[kind]);
        let operand = [Operand::Full, Operand::Row, Operand::Column][kind](&b);
        let at = |i: usize| match kind {
            0 => b[i],
            1 => b[i % inner],
            _ => b[i / inner],
        };
        for exchanged in [false, true] {
            let pair = |i: usize| if exchanged { (at(i), full[i]) } else { (full[i], at(i)) };
            let expected: Vec<f32> = (0..full.len()).map(|i| f.scalar(pair(i).0, pair(i).1)).collect();
            for (set, pool) in machines() {
                let exec = Exec::new(set, &pool);
                let what = (f, kind, exchanged, set, pool.0);
                let mut y = vec![0.0; full.len()];
                let (a, b) = (Operand::Full(&full), operand);
                let (a, b) = if exchanged { (b, a) } else { (a, b) };
                binary(exec, f, a, b, inner, &mut y);
                same_bits(&y, &expected, what);
                let mut x = full.clone();
                binary_in_place(exec, f, &mut x, operand, inner, exchanged);
                same_bits(&x, &expected, ("in place", what));
            }
        }
    });
}

#[test]
fn reductions() {
    cases("reduce", 100, |rng| {
        let (outer, n, inner) = (rng.below(6), rng.below(150), [1, 1, 3, 40][rng.below(4)]);
        let x = elements(rng, outer * n * inner);
        for r in [
            Reduction::Sum,
            Reduction::Mean,
            Reduction::SumSquares,
            Reduction::SumAbs,
            Reduction::Product,
            Reduction::Max,
            Reduction::Min,
        ] {
            let mut expected = Vec::new();
            for o in 0..outer {
                for i in 0..inner {
                    let column: Vec<f32> = (0..n).map(|p| x[(o * n + p) * inner + i]).collect();
                    expected.push(r.scalar(column.into_iter()));
                }
            }
            for (set, pool) in machines() {
                let mut y = vec![0.0; outer * inner];
                reduce(Exec::new(set, &pool), r, &x, n, inner, &mut y);
                same_bits(&y, &expected, (r, outer, n, inner, set, pool.0));
            }
        }
    });
}

#[test]
fn rows() {
    cases("rows", 80, |rng| {
        let (outer, n) = (1 + rng.below(40), 1 + rng.below(200));
        let x = elements(rng, outer * n);
        let (scale, bias) = (elements(rng, n), elements(rng, n));
        let epsilon = 1e-5;
        let each = |f: &dyn Fn(&[f32]) -> Vec<f32>| -> Vec<f32> { x.chunks(n).flat_map(f).collect() };
        let softmax = each(&|row| {
            let m = row.iter().copied().fold(f32::NEG_INFINITY, num::max);
            let e: Vec<f32> = row.iter().map(|x| num::exp(x - m)).collect();
            let s = num::sum(e.iter().copied());
            e.iter().map(|e| e / s).collect()
        });
        let log_softmax = each(&|row| {
            let m = row.iter().copied().fold(f32::NEG_INFINITY, num::max);
            let l = num::ln(num::sum(row.iter().map(|x| num::exp(x - m))));
            row.iter().map(|x| (x - m) - l).collect()
        });
        let layer = each(&|row| {
            let mean = num::sum(row.iter().copied()) / n as f32;
            let var = num::sum(row.iter().map(|x| (x - mean) * (x - mean))) / n as f32;
            let inv = 1.0 / (var + epsilon).sqrt();
            row.iter().zip(&scale).zip(&bias).map(|((x, s), b)| ((x - mean) * inv) * s + b).collect()
        });
        let rms = each(&|row| {
            let inv = 1.0 / (num::sum(row.iter().map(|x| x * x)) / n as f32 + epsilon).sqrt();
            row.iter().zip(&scale).map(|(x, s)| (x * inv) * s).collect()
        });
        for (set, pool) in machines() {
            let exec = Exec::new(set, &pool);
            let check = |name: &str, expected: &[f32], f: &dyn Fn(&mut [f32])| {
                let mut y = x.clone();
                f(&mut y);
                same_bits(&y, expected, (name, outer, n, set, pool.0));
            };
            check("softmax", &softmax, &|y| norm::softmax(exec, y, n));
            check("log_softmax", &log_softmax, &|y| norm::log_softmax(exec, y, n));
            check("layer_norm", &layer, &|y| {
                norm::layer_norm(exec, y, n, epsilon, &scale, Some(&bias), None)
            });
            check("rms_norm", &rms, &|y| norm::rms_norm(exec, y, n, epsilon, &scale));
        }
    });
}

fn window(rng: &mut Rng) -> Option<Pool2d> {
    let mut p = Pool2d {
        input: [1 + rng.below(14), 1 + rng.below(80)],
        kernel: [1 + rng.below(4), 1 + rng.below(4)],
        output: [0, 0],
        strides: [1 + rng.below(3), 1 + rng.below(3)],
        dilations: [1 + rng.below(2), 1 + rng.below(2)],
        pads: [rng.below(3), rng.below(3)],
        pads_after: [rng.below(3), rng.below(3)],
    };
    for d in 0..2 {
        let span = (p.kernel[d] - 1) * p.dilations[d] + 1;
        let space = (p.input[d] + p.pads[d] + p.pads_after[d]).checked_sub(span)?;
        p.output[d] = space / p.strides[d] + 1;
    }
    Some(p)
}

/// Without channels every chain is empty: what is left is the bias.
#[test]
fn a_convolution_of_no_channels() {
    let c = Conv2d {
        batch: 1,
        channels: 0,
        filters: 2,
        groups: 1,
        input: [4, 4],
        kernel: [3, 3],
        output: [4, 4],
        strides: [1, 1],
        dilations: [1, 1],
        pads: [1, 1],
    };
    let epilogue = Epilogue { bias: Bias::Rows(&[1.5, -2.0]), ..Epilogue::default() };
    let expected = [[1.5f32; 16], [-2.0; 16]].concat();
    for (set, pool) in machines() {
        let mut y = vec![7.0; 32];
        conv2d(Exec::new(set, &pool), &c, &[], &[], Some(&Filters::default()), &epilogue, &mut y);
        same_bits(&y, &expected, (set, pool.0));
    }
}

#[test]
fn convolutions() {
    cases("conv2d", 150, |rng| {
        let Some(p) = window(rng) else { return };
        let depthwise = rng.below(3) == 0;
        let groups = 1 + rng.below(3);
        let (gc, gm) = if depthwise { (1, 1) } else { (1 + rng.below(5), 1 + rng.below(40)) };
        let c = Conv2d {
            batch: 1 + rng.below(2),
            channels: groups * gc,
            filters: groups * gm,
            groups,
            input: p.input,
            kernel: p.kernel,
            output: p.output,
            strides: p.strides,
            dilations: p.dilations,
            pads: p.pads,
        };
        let x = elements(rng, c.batch * c.channels * c.input[0] * c.input[1]);
        let w = elements(rng, c.filters * gc * c.kernel[0] * c.kernel[1]);
        let bias = elements(rng, c.filters);
        let add = elements(rng, c.batch * c.filters * c.output[0] * c.output[1]);
        let added = rng.below(2) == 0;
        let mut expected = Vec::new();
        for n in 0..c.batch {
            for m in 0..c.filters {
                for oh in 0..c.output[0] {
                    for ow in 0..c.output[1] {
                        let mut acc = 0.0;
                        for k in 0..gc * c.kernel[0] * c.kernel[1] {
                            let (ic, r, s) = (
                                k / (c.kernel[0] * c.kernel[1]),
                                k / c.kernel[1] % c.kernel[0],
                                k % c.kernel[1],
                            );
                            let ih = (oh * c.strides[0] + r * c.dilations[0]).wrapping_sub(c.pads[0]);
                            let iw = (ow * c.strides[1] + s * c.dilations[1]).wrapping_sub(c.pads[1]);
                            let channel = n * c.channels + m / gm * gc + ic;
                            let inside = ih < c.input[0] && iw < c.input[1];
                            let at = (channel * c.input[0] + ih.min(c.input[0] - 1)) * c.input[1];
                            let v = if inside { x[at + iw] } else { 0.0 };
                            acc = num::fma(w[m * gc * c.kernel[0] * c.kernel[1] + k], v, acc);
                        }
                        let x = acc + bias[m];
                        let x = if added { x + add[expected.len()] } else { x };
                        expected.push(num::relu(x));
                    }
                }
            }
        }
        let (add, activation) = (added.then_some(&add[..]), Some(Unary::Relu));
        let epilogue = Epilogue { bias: Bias::Rows(&bias), add, activation };
        for (set, pool) in machines() {
            let filters = Filters::default();
            let filters = (pool.0 != 2).then_some(&filters);
            let mut y = vec![7.0; expected.len()];
            conv2d(Exec::new(set, &pool), &c, &x, &w, filters, &epilogue, &mut y);
            same_bits(&y, &expected, (c, set, pool.0));
        }
    });
}

#[test]
fn pooling() {
    cases("pool", 200, |rng| {
        let Some(mut p) = window(rng) else { return };
        if rng.below(2) == 0 {
            // Side by side.
            (p.strides, p.dilations, p.pads, p.pads_after) = (p.kernel, [1, 1], [0, 0], [0, 0]);
            p.input = [0, 1].map(|d| p.kernel[d] * p.output[d]);
        }
        let planes = 1 + rng.below(4);
        let x = elements(rng, planes * p.input[0] * p.input[1]);
        let pixels = p.output[0] * p.output[1];
        let (mut largest, mut mean, mut padded_mean) = (Vec::new(), Vec::new(), Vec::new());
        for plane in x.chunks(p.input[0] * p.input[1]) {
            for o in 0..pixels {
                let (mut taps, mut counted) = (Vec::new(), 0);
                for r in 0..p.kernel[0] {
                    for s in 0..p.kernel[1] {
                        let ih = (o / p.output[1] * p.strides[0] + r * p.dilations[0]) as isize
                            - p.pads[0] as isize;
                        let iw = (o % p.output[1] * p.strides[1] + s * p.dilations[1]) as isize
                            - p.pads[1] as isize;
                        let [h, w] = p.input.map(|d| d as isize);
                        if ih < h + p.pads_after[0] as isize && iw < w + p.pads_after[1] as isize {
                            counted += 1;
                        }
                        if (0..h).contains(&ih) && (0..w).contains(&iw) {
                            taps.push(plane[(ih * w + iw) as usize]);
                        }
                    }
                }
                largest.push(taps.iter().copied().fold(f32::NEG_INFINITY, num::max));
                mean.push(num::sum(taps.iter().copied()) / taps.len() as f32);
                padded_mean.push(num::sum(taps.iter().copied()) / counted as f32);
            }
        }
        for (set, pool) in machines() {
            let exec = Exec::new(set, &pool);
            let what = (p, set, pool.0);
            let mut y = vec![7.0; largest.len()];
            max_pool(exec, &p, &x, &mut y);
            same_bits(&y, &largest, ("max", what));
            average_pool(exec, &p, false, &x, &mut y);
            same_bits(&y, &mean, ("average", what));
            average_pool(exec, &p, true, &x, &mut y);
            same_bits(&y, &padded_mean, ("average with padding", what));
        }
    });
}

/// Windows that are all padding, over an image without columns (or rows): nothing is in them.
#[test]
fn pools_of_empty_images() {
    for step in 1..=6 {
        for input in [[3, 0], [0, 3], [0, 0]] {
            let p = Pool2d {
                input,
                kernel: [2, 2],
                output: [2, 2],
                strides: [step, step],
                dilations: [1, 1],
                pads: [4, 4],
                pads_after: [4, 4],
            };
            for (set, pool) in machines() {
                let mut y = [0.0; 4];
                max_pool(Exec::new(set, &pool), &p, &[], &mut y);
                same_bits(&y, &[f32::NEG_INFINITY; 4], (step, input, set, pool.0));
            }
        }
    }
}
