//! An image with its padding, cut into planes of equal phase: `[p][q][row][column]` holds row `row * stride + p` and
//! column `column * stride + q` of the padded image. There a tap of all windows is one run whatever the stride:
//! of the window at output pixel (oh, ow) it is at `offsets[tap] + oh * columns + ow`.

use super::Conv2d;
use crate::KernelSet;
use crate::dispatch::multiversion;
use crate::strided;

/// The extents of the planes of equal phase.
pub(super) struct Phases {
    /// Phases that some tap has, of rows and of columns.
    phases: [usize; 2],
    rows: usize,
    pub(super) columns: usize,
    /// For each tap, where its run begins for the first output pixel.
    pub(super) offsets: Vec<usize>,
}

impl Phases {
    pub(super) fn new(c: &Conv2d) -> Self {
        let reach = |d: usize| (c.kernel[d] - 1) * c.dilations[d];
        let extent = |d: usize| c.output[d] + reach(d).div_ceil(c.strides[d]);
        let phases = [0, 1].map(|d| c.strides[d].min(reach(d) + 1));
        let (rows, columns) = (extent(0), extent(1));
        let offset = |r: usize, s: usize| {
            let (r, s) = (r * c.dilations[0], s * c.dilations[1]);
            let phase = r % c.strides[0] * phases[1] + s % c.strides[1];
            (phase * rows + r / c.strides[0]) * columns + s / c.strides[1]
        };
        let offsets = (0..c.kernel[0]).flat_map(|r| (0..c.kernel[1]).map(move |s| offset(r, s))).collect();
        Self { phases, rows, columns, offsets }
    }

    /// Elements of all planes of a channel.
    pub(super) fn len(&self) -> usize {
        self.phases[0] * self.phases[1] * self.rows * self.columns
    }

    /// Copies a channel in, whose planes are zero where the padding is.
    pub(super) fn fill(&self, set: KernelSet, c: &Conv2d, x: &[f32], padded: &mut [f32]) {
        fill(set, self, c, x, padded);
    }

    #[inline(always)]
    fn fill_body(&self, c: &Conv2d, x: &[f32], padded: &mut [f32]) {
        let [sh, sw] = c.strides;
        for (ih, line) in x.chunks_exact(c.input[1]).enumerate() {
            let row = ih + c.pads[0];
            if row / sh >= self.rows {
                break;
            }
            if row % sh >= self.phases[0] {
                continue;
            }
            for q in 0..self.phases[1] {
                // The first input column of this phase.
                let first = (q + sw - c.pads[1] % sw) % sw;
                let at = (first + c.pads[1]) / sw;
                if first >= line.len() || at >= self.columns {
                    continue;
                }
                let begin = ((row % sh * self.phases[1] + q) * self.rows + row / sh) * self.columns;
                let count = (line.len() - first).div_ceil(sw).min(self.columns - at);
                let out = &mut padded[begin + at..begin + at + count];
                strided::copy(&line[first..], sw, out);
            }
        }
    }
}

multiversion! {
    fn fill(phases: &Phases, c: &Conv2d, x: &[f32], padded: &mut [f32]) {
        phases.fill_body(c, x, padded);
    }
}
