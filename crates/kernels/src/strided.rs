//! Copies of runs, short or strided, without calls.

/// `out[i] = x[i * step]`.
#[inline(always)]
pub(crate) fn copy(x: &[f32], step: usize, out: &mut [f32]) {
    match step {
        1 => whole(&x[..out.len()], out),
        2 => {
            let mut done = 0;
            for (o, x) in out.chunks_exact_mut(16).zip(x.chunks_exact(32)) {
                o.copy_from_slice(&evens(x.try_into().expect("32 elements")));
                done += 16;
            }
            for (i, o) in out.iter_mut().enumerate().skip(done) {
                *o = x[2 * i];
            }
        }
        _ => {
            for (i, o) in out.iter_mut().enumerate() {
                *o = x[i * step];
            }
        }
    }
}

/// Every second element. Written as two rounds over short vectors, which compile to shuffles.
#[inline(always)]
fn evens(x: &[f32; 32]) -> [f32; 16] {
    let mut y = [0.0; 16];
    let mut i = 0;
    while i < 4 {
        let (a, b) = ([x[8 * i], x[8 * i + 1], x[8 * i + 2], x[8 * i + 3]], &x[8 * i + 4..8 * i + 8]);
        let quad = [a[0], a[2], b[0], b[2]];
        y[4 * i..4 * i + 4].copy_from_slice(&quad);
        i += 1;
    }
    y
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
