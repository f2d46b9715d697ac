//! Products of i16, in pairs.

use std::ops::Range;

use super::tile::{self, Kind, NR, Panels};
use crate::Exec;

/// The right side of an integer product, packed: two rows at a time.
#[derive(Debug, Clone)]
pub struct PackedInts {
    k: usize,
    panels: Panels,
}

impl PackedInts {
    /// Packs the row-major `k` by `n` matrix `b`.
    ///
    /// # Panics
    /// When `b` has not as many elements.
    pub fn new(exec: Exec<'_>, k: usize, n: usize, b: &[i16]) -> Self {
        assert_eq!(b.len(), k * n);
        debug_assert!(!b.contains(&i16::MIN));
        let copy = |row: usize, columns, to: &mut [i16]| to.copy_from_slice(&b[row * n..][columns]);
        let packed =
            crate::Panels::fill_words(Self::packed(k, n), |words| Self::fill(exec, k, n, words, copy));
        Self::of(k, n, packed)
    }

    /// Words of a packed matrix.
    pub(super) fn packed(k: usize, n: usize) -> usize {
        Panels::len(k.div_ceil(2), n)
    }

    /// The `k` by `n` matrix whose words [`PackedInts::fill`] wrote.
    pub(super) fn of(k: usize, n: usize, packed: crate::Panels) -> Self {
        Self { k, panels: Panels::of(k.div_ceil(2), n, packed) }
    }

    /// Packs the `k` by `n` matrix of which `write` writes some columns of a row into `words`, which are zeros.
    pub(super) fn fill(
        exec: Exec<'_>,
        k: usize,
        n: usize,
        words: &mut [i32],
        write: impl Fn(usize, Range<usize>, &mut [i16]) + Sync,
    ) {
        Panels::fill(exec, k.div_ceil(2), n, words, |step, columns, line| {
            let mut rows = [[0; NR]; 2];
            for (row, to) in (2 * step..k).zip(&mut rows) {
                write(row, columns.clone(), &mut to[..columns.len()]);
            }
            for (word, (x, y)) in line.iter_mut().zip(rows[0].into_iter().zip(rows[1])) {
                let ([a, b], [c, d]) = (x.to_ne_bytes(), y.to_ne_bytes());
                *word = i32::from_ne_bytes([a, b, c, d]);
            }
        });
    }
}

/// `c[m, n] = a[m, k] * b[k, n]`, all row-major; sums wrap. Elements of -32768 are not taken: a pair of their products is
/// beyond i32.
///
/// # Panics
/// When `a` or `c` has not as many elements as its extents say.
pub fn gemm(exec: Exec<'_>, m: usize, a: &[i16], b: &PackedInts, c: &mut [i32]) {
    assert_eq!(a.len(), m * b.k);
    debug_assert!(!a.contains(&i16::MIN));
    // Rows of whole words.
    let width = b.panels.steps * 2;
    let mut even = Vec::new();
    let a = if b.k == width {
        a
    } else {
        even.resize(m * width, 0);
        for (to, from) in even.chunks_exact_mut(width).zip(a.chunks_exact(b.k)) {
            to[..b.k].copy_from_slice(from);
        }
        &even[..]
    };
    // SAFETY: the same memory, of which every byte is initialised.
    let words = unsafe { std::slice::from_raw_parts(a.as_ptr().cast::<u8>(), size_of_val(a)) };
    let start = vec![0; b.panels.n];
    tile::product(exec, Kind::pairs(exec.set()), (m, words), &b.panels, &start, None, c);
}
