//! An image with its padding, cut into planes of equal phase: `[p][q][row][column]` holds row `row * stride + p` and
//! column `column * stride + q` of the padded image. There a tap of all windows is one run whatever the stride:
//! of the window at output pixel (oh, ow) it is at `offsets[tap] + oh * columns + ow`.

use super::Conv2d;
use crate::KernelSet;
use crate::dispatch::multiversion;
use crate::strided::{self, SLACK};

/// The extents of the planes of equal phase.
pub(crate) struct Phases {
    /// Phases that some tap has, of rows and of columns.
    phases: [usize; 2],
    rows: usize,
    pub(crate) columns: usize,
    /// For each tap, where its run begins for the first output pixel.
    pub(crate) offsets: Vec<usize>,
}

impl Phases {
    pub(crate) fn new(c: &Conv2d) -> Self {
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
    pub(crate) fn len(&self) -> usize {
        self.phases[0] * self.phases[1] * self.rows * self.columns
    }

    /// Copies a channel in, with zeros where the padding is.
    pub(crate) fn fill(&self, set: KernelSet, c: &Conv2d, x: &[f32], padded: &mut [f32]) {
        fill(set, self, c, x, padded, Some(0.0));
    }

    /// As [`Phases::fill`], of 32 bits of anything, with `padding` where the padding is.
    pub(crate) fn fill_with(&self, set: KernelSet, c: &Conv2d, x: &[f32], padding: f32, padded: &mut [f32]) {
        fill(set, self, c, x, padded, Some(padding));
    }

    /// As [`Phases::fill`], where another channel was before: the padding is left as it is.
    pub(crate) fn refill(&self, set: KernelSet, c: &Conv2d, x: &[f32], padded: &mut [f32]) {
        fill(set, self, c, x, padded, None);
    }

    #[inline(always)]
    fn fill_body(&self, c: &Conv2d, x: &[f32], padded: &mut [f32], padding: Option<f32>) {
        let ([sh, sw], [height, width]) = (c.strides, c.input);
        let phases = (0..self.phases[0]).flat_map(|p| (0..self.phases[1]).map(move |q| (p, q)));
        for ((p, q), plane) in phases.zip(padded.chunks_exact_mut(self.rows * self.columns)) {
            // The first input column of this phase, where it goes, and how many there are.
            let first = (q + sw - c.pads[1] % sw) % sw;
            let at = ((first + c.pads[1]) / sw).min(self.columns);
            let count = width.saturating_sub(first).div_ceil(sw).min(self.columns - at);
            let Some(padding) = padding else {
                // Rows of the image in this phase.
                let first_row = c.pads[0].saturating_sub(p).div_ceil(sh);
                for r in first_row..self.rows {
                    let ih = r * sh + p - c.pads[0];
                    if ih >= height || count == 0 {
                        break;
                    }
                    let row = &mut plane[r * self.columns + at..][..count];
                    strided::copy(&x[ih * width + first..], sw, row);
                }
                continue;
            };
            for r in 0..self.rows {
                let ih = (r * sh + p).wrapping_sub(c.pads[0]);
                let (from, to) = (r * self.columns, (r + 1) * self.columns);
                if ih >= height || count == 0 {
                    plane[from..to].fill(padding);
                    continue;
                }
                let begin = ih * width + first;
                let whole = count.next_multiple_of(SLACK);
                if sw == 1 && begin + whole <= x.len() && from + at + whole <= plane.len() {
                    // What is written past the run's end is padded here or written with the next row.
                    strided::run(&x[begin..], &mut plane[from + at..], count);
                } else {
                    strided::copy(&x[begin..], sw, &mut plane[from + at..from + at + count]);
                }
                pad(&mut plane[from..from + at], padding);
                pad(&mut plane[from + at + count..to], padding);
            }
        }
    }
}

/// Padding, without a call for a short run.
#[inline(always)]
fn pad(x: &mut [f32], padding: f32) {
    if x.len() > 4 {
        return x.fill(padding);
    }
    for i in 0..4 {
        if i < x.len() {
            x[i] = padding;
        }
    }
}

multiversion! {
    fn fill(phases: &Phases, c: &Conv2d, x: &[f32], padded: &mut [f32], padding: Option<f32>) {
        phases.fill_body(c, x, padded, padding);
    }
}
