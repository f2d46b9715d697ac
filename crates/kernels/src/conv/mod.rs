//! Convolution: each output element is one chain over (input channel, kernel row, kernel column), ascending.
//!
//! Taps in the padding take part as +0. A bias is added after the chain, as one rounded addition.

mod depthwise;
mod phases;
mod windows;

use std::sync::OnceLock;

use crate::blocked::Weights;
use crate::gemm::{Bias, Columns, Epilogue, Left, PackedA, PackedB, Right, View, gemm, product};
use crate::shared::Shared;
use crate::transpose::transpose_into;
use crate::{Exec, KernelSet, Panels, scratch, strided};
use depthwise::depthwise;
pub(crate) use phases::Phases;
use windows::Windows;

/// Extents of a 2-D convolution; a 1-D one has height 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv2d {
    /// Images.
    pub batch: usize,
    /// Input channels, of all groups.
    pub channels: usize,
    /// Output channels, of all groups.
    pub filters: usize,
    /// Groups; input and output channels are cut into as many equal parts.
    pub groups: usize,
    /// Input height and width.
    pub input: [usize; 2],
    /// Kernel height and width.
    pub kernel: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    /// Steps between windows.
    pub strides: [usize; 2],
    /// Steps between taps.
    pub dilations: [usize; 2],
    /// Rows and columns of padding before the image.
    pub pads: [usize; 2],
}

impl Conv2d {
    pub(crate) fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    pub(crate) fn group_filters(&self) -> usize {
        self.filters / self.groups
    }

    /// Length of one chain.
    fn taps(&self) -> usize {
        self.group_channels() * self.kernel[0] * self.kernel[1]
    }

    pub(crate) fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Elements that a run holds besides its operands: the planes of a group with their padding, which may be far larger than
    /// the image.
    pub fn held(&self) -> usize {
        if self.is_pointwise() { 0 } else { Phases::new(self).len().saturating_mul(self.group_channels()) }
    }

    /// Whether each output pixel has just the input pixel of the same place.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0, 0] && self.input == self.output
    }
}

/// Constant weights, packed on first use in the form that the input's extents ask for.
#[derive(Debug, Default)]
pub struct Filters {
    rows: OnceLock<Vec<PackedA>>,
    columns: OnceLock<Vec<PackedB>>,
    blocks: OnceLock<Panels>,
}

impl Filters {
    /// Filters as the rows of the left side, one matrix a group.
    fn rows(&self, set: KernelSet, c: &Conv2d, w: &[f32]) -> &[PackedA] {
        let (gm, taps) = (c.group_filters(), c.taps());
        let pack = |w| PackedA::new(set, gm, taps, View::row_major(w, taps));
        self.rows.get_or_init(|| w.chunks_exact(gm * taps).map(pack).collect())
    }

    /// Filters for [`crate::blocked::conv2d`].
    pub fn blocks(&self, exec: Exec<'_>, weights: &Weights, w: &[f32]) -> &[f32] {
        self.blocks.get_or_init(|| crate::blocked::pack(exec, weights, w))
    }

    /// What [`crate::blocked::pack`] made of these weights for this kernel set; panels of another length are left aside.
    pub fn give_blocks(&self, weights: &Weights, panels: Panels) {
        if panels.len() == weights.packed() {
            let _ = self.blocks.set(panels);
        }
    }

    /// Filters as the columns of the right side, one matrix a group.
    fn columns(&self, exec: Exec<'_>, c: &Conv2d, w: &[f32]) -> &[PackedB] {
        let (gm, taps) = (c.group_filters(), c.taps());
        let pack = |w| PackedB::new(exec, taps, gm, View::transposed(w, taps));
        self.columns.get_or_init(|| w.chunks_exact(gm * taps).map(pack).collect())
    }
}

/// `y[n, m, oh, ow]` from `x[n, c, h, w]` and weights `w[m, c / groups, kh, kw]`, then the epilogue; a bias in it is
/// per filter ([`crate::gemm::Bias::Rows`]). `filters` belongs to these weights and this kernel set.
///
/// # Panics
/// When a slice does not have the length that the extents say, or the groups do not divide the channels.
pub fn conv2d(
    exec: Exec<'_>,
    c: &Conv2d,
    x: &[f32],
    w: &[f32],
    filters: Option<&Filters>,
    epilogue: &Epilogue<'_>,
    y: &mut [f32],
) {
    assert!(c.groups > 0 && c.channels.is_multiple_of(c.groups) && c.filters.is_multiple_of(c.groups));
    let (gc, gm, taps, pixels) = (c.group_channels(), c.group_filters(), c.taps(), c.pixels());
    let plane = c.input[0] * c.input[1];
    assert_eq!(x.len(), c.batch * c.channels * plane);
    assert_eq!(w.len(), c.filters * taps);
    assert_eq!(y.len(), c.batch * c.filters * pixels);
    if y.is_empty() {
        return;
    }
    if gc == 1 && gm == 1 {
        return depthwise(exec, c, x, w, epilogue, y);
    }
    let filters = filters.filter(|_| taps > 0 && exec.set() != KernelSet::Scalar);
    for (i, y) in y.chunks_exact_mut(gm * pixels).enumerate() {
        let (n, g) = (i / c.groups, i % c.groups);
        let x = &x[(n * c.channels + g * gc) * plane..][..gc * plane];
        let w_group = View::row_major(&w[g * gm * taps..][..gm * taps], taps);
        let epilogue = epilogue.part(g * gm, i * gm * pixels);
        if exec.set() == KernelSet::Scalar {
            // The definition, through an explicit matrix of windows.
            let mut windows = vec![0.0; taps * pixels + strided::SLACK];
            Windows::new(exec, c, x).pack(exec.set(), 0, taps, 0, pixels, pixels, &mut windows);
            gemm(exec, gm, pixels, taps, w_group, View::row_major(&windows, pixels), y, pixels, &epilogue);
            continue;
        }
        match filters {
            Some(f) if pixels_as_rows(c) => {
                let columns = &f.columns(exec, c, w)[g];
                turned(exec, c, x, columns, &epilogue, y);
            }
            _ => {
                let a = filters.map_or(Left::View(w_group), |f| Left::Packed(&f.rows(exec.set(), c, w)[g]));
                if c.is_pointwise() {
                    let b = View::row_major(x, pixels);
                    product(exec, [gm, pixels, taps], a, Right::view(&b, gm), y, pixels, &epilogue);
                } else {
                    let windows = Windows::new(exec, c, x);
                    product(exec, [gm, pixels, taps], a, Right::Columns(&windows), y, pixels, &epilogue);
                    windows.finish();
                }
            }
        }
    }
}

/// Whether to compute pixels by filters and turn the result: the lanes of the vectors are then filters, of which there are
/// usually a multiple of 16, and not pixels, of which a small image has 49.
fn pixels_as_rows(c: &Conv2d) -> bool {
    let (gm, pixels, taps) = (c.group_filters(), c.pixels(), c.taps());
    let lanes = |n: usize| n.next_multiple_of(16);
    // In steps of 32 multiply-adds; turning costs about half of one an element.
    let upright = gm * lanes(pixels) * taps / 32;
    let turned = pixels * lanes(gm) * taps / 32 + gm * pixels / 2;
    turned < upright
}

fn turned(exec: Exec<'_>, c: &Conv2d, x: &[f32], filters: &PackedB, epilogue: &Epilogue<'_>, y: &mut [f32]) {
    let (gm, pixels, taps) = (c.group_filters(), c.pixels(), c.taps());
    if pixels == 1 && c.is_pointwise() {
        // One row of results, which needs no turning.
        let bias = match epilogue.bias {
            Bias::Rows(b) => Bias::Columns(&b[..gm]),
            other => other,
        };
        let (a, b) = (Left::View(View::row_major(x, taps)), Right::Packed(filters, 0));
        return product(exec, [1, gm, taps], a, b, y, gm, &Epilogue { bias, ..*epilogue });
    }
    let mut result = scratch::take();
    result.resize(pixels * gm, 0.0);
    let (extents, b, none) = ([pixels, gm, taps], Right::Packed(filters, 0), Epilogue::default());
    if c.is_pointwise() {
        product(exec, extents, Left::View(View::transposed(x, pixels)), b, &mut result, gm, &none);
    } else {
        let windows = Windows::new(exec, c, x);
        let rows = windows.rows(exec, pixels, taps);
        windows.finish();
        product(exec, extents, Left::Panels(&rows), b, &mut result, gm, &none);
        scratch::give(rows);
    }
    let y = Shared::new(y);
    let pieces = if pixels * gm < 1 << 14 { 1 } else { gm.div_ceil(16).min(2 * exec.pool().threads()) };
    let rows = gm.div_ceil(pieces).next_multiple_of(16);
    exec.pool().for_each(gm.div_ceil(rows), &|piece| {
        let first = piece * rows;
        let count = rows.min(gm - first);
        // SAFETY: the planes of these filters belong to this piece alone.
        let y = unsafe { y.slice(first * pixels, count * pixels) };
        transpose_into(exec.set(), &result[first..], gm, pixels, count, y);
        for (i, row) in y.chunks_exact_mut(pixels).enumerate() {
            epilogue.apply_sums(exec.set(), first + i, 0, pixels, row);
        }
        epilogue.activate(exec.set(), y);
    });
    scratch::give(result);
}
