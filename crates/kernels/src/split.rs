//! Spreading slices over threads: disjoint parts, cut by length alone.

use crate::Exec;
use crate::shared::Shared;

/// Calls `f(start, part)` on disjoint parts of `x` of at least `grain` elements (but the last).
pub(crate) fn split<T: Send>(exec: Exec<'_>, x: &mut [T], grain: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    rows(exec, x, 1, grain, |first, part| f(first, part));
}

/// Calls `f(first_row, part)` on disjoint parts of `x`, of whole rows of `width` elements and of at least `grain` elements (but the
/// last), on the pool.
///
/// # Panics
/// When `x` is not a whole number of rows.
pub fn rows<T: Send>(
    exec: Exec<'_>,
    x: &mut [T],
    width: usize,
    grain: usize,
    f: impl Fn(usize, &mut [T]) + Sync,
) {
    if x.is_empty() {
        return;
    }
    assert!(width > 0 && x.len().is_multiple_of(width));
    let count = x.len() / width;
    let threads = exec.pool().threads();
    if threads == 1 || x.len() < 2 * grain {
        return f(0, x);
    }
    let parts = (x.len() / grain).min(4 * threads).max(1);
    let per_part = count.div_ceil(parts);
    let shared = Shared::new(x);
    exec.pool().for_each(count.div_ceil(per_part), &|i| {
        let first = i * per_part;
        let n = per_part.min(count - first);
        // SAFETY: piece i covers rows `first..first + n` and no other piece does.
        f(first, unsafe { shared.slice(first * width, n * width) });
    });
}

/// `y = x`, on the pool for long slices.
///
/// # Panics
/// When the lengths differ.
pub fn copy(exec: Exec<'_>, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    split(exec, y, 1 << 14, |at, part| part.copy_from_slice(&x[at..at + part.len()]));
}
