//! Images in blocks of channels against the kernels on planes of the scalar set, which are the definitions: bit for bit, on
//! random extents, every kernel set but that one, and several thread counts.

mod common;

use common::{cases, elements, machines, same_bits};
use isobit_kernels::blocked::{self, Blocks, LANES, Source, Weights};
use isobit_kernels::conv::{Conv2d, conv2d};
use isobit_kernels::elementwise::{Binary, Operand, binary};
use isobit_kernels::gemm::{Bias, Epilogue};
use isobit_kernels::math::{Unary, unary};
use isobit_kernels::pool::{Pool2d, max_pool};
use isobit_kernels::reduce::{Reduction, reduce};
use isobit_kernels::{Exec, KernelSet, Serial};
use isobit_numerics::rng::Rng;

/// What no kernel may leave behind, or read.
const UNWRITTEN: f32 = f32::from_bits(0x7fc0_dead);

fn scalar() -> Exec<'static> {
    Exec::new(KernelSet::Scalar, &Serial)
}

fn room(layout: &Blocks) -> Vec<f32> {
    vec![UNWRITTEN; layout.elements().unwrap()]
}

fn blocks(layout: &Blocks, x: &[f32]) -> Vec<f32> {
    let mut y = room(layout);
    blocked::from_planes(scalar(), x, layout, &mut y);
    y
}

/// The planes of `x`, whose border must be zeros.
fn planes(layout: &Blocks, x: &[f32]) -> Vec<f32> {
    let [height, width] = layout.size;
    let (rows, columns) = (height + 2 * layout.border, width + 2 * layout.border);
    for (i, pixel) in x.chunks_exact(LANES).enumerate() {
        let (r, c) = (i / columns % rows, i % columns);
        let inside = |at: usize, extent: usize| (layout.border..layout.border + extent).contains(&at);
        if !(inside(r, height) && inside(c, width)) {
            assert!(pixel.iter().all(|x| x.to_bits() == 0), "{layout:?}: the border at {r}, {c}");
        }
    }
    let mut y = vec![UNWRITTEN; layout.batch * layout.channels * height * width];
    blocked::to_planes(scalar(), layout, x, &mut y);
    y
}

fn layout(rng: &mut Rng) -> Blocks {
    Blocks {
        batch: 1 + rng.below(2),
        channels: 1 + rng.below(40),
        size: [1 + rng.below(9), 1 + rng.below(33)],
        border: rng.below(3),
    }
}

fn vectors() -> impl Iterator<Item = (KernelSet, common::Threads)> {
    machines().filter(|(set, _)| *set != KernelSet::Scalar)
}

#[test]
fn planes_come_back() {
    cases("planes", 60, |rng| {
        let l = layout(rng);
        let x = elements(rng, l.batch * l.channels * l.size[0] * l.size[1]);
        for (set, pool) in vectors() {
            let mut y = room(&l);
            blocked::from_planes(Exec::new(set, &pool), &x, &l, &mut y);
            same_bits(&planes(&l, &y), &x, (l, set, pool.0));
        }
    });
}

#[test]
fn convolutions() {
    cases("blocked conv2d", 120, |rng| {
        let (groups, gc, gm) = match rng.below(4) {
            0 => (2 + rng.below(40), 1, 1),
            1 => (2, LANES, LANES * (1 + rng.below(2))),
            _ => (1, 1 + rng.below(40), 1 + rng.below(80)),
        };
        let mut c = Conv2d {
            batch: 1 + rng.below(2),
            channels: groups * gc,
            filters: groups * gm,
            groups,
            input: [1 + rng.below(9), 1 + rng.below(33)],
            kernel: [1 + rng.below(3), 1 + rng.below(4)],
            output: [0, 0],
            strides: [1 + rng.below(2), 1 + rng.below(3)],
            dilations: [1 + rng.below(2), 1 + rng.below(2)],
            pads: [rng.below(3), rng.below(3)],
        };
        for d in 0..2 {
            let span = (c.kernel[d] - 1) * c.dilations[d] + 1;
            let padded = c.input[d] + c.pads[d] + rng.below(3);
            let Some(space) = padded.checked_sub(span) else { return };
            c.output[d] = space / c.strides[d] + 1;
        }
        assert!(blocked::fits(groups, gc, gm));
        let (taps, pixels) = (gc * c.kernel[0] * c.kernel[1], c.output[0] * c.output[1]);
        let x = elements(rng, c.batch * c.channels * c.input[0] * c.input[1]);
        let w = elements(rng, c.filters * taps);
        let bias = (rng.below(3) > 0).then(|| elements(rng, c.filters));
        let add = (rng.below(2) == 0).then(|| elements(rng, c.batch * c.filters * pixels));
        let activation = [None, Some(Unary::Relu), Some(Unary::Silu), Some(Unary::Sigmoid)][rng.below(4)];
        let mut expected = vec![0.0; c.batch * c.filters * pixels];
        let rows = bias.as_deref().map_or(Bias::None, Bias::Rows);
        let epilogue = Epilogue { bias: rows, add: add.as_deref(), activation };
        conv2d(scalar(), &c, &x, &w, None, &epilogue, &mut expected);

        let layout = |channels, size, border| Blocks { batch: c.batch, channels, size, border };
        let from = layout(c.channels, c.input, rng.below(4));
        let to = layout(c.filters, c.output, rng.below(3));
        let beside = layout(c.filters, c.output, rng.below(3));
        let xs = blocks(&from, &x);
        let adds = add.as_ref().map(|a| (beside, blocks(&beside, a)));
        for (set, pool) in vectors() {
            let packed = blocked::pack(Exec::new(set, &pool), &Weights::of(&c), &w);
            let add = adds.as_ref().map(|(l, a)| (*l, &a[..]));
            let epilogue = blocked::Epilogue { bias: bias.as_deref(), add, activation };
            for source in [Source::Blocked(from, &xs), Source::Planes(&x)] {
                let mut y = room(&to);
                blocked::conv2d(Exec::new(set, &pool), &c, source, &packed, &epilogue, &to, &mut y);
                let what = (c, activation, set, pool.0, matches!(source, Source::Planes(_)));
                same_bits(&planes(&to, &y), &expected, what);
            }
        }
    });
}

/// Sums in several visits of the result, many tiles and panels: extents of real networks.
#[test]
fn long_chains() {
    let mut rng = Rng::new(7, 0);
    for (channels, filters, side, kernel, stride) in
        [(600, 70, 7, 1, 1), (40, 24, 60, 1, 1), (70, 100, 14, 3, 1), (130, 64, 15, 3, 2), (3, 40, 31, 7, 2)]
    {
        let output = (side + 2 * (kernel / 2) - kernel) / stride + 1;
        let c = Conv2d {
            batch: 2,
            channels,
            filters,
            groups: 1,
            input: [side; 2],
            kernel: [kernel; 2],
            output: [output; 2],
            strides: [stride; 2],
            dilations: [1; 2],
            pads: [kernel / 2; 2],
        };
        let mut some = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.f32_unit() - 0.5).collect() };
        let x = some(2 * channels * side * side);
        let w = some(filters * channels * kernel * kernel);
        let mut expected = vec![0.0; 2 * filters * output * output];
        conv2d(scalar(), &c, &x, &w, None, &Epilogue::default(), &mut expected);
        let layout = |channels, side, border| Blocks { batch: 2, channels, size: [side; 2], border };
        let (from, to) = (layout(channels, side, kernel / 2), layout(filters, output, 1));
        let xs = blocks(&from, &x);
        for (set, pool) in vectors() {
            let (packed, none) =
                (blocked::pack(Exec::new(set, &pool), &Weights::of(&c), &w), blocked::Epilogue::default());
            let mut y = room(&to);
            let source = if channels == 3 { Source::Planes(&x) } else { Source::Blocked(from, &xs) };
            blocked::conv2d(Exec::new(set, &pool), &c, source, &packed, &none, &to, &mut y);
            same_bits(&planes(&to, &y), &expected, (c, set, pool.0));
        }
        if blocked::takes_gates(&c) {
            let gates = some(2 * channels);
            let mut gated = vec![0.0; x.len()];
            binary(
                scalar(),
                Binary::Mul,
                Operand::Full(&x),
                Operand::Column(&gates),
                side * side,
                &mut gated,
            );
            conv2d(scalar(), &c, &gated, &w, None, &Epilogue::default(), &mut expected);
            for (set, pool) in vectors() {
                let exec = Exec::new(set, &pool);
                let packed = blocked::pack(exec, &Weights::of(&c), &w);
                let mut y = room(&to);
                let (source, none) = (Source::Gated(from, &xs, &gates), blocked::Epilogue::default());
                blocked::conv2d(exec, &c, source, &packed, &none, &to, &mut y);
                same_bits(&planes(&to, &y), &expected, ("gated", c, set, pool.0));
            }
        }
    }
}

#[test]
fn element_by_element() {
    cases("blocked elements", 80, |rng| {
        let from = layout(rng);
        let [other, to] = [0, 1].map(|_| Blocks { border: rng.below(3), ..from });
        let pixels = from.size[0] * from.size[1];
        let n = from.batch * from.channels * pixels;
        let (x, z, gates) = (elements(rng, n), elements(rng, n), elements(rng, from.batch * from.channels));
        let f = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Max][rng.below(4)];
        let g = [Unary::Relu, Unary::Sigmoid, Unary::HardSwish, Unary::Exp][rng.below(4)];
        let [mut pairs, mut gated, mut each] = [(); 3].map(|()| vec![0.0; n]);
        binary(scalar(), f, Operand::Full(&x), Operand::Full(&z), pixels, &mut pairs);
        binary(scalar(), f, Operand::Full(&x), Operand::Column(&gates), pixels, &mut gated);
        unary(scalar(), g, &x, &mut each);
        let (xs, zs) = (blocks(&from, &x), blocks(&other, &z));
        for (set, pool) in vectors() {
            let (exec, what) = (Exec::new(set, &pool), (from, to, f, g, set, pool.0));
            let mut y = room(&to);
            blocked::binary(exec, f, (&from, &xs), (&other, &zs), &to, &mut y);
            same_bits(&planes(&to, &y), &pairs, ("pairs", what));
            let mut y = room(&to);
            blocked::unary(exec, g, &from, &xs, &to, &mut y);
            same_bits(&planes(&to, &y), &each, ("each", what));
            let mut y = xs.clone();
            blocked::gate(exec, f, &from, &mut y, &gates);
            same_bits(&planes(&from, &y), &gated, ("gated", what));
        }
    });
}

#[test]
fn pooling() {
    cases("blocked pool", 80, |rng| {
        let from = layout(rng);
        let mut p = Pool2d {
            input: from.size,
            kernel: [1 + rng.below(3), 1 + rng.below(4)],
            output: [0, 0],
            strides: [1 + rng.below(2), 1 + rng.below(4)],
            dilations: [1 + rng.below(2), 1 + rng.below(2)],
            pads: [rng.below(3), rng.below(3)],
            pads_after: [rng.below(3), rng.below(3)],
        };
        for d in 0..2 {
            let span = (p.kernel[d] - 1) * p.dilations[d] + 1;
            let padded = p.input[d] + p.pads[d] + p.pads_after[d];
            let Some(space) = padded.checked_sub(span) else { return };
            p.output[d] = space / p.strides[d] + 1;
        }
        let to = Blocks { size: p.output, border: rng.below(3), ..from };
        let pixels = from.size[0] * from.size[1];
        let count = from.batch * from.channels;
        let x = elements(rng, count * pixels);
        let (mut largest, mut mean) = (vec![0.0; count * p.output[0] * p.output[1]], vec![0.0; count]);
        max_pool(scalar(), &p, &x, &mut largest);
        reduce(scalar(), Reduction::Mean, &x, pixels, 1, &mut mean);
        let xs = blocks(&from, &x);
        for (set, pool) in vectors() {
            let (exec, what) = (Exec::new(set, &pool), (p, from, to, set, pool.0));
            let mut y = room(&to);
            blocked::max_pool(exec, &p, &from, &xs, &to, &mut y);
            same_bits(&planes(&to, &y), &largest, ("max", what));
            let mut y = vec![UNWRITTEN; count];
            blocked::global_mean(exec, &from, &xs, &mut y);
            same_bits(&y, &mean, ("mean", what));
        }
    });
}
