//! Pooling of images in blocks of channels.

use isobit_numerics as num;

use super::{Blocks, LANES};
use crate::dispatch::multiversion;
use crate::elementwise::{Binary, in_place_many};
use crate::pool::Pool2d;
use crate::shared::Shared;
use crate::{Exec, scratch};

/// As [`crate::pool::max_pool`].
///
/// # Panics
/// When a slice does not have the length that the extents say.
pub fn max_pool(exec: Exec<'_>, p: &Pool2d, from: &Blocks, x: &[f32], to: &Blocks, y: &mut [f32]) {
    assert!(from.holds(x) && from.size == p.input && to.size == p.output);
    assert!(from.batch == to.batch && from.channels == to.channels);
    let ([_, width], step) = (p.input, p.strides[1]);
    let per_phase = width.div_ceil(step).max(1);
    to.each_row(exec, y, |n, b, oh, row| {
        // The largest down each column; then the columns by phase, where every tap is a run.
        let (mut columns, mut phases) = (scratch::take(), scratch::take());
        columns.clear();
        columns.resize(width * LANES, f32::NEG_INFINITY);
        for ih in (0..p.kernel[0]).filter_map(|r| p.inside(0, oh, r)) {
            in_place_many(exec.set(), Binary::Max, &mut columns, from.row_of(x, n, b, ih), false);
        }
        phases.resize(step.min(width) * per_phase * LANES, 0.0);
        for (q, phase) in phases.chunks_exact_mut(per_phase * LANES).enumerate() {
            let pixels = columns[q * LANES..].chunks(step * LANES);
            for (to, from) in phase.chunks_exact_mut(LANES).zip(pixels) {
                to.copy_from_slice(&from[..LANES]);
            }
        }
        row.fill(f32::NEG_INFINITY);
        for s in 0..p.kernel[1] {
            // The windows whose tap is inside of the image.
            let (first, outputs) = (s * p.dilations[1], p.output[1]);
            let before = p.pads[1].saturating_sub(first).div_ceil(step).min(outputs);
            let end = (width + p.pads[1]).saturating_sub(first).div_ceil(step).clamp(before, outputs);
            if before < end {
                let at = first + before * step - p.pads[1];
                let taps = &phases[(at % step * per_phase + at / step) * LANES..][..(end - before) * LANES];
                in_place_many(exec.set(), Binary::Max, &mut row[before * LANES..end * LANES], taps, false);
            }
        }
        scratch::give(columns);
        scratch::give(phases);
    });
}

/// The mean of each channel of each image under the 32-lane rule: `[batch][channels]`.
///
/// # Panics
/// When a slice does not have the length that the extents say.
pub fn global_mean(exec: Exec<'_>, from: &Blocks, x: &[f32], y: &mut [f32]) {
    assert!(from.holds(x));
    assert_eq!(y.len(), from.batch * from.channels);
    let (blocks, channels) = (from.blocks(), from.channels);
    let count = from.batch * blocks;
    let y = Shared::new(y);
    let elements = from.size[0] * from.size[1];
    let pieces = if count * elements < 1 << 11 { 1 } else { count.min(4 * exec.pool().threads()) };
    exec.pool().for_each(pieces, &|piece| {
        for i in piece * count / pieces..(piece + 1) * count / pieces {
            let (n, b) = (i / blocks, i % blocks);
            let mut means = [0.0; LANES];
            mean_block(exec.set(), from, &x[from.start(n, b)..][..from.block()], &mut means);
            let lanes = LANES.min(channels - b * LANES);
            // SAFETY: the channels of this block.
            let y = unsafe { y.slice(n * channels + b * LANES, lanes) };
            y.copy_from_slice(&means[..lanes]);
        }
    });
}

multiversion! {
    fn mean_block(from: &Blocks, x: &[f32], means: &mut [f32; LANES]) {
        let mut sums = [[0.0f32; LANES]; num::LANES];
        let ([height, width], mut at) = (from.size, 0);
        for h in 0..height {
            let row = &x[(h + from.border) * from.row() + from.border * LANES..][..width * LANES];
            for pixel in row.chunks_exact(LANES) {
                let sums = &mut sums[at % num::LANES];
                for (sum, x) in sums.iter_mut().zip(pixel) {
                    *sum += x;
                }
                at += 1;
            }
        }
        let mut half = num::LANES / 2;
        while half > 0 {
            let (first, second) = sums.split_at_mut(half);
            for (sum, x) in first.as_flattened_mut().iter_mut().zip(second.as_flattened()) {
                *sum += x;
            }
            half /= 2;
        }
        let count = (height * width) as f32;
        for i in 0..LANES {
            means[i] = sums[0][i] / count;
        }
    }
}
