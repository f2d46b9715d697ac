//! The matrix of a convolution's windows, made piece by piece.

use super::Conv2d;
use super::phases::Phases;
use crate::gemm::{Columns, PackedA};
use crate::shared::Shared;
use crate::strided::SLACK;
use crate::{Exec, KernelSet, scratch};

/// The matrix whose columns are the windows of one image (and group), never stored as a whole.
pub(super) struct Windows {
    phases: Phases,
    /// Pixels in a row of the output.
    width: usize,
    /// The channels' planes of equal phase.
    padded: Vec<f32>,
}

/// Up to [`SLACK`] columns of a panel that lie side by side in the planes.
#[derive(Clone, Copy, Default)]
struct Piece {
    /// First column of the panel.
    at: usize,
    /// Where its first pixel is, from where a tap's run begins.
    base: usize,
}

impl Windows {
    pub(super) fn new(exec: Exec<'_>, c: &Conv2d, x: &[f32]) -> Self {
        let phases = Phases::new(c);
        let (len, plane) = (phases.len(), c.input[0] * c.input[1]);
        let mut padded = scratch::take();
        padded.resize(c.group_channels() * len + SLACK, 0.0);
        let channels = c.group_channels();
        let pieces = if channels * len < 1 << 15 { 1 } else { channels.min(2 * exec.pool().threads()) };
        // Without channels there is nothing to fill, and every chain is empty.
        let per_piece = channels.div_ceil(pieces).max(1);
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
    fn pieces(&self, j0: usize, cols: usize, pieces: &mut Vec<Piece>) {
        pieces.clear();
        let mut at = 0;
        while at < cols {
            let (oh, ow) = ((j0 + at) / self.width, (j0 + at) % self.width);
            let len = (self.width - ow).min(cols - at);
            let base = oh * self.phases.columns + ow;
            pieces.extend((0..len).step_by(SLACK).map(|i| Piece { at: at + i, base: base + i }));
            at += len;
        }
    }

    /// Writes steps `k0..k0 + kc` of pixels `j0..j0 + cols`, steps `step` apart.
    fn steps(
        &self,
        set: KernelSet,
        [j0, cols]: [usize; 2],
        [k0, kc]: [usize; 2],
        step: usize,
        pieces: &mut Vec<Piece>,
        out: &mut [f32],
    ) {
        self.pieces(j0, cols, pieces);
        let Some(furthest) = pieces.iter().map(|p| p.base).max().filter(|_| kc > 0) else { return };
        let at = pieces.iter().map(|p| p.at).max().unwrap_or(0);
        let (taps, channel) = (&self.phases.offsets, self.phases.len());
        let last_tap = taps.iter().max().copied().unwrap_or(0);
        let last_channel = (k0 + kc - 1) / taps.len() * channel;
        assert!(last_channel + last_tap + furthest + SLACK <= self.padded.len());
        assert!((kc - 1) * step + at + SLACK <= out.len());
        // SAFETY: the furthest piece of the last step is read and written inside both slices, as just checked.
        unsafe {
            let (padded, out) = (self.padded.as_ptr(), out.as_mut_ptr());
            Fill { padded, offsets: taps, channel, k0, kc, step, out }.run(set, pieces);
        }
    }
}

impl Columns for Windows {
    fn pack(&self, set: KernelSet, k0: usize, kc: usize, n0: usize, nc: usize, nr: usize, out: &mut [f32]) {
        let mut pieces = Vec::new();
        for panel in 0..nc.div_ceil(nr) {
            let j0 = panel * nr;
            let cols = nr.min(nc - j0);
            self.steps(set, [n0 + j0, cols], [k0, kc], nr, &mut pieces, &mut out[j0 * kc..]);
        }
    }
}

impl Windows {
    /// The matrix whose rows are the windows, as the left side of a product: panels of tiles.
    pub(super) fn rows(&self, exec: Exec<'_>, pixels: usize, taps: usize) -> Vec<f32> {
        let rows = PackedA::rows(exec.set(), pixels);
        let mut panels = scratch::take();
        panels.resize(pixels * taps + SLACK, 0.0);
        let shared = Shared::new(&mut panels);
        let tiles = pixels.div_ceil(rows);
        exec.pool().for_each(tiles, &|tile| {
            let (m0, count) = (tile * rows, rows.min(pixels - tile * rows));
            // The last steps are written aside: what a vector writes past the end is another tile's.
            let mut last = [0.0; 64];
            // SAFETY: the steps of this tile.
            let out = unsafe { shared.slice(m0 * taps, count * taps) };
            let mut pieces = Vec::new();
            let direct = (taps * count).saturating_sub(SLACK + count) / count;
            self.steps(exec.set(), [m0, count], [0, direct], count, &mut pieces, out);
            for step in direct..taps {
                self.steps(exec.set(), [m0, count], [step, 1], count, &mut pieces, &mut last);
                out[step * count..(step + 1) * count].copy_from_slice(&last[..count]);
            }
        });
        panels
    }
}

/// Part of a panel to write: each piece of each step, as a whole vector. What a piece writes past its end, the next one
/// overwrites.
struct Fill<'a> {
    padded: *const f32,
    offsets: &'a [usize],
    /// Elements from channel to channel.
    channel: usize,
    k0: usize,
    kc: usize,
    step: usize,
    out: *mut f32,
}

impl Fill<'_> {
    /// # Safety
    /// Every piece of every step is read and written inside of what the pointers point to, with its slack.
    unsafe fn run(&self, set: KernelSet, pieces: &[Piece]) {
        #[cfg(all(target_arch = "x86_64", isobit_avx512))]
        #[target_feature(enable = "avx512f")]
        unsafe fn avx512(fill: &Fill<'_>, pieces: &[Piece]) {
            // SAFETY: the caller's promise.
            unsafe { fill.by_count(pieces) };
        }
        match set {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            // SAFETY: the set comes from `Exec`, which checked the machine; the rest is the caller's promise.
            KernelSet::Avx512 => unsafe { avx512(self, pieces) },
            // SAFETY: the caller's promise.
            _ => unsafe { self.by_count(pieces) },
        }
    }

    #[inline(always)]
    unsafe fn by_count(&self, pieces: &[Piece]) {
        // SAFETY: the caller's promise.
        unsafe {
            match *pieces {
                [a] => self.body(&[a]),
                [a, b] => self.body(&[a, b]),
                [a, b, c] => self.body(&[a, b, c]),
                [a, b, c, d] => self.body(&[a, b, c, d]),
                _ => self.body(pieces),
            }
        }
    }

    #[inline(always)]
    unsafe fn body<P: AsRef<[Piece]> + ?Sized>(&self, pieces: &P) {
        let (mut base, mut tap) = (self.k0 / self.offsets.len() * self.channel, self.k0 % self.offsets.len());
        let mut out = self.out;
        for _ in 0..self.kc {
            // SAFETY: the caller's promise.
            unsafe {
                let from = self.padded.add(base + self.offsets[tap]);
                for piece in pieces.as_ref() {
                    let vector = from.add(piece.base).cast::<[f32; SLACK]>().read_unaligned();
                    out.add(piece.at).cast::<[f32; SLACK]>().write_unaligned(vector);
                }
            }
            out = out.wrapping_add(self.step);
            tap += 1;
            if tap == self.offsets.len() {
                tap = 0;
                base += self.channel;
            }
        }
    }
}
