//! Copies of runs, short or strided, without calls.

/// `out[i] = x[i * step]`.
#[inline(always)]
pub(crate) fn copy(x: &[f32], step: usize, out: &mut [f32]) {
    match step {
        1 => whole(&x[..out.len()], out),
        2 => halve(x, out),
        _ => {
            for (i, o) in out.iter_mut().enumerate() {
                *o = x[i * step];
            }
        }
    }
}

/// Every second element: the first halves of pairs, which compiles to truncations of vectors.
#[inline(always)]
fn evens<const N: usize>(x: &[f32], out: &mut [f32]) {
    let (x, out) = (&x[..2 * N], &mut out[..N]);
    // SAFETY: 2 N elements of 4 bytes are N of 8; every pattern is a number.
    let pairs: [u64; N] = unsafe { x.as_ptr().cast::<[u64; N]>().read_unaligned() };
    let first = |pair| if cfg!(target_endian = "little") { pair as u32 } else { (pair >> 32) as u32 };
    out.copy_from_slice(&pairs.map(|pair| f32::from_bits(first(pair))));
}

/// Every second element, for any length: whole vectors, the last one overlapping the one before.
#[inline(always)]
fn halve(x: &[f32], out: &mut [f32]) {
    #[inline(always)]
    fn by<const N: usize>(x: &[f32], out: &mut [f32]) {
        let n = out.len();
        for i in (0..n - N + 1).step_by(N) {
            evens::<N>(&x[2 * i..], &mut out[i..]);
        }
        if !n.is_multiple_of(N) {
            evens::<N>(&x[2 * (n - N)..], &mut out[n - N..]);
        }
    }
    match out.len() {
        n if x.len() < 2 * n || n < 4 => {
            for (i, o) in out.iter_mut().enumerate() {
                *o = x[2 * i];
            }
        }
        16.. => by::<16>(x, out),
        8..16 => by::<8>(x, out),
        _ => by::<4>(x, out),
    }
}

/// A copy of any length: whole vectors, the last one overlapping the one before.
#[inline(always)]
fn whole(x: &[f32], out: &mut [f32]) {
    #[inline(always)]
    fn by<const N: usize>(x: &[f32], out: &mut [f32]) {
        let n = out.len();
        for i in (0..n - N + 1).step_by(N) {
            out[i..i + N].copy_from_slice(&x[i..i + N]);
        }
        out[n - N..].copy_from_slice(&x[n - N..]);
    }
    match out.len() {
        16.. => by::<16>(x, out),
        8..16 => by::<8>(x, out),
        4..8 => by::<4>(x, out),
        _ => {
            for (o, x) in out.iter_mut().zip(x) {
                *o = *x;
            }
        }
    }
}

/// Elements that [`run`] copies at once: it may read and write as many past the run's end.
pub(crate) const SLACK: usize = 16;

/// Copies a run of `len` elements, in whole vectors.
#[inline(always)]
pub(crate) fn run(from: &[f32], to: &mut [f32], len: usize) {
    for i in (0..len).step_by(SLACK) {
        to[i..i + SLACK].copy_from_slice(&from[i..i + SLACK]);
    }
}
