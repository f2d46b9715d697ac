//! Images in blocks of 16 channels: `[batch][channels / 16][height][width][16]`, with a border of zeros. There the channels
//! of a pixel are a vector, so that a convolution reads its windows where they lie, and nothing is packed between
//! one convolution and the next.
//!
//! A layout changes no result: every function here does the operations of its namesake on planes, in the same order.

mod conv;
mod depthwise;
mod pool;
#[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code, unused))]
mod tile;

pub use conv::{Source, Weights, conv2d, fits, held, pack, reach, takes_gates};
pub use pool::{global_mean, max_pool};

use std::ops::Range;

use crate::dispatch::multiversion;
use crate::elementwise::Binary;
use crate::math::{self, Unary};
use crate::shared::Shared;
use crate::{Exec, KernelSet};

/// Channels of a block.
pub const LANES: usize = 16;

/// Rows that a thread must have where threads share rows.
const ROWS: usize = 7;

/// Where the elements of images lie. The lanes past the last channel are there and have no meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Height and width.
    pub size: [usize; 2],
    /// Rows and columns of zeros on every side.
    pub border: usize,
}

impl Blocks {
    /// Blocks of channels.
    pub fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// Elements from row to row.
    fn row(&self) -> usize {
        (self.size[1] + 2 * self.border) * LANES
    }

    /// Elements from block to block.
    fn block(&self) -> usize {
        (self.size[0] + 2 * self.border) * self.row()
    }

    /// Elements of all images; `None` beyond index arithmetic.
    pub fn elements(&self) -> Option<usize> {
        let side = |d: usize| self.border.checked_mul(2)?.checked_add(self.size[d]);
        let plane = side(0)?.checked_mul(side(1)?)?.checked_mul(LANES)?;
        plane.checked_mul(self.blocks())?.checked_mul(self.batch)
    }

    /// Where block `b` of image `n` begins, its border included.
    fn start(&self, n: usize, b: usize) -> usize {
        (n * self.blocks() + b) * self.block()
    }

    /// Where row `h` of block `b` of image `n` begins, without its border.
    fn at(&self, n: usize, b: usize, h: usize) -> usize {
        self.start(n, b) + (h + self.border) * self.row() + self.border * LANES
    }

    fn holds(&self, x: &[f32]) -> bool {
        self.elements() == Some(x.len())
    }

    /// Calls `f(n, b, rows)` with rows of blocks of images that together are all there is, on the pool. Threads share the rows
    /// of all images, as they do in a convolution, so that what one of them has made is in its own cache when it reads it; where
    /// there are too few rows, they share the blocks. `work` is what all of it costs, in elements.
    fn in_parts(&self, exec: Exec<'_>, work: usize, f: impl Fn(usize, usize, Range<usize>) + Sync) {
        let (height, blocks, threads) = (self.size[0], self.blocks(), exec.pool().threads());
        let rows = self.batch * height;
        let most = if threads == 1 || work < 1 << 14 { 1 } else { 4 * threads };
        let by_rows = rows >= ROWS * threads;
        let pieces = most.min(if by_rows { rows } else { blocks });
        exec.pool().for_each(pieces, &|piece| {
            let part = |n: usize| piece * n / pieces..(piece + 1) * n / pieces;
            let (rows, blocks) = if by_rows { (part(rows), 0..blocks) } else { (0..rows, part(blocks)) };
            for n in rows.start / height..rows.end.div_ceil(height) {
                let own = |row: usize| row.clamp(n * height, (n + 1) * height) - n * height;
                for b in blocks.clone() {
                    f(n, b, own(rows.start)..own(rows.end));
                }
            }
        });
    }

    /// Calls `f(n, b, h, row)` for each row of each block of each image, without its border, once that is zeros; on the pool.
    fn each_row(&self, exec: Exec<'_>, y: &mut [f32], f: impl Fn(usize, usize, usize, &mut [f32]) + Sync) {
        assert!(self.holds(y));
        let ([height, width], border, len) = (self.size, self.border, self.row());
        if height == 0 {
            return y.fill(0.0);
        }
        let work = y.len();
        let y = Shared::new(y);
        self.in_parts(exec, work, |n, b, rows| {
            for h in rows {
                // The row with its border, and with the rows above and below that nobody else has.
                let above = if h == 0 { border } else { 0 };
                let below = if h + 1 == height { border } else { 0 };
                let from = self.start(n, b) + (h + border - above) * len;
                // SAFETY: these rows of this block belong to this call alone.
                let all = unsafe { y.slice(from, (above + 1 + below) * len) };
                let (before, inside) = (above * len + border * LANES, width * LANES);
                all[..before].fill(0.0);
                all[before + inside..].fill(0.0);
                f(n, b, h, &mut all[before..before + inside]);
            }
        });
    }

    /// Writes the zeros of all borders.
    fn clear_borders(&self, exec: Exec<'_>, y: &mut [f32]) {
        if self.border > 0 {
            self.each_row(exec, y, |_, _, _, _| ());
        }
    }

    fn row_of<'a>(&self, x: &'a [f32], n: usize, b: usize, h: usize) -> &'a [f32] {
        &x[self.at(n, b, h)..][..self.size[1] * LANES]
    }
}

/// What happens to each element after its chain: a bias for each channel is added, another image is added, a function is
/// applied, in this order, each rounded.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// One value a channel.
    pub bias: Option<&'a [f32]>,
    /// Another image of the same extents; its border may be another.
    pub add: Option<(Blocks, &'a [f32])>,
    /// A function.
    pub activation: Option<Unary>,
}

/// Images from planes: `[batch][channels][height][width]`.
///
/// # Panics
/// When a slice does not have the length that the extents say.
pub fn from_planes(exec: Exec<'_>, x: &[f32], to: &Blocks, y: &mut [f32]) {
    let pixels = to.size[0] * to.size[1];
    assert_eq!(x.len(), to.batch * to.channels * pixels);
    to.each_row(exec, y, |n, b, h, row| {
        let first = n * to.channels + b * LANES;
        let lanes = LANES.min(to.channels - b * LANES);
        interleave(exec.set(), &x[first * pixels + h * to.size[1]..], pixels, lanes, row);
    });
}

multiversion! {
    /// `y[i][lane] = x[lane * step + i]`; 0 in the lanes past the last.
    fn interleave(x: &[f32], step: usize, lanes: usize, y: &mut [f32]) {
        if lanes < LANES {
            y.fill(0.0);
        }
        for lane in 0..lanes {
            for (y, &x) in y.iter_mut().skip(lane).step_by(LANES).zip(&x[lane * step..]) {
                *y = x;
            }
        }
    }
}

/// Planes from images: `[batch][channels][height][width]`.
///
/// # Panics
/// When a slice does not have the length that the extents say.
pub fn to_planes(exec: Exec<'_>, from: &Blocks, x: &[f32], y: &mut [f32]) {
    let [height, width] = from.size;
    assert!(from.holds(x));
    assert_eq!(y.len(), from.batch * from.channels * height * width);
    if y.is_empty() {
        return;
    }
    let blocks = from.blocks();
    let y = Shared::new(y);
    exec.pool().for_each(from.batch * blocks, &|i| {
        let (n, b) = (i / blocks, i % blocks);
        let lanes = LANES.min(from.channels - b * LANES);
        let pixels = height * width;
        // SAFETY: the planes of this block.
        let y = unsafe { y.slice((n * from.channels + b * LANES) * pixels, lanes * pixels) };
        for h in 0..height {
            let row = from.row_of(x, n, b, h);
            for lane in 0..lanes {
                let y = &mut y[lane * pixels + h * width..][..width];
                crate::strided::copy(&row[lane..], LANES, y);
            }
        }
    });
}

/// A function of each element.
///
/// # Panics
/// When a slice does not have the length that the extents say, or these differ in more than the border.
pub fn unary(exec: Exec<'_>, f: Unary, from: &Blocks, x: &[f32], to: &Blocks, y: &mut [f32]) {
    assert!(from.holds(x) && Blocks { border: to.border, ..*from } == *to);
    to.each_row(exec, y, |n, b, h, row| {
        row.copy_from_slice(from.row_of(x, n, b, h));
        math::apply(exec.set(), f, row);
    });
}

/// `f(a, b)` element by element.
///
/// # Panics
/// When a slice does not have the length that the extents say, or these differ in more than the border.
pub fn binary(
    exec: Exec<'_>,
    f: Binary,
    (a, x): (&Blocks, &[f32]),
    (b, z): (&Blocks, &[f32]),
    to: &Blocks,
    y: &mut [f32],
) {
    let extents = |l: &Blocks| Blocks { border: 0, ..*l };
    assert!(a.holds(x) && b.holds(z) && extents(a) == extents(to) && extents(b) == extents(to));
    to.each_row(exec, y, |n, block, h, row| {
        crate::elementwise::many_many(exec.set(), f, a.row_of(x, n, block, h), b.row_of(z, n, block, h), row);
    });
}

/// `x = f(x, gate)` where the gate has one value for each channel of each image: `[batch][channels]`. The border stays.
///
/// # Panics
/// When a slice does not have the length that the extents say.
pub fn gate(exec: Exec<'_>, f: Binary, layout: &Blocks, x: &mut [f32], gate: &[f32]) {
    assert_eq!(gate.len(), layout.batch * layout.channels);
    layout.each_row(exec, x, |n, b, _, row| {
        let lanes = LANES.min(layout.channels - b * LANES);
        let gates = repeated(&gate[n * layout.channels + b * LANES..][..lanes]);
        for x in row.chunks_mut(ROW) {
            crate::elementwise::in_place_many(exec.set(), f, x, &gates, false);
        }
    });
}

/// Elements of a row that is good to work on.
const ROW: usize = 16 * LANES;

/// One value a channel as a row of pixels.
fn repeated(channels: &[f32]) -> [f32; ROW] {
    let (mut lanes, mut row) = ([0.0; LANES], [0.0; ROW]);
    lanes[..channels.len()].copy_from_slice(channels);
    for pixel in row.chunks_exact_mut(LANES) {
        pixel.copy_from_slice(&lanes);
    }
    row
}

/// Whether images in blocks are of use to a kernel set: the scalar one has the definition alone.
pub fn is_for(set: KernelSet) -> bool {
    set != KernelSet::Scalar
}
