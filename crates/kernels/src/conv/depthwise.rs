//! One filter a channel.

use super::Conv2d;
use super::phases::Phases;
use crate::dispatch::multiversion;
use crate::gemm::{Bias, Epilogue};
use crate::math::Unary;
use crate::shared::Shared;
use crate::strided::{self, SLACK};
use crate::{Exec, KernelSet, scratch};

/// One filter a channel. Whole output planes are accumulated as if they were a single row (the few columns between rows
/// are computed in vain and dropped).
pub(super) fn depthwise(
    exec: Exec<'_>,
    c: &Conv2d,
    x: &[f32],
    w: &[f32],
    epilogue: &Epilogue<'_>,
    y: &mut [f32],
) {
    let plane = c.input[0] * c.input[1];
    let taps = c.kernel[0] * c.kernel[1];
    let pixels = c.pixels();
    let phases = Phases::new(c);
    let planes = c.batch * c.channels;
    let shared = Shared::new(y);
    let threads = exec.pool().threads();
    let pieces = if threads == 1 || planes * pixels * taps < 1 << 15 { 1 } else { planes.min(4 * threads) };
    let per_piece = planes.div_ceil(pieces);
    // The output plane with the columns between rows.
    let wide = (c.output[0] - 1) * phases.columns + c.output[1];
    // A bias and a Relu are applied in registers, unless something is added between them.
    let bias = match epilogue.bias {
        Bias::Rows(b) => Some(b),
        _ => None,
    };
    let (alone, relu) = (epilogue.add.is_none(), epilogue.activation == Some(Unary::Relu));
    exec.pool().for_each(planes.div_ceil(per_piece), &|piece| {
        let (mut padded, mut result) = (scratch::take(), scratch::take());
        // The last strip may read past the end.
        padded.resize(phases.len() + STRIP + SLACK, 0.0);
        result.resize(wide + STRIP + SLACK, 0.0);
        let mine = piece * per_piece..((piece + 1) * per_piece).min(planes);
        let mut waiting = 0;
        for i in mine.clone() {
            let channel = i % c.channels;
            let image = &x[i * plane..(i + 1) * plane];
            match i == mine.start {
                true => phases.fill(exec.set(), c, image, &mut padded),
                false => phases.refill(exec.set(), c, image, &mut padded),
            }
            // SAFETY: plane i belongs to this piece alone.
            let y = unsafe { shared.slice(i * pixels, pixels) };
            let w = &w[channel * taps..(channel + 1) * taps];
            let last = if alone { Last { bias: bias.map(|b| b[channel]), relu } } else { Last::default() };
            strips(exec.set(), &phases.offsets, &padded, w, last, wide, &mut result);
            narrow(exec.set(), &result, phases.columns, c.output[1], y);
            if !alone {
                epilogue.part(channel, i * pixels).apply_sums(exec.set(), 0, 0, pixels, y);
            }
            // Small planes are activated together.
            waiting += 1;
            if waiting * pixels >= 2048 || i + 1 == mine.end {
                let first = i + 1 - waiting;
                // SAFETY: planes of this piece.
                epilogue.activate(exec.set(), unsafe { shared.slice(first * pixels, waiting * pixels) });
                waiting = 0;
            }
        }
        scratch::give(padded);
        scratch::give(result);
    });
}

/// Output pixels that are accumulated together, in registers.
const STRIP: usize = 128;

#[inline(always)]
#[allow(clippy::disallowed_methods)] // one hardware instruction where HW says so
fn fma<const HW: bool>(a: f32, b: f32, c: f32) -> f32 {
    if HW { a.mul_add(b, c) } else { isobit_numerics::fma(a, b, c) }
}

/// What happens to an element after its chain.
#[derive(Clone, Copy, Default)]
struct Last {
    bias: Option<f32>,
    relu: bool,
}

#[inline(always)]
fn strip<const HW: bool, const N: usize>(
    offsets: &[usize],
    padded: &[f32],
    w: &[f32],
    last: Last,
    y: &mut [f32],
) {
    let mut acc = [0.0f32; N];
    for (&tap, &offset) in w.iter().zip(offsets) {
        let run: &[f32; N] = padded[offset..][..N].try_into().expect("a strip");
        for i in 0..N {
            acc[i] = fma::<HW>(run[i], tap, acc[i]);
        }
    }
    if let Some(bias) = last.bias {
        acc.iter_mut().for_each(|x| *x += bias);
    }
    if last.relu {
        acc.iter_mut().for_each(|x| *x = isobit_numerics::relu(*x));
    }
    y[..N].copy_from_slice(&acc);
}

#[inline(always)]
fn strips_body<const HW: bool>(
    offsets: &[usize],
    padded: &[f32],
    w: &[f32],
    last: Last,
    len: usize,
    y: &mut [f32],
) {
    let mut start = 0;
    while start < len {
        let (padded, y) = (&padded[start..], &mut y[start..]);
        start += match len - start {
            0..=16 => {
                strip::<HW, 16>(offsets, padded, w, last, y);
                16
            }
            17..=32 => {
                strip::<HW, 32>(offsets, padded, w, last, y);
                32
            }
            33..=64 => {
                strip::<HW, 64>(offsets, padded, w, last, y);
                64
            }
            _ => {
                strip::<HW, STRIP>(offsets, padded, w, last, y);
                STRIP
            }
        };
    }
}

fn strips(
    set: KernelSet,
    offsets: &[usize],
    padded: &[f32],
    w: &[f32],
    last: Last,
    len: usize,
    y: &mut [f32],
) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(offsets: &[usize], padded: &[f32], w: &[f32], last: Last, len: usize, y: &mut [f32]) {
        strips_body::<true>(offsets, padded, w, last, len, y);
    }
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn avx512(offsets: &[usize], padded: &[f32], w: &[f32], last: Last, len: usize, y: &mut [f32]) {
        strips_body::<true>(offsets, padded, w, last, len, y);
    }
    match set {
        #[cfg(all(target_arch = "x86_64", isobit_avx512))]
        // SAFETY: sets other than Scalar come from `Exec`, which checked the machine.
        KernelSet::Avx512 => unsafe { avx512(offsets, padded, w, last, len, y) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        KernelSet::Avx2 => unsafe { avx2(offsets, padded, w, last, len, y) },
        #[cfg(target_arch = "aarch64")]
        KernelSet::Neon => strips_body::<true>(offsets, padded, w, last, len, y),
        _ => strips_body::<false>(offsets, padded, w, last, len, y),
    }
}

multiversion! {
    /// Takes the columns between rows out: rows of `width` elements, `columns` apart in `x`.
    fn narrow(x: &[f32], columns: usize, width: usize, y: &mut [f32]) {
        let rows = y.len() / width;
        for r in 0..rows {
            let from = &x[r * columns..];
            if r * width + width.next_multiple_of(SLACK) <= y.len() {
                strided::run(from, &mut y[r * width..], width);
            } else {
                for (y, x) in y[r * width..].iter_mut().zip(&from[..width]) {
                    *y = *x;
                }
            }
        }
    }
}
