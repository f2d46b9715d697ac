//! Matrices turned over their diagonal.

use crate::dispatch::multiversion;
use crate::{Exec, KernelSet};

/// `y[j * m + i] = x[i * ldx + j]` for an `m` by `n` matrix with rows `ldx` apart.
///
/// # Panics
/// When a slice is smaller than that.
pub fn transpose_into(set: KernelSet, x: &[f32], ldx: usize, m: usize, n: usize, y: &mut [f32]) {
    assert!(m == 0 || n == 0 || ((m - 1) * ldx + n <= x.len() && m * n <= y.len()));
    turn(set, x, ldx, m, n, y, m);
}

/// `y` of extents `shape`, row-major, from the elements of `x` that lie `steps` apart along each dimension; on the pool
/// where it is long.
///
/// # Panics
/// When `y` has not as many elements, or an element lies outside of `x`.
pub fn permute(exec: Exec<'_>, x: &[f32], shape: &[usize], steps: &[usize], y: &mut [f32]) {
    assert_eq!(shape.len(), steps.len());
    assert_eq!(y.len(), shape.iter().product::<usize>());
    if y.is_empty() {
        return;
    }
    let last: usize = shape.iter().zip(steps).map(|(d, s)| (d - 1) * s).sum();
    assert!(last < x.len());
    // Dimensions that lie alike in both are one.
    let mut dims: Vec<(usize, usize)> = Vec::new();
    for (&d, &s) in shape.iter().zip(steps).filter(|(d, _)| **d != 1) {
        match dims.last_mut() {
            Some(last) if last.1 == s * d => *last = (last.0 * d, s),
            _ => dims.push((d, s)),
        }
    }
    let Some((&(columns, step), outer)) = dims.split_last() else {
        y[0] = x[0];
        return;
    };
    // A dimension along which x is contiguous makes a matrix with the last one, along which y is.
    match outer.iter().position(|&(_, s)| s == 1).filter(|_| step != 1) {
        Some(side) => turned(exec, x, &dims, side, y),
        None => crate::rows(exec, y, columns, 1 << 14, |first, part| {
            for (r, y) in part.chunks_exact_mut(columns).enumerate() {
                crate::strided::copy(&x[offset(outer, first + r)..], step, y);
            }
        }),
    }
}

/// Where the elements at row-major position `at` of `dims` begin.
fn offset(dims: &[(usize, usize)], mut at: usize) -> usize {
    let mut from = 0;
    for &(d, s) in dims.iter().rev() {
        from += at % d * s;
        at /= d;
    }
    from
}

/// As [`permute`], where dimension `side` steps by 1: matrices of it and the last dimension are turned.
fn turned(exec: Exec<'_>, x: &[f32], dims: &[(usize, usize)], side: usize, y: &mut [f32]) {
    let (columns, step) = dims[dims.len() - 1];
    let n = dims[side].0;
    // y is [before, side, between, columns].
    let (before, between) = (&dims[..side], &dims[side + 1..dims.len() - 1]);
    let count = |dims: &[(usize, usize)]| dims.iter().map(|d| d.0).product::<usize>();
    let (outer, inner) = (count(before), count(between));
    let ldy = inner * columns;
    crate::rows(exec, y, n * ldy, 1 << 14, |first, part| {
        for (o, y) in part.chunks_exact_mut(n * ldy).enumerate().take(outer) {
            let from = offset(before, first + o);
            for i in 0..inner {
                let from = from + offset(between, i);
                turn(exec.set(), &x[from..], step, columns, n, &mut y[i * columns..], ldy);
            }
        }
    });
}

multiversion! {
    /// `y[j * ldy + i] = x[i * ldx + j]`.
    fn turn(x: &[f32], ldx: usize, m: usize, n: usize, y: &mut [f32], ldy: usize) {
        const B: usize = 8;
        let (whole_m, whole_n) = (m / B * B, n / B * B);
        for j0 in (0..whole_n).step_by(B) {
            for i0 in (0..whole_m).step_by(B) {
                let mut block = [[0.0f32; B]; B];
                for (i, row) in block.iter_mut().enumerate() {
                    row.copy_from_slice(&x[(i0 + i) * ldx + j0..][..B]);
                }
                let block = turn_block(block);
                for (j, row) in block.iter().enumerate() {
                    y[(j0 + j) * ldy + i0..][..B].copy_from_slice(row);
                }
            }
        }
        for j in 0..n {
            for i in if j < whole_n { whole_m } else { 0 }..m {
                y[j * ldy + i] = x[i * ldx + j];
            }
        }
    }
}

/// Exchanges rows and columns by three rounds of exchanges between pairs of rows, which compile to shuffles.
#[inline(always)]
fn turn_block(a: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    let mut b = [[0.0; 8]; 8];
    // Pairs of rows: elements of both alternate.
    for r in 0..4 {
        let (x, y) = (a[2 * r], a[2 * r + 1]);
        b[2 * r] = [x[0], y[0], x[1], y[1], x[4], y[4], x[5], y[5]];
        b[2 * r + 1] = [x[2], y[2], x[3], y[3], x[6], y[6], x[7], y[7]];
    }
    let mut c = [[0.0; 8]; 8];
    for r in 0..2 {
        let (p, q, s, t) = (b[4 * r], b[4 * r + 1], b[4 * r + 2], b[4 * r + 3]);
        c[4 * r] = [p[0], p[1], s[0], s[1], p[4], p[5], s[4], s[5]];
        c[4 * r + 1] = [p[2], p[3], s[2], s[3], p[6], p[7], s[6], s[7]];
        c[4 * r + 2] = [q[0], q[1], t[0], t[1], q[4], q[5], t[4], t[5]];
        c[4 * r + 3] = [q[2], q[3], t[2], t[3], q[6], q[7], t[6], t[7]];
    }
    let mut d = [[0.0; 8]; 8];
    for r in 0..4 {
        let (x, y) = (c[r], c[4 + r]);
        d[r] = [x[0], x[1], x[2], x[3], y[0], y[1], y[2], y[3]];
        d[4 + r] = [x[4], x[5], x[6], x[7], y[4], y[5], y[6], y[7]];
    }
    d
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations() {
        let cases: [(&[usize], &[usize]); 9] = [
            (&[3, 4, 5], &[20, 5, 1]),
            (&[5, 3, 4], &[1, 20, 5]),
            (&[2, 3, 17, 9], &[459, 9, 27, 1]),
            (&[2, 3, 9, 17], &[459, 9, 1, 27]),
            (&[4, 1, 16], &[1, 7, 4]),
            (&[16, 8, 2], &[1, 32, 16]),
            (&[2, 40, 70], &[2800, 1, 40]),
            (&[6], &[3]),
            (&[], &[]),
        ];
        for (shape, steps) in cases {
            let x: Vec<f32> = (0..8000).map(|i| i as f32).collect();
            let n: usize = shape.iter().product();
            let expected: Vec<f32> = (0..n)
                .map(|mut at| {
                    let mut from = 0;
                    for (&d, &s) in shape.iter().zip(steps).rev() {
                        from += at % d * s;
                        at /= d;
                    }
                    x[from]
                })
                .collect();
            for set in KernelSet::available() {
                for threads in [1, 3] {
                    let pool = crate::Threads::new(threads).unwrap();
                    let mut y = vec![-1.0; n];
                    permute(Exec::new(set, &pool), &x, shape, steps, &mut y);
                    assert_eq!(y, expected, "{set} {shape:?} {steps:?}");
                }
            }
        }
    }

    #[test]
    fn equals_its_definition() {
        for set in KernelSet::available() {
            for (m, n) in [(0, 3), (1, 1), (8, 8), (9, 17), (49, 30), (16, 40)] {
                let ldx = n + 2;
                let x: Vec<f32> = (0..m * ldx).map(|i| i as f32).collect();
                let mut y = vec![-1.0; m * n];
                transpose_into(set, &x, ldx, m, n, &mut y);
                for i in 0..m {
                    for j in 0..n {
                        assert_eq!(y[j * m + i], x[i * ldx + j], "{set} {m} {n} {i} {j}");
                    }
                }
            }
        }
    }
}
