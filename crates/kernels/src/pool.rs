//! Pooling over 2-D windows (a 1-D one has height 1).

use isobit_numerics as num;

use crate::Exec;

/// Extents of a pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool2d {
    /// Input height and width.
    pub input: [usize; 2],
    /// Window height and width.
    pub kernel: [usize; 2],
    /// Output height and width.
    pub output: [usize; 2],
    /// Steps between windows.
    pub strides: [usize; 2],
    /// Steps between taps.
    pub dilations: [usize; 2],
    /// Rows and columns of padding before the image.
    pub pads: [usize; 2],
    /// Rows and columns of padding after the image (they bound what counts as padding in averages).
    pub pads_after: [usize; 2],
}

impl Pool2d {
    /// Input coordinate of a tap along dimension `d`, if it is inside the image.
    #[inline(always)]
    pub(crate) fn inside(&self, d: usize, o: usize, k: usize) -> Option<usize> {
        let i = (o * self.strides[d] + k * self.dilations[d]).wrapping_sub(self.pads[d]);
        (i < self.input[d]).then_some(i)
    }

    /// Whether the windows lie side by side and cover the image.
    fn is_tiling(&self) -> bool {
        let covers = |d: usize| self.output[d] * self.strides[d] == self.input[d];
        self.kernel == self.strides
            && self.pads == [0, 0]
            && covers(0)
            && covers(1)
            && (self.dilations == [1, 1] || self.kernel == [1, 1])
    }

    fn planes(&self, x: usize, y: usize) -> (usize, usize) {
        let (plane, pixels) = (self.input[0] * self.input[1], self.output[0] * self.output[1]);
        assert!(pixels > 0 && y.is_multiple_of(pixels) && x == y / pixels * plane);
        (plane, pixels)
    }
}

/// Largest element of each window, padding left out: `y[plane, oh, ow]` from `x[plane, h, w]`. A window without
/// any element gives -infinity.
///
/// # Panics
/// When the lengths do not fit.
pub fn max_pool(exec: Exec<'_>, p: &Pool2d, x: &[f32], y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let (plane, pixels) = p.planes(x.len(), y.len());
    let tiles = p.is_tiling() && p.input[1] <= COLUMNS;
    crate::rows(exec, y, pixels, 1 << 12, |first, part| {
        if tiles {
            let x = &x[first * plane..][..part.len() / pixels * plane];
            return max_tiles(exec.set(), p.kernel, p.input[1], x, part);
        }
        for (i, y) in part.chunks_exact_mut(pixels).enumerate() {
            max_plane(exec.set(), p, &x[(first + i) * plane..][..plane], y);
        }
    });
}

/// Elements of the columns of some rows of windows.
const COLUMNS: usize = 1024;

crate::dispatch::multiversion! {
    /// Windows that lie side by side: rows of windows follow each other through all planes, so that narrow planes are no short
    /// loops. The largest down each column first.
    fn max_tiles(kernel: [usize; 2], w: usize, x: &[f32], y: &mut [f32]) {
        let mut columns = [0.0f32; COLUMNS];
        let rows = COLUMNS / w;
        let bands = x.chunks(rows * kernel[0] * w).zip(y.chunks_mut(rows * w / kernel[1]));
        for (x, y) in bands {
            let columns = &mut columns[..y.len() * kernel[1]];
            for (columns, x) in columns.chunks_exact_mut(w).zip(x.chunks_exact(kernel[0] * w)) {
                columns.fill(f32::NEG_INFINITY);
                for x in x.chunks_exact(w) {
                    for (c, &x) in columns.iter_mut().zip(x) {
                        *c = num::max(*c, x);
                    }
                }
            }
            if kernel[1] == 2 {
                for (y, pair) in y.iter_mut().zip(columns.chunks_exact(2)) {
                    *y = num::max(pair[0], pair[1]);
                }
            } else {
                for (y, run) in y.iter_mut().zip(columns.chunks_exact(kernel[1])) {
                    *y = run.iter().fold(f32::NEG_INFINITY, |y, &x| num::max(y, x));
                }
            }
        }
    }
}

crate::dispatch::multiversion! {
    /// The largest down each column first, then along the rows: which of equal or NaN elements comes first does not
    /// show in the result.
    fn max_plane(p: &Pool2d, x: &[f32], y: &mut [f32]) {
        let w = p.input[1];
        let step = p.strides[1];
        let mut columns = vec![0.0f32; w];
        // The columns by phase, where the windows' steps are short: every tap is then a run.
        let per_phase = w.div_ceil(step);
        let mut phases = if (2..=4).contains(&step) && w > 0 { vec![0.0f32; step * per_phase] } else { Vec::new() };
        for (oh, y) in y.chunks_exact_mut(p.output[1]).enumerate() {
            columns.fill(f32::NEG_INFINITY);
            for r in 0..p.kernel[0] {
                let Some(ih) = p.inside(0, oh, r) else { continue };
                for (c, &x) in columns.iter_mut().zip(&x[ih * w..(ih + 1) * w]) {
                    *c = num::max(*c, x);
                }
            }
            for (q, phase) in phases.chunks_exact_mut(per_phase.max(1)).enumerate().take(w) {
                let count = (w - q).div_ceil(step);
                crate::strided::copy(&columns[q..], step, &mut phase[..count]);
            }
            y.fill(f32::NEG_INFINITY);
            for s in 0..p.kernel[1] {
                let first = s * p.dilations[1];
                let before = p.pads[1].saturating_sub(first).div_ceil(p.strides[1]).min(y.len());
                let end = (w + p.pads[1]).saturating_sub(first).div_ceil(p.strides[1]);
                let end = end.clamp(before, y.len());
                if before == end {
                    continue;
                }
                let from = first + before * p.strides[1] - p.pads[1];
                let y = &mut y[before..end];
                if step == 1 || !phases.is_empty() {
                    let taps = if step == 1 { &columns[from..] } else { &phases[from % step * per_phase + from / step..] };
                    for (y, &x) in y.iter_mut().zip(taps) {
                        *y = num::max(*y, x);
                    }
                } else {
                    for (y, &x) in y.iter_mut().zip(columns[from..].iter().step_by(step)) {
                        *y = num::max(*y, x);
                    }
                }
            }
        }
    }
}

/// For each window the position of its largest element in the plane, the first of equal ones.
pub fn max_pool_indices(p: &Pool2d, x: &[f32], y: &mut [i64]) {
    if y.is_empty() {
        return;
    }
    let (plane, pixels) = p.planes(x.len(), y.len());
    for (i, y) in y.chunks_exact_mut(pixels).enumerate() {
        let x = &x[i * plane..][..plane];
        for (o, y) in y.iter_mut().enumerate() {
            let (oh, ow) = (o / p.output[1], o % p.output[1]);
            let mut best: Option<(f32, usize)> = None;
            for (r, s) in (0..p.kernel[0]).flat_map(|r| (0..p.kernel[1]).map(move |s| (r, s))) {
                if let (Some(ih), Some(iw)) = (p.inside(0, oh, r), p.inside(1, ow, s)) {
                    let at = ih * p.input[1] + iw;
                    let larger = best.is_none_or(|(b, _)| x[at] > b || (x[at].is_nan() && !b.is_nan()));
                    if larger {
                        best = Some((x[at], at));
                    }
                }
            }
            *y = best.map_or(0, |(_, at)| at as i64);
        }
    }
}

/// Mean of each window: the 32-lane sum over the taps inside the image in row-major order, divided by their number
/// (or, with `count_padding`, by the number of taps inside the image or its padding).
///
/// # Panics
/// When the lengths do not fit.
pub fn average_pool(exec: Exec<'_>, p: &Pool2d, count_padding: bool, x: &[f32], y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    let (plane, pixels) = p.planes(x.len(), y.len());
    crate::rows(exec, y, pixels, 1 << 12, |first, part| {
        for (i, y) in part.chunks_exact_mut(pixels).enumerate() {
            let x = &x[(first + i) * plane..][..plane];
            for (o, y) in y.iter_mut().enumerate() {
                *y = average(p, count_padding, x, o / p.output[1], o % p.output[1]);
            }
        }
    });
}

fn average(p: &Pool2d, count_padding: bool, x: &[f32], oh: usize, ow: usize) -> f32 {
    let taps = (0..p.kernel[0]).flat_map(|r| (0..p.kernel[1]).map(move |s| (r, s)));
    let inside = taps.filter_map(|(r, s)| Some(p.inside(0, oh, r)? * p.input[1] + p.inside(1, ow, s)?));
    let mut n = 0;
    let sum = num::sum(inside.map(|at| {
        n += 1;
        x[at]
    }));
    let count = if count_padding { padded(p, 0, oh) * padded(p, 1, ow) } else { n };
    sum / count as f32
}

/// Taps along a dimension that lie in the image or its padding.
fn padded(p: &Pool2d, d: usize, o: usize) -> usize {
    let end = p.input[d] + p.pads[d] + p.pads_after[d];
    (0..p.kernel[d]).filter(|k| o * p.strides[d] + k * p.dilations[d] < end).count()
}
