//! The matrix of a convolution's windows, made piece by piece.

use super::Conv2d;
use super::phases::Phases;
use crate::dispatch::multiversion;
use crate::gemm::{Columns, Rows};
use crate::shared::Shared;
use crate::strided::{self, SLACK};
use crate::{Exec, KernelSet, scratch};

/// The matrix whose columns are the windows of one image (and group), never stored as a whole.
pub(super) struct Windows {
    phases: Phases,
    /// Pixels in a row of the output.
    width: usize,
    /// The channels' planes of equal phase.
    padded: Vec<f32>,
}

/// Part of one output row inside a panel.
#[derive(Clone, Copy, Default)]
struct Run {
    /// First column of the panel.
    at: usize,
    len: usize,
    /// Where its first pixel is, from where a tap's run begins.
    base: usize,
}

impl Windows {
    pub(super) fn new(exec: Exec<'_>, c: &Conv2d, x: &[f32]) -> Self {
        let phases = Phases::new(c);
        let (len, plane) = (phases.len(), c.input[0] * c.input[1]);
        let mut padded = scratch::take();
        padded.clear();
        padded.resize(c.group_channels() * len + SLACK, 0.0);
        let channels = c.group_channels();
        let pieces = if channels * len < 1 << 15 { 1 } else { channels.min(2 * exec.pool().threads()) };
        let per_piece = channels.div_ceil(pieces);
        let planes = Shared::new(&mut padded);
        exec.pool().for_each(channels.div_ceil(per_piece), &|piece| {
            for i in piece * per_piece..((piece + 1) * per_piece).min(channels) {
                // SAFETY: the planes of channel i belong to this piece alone.
                let planes = unsafe { planes.slice(i * len, len) };
                phases.fill(exec.set(), c, &x[i * plane..(i + 1) * plane], planes);
            }
        });
        Self { phases, width: c.output[1], padded }
    }

    /// Gives the memory back.
    pub(super) fn finish(self) {
        scratch::give(self.padded);
    }

    /// Cuts output pixels `j0..j0 + cols` at the ends of output rows.
    fn runs(&self, j0: usize, cols: usize, runs: &mut Vec<Run>) {
        runs.clear();
        let mut at = 0;
        while at < cols {
            let (oh, ow) = ((j0 + at) / self.width, (j0 + at) % self.width);
            let len = (self.width - ow).min(cols - at);
            runs.push(Run { at, len, base: oh * self.phases.columns + ow });
            at += len;
        }
    }
}

impl Columns for Windows {
    fn pack(&self, set: KernelSet, k0: usize, kc: usize, n0: usize, nc: usize, nr: usize, out: &mut [f32]) {
        let mut runs = Vec::new();
        for panel in 0..nc.div_ceil(nr) {
            let j0 = panel * nr;
            self.runs(n0 + j0, nr.min(nc - j0), &mut runs);
            let out = &mut out[j0 * kc..];
            fill(set, &self.padded, &self.phases.offsets, self.phases.len(), &runs, k0, kc, nr, out);
        }
    }
}

impl Rows for Windows {
    fn pack(&self, set: KernelSet, k0: usize, kc: usize, m0: usize, rows: usize, out: &mut [f32]) {
        let mut runs = Vec::new();
        self.runs(m0, rows, &mut runs);
        fill(set, &self.padded, &self.phases.offsets, self.phases.len(), &runs, k0, kc, rows, out);
    }
}

multiversion! {
    /// Steps `k0..k0 + kc` of a panel: each run of each step, in whole vectors. What a run writes past its end, the next
    /// one overwrites.
    fn fill(
        padded: &[f32],
        offsets: &[usize],
        channel: usize,
        runs: &[Run],
        k0: usize,
        kc: usize,
        step: usize,
        out: &mut [f32],
    ) {
        let (mut base, mut tap) = (k0 / offsets.len() * channel, k0 % offsets.len());
        for p in 0..kc {
            let from = &padded[base + offsets[tap]..];
            let to = &mut out[p * step..];
            if let [Run { len: 32, base, .. }] = *runs {
                to[..32].copy_from_slice(&from[base..base + 32]);
            } else {
                for run in runs {
                    strided::run(&from[run.base..], &mut to[run.at..], run.len);
                }
            }
            tap += 1;
            if tap == offsets.len() {
                tap = 0;
                base += channel;
            }
        }
    }
}
