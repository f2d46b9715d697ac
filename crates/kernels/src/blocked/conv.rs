//! Convolution of images in blocks of channels.

use std::ops::Range;

use super::tile::{self, Tile};
use super::{Blocks, Epilogue, LANES, ROW, depthwise, repeated};
use crate::conv::Conv2d;
use crate::elementwise::{Binary, many_many};
use crate::gemm::{View, pack_transposed};
use crate::math::{self, Unary};
use crate::shared::Shared;
use crate::{Exec, KernelSet, Panels, scratch};

/// Steps of the contraction between two visits of the result.
const STEPS: usize = 512;
/// Elements of the image that stay in the second-level cache while the panels of filters pass by.
const BAND: usize = 3 << 16;
/// The same of a copy that is made on the way.
const COPIED: usize = 1 << 16;

/// Elements of a result after which a function is applied to them.
pub(super) const ACTIVATED: usize = 1 << 14;
/// Tiles that ask for the next panel of weights together.
const AHEAD: usize = 4;

/// The images that are convolved.
#[derive(Debug, Clone, Copy)]
pub enum Source<'a> {
    /// In blocks.
    Blocked(Blocks, &'a [f32]),
    /// In blocks, each channel of each image to be multiplied by a value of its own, rounded: `[batch][channels]`. For the
    /// convolutions that take gates ([`takes_gates`]).
    Gated(Blocks, &'a [f32], &'a [f32]),
    /// In planes: `[batch][channels][height][width]`.
    Planes(&'a [f32]),
}

/// Where the elements of a window lie.
pub(super) struct Input<'a> {
    pub(super) x: &'a [f32],
    /// Channels that lie side by side.
    lanes: usize,
    /// From image to image, group of `lanes` channels to group, row to row, pixel to pixel.
    image: usize,
    block: usize,
    row: usize,
    pixel: usize,
    /// The first tap of the first window.
    origin: usize,
    /// What each channel of each image is still to be multiplied by.
    gate: Option<&'a [f32]>,
}

/// How far windows reach beyond the image, on any side.
pub fn reach(c: &Conv2d) -> usize {
    let after = |d: usize| {
        let last = (c.output[d].max(1) - 1) * c.strides[d] + (c.kernel[d].max(1) - 1) * c.dilations[d] + 1;
        last.saturating_sub(c.input[d] + c.pads[d])
    };
    c.pads[0].max(c.pads[1]).max(after(0)).max(after(1))
}

/// Whether a convolution can multiply channels by gates as it reads them: its windows are pixels.
pub fn takes_gates(c: &Conv2d) -> bool {
    c.groups == 1 && c.kernel == [1, 1] && c.strides == [1, 1] && c.pads == [0, 0] && c.input == c.output
}

impl<'a> Input<'a> {
    /// The windows of `x`, which lie in `x` itself or in a copy with zeros around it, which `copy` then holds.
    pub(super) fn new(exec: Exec<'_>, c: &Conv2d, x: Source<'a>, copy: &'a mut Vec<f32>) -> Self {
        let border = reach(c);
        let gate = match x {
            Source::Gated(_, _, gate) => {
                assert!(takes_gates(c) && gate.len() == c.batch * c.channels);
                Some(gate)
            }
            _ => None,
        };
        let input = match x {
            Source::Blocked(from, x) | Source::Gated(from, x, _) => {
                assert!(from.holds(x) && from.batch == c.batch && from.channels == c.channels);
                assert_eq!(from.size, c.input);
                let to = Blocks { border: border.max(from.border), ..from };
                let x = if to == from {
                    x
                } else {
                    copy.resize(to.elements().expect("an image in memory"), 0.0);
                    to.each_row(exec, copy, |n, b, h, row| row.copy_from_slice(from.row_of(x, n, b, h)));
                    copy
                };
                let origin = (to.border - c.pads[0]) * to.row() + (to.border - c.pads[1]) * LANES;
                let image = to.blocks() * to.block();
                Self { x, lanes: LANES, image, block: to.block(), row: to.row(), pixel: LANES, origin, gate }
            }
            Source::Planes(x) => {
                let ([h, w], planes) = (c.input, c.batch * c.channels);
                assert_eq!(x.len(), planes * h * w);
                let row = w + 2 * border;
                let block = (h + 2 * border) * row;
                copy.resize(planes * block, 0.0);
                let shared = Shared::new(copy);
                exec.pool().for_each(planes, &|i| {
                    // SAFETY: plane i belongs to this piece alone.
                    let to = unsafe { shared.slice(i * block, block) };
                    to[..border * row].fill(0.0);
                    to[(h + border) * row..].fill(0.0);
                    for r in 0..h {
                        let to = &mut to[(r + border) * row..][..row];
                        to[..border].fill(0.0);
                        to[border..border + w].copy_from_slice(&x[(i * h + r) * w..][..w]);
                        to[border + w..].fill(0.0);
                    }
                });
                let origin = (border - c.pads[0]) * row + border - c.pads[1];
                Self { x: copy, lanes: 1, image: c.channels * block, block, row, pixel: 1, origin, gate }
            }
        };
        // Everything that a tile reads is in bounds from here on.
        let end = |d: usize| (c.output[d] - 1) * c.strides[d] + (c.kernel[d] - 1) * c.dilations[d];
        let last = (c.batch - 1) * input.image
            + (c.channels.div_ceil(input.lanes) - 1) * input.block
            + input.at(c, 0, 0, 0)
            + end(0) * input.row
            + end(1) * input.pixel
            + input.lanes;
        assert!(last <= input.x.len());
        input
    }

    /// Where the first tap of the first window of row `h` lies, in group `b` of channels of image `n`.
    pub(super) fn at(&self, c: &Conv2d, n: usize, b: usize, h: usize) -> usize {
        n * self.image + b * self.block + self.origin + h * c.strides[0] * self.row
    }

    /// From window to window of a row.
    pub(super) fn step(&self, c: &Conv2d) -> usize {
        c.strides[1] * self.pixel
    }

    /// Where each tap lies, from the first one.
    pub(super) fn taps(&self, c: &Conv2d) -> Vec<usize> {
        let tap = |r: usize, s: usize| r * c.dilations[0] * self.row + s * c.dilations[1] * self.pixel;
        (0..c.kernel[0]).flat_map(|r| (0..c.kernel[1]).map(move |s| (r, s))).map(|(r, s)| tap(r, s)).collect()
    }
}

/// Whether a convolution of images in blocks can be computed, by its groups and the channels and filters of each: they are whole
/// blocks, or one channel each.
pub fn fits(groups: usize, channels: usize, filters: usize) -> bool {
    let whole = groups == 1 || (channels.is_multiple_of(LANES) && filters.is_multiple_of(LANES));
    (whole || [channels, filters] == [1, 1]) && channels > 0
}

/// Elements that a run may hold besides its operands: a copy of the image, with a border as far as windows reach.
pub fn held(c: &Conv2d) -> usize {
    let side = |d: usize| c.input[d].saturating_add(reach(c).saturating_mul(2));
    [c.channels, side(0), side(1)].into_iter().fold(c.batch, usize::saturating_mul)
}

/// Extents of weights `w[filters, channels of a group, height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weights {
    /// Groups; the filters are cut into as many equal parts.
    pub groups: usize,
    /// Filters, of all groups.
    pub filters: usize,
    /// Channels of one group.
    pub channels: usize,
    /// Kernel height and width.
    pub kernel: [usize; 2],
}

impl Weights {
    /// Those of a convolution.
    pub fn of(c: &Conv2d) -> Self {
        Self { groups: c.groups, filters: c.filters, channels: c.channels / c.groups, kernel: c.kernel }
    }

    fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.filters && self.channels == 1
    }

    /// Elements of the packed form.
    pub fn packed(&self) -> usize {
        let (m, groups) =
            if self.is_depthwise() { (self.filters, 1) } else { (self.filters / self.groups, self.groups) };
        groups * m.next_multiple_of(LANES) * self.channels * self.taps()
    }
}

/// The weights in the form that [`conv2d`] takes: for each panel of filters, each channel, each tap, the panel's weights; with
/// one filter a channel, for each block, each tap, the block's weights. Zeros past the last filter.
///
/// # Panics
/// When `w` does not have the length that the extents say.
pub fn pack(exec: Exec<'_>, weights: &Weights, w: &[f32]) -> Panels {
    let taps = weights.taps();
    assert_eq!(w.len(), weights.filters * weights.channels * taps);
    Panels::fill(weights.packed(), |packed| {
        if weights.is_depthwise() {
            for (channel, w) in w.chunks_exact(taps).enumerate() {
                let block = &mut packed[channel / LANES * LANES * taps..];
                for (tap, &w) in w.iter().enumerate() {
                    block[tap * LANES + channel % LANES] = w;
                }
            }
            return;
        }
        let (gm, nr, steps) =
            (weights.filters / weights.groups, tile::filters(exec.set()), weights.channels * taps);
        let (panels, group) = (gm.div_ceil(nr), gm.next_multiple_of(LANES) * steps);
        let shared = Shared::new(packed);
        exec.pool().for_each(weights.groups * panels, &|i| {
            let (g, first) = (i / panels, i % panels * nr);
            let width = nr.min((gm - first).next_multiple_of(LANES));
            // SAFETY: a panel belongs to its piece alone.
            let out = unsafe { shared.slice(g * group + first * steps, steps * width) };
            let view = View::transposed(&w[g * gm * steps..][..gm * steps], steps);
            pack_transposed(exec.set(), &view, 0, first, width.min(gm - first), width, out);
        });
    })
}

/// As [`crate::conv::conv2d`], of images in blocks: `w` comes from [`pack`] for the same extents and kernel set.
///
/// # Panics
/// When the extents contradict each other or do not fit ([`fits`]), or the set is the scalar one.
pub fn conv2d(
    exec: Exec<'_>,
    c: &Conv2d,
    x: Source<'_>,
    w: &[f32],
    epilogue: &Epilogue<'_>,
    to: &Blocks,
    y: &mut [f32],
) {
    assert!(
        fits(c.groups, c.channels / c.groups, c.filters / c.groups)
            && to.batch == c.batch
            && to.channels == c.filters
            && to.size == c.output
    );
    if let Some((layout, add)) = &epilogue.add {
        assert!(layout.holds(add) && Blocks { border: to.border, ..*layout } == *to);
    }
    assert!(to.holds(y));
    to.clear_borders(exec, y);
    if c.batch * c.output[0] * c.output[1] == 0 {
        return;
    }
    let mut padded;
    let bias = match epilogue.bias {
        Some(bias) => {
            assert_eq!(bias.len(), c.filters);
            padded = bias.to_vec();
            padded.resize(c.filters.next_multiple_of(LANES), 0.0);
            Some(&padded[..])
        }
        None => None,
    };
    let epilogue = Epilogue { bias, ..*epilogue };
    let mut copy = scratch::take();
    let mut blocked = scratch::take();
    let x = match x {
        // One filter a channel takes blocks alone.
        Source::Planes(x) if Weights::of(c).is_depthwise() => {
            let layout = Blocks { batch: c.batch, channels: c.channels, size: c.input, border: reach(c) };
            blocked.resize(layout.elements().expect("an image in memory"), 0.0);
            super::from_planes(exec, x, &layout, &mut blocked);
            Source::Blocked(layout, &blocked)
        }
        other => other,
    };
    let input = Input::new(exec, c, x, &mut copy);
    if Weights::of(c).is_depthwise() {
        depthwise::depthwise(exec, c, &input, w, &epilogue, to, y);
    } else {
        for g in 0..c.groups {
            let product = Product::new(exec, c, &input, w, &epilogue, to, g);
            product.run(exec, &Shared::new(y));
        }
    }
    scratch::give(copy);
    scratch::give(blocked);
}

/// One group of a convolution.
struct Product<'a> {
    set: KernelSet,
    c: &'a Conv2d,
    input: &'a Input<'a>,
    taps: Vec<usize>,
    w: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    activation: Option<Activation>,
    to: &'a Blocks,
    /// Channels and filters of a group, and the first blocks of this one.
    gc: usize,
    gm: usize,
    first: [usize; 2],
    /// Most pixels of a tile, and the filters of a panel.
    mr: usize,
    nr: usize,
}

impl<'a> Product<'a> {
    fn new(
        exec: Exec<'_>,
        c: &'a Conv2d,
        input: &'a Input<'a>,
        w: &'a [f32],
        epilogue: &'a Epilogue<'a>,
        to: &'a Blocks,
        g: usize,
    ) -> Self {
        let (gc, gm) = (c.channels / c.groups, c.filters / c.groups);
        let most = tile::pixels(exec.set(), input.step(c));
        let nr = tile::filters(exec.set());
        let taps = input.taps(c);
        let len = gc * taps.len() * gm.next_multiple_of(LANES);
        assert_eq!(w.len(), c.groups * len);
        // About as many pixels in each tile of a row.
        let mr = c.output[1].div_ceil(c.output[1].div_ceil(most));
        let first = [g * gc / input.lanes, g * gm / LANES];
        let w = &w[g * len..][..len];
        let activation = Activation::of(exec.set(), epilogue.activation);
        Self { set: exec.set(), c, input, taps, w, epilogue, activation, to, gc, gm, first, mr, nr }
    }

    fn run(&self, exec: Exec<'_>, y: &Shared<'_, f32>) {
        let (rows, panels) = (self.c.batch * self.c.output[0], self.gm.div_ceil(self.nr));
        let work = rows * self.c.output[1] * self.gm * self.gc * self.taps.len();
        let threads = exec.pool().threads();
        let (row_parts, panel_parts) = if threads == 1 || work < 1 << 16 {
            (1, 1)
        } else {
            cut([rows, panels], self.c.output[1], self.gc * self.taps.len(), self.gc, threads)
        };
        exec.pool().for_each(row_parts * panel_parts, &|piece| {
            let (i, j) = (piece / panel_parts, piece % panel_parts);
            let part = |i: usize, parts: usize, n: usize| i * n / parts..(i + 1) * n / parts;
            self.part(part(i, row_parts, rows), part(j, panel_parts, panels), y);
        });
    }

    /// Computes rows of all images, counted through, of some panels.
    fn part(&self, rows: Range<usize>, panels: Range<usize>, y: &Shared<'_, f32>) {
        let (c, lanes) = (self.c, self.input.lanes);
        let per_chunk = (STEPS / self.taps.len() / lanes).max(1);
        let groups = self.gc.div_ceil(lanes);
        let per_row = c.strides[0] * self.input.row * per_chunk.min(groups);
        let most = if self.input.gate.is_some() { COPIED } else { BAND };
        let band = (most / per_row.max(1)).max(2);
        let mut gated = scratch::take();
        let pairs = tile::takes_two_rows(self.set, c.output[1], self.input.step(c));
        for first in rows.clone().step_by(band) {
            let rows = first..rows.end.min(first + band);
            for chunk in (0..groups).step_by(per_chunk) {
                let chunk = chunk..groups.min(chunk + per_chunk);
                let copy = self.input.gate.map(|gate| self.multiply(gate, &rows, &chunk, &mut gated));
                for panel in panels.clone() {
                    let (mut row, mut waiting) = (rows.start, rows.start);
                    while row < rows.end {
                        let two = pairs && row % c.output[0] + 1 < c.output[0] && row + 1 < rows.end;
                        self.row((row, two), panel, chunk.clone(), row - rows.start, copy.as_ref(), y);
                        row += 1 + usize::from(two);
                        // While the results are near.
                        let many = (row - waiting) * c.output[1] * self.nr >= ACTIVATED;
                        if chunk.end == groups && (many || row == rows.end) {
                            self.activate(waiting..row, panel, y);
                            waiting = row;
                        }
                    }
                }
            }
        }
        scratch::give(gated);
    }

    /// Rows of some groups of channels, times their gates.
    fn multiply<'g>(
        &self,
        gate: &[f32],
        rows: &Range<usize>,
        chunk: &Range<usize>,
        gated: &'g mut Vec<f32>,
    ) -> Gated<'g> {
        let (c, width) = (self.c, self.c.output[1] * LANES);
        let gated = scratch::sized(gated, rows.len() * chunk.len() * width);
        for (group, to) in chunk.clone().zip(gated.chunks_exact_mut(rows.len() * width)) {
            let lanes = LANES.min(c.channels - group * LANES);
            let (mut image, mut gates) = (usize::MAX, [0.0; ROW]);
            for (row, to) in rows.clone().zip(to.chunks_exact_mut(width)) {
                let (n, h) = (row / c.output[0], row % c.output[0]);
                if n != image {
                    (image, gates) = (n, repeated(&gate[n * c.channels + group * LANES..][..lanes]));
                }
                let x = &self.input.x[self.input.at(c, n, group, h)..][..width];
                for (x, to) in x.chunks(ROW).zip(to.chunks_mut(ROW)) {
                    many_many(self.set, Binary::Mul, x, &gates, to);
                }
            }
        }
        Gated { x: gated, block: rows.len() * width }
    }

    /// The blocks of a panel's filters.
    fn blocks(&self, panel: usize) -> Range<usize> {
        let (from, to) = (panel * self.nr, self.gm.min((panel + 1) * self.nr));
        self.first[1] + from / LANES..self.first[1] + to.div_ceil(LANES)
    }

    /// One row of one panel, or two: some groups of channels. It is the `nth` of the band, of which there may be a `copy`.
    fn row(
        &self,
        (row, two): (usize, bool),
        panel: usize,
        chunk: Range<usize>,
        nth: usize,
        copy: Option<&Gated<'_>>,
        y: &Shared<'_, f32>,
    ) {
        let (c, to, lanes, taps) = (self.c, self.to, self.input.lanes, self.taps.len());
        let (n, h, blocks) = (row / c.output[0], row % c.output[0], self.blocks(panel));
        let width = blocks.len() * LANES;
        let groups = self.gc.div_ceil(lanes);
        let finish = chunk.end == groups;
        let w = &self.w[(panel * self.nr * self.gc + chunk.start * lanes * width) * taps..];
        let channels = self.gc.min(chunk.end * lanes) - chunk.start * lanes;
        assert!(w.len() >= channels * taps * width);
        let last_row = h + usize::from(two);
        // The same channels of the next panel, or the next channels of the first one.
        let next = if (panel + 1) * self.nr < self.gm {
            ((panel + 1) * self.nr * self.gc + chunk.start * lanes * self.nr) * taps
        } else {
            chunk.end * lanes * self.nr * taps
        };
        let (at, last) = (to.at(n, blocks.start, h), to.at(n, blocks.end - 1, last_row));
        let mut t = Tile {
            blocks: chunk.len(),
            lanes,
            last: channels - (chunk.len() - 1) * lanes,
            a: std::ptr::null(),
            a_block: self.input.block,
            a_pixel: self.input.step(c),
            a_row: c.strides[0] * self.input.row,
            taps: self.taps.as_ptr(),
            count: taps,
            b: w.as_ptr(),
            next: std::ptr::null(),
            next_step: self.nr / AHEAD,
            y: std::ptr::null_mut(),
            y_block: to.block(),
            y_row: to.row(),
            resume: chunk.start > 0,
            bias: std::ptr::null(),
            add: std::ptr::null(),
            add_block: 0,
            add_row: 0,
            relu: finish && self.epilogue.activation == Some(Unary::Relu),
        };
        if let Some(bias) = self.epilogue.bias.filter(|_| finish) {
            t.bias = bias[blocks.start * LANES..][..width].as_ptr();
        }
        let mut add = None;
        if let Some((layout, x)) = self.epilogue.add.filter(|_| finish) {
            (t.add_block, t.add_row) = (layout.block(), layout.row());
            // The first row and the last one are both inside.
            let end = layout.at(n, blocks.end - 1, last_row) + c.output[1] * LANES;
            add = Some(&x[layout.at(n, blocks.start, h)..end]);
        }
        let mut windows = &self.input.x[self.input.at(c, n, self.first[0] + chunk.start, h)..];
        if let Some(copy) = copy {
            windows = &copy.x[nth * c.output[1] * LANES..];
            (t.a_block, t.a_row) = (copy.block, c.output[1] * LANES);
        }
        for w in (0..c.output[1]).step_by(self.mr) {
            let mr = self.mr.min(c.output[1] - w);
            // Each of the first tiles asks for its part of the next panel.
            let tile = (nth * c.output[1] / (self.mr << usize::from(two)) + w / self.mr) % AHEAD;
            t.next = self.w.as_ptr().wrapping_add(next + tile * channels * taps * t.next_step);
            t.a = windows[w * t.a_pixel..].as_ptr();
            t.add = add.map_or(std::ptr::null(), |x| x[w * LANES..].as_ptr());
            // SAFETY: of the blocks of this panel and this row this call is the only one to touch an element.
            t.y = unsafe { y.slice(at + w * LANES, last - at + mr * LANES) }.as_mut_ptr();
            // SAFETY: `Exec` guarantees the instruction set; windows, weights and results are in bounds as asserted.
            unsafe { tile::run(self.set, mr << usize::from(two), two, width < self.nr, &t) };
        }
    }

    /// Applies a function other than Relu to rows of a panel.
    fn activate(&self, rows: Range<usize>, panel: usize, y: &Shared<'_, f32>) {
        let Some(activation) = self.activation else { return };
        for block in self.blocks(panel) {
            activate(self.set, activation, self.to, self.c.output[0], rows.clone(), block, y);
        }
    }
}

/// A band's rows of some groups of channels, without anything between them, times their gates.
struct Gated<'a> {
    x: &'a [f32],
    /// From group to group.
    block: usize,
}

/// A function other than Relu, which tiles do, and whether it leaves +0 alone.
#[derive(Clone, Copy)]
pub(super) struct Activation {
    f: Unary,
    keeps_zero: bool,
}

impl Activation {
    pub(super) fn of(set: KernelSet, f: Option<Unary>) -> Option<Self> {
        let f = f.filter(|&f| f != Unary::Relu)?;
        let mut zero = [0.0];
        math::apply(set, f, &mut zero);
        Some(Self { f, keeps_zero: zero[0].to_bits() == 0 })
    }
}

/// Applies a function to rows of a block, counted through all images. Where it leaves +0 alone, the border between rows goes with
/// them: long runs are faster.
pub(super) fn activate(
    set: KernelSet,
    Activation { f, keeps_zero }: Activation,
    to: &Blocks,
    height: usize,
    rows: Range<usize>,
    block: usize,
    y: &Shared<'_, f32>,
) {
    let through = to.border == 0 || keeps_zero;
    let mut row = rows.start;
    while row < rows.end {
        let (n, h) = (row / height, row % height);
        let count = if through { (height - h).min(rows.end - row) } else { 1 };
        let len = (count - 1) * to.row() + to.size[1] * LANES;
        // SAFETY: rows of the caller's part, and the border between them.
        math::apply(set, f, unsafe { y.slice(to.at(n, block, h), len) });
        row += count;
    }
}

/// Parts of rows and of panels, so that the busiest thread has least to do, and a thread that is late keeps nobody waiting for
/// long. The rows are of `width` pixels; every part reads its weights and its part of the image, of `channels` channels.
fn cut(
    [rows, panels]: [usize; 2],
    width: usize,
    steps: usize,
    channels: usize,
    threads: usize,
) -> (usize, usize) {
    let mut best = (usize::MAX, (1, 1));
    for row_parts in 1..=rows.min(6 * threads) {
        for panel_parts in 1..=panels.min(6 * threads) {
            let pieces = row_parts * panel_parts;
            let (rows, panels) = (rows.div_ceil(row_parts), panels.div_ceil(panel_parts));
            // In steps of a pixel by a panel; a step's weights and a pixel's channel cost as much as so many.
            let products = rows * width * panels * steps;
            let piece = products + 6 * panels * steps + rows * width * channels / 2;
            let cost = pieces.div_ceil(threads) * piece + products / 3;
            if cost < best.0 {
                best = (cost, (row_parts, panel_parts));
            }
        }
    }
    best.1
}
