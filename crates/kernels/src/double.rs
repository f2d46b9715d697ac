//! Matrix products of f64: one chain an output element, k ascending, by fused multiply-adds, as `isobit_numerics::chain64`.

use std::ops::Range;

use isobit_numerics::fma64;

use crate::gemm::View;
use crate::shared::Shared;
use crate::{Exec, KernelSet};

/// Columns that are computed together.
const COLUMNS: usize = 16;
/// Rows that are computed together where there are registers for them.
const ROWS: usize = 8;

/// Multiply-adds below which waking other threads takes longer than they save.
const WORTH_SPREADING: usize = 1 << 16;

/// The right side of products, packed: panels of columns, each with its rows one after the other, the last filled up with zeros.
#[derive(Debug)]
pub struct Panels {
    k: usize,
    n: usize,
    data: Vec<f64>,
}

impl Panels {
    /// Packs the matrix `b` of `k` rows and `n` columns.
    ///
    /// # Panics
    /// When it does not lie inside the elements of `b`.
    pub fn new(k: usize, n: usize, b: View<'_, f64>) -> Self {
        let mut data = vec![0.0; n.div_ceil(COLUMNS) * k * COLUMNS];
        for (panel, first) in data.chunks_exact_mut((k * COLUMNS).max(1)).zip((0..n).step_by(COLUMNS)) {
            let columns = COLUMNS.min(n - first);
            for (p, row) in panel.chunks_exact_mut(COLUMNS).enumerate() {
                row[..columns].iter_mut().enumerate().for_each(|(j, v)| *v = b.at(p, first + j));
            }
        }
        Self { k, n, data }
    }

    /// Its columns.
    pub fn n(&self) -> usize {
        self.n
    }
}

/// Some of the columns.
#[derive(Clone, Copy)]
struct Part<'a> {
    panels: &'a Panels,
    /// With which a panel begins.
    first: usize,
    n: usize,
}

impl Part<'_> {
    /// The panel with column `at` of these.
    fn panel(&self, at: usize) -> &[f64] {
        let len = self.panels.k * COLUMNS;
        &self.panels.data[(self.first + at) / COLUMNS * len..][..len]
    }
}

/// `c`, of rows `stride` apart, = the product of `a`, of `m` rows, and `b`.
///
/// # Panics
/// When `a` or the result does not lie inside its elements, or rows of the result overlap.
pub fn product(exec: Exec<'_>, m: usize, a: View<'_, f64>, b: &Panels, c: &mut [f64], stride: usize) {
    columns(exec, m, a, b, 0..b.n, c, stride);
}

/// As [`product`] of some of the columns, which begin at a multiple of [`crate::gemm::COLUMNS`].
///
/// # Panics
/// As [`product`], and when there are no such columns.
pub fn columns(
    exec: Exec<'_>,
    m: usize,
    a: View<'_, f64>,
    b: &Panels,
    columns: Range<usize>,
    c: &mut [f64],
    stride: usize,
) {
    assert!(columns.start.is_multiple_of(COLUMNS) && columns.end <= b.n, "{columns:?} of {}", b.n);
    let n = columns.len();
    if m == 0 || n == 0 {
        return;
    }
    assert!(stride >= n && c.len() >= (m - 1) * stride + n);
    if b.k == 0 {
        return (0..m).for_each(|i| c[i * stride..][..n].fill(0.0));
    }
    let b = Part { panels: b, first: columns.start, n };
    let c = Shared::new(c);
    let block = |index: usize| {
        let first = index * ROWS;
        let rows = ROWS.min(m - first);
        // SAFETY: block `index` has these rows, and no other has one of them.
        let c = unsafe { c.slice(first * stride, (rows - 1) * stride + n) };
        // The rows side by side, filled up with zeros.
        let mut left = vec![0.0; b.panels.k * ROWS];
        for (p, column) in left.chunks_exact_mut(ROWS).enumerate() {
            column[..rows].iter_mut().enumerate().for_each(|(r, v)| *v = a.at(first + r, p));
        }
        block_of(exec.set(), rows, &left, b, c, stride);
    };
    let blocks = m.div_ceil(ROWS);
    if m.saturating_mul(n).saturating_mul(b.panels.k) < WORTH_SPREADING {
        (0..blocks).for_each(block);
    } else {
        exec.pool().for_each(blocks, &block);
    }
}

/// Up to [`ROWS`] rows of the result.
fn block_of(set: KernelSet, rows: usize, left: &[f64], b: Part<'_>, c: &mut [f64], stride: usize) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(rows: usize, left: &[f64], b: Part<'_>, c: &mut [f64], stride: usize) {
        panels(rows, b, c, stride, |row, panel| sums::<2, true>(&left[row..], panel));
    }

    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    #[target_feature(enable = "avx512f")]
    fn avx512(rows: usize, left: &[f64], b: Part<'_>, c: &mut [f64], stride: usize) {
        match rows {
            1 => panels(rows, b, c, stride, |row, panel| avx512::sums::<1>(&left[row..], panel)),
            2..=4 => panels(rows, b, c, stride, |row, panel| avx512::sums::<4>(&left[row..], panel)),
            _ => panels(rows, b, c, stride, |row, panel| avx512::sums::<8>(&left[row..], panel)),
        }
    }

    match set {
        #[cfg(all(target_arch = "x86_64", isobit_avx512))]
        // SAFETY: a set other than Scalar comes from `Exec`, which checked the machine.
        KernelSet::Avx512 => unsafe { avx512(rows, left, b, c, stride) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        KernelSet::Avx2 => unsafe { avx2(rows, left, b, c, stride) },
        _ => panels(rows, b, c, stride, |row, panel| sums::<2, false>(&left[row..], panel)),
    }
}

/// All panels, `TILE` rows at a time, by `sums` of a row and a panel.
#[inline(always)]
fn panels<const TILE: usize>(
    rows: usize,
    b: Part<'_>,
    c: &mut [f64],
    stride: usize,
    sums: impl Fn(usize, &[f64]) -> [[f64; COLUMNS]; TILE],
) {
    for first in (0..b.n).step_by(COLUMNS) {
        let columns = COLUMNS.min(b.n - first);
        for row in (0..rows).step_by(TILE) {
            let sums = sums(row, b.panel(first));
            for (r, sums) in sums.iter().enumerate().take(rows - row) {
                c[(row + r) * stride + first..][..columns].copy_from_slice(&sums[..columns]);
            }
        }
    }
}

/// The chains of `TILE` rows, the first of each group of [`ROWS`] in `left`. `FUSED` says that the instruction set has a fused
/// multiply-add.
#[inline(always)]
fn sums<const TILE: usize, const FUSED: bool>(left: &[f64], panel: &[f64]) -> [[f64; COLUMNS]; TILE] {
    let mut sums = [[0.0f64; COLUMNS]; TILE];
    for (x, b) in left.chunks(ROWS).zip(panel.chunks_exact(COLUMNS)) {
        for (sums, &x) in sums.iter_mut().zip(&x[..TILE]) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                #[allow(clippy::disallowed_methods)] // one instruction where FUSED
                {
                    *sum = if FUSED { x.mul_add(b, *sum) } else { fma64(x, b, *sum) };
                }
            }
        }
    }
    sums
}

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{COLUMNS, ROWS};

    /// As [`super::sums`], which the compiler does not keep in registers here.
    #[target_feature(enable = "avx512f")]
    pub(super) fn sums<const TILE: usize>(left: &[f64], panel: &[f64]) -> [[f64; COLUMNS]; TILE] {
        let mut sums = [[_mm512_setzero_pd(); 2]; TILE];
        for (x, b) in left.chunks(ROWS).zip(panel.chunks_exact(COLUMNS)) {
            // SAFETY: a row of a panel has 16 elements.
            let b = unsafe { [_mm512_loadu_pd(b.as_ptr()), _mm512_loadu_pd(b.as_ptr().add(8))] };
            for (sums, &x) in sums.iter_mut().zip(&x[..TILE]) {
                let x = _mm512_set1_pd(x);
                *sums = [_mm512_fmadd_pd(x, b[0], sums[0]), _mm512_fmadd_pd(x, b[1], sums[1])];
            }
        }
        let mut out = [[0.0; COLUMNS]; TILE];
        for (out, sums) in out.iter_mut().zip(sums) {
            // SAFETY: a row of the result has 16 elements.
            unsafe {
                _mm512_storeu_pd(out.as_mut_ptr(), sums[0]);
                _mm512_storeu_pd(out.as_mut_ptr().add(8), sums[1]);
            }
        }
        out
    }
}
