use super::{View, micro};
use crate::shared::Shared;
use crate::transpose::transpose_into;
use crate::{Exec, KernelSet, Panels};

/// What the columns of the right side are packed from.
pub(crate) trait Columns: Sync {
    /// Writes steps `k0..k0+kc` of columns `n0..n0+nc` as panels of `nr` columns, each `kc` steps of
    /// `nr` values; columns past the last have no meaning. Up to [`PAD`] elements past the last panel may be written.
    #[allow(clippy::too_many_arguments)]
    fn pack(&self, set: KernelSet, k0: usize, kc: usize, n0: usize, nc: usize, nr: usize, out: &mut [f32]);
}

impl Columns for View<'_> {
    fn pack(&self, set: KernelSet, k0: usize, kc: usize, n0: usize, nc: usize, nr: usize, out: &mut [f32]) {
        for (panel, out) in out.chunks_mut(kc * nr).take(nc.div_ceil(nr)).enumerate() {
            let j0 = n0 + panel * nr;
            let cols = nr.min(n0 + nc - j0);
            if self.col_stride == 1 {
                let from = &self.data[k0 * self.row_stride + j0..];
                match nr {
                    32 => panel_of::<32>(set, from, self.row_stride, cols, out),
                    16 => panel_of::<16>(set, from, self.row_stride, cols, out),
                    _ => panel_of::<8>(set, from, self.row_stride, cols, out),
                }
            } else {
                pack_transposed(set, self, k0, j0, cols, nr, out);
            }
        }
    }
}

/// A panel of `NR` columns, of which `cols` exist, from rows `step` apart.
fn panel_of<const NR: usize>(set: KernelSet, x: &[f32], step: usize, cols: usize, out: &mut [f32]) {
    #[inline(always)]
    fn body<const NR: usize>(x: &[f32], step: usize, cols: usize, out: &mut [f32]) {
        for (p, out) in out.chunks_exact_mut(NR).enumerate() {
            let from = &x[p * step..];
            if cols == NR {
                out.copy_from_slice(&from[..NR]);
            } else {
                out[..cols].copy_from_slice(&from[..cols]);
                out[cols..].fill(0.0);
            }
        }
    }
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    #[target_feature(enable = "avx512f")]
    fn avx512<const NR: usize>(x: &[f32], step: usize, cols: usize, out: &mut [f32]) {
        body::<NR>(x, step, cols, out);
    }
    match set {
        #[cfg(all(target_arch = "x86_64", isobit_avx512))]
        // SAFETY: a set other than Scalar comes from `Exec`, which checked the machine.
        KernelSet::Avx512 => unsafe { avx512::<NR>(x, step, cols, out) },
        _ => body::<NR>(x, step, cols, out),
    }
}

/// Columns that are far apart: read each along k, in blocks that keep the written lines in cache.
pub(crate) fn pack_transposed(
    set: KernelSet,
    b: &View<'_>,
    k0: usize,
    j0: usize,
    cols: usize,
    nr: usize,
    out: &mut [f32],
) {
    const BLOCK: usize = 16;
    let kc = out.len() / nr;
    if b.row_stride == 1 && cols == nr {
        return transpose_into(set, &b.data[j0 * b.col_stride + k0..], b.col_stride, nr, kc, out);
    }
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
    pub(super) panels: Panels,
}

impl PackedB {
    /// Packs the `k` by `n` matrix `b`.
    ///
    /// # Panics
    /// When `b` does not hold such a matrix.
    pub fn new(exec: Exec<'_>, k: usize, n: usize, b: View<'_>) -> Self {
        Self { set: exec.set(), k, n, panels: Self::panels(exec, k, n, b) }
    }

    /// The form of the `k` by `n` matrix `b` that [`PackedB::of`] takes.
    ///
    /// # Panics
    /// When `b` does not hold such a matrix.
    pub fn panels(exec: Exec<'_>, k: usize, n: usize, b: View<'_>) -> Panels {
        assert!(b.holds(k, n), "B is smaller than {k} x {n}");
        let (_, nr) = micro::tile(exec.set());
        Panels::fill(Self::packed(exec.set(), k, n), |panels| {
            let (shared, count) = (Shared::new(panels), if k > 0 { n.div_ceil(nr) } else { 0 });
            exec.pool().for_each(count, &|panel| {
                // SAFETY: a panel belongs to its piece alone.
                let out = unsafe { shared.slice(panel * k * nr, k * nr) };
                b.pack(exec.set(), 0, k, panel * nr, nr.min(n - panel * nr), nr, out);
            });
        })
    }

    /// What [`PackedB::panels`] made for the same extents and kernel set. `None` where their number is another.
    pub fn of(set: KernelSet, k: usize, n: usize, panels: Panels) -> Option<Self> {
        (panels.len() == Self::packed(set, k, n)).then_some(Self { set, k, n, panels })
    }

    /// Elements of the packed form.
    pub fn packed(set: KernelSet, k: usize, n: usize) -> usize {
        let (_, nr) = micro::tile(set);
        k.saturating_mul(n.next_multiple_of(nr))
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

/// The left side of a multiplication, packed once for one kernel set.
#[derive(Debug, Clone)]
pub struct PackedA {
    pub(super) set: KernelSet,
    pub(super) m: usize,
    pub(super) k: usize,
    /// Panels of [`PackedA::rows`] rows, the last may have fewer, each `k` steps of as many values.
    pub(super) panels: Vec<f32>,
}

impl PackedA {
    /// Packs the `m` by `k` matrix `a` for `set`.
    ///
    /// # Panics
    /// When `a` does not hold such a matrix.
    pub fn new(set: KernelSet, m: usize, k: usize, a: View<'_>) -> Self {
        assert!(a.holds(m, k), "A is smaller than {m} x {k}");
        let rows = Self::rows(set, m);
        let mut panels = vec![0.0; m * k];
        for i0 in (0..m).step_by(rows) {
            let rows = rows.min(m - i0);
            pack_steps(&a, i0, rows, 0, k, &mut panels[i0 * k..(i0 + rows) * k]);
        }
        Self { set, m, k, panels }
    }

    /// Rows of a tile for a matrix of `m` rows: no more than the set has, and about as many in each.
    pub(crate) fn rows(set: KernelSet, m: usize) -> usize {
        let (most, _) = micro::tile(set);
        m.div_ceil(m.div_ceil(most).max(1)).max(1)
    }
}

/// Between the rows of a packed block, so that they do not meet in the same sets of the cache.
pub(super) const PAD: usize = 16;

/// Packs rows `m0..m0+mc`, steps `k0..k0+kc` of A, whose tiles have at most `rows` rows: rows side by side where
/// the steps of A are ([`PAD`] values apart), else the steps of each tile side by side.
pub(super) fn pack_a(a: &View<'_>, m0: usize, mc: usize, k0: usize, kc: usize, rows: usize, out: &mut [f32]) {
    if a.col_stride == 1 {
        for (i, out) in out.chunks_exact_mut(kc + PAD).take(mc).enumerate() {
            let from = (m0 + i) * a.row_stride + k0;
            out[..kc].copy_from_slice(&a.data[from..from + kc]);
        }
        return;
    }
    for i0 in (0..mc).step_by(rows) {
        let rows = rows.min(mc - i0);
        pack_steps(a, m0 + i0, rows, k0, kc, &mut out[i0 * kc..(i0 + rows) * kc]);
    }
}

/// Writes `kc` steps of `rows` values.
fn pack_steps(a: &View<'_>, m0: usize, rows: usize, k0: usize, kc: usize, out: &mut [f32]) {
    let from = m0 * a.row_stride + k0 * a.col_stride;
    for (p, out) in out.chunks_exact_mut(rows).take(kc).enumerate() {
        let from = from + p * a.col_stride;
        if a.row_stride == 1 {
            out.copy_from_slice(&a.data[from..from + rows]);
        } else {
            for (i, x) in out.iter_mut().enumerate() {
                *x = a.data[from + i * a.row_stride];
            }
        }
    }
}
