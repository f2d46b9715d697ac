use super::{View, micro};
use crate::KernelSet;

/// What the columns of the right side are packed from.
pub(crate) trait Columns: Sync {
    /// Writes rows `k0..k0+kc` of columns `n0..n0+nc` as panels of `nr` columns, each `kc` steps of
    /// `nr` values; columns past the last are zero.
    fn pack(&self, k0: usize, kc: usize, n0: usize, nc: usize, nr: usize, out: &mut [f32]);
}

impl Columns for View<'_> {
    fn pack(&self, k0: usize, kc: usize, n0: usize, nc: usize, nr: usize, out: &mut [f32]) {
        for (panel, out) in out.chunks_mut(kc * nr).take(nc.div_ceil(nr)).enumerate() {
            let j0 = n0 + panel * nr;
            let cols = nr.min(n0 + nc - j0);
            if self.col_stride == 1 {
                for (p, out) in out.chunks_exact_mut(nr).enumerate() {
                    let from = (k0 + p) * self.row_stride + j0;
                    out[..cols].copy_from_slice(&self.data[from..from + cols]);
                    out[cols..].fill(0.0);
                }
            } else {
                pack_transposed(self, k0, j0, cols, nr, out);
            }
        }
    }
}

/// Columns that are far apart: read each along k, in blocks that keep the written lines in cache.
fn pack_transposed(b: &View<'_>, k0: usize, j0: usize, cols: usize, nr: usize, out: &mut [f32]) {
    const BLOCK: usize = 16;
    let kc = out.len() / nr;
    for p0 in (0..kc).step_by(BLOCK) {
        let p1 = kc.min(p0 + BLOCK);
        for j in 0..nr {
            if j < cols {
                let column = (j0 + j) * b.col_stride;
                for p in p0..p1 {
                    out[p * nr + j] = b.data[column + (k0 + p) * b.row_stride];
                }
            } else {
                for p in p0..p1 {
                    out[p * nr + j] = 0.0;
                }
            }
        }
    }
}

/// The right side of a multiplication, packed once for one kernel set.
#[derive(Debug, Clone)]
pub struct PackedB {
    pub(super) set: KernelSet,
    pub(super) k: usize,
    pub(super) n: usize,
    /// Panels of `NR` columns, each `k` steps of `NR` values.
    pub(super) panels: Vec<f32>,
}

impl PackedB {
    /// Packs the `k` by `n` matrix `b` for `set`.
    ///
    /// # Panics
    /// When `b` does not hold such a matrix.
    pub fn new(set: KernelSet, k: usize, n: usize, b: View<'_>) -> Self {
        assert!(b.holds(k, n), "B is smaller than {k} x {n}");
        let (_, nr) = micro::tile(set);
        let mut panels = vec![0.0; k * n.next_multiple_of(nr)];
        if k > 0 && n > 0 {
            b.pack(0, k, 0, n, nr, &mut panels);
        }
        Self { set, k, n, panels }
    }

    /// Steps of the contraction.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Columns.
    pub fn n(&self) -> usize {
        self.n
    }
}

/// Packs rows `m0..m0+mc`, steps `k0..k0+kc` of A: panels of at most `mr` rows, each `kc` steps of as many
/// values as the panel has rows.
pub(super) fn pack_a(a: &View<'_>, m0: usize, mc: usize, k0: usize, kc: usize, mr: usize, out: &mut [f32]) {
    for i0 in (0..mc).step_by(mr) {
        let rows = mr.min(mc - i0);
        let panel = &mut out[i0 * kc..(i0 + rows) * kc];
        for i in 0..rows {
            let from = (m0 + i0 + i) * a.row_stride + k0 * a.col_stride;
            if a.col_stride == 1 {
                for (p, &x) in a.data[from..from + kc].iter().enumerate() {
                    panel[p * rows + i] = x;
                }
            } else {
                for p in 0..kc {
                    panel[p * rows + i] = a.data[from + p * a.col_stride];
                }
            }
        }
    }
}
