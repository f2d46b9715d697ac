//! Convolution: each output element is one chain over (input channel, kernel row, kernel column), ascending.
//!
//! Taps in the padding take part as +0. A bias is added after the chain, as one rounded addition.

use crate::gemm::{Columns, Epilogue, View, gemm, gemm_columns};
use crate::shared::Shared;
use crate::{Exec, KernelSet};

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
    fn group_channels(&self) -> usize {
        self.channels / self.groups
    }

    fn group_filters(&self) -> usize {
        self.filters / self.groups
    }

    /// Length of one chain.
    fn taps(&self) -> usize {
        self.group_channels() * self.kernel[0] * self.kernel[1]
    }

    fn pixels(&self) -> usize {
        self.output[0] * self.output[1]
    }

    /// Whether each output pixel has just the input pixel of the same place.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.strides == [1, 1] && self.pads == [0, 0] && self.input == self.output
    }
}

/// `y[n, m, oh, ow]` from `x[n, c, h, w]` and weights `w[m, c / groups, kh, kw]`, then the epilogue; a bias in it is
/// per filter ([`crate::gemm::Bias::Rows`]).
///
/// # Panics
/// When a slice does not have the length that the extents say, or the groups do not divide the channels.
pub fn conv2d(exec: Exec<'_>, c: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>, y: &mut [f32]) {
    assert!(c.groups > 0 && c.channels % c.groups == 0 && c.filters % c.groups == 0);
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
    for (i, y) in y.chunks_exact_mut(gm * pixels).enumerate() {
        let (n, g) = (i / c.groups, i % c.groups);
        let x = &x[(n * c.channels + g * gc) * plane..][..gc * plane];
        let a = View::row_major(&w[g * gm * taps..][..gm * taps], taps);
        let epilogue = epilogue.rows_from(g * gm);
        if c.is_pointwise() {
            gemm(exec, gm, pixels, taps, a, View::row_major(x, pixels), y, pixels, &epilogue);
        } else if exec.set() == KernelSet::Scalar {
            // The definition, through an explicit matrix of windows.
            let mut windows = vec![0.0; taps * pixels];
            Windows { c, x }.pack(0, taps, 0, pixels, pixels, &mut windows);
            gemm(exec, gm, pixels, taps, a, View::row_major(&windows, pixels), y, pixels, &epilogue);
        } else {
            gemm_columns(exec, gm, pixels, taps, a, &Windows { c, x }, y, pixels, &epilogue);
        }
    }
}

/// The matrix whose columns are the windows of one image (and group), never stored as a whole.
struct Windows<'a> {
    c: &'a Conv2d,
    x: &'a [f32],
}

/// Part of one output row inside a panel.
#[derive(Clone, Copy, Default)]
struct Run {
    /// First column of the panel.
    at: usize,
    len: usize,
    /// Output row and column.
    oh: usize,
    ow: usize,
}

impl Columns for Windows<'_> {
    fn pack(&self, k0: usize, kc: usize, n0: usize, nc: usize, nr: usize, out: &mut [f32]) {
        let mut runs = Vec::new();
        for (panel, out) in out.chunks_mut(kc * nr).take(nc.div_ceil(nr)).enumerate() {
            let j0 = n0 + panel * nr;
            let cols = nr.min(n0 + nc - j0);
            self.runs(j0, cols, &mut runs);
            for (p, row) in out.chunks_exact_mut(nr).enumerate() {
                self.row(k0 + p, &runs, row);
                row[cols..].fill(0.0);
            }
        }
    }
}

impl Windows<'_> {
    /// Cuts output pixels `j0..j0 + cols` at the ends of output rows.
    fn runs(&self, j0: usize, cols: usize, runs: &mut Vec<Run>) {
        let width = self.c.output[1];
        runs.clear();
        let mut at = 0;
        while at < cols {
            let (oh, ow) = ((j0 + at) / width, (j0 + at) % width);
            let len = (width - ow).min(cols - at);
            runs.push(Run { at, len, oh, ow });
            at += len;
        }
    }

    /// Row `k` of the matrix: one tap of each window.
    #[inline(always)]
    fn row(&self, k: usize, runs: &[Run], out: &mut [f32]) {
        let c = self.c;
        let [kh, kw] = c.kernel;
        let [h, w] = c.input;
        let (channel, r, s) = (k / (kh * kw), k / kw % kh, k % kw);
        let plane = &self.x[channel * h * w..(channel + 1) * h * w];
        for run in runs {
            let out = &mut out[run.at..run.at + run.len];
            let ih = (run.oh * c.strides[0] + r * c.dilations[0]).wrapping_sub(c.pads[0]);
            if ih >= h {
                out.fill(0.0);
                continue;
            }
            let line = &plane[ih * w..(ih + 1) * w];
            // Input column of the run's first pixel, before the padding is taken off.
            let first = run.ow * c.strides[1] + s * c.dilations[1];
            let before = c.pads[1].saturating_sub(first).div_ceil(c.strides[1]).min(run.len);
            let end = w + c.pads[1]; // one past the last column, with padding
            let inside = end.saturating_sub(first).div_ceil(c.strides[1]).clamp(before, run.len);
            out[..before].fill(0.0);
            out[inside..].fill(0.0);
            if before == inside {
                continue;
            }
            let from = first + before * c.strides[1] - c.pads[1];
            if c.strides[1] == 1 {
                out[before..inside].copy_from_slice(&line[from..from + inside - before]);
            } else {
                for (o, x) in out[before..inside].iter_mut().zip(line[from..].iter().step_by(c.strides[1])) {
                    *o = *x;
                }
            }
        }
    }
}

/// One filter a channel. Each channel is copied into planes of equal phase: `padded[p][q][row][column]` holds, with padding,
/// row `row * stride + p` and column `column * stride + q`. There a tap of all windows is one run whatever the
/// stride, and whole output planes are accumulated as if they were a single row (the few columns between rows are
/// computed in vain and dropped).
fn depthwise(exec: Exec<'_>, c: &Conv2d, x: &[f32], w: &[f32], epilogue: &Epilogue<'_>, y: &mut [f32]) {
    let plane = c.input[0] * c.input[1];
    let taps = c.kernel[0] * c.kernel[1];
    let pixels = c.pixels();
    let phases = Phases::new(c);
    let planes = c.batch * c.channels;
    let y = Shared::new(y);
    let threads = exec.pool().threads();
    let pieces = if threads == 1 || planes * pixels * taps < 1 << 15 { 1 } else { planes.min(4 * threads) };
    let per_piece = planes.div_ceil(pieces);
    exec.pool().for_each(planes.div_ceil(per_piece), &|piece| {
        let mut padded = vec![0.0f32; phases.len()];
        for i in piece * per_piece..((piece + 1) * per_piece).min(planes) {
            let channel = i % c.channels;
            phases.fill(c, &x[i * plane..(i + 1) * plane], &mut padded);
            // SAFETY: plane i belongs to this piece alone.
            let y = unsafe { y.slice(i * pixels, pixels) };
            let w = &w[channel * taps..(channel + 1) * taps];
            depthwise_plane(exec.set(), c, &phases, &padded, w, y);
            crate::dispatch::apply_epilogue(exec.set(), epilogue, channel, 0, y);
        }
    });
}

/// Output pixels that are accumulated together, in registers.
const STRIP: usize = 64;

/// The extents of the planes of equal phase.
struct Phases {
    rows: usize,
    columns: usize,
    /// For each tap, where its run begins for the first output pixel.
    offsets: Vec<usize>,
    strides: [usize; 2],
}

impl Phases {
    fn new(c: &Conv2d) -> Self {
        let extent = |d: usize| c.output[d] + ((c.kernel[d] - 1) * c.dilations[d]).div_ceil(c.strides[d]);
        let (rows, columns) = (extent(0), extent(1));
        let offset = |r: usize, s: usize| {
            let (r, s) = (r * c.dilations[0], s * c.dilations[1]);
            let phase = r % c.strides[0] * c.strides[1] + s % c.strides[1];
            (phase * rows + r / c.strides[0]) * columns + s / c.strides[1]
        };
        let offsets = (0..c.kernel[0]).flat_map(|r| (0..c.kernel[1]).map(move |s| offset(r, s))).collect();
        Self { rows, columns, offsets, strides: c.strides }
    }

    /// All planes, and a strip more: the last strip may read past the end.
    fn len(&self) -> usize {
        self.strides[0] * self.strides[1] * self.rows * self.columns + STRIP
    }

    /// Copies a channel in; the padding stays zero from channel to channel.
    fn fill(&self, c: &Conv2d, x: &[f32], padded: &mut [f32]) {
        let [sh, sw] = self.strides;
        for (ih, line) in x.chunks_exact(c.input[1]).enumerate() {
            let row = ih + c.pads[0];
            if row / sh >= self.rows {
                break;
            }
            for q in 0..sw {
                // The first input column of this phase.
                let first = (q + sw - c.pads[1] % sw) % sw;
                let at = (first + c.pads[1]) / sw;
                if first >= line.len() || at >= self.columns {
                    continue;
                }
                let begin = ((row % sh * sw + q) * self.rows + row / sh) * self.columns;
                let out = &mut padded[begin + at..begin + self.columns];
                if sw == 1 {
                    let n = line.len().min(out.len());
                    out[..n].copy_from_slice(&line[..n]);
                } else {
                    for (o, &v) in out.iter_mut().zip(line[first..].iter().step_by(sw)) {
                        *o = v;
                    }
                }
            }
        }
    }
}

#[inline(always)]
#[allow(clippy::disallowed_methods)] // one hardware instruction where HW says so
fn fma<const HW: bool>(a: f32, b: f32, c: f32) -> f32 {
    if HW { a.mul_add(b, c) } else { isobit_numerics::fma(a, b, c) }
}

#[inline(always)]
fn depthwise_body<const HW: bool>(c: &Conv2d, p: &Phases, padded: &[f32], w: &[f32], y: &mut [f32]) {
    let width = c.output[1];
    // The output plane with the columns between rows.
    let all = (c.output[0] - 1) * p.columns + width;
    for start in (0..all).step_by(STRIP) {
        let mut acc = [0.0f32; STRIP];
        for (&tap, &offset) in w.iter().zip(&p.offsets) {
            let run: &[f32; STRIP] = padded[offset + start..][..STRIP].try_into().expect("a strip");
            for i in 0..STRIP {
                acc[i] = fma::<HW>(run[i], tap, acc[i]);
            }
        }
        // Rows that this strip reaches.
        for oh in start / p.columns..c.output[0] {
            let row = oh * p.columns;
            if row >= start + STRIP {
                break;
            }
            let (from, to) = (row.max(start), (row + width).min(start + STRIP));
            if from < to {
                y[oh * width + from - row..oh * width + to - row]
                    .copy_from_slice(&acc[from - start..to - start]);
            }
        }
    }
}

fn depthwise_plane(set: KernelSet, c: &Conv2d, p: &Phases, padded: &[f32], w: &[f32], y: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    fn avx2(c: &Conv2d, p: &Phases, padded: &[f32], w: &[f32], y: &mut [f32]) {
        depthwise_body::<true>(c, p, padded, w, y);
    }
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn avx512(c: &Conv2d, p: &Phases, padded: &[f32], w: &[f32], y: &mut [f32]) {
        depthwise_body::<true>(c, p, padded, w, y);
    }
    match set {
        #[cfg(all(target_arch = "x86_64", isobit_avx512))]
        // SAFETY: sets other than Scalar come from `Exec`, which checked the machine.
        KernelSet::Avx512 => unsafe { avx512(c, p, padded, w, y) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        KernelSet::Avx2 => unsafe { avx2(c, p, padded, w, y) },
        _ => depthwise_body::<false>(c, p, padded, w, y),
    }
}
