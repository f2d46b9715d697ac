use super::pack::{Columns, PackedB, pack_a};
use super::{Epilogue, View, micro, scalar};
use crate::Exec;
use crate::shared::Shared;

/// Steps of the contraction between two visits of C.
const KC: usize = 256;
/// Columns whose packed block stays in the second-level cache.
const NC: usize = 512;
/// Rows whose packed block stays in the second-level cache beside it.
const MC: usize = 144;

/// `c[m,n] = a[m,k] * b[k,n]`, then the epilogue; `c` is row-major with rows `ldc` apart.
///
/// # Panics
/// When an operand is smaller than its extents.
#[allow(clippy::too_many_arguments)] // the BLAS argument list
pub fn gemm(
    exec: Exec<'_>,
    m: usize,
    n: usize,
    k: usize,
    a: View<'_>,
    b: View<'_>,
    c: &mut [f32],
    ldc: usize,
    epilogue: &Epilogue<'_>,
) {
    assert!(b.holds(k, n), "B is smaller than {k} x {n}");
    if exec.set() == crate::KernelSet::Scalar {
        check(m, n, k, &a, c, ldc);
        return scalar::gemm(m, n, k, a, b, c, ldc, epilogue);
    }
    blocked(exec, m, n, k, a, &Right::Pack(&b), c, ldc, epilogue);
}

/// As [`gemm`], with a right side that was packed before.
///
/// # Panics
/// When an operand is smaller than its extents, or `b` was packed for another kernel set.
pub fn gemm_packed(
    exec: Exec<'_>,
    m: usize,
    a: View<'_>,
    b: &PackedB,
    c: &mut [f32],
    ldc: usize,
    epilogue: &Epilogue<'_>,
) {
    assert_eq!(exec.set(), b.set, "B was packed for another kernel set");
    blocked(exec, m, b.n, b.k, a, &Right::Packed(b), c, ldc, epilogue);
}

/// As [`gemm`], with columns that are produced as they are needed (a convolution's windows).
#[allow(clippy::too_many_arguments)]
pub(crate) fn gemm_columns(
    exec: Exec<'_>,
    m: usize,
    n: usize,
    k: usize,
    a: View<'_>,
    b: &dyn Columns,
    c: &mut [f32],
    ldc: usize,
    epilogue: &Epilogue<'_>,
) {
    blocked(exec, m, n, k, a, &Right::Pack(b), c, ldc, epilogue);
}

enum Right<'a> {
    Pack(&'a dyn Columns),
    Packed(&'a PackedB),
}

fn check(m: usize, n: usize, k: usize, a: &View<'_>, c: &[f32], ldc: usize) {
    assert!(a.holds(m, k), "A is smaller than {m} x {k}");
    assert!(ldc >= n && (m == 0 || n == 0 || (m - 1) * ldc + n <= c.len()), "C is smaller than {m} x {n}");
}

#[allow(clippy::too_many_arguments)]
fn blocked(
    exec: Exec<'_>,
    m: usize,
    n: usize,
    k: usize,
    a: View<'_>,
    b: &Right<'_>,
    c: &mut [f32],
    ldc: usize,
    epilogue: &Epilogue<'_>,
) {
    check(m, n, k, &a, c, ldc);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for i in 0..m {
            let row = &mut c[i * ldc..i * ldc + n];
            row.fill(0.0);
            epilogue.apply(i, 0, row);
        }
        return;
    }
    let (mr, nr) = micro::tile(exec.set());
    // Work is cut by shape and threads; where the cuts fall changes no chain.
    let threads = exec.pool().threads();
    let small = m * n * k < 1 << 16;
    let (row_parts, column_parts) = if threads == 1 || small { (1, 1) } else { cut(m, n, threads, mr, nr) };
    let rows = m.div_ceil(row_parts).next_multiple_of(mr);
    let columns = n.div_ceil(column_parts).next_multiple_of(nr);
    let (row_parts, column_parts) = (m.div_ceil(rows), n.div_ceil(columns));
    let c = Shared::new(c);
    exec.pool().for_each(row_parts * column_parts, &|piece| {
        let (i, j) = (piece % row_parts, piece / row_parts);
        let part =
            Part { m0: i * rows, m1: m.min((i + 1) * rows), n0: j * columns, n1: n.min((j + 1) * columns) };
        part.run(exec, k, &a, b, &c, ldc, epilogue);
    });
}

/// How many parts of rows and of columns to cut: about three pieces a thread, preferring columns (A is then
/// packed more often, but A is the smaller side of most layers).
fn cut(m: usize, n: usize, threads: usize, mr: usize, nr: usize) -> (usize, usize) {
    let most_columns = n.div_ceil(4 * nr).max(1);
    let column_parts = most_columns.min(3 * threads);
    let row_parts = (3 * threads).div_ceil(column_parts).min(m.div_ceil(2 * mr)).max(1);
    (row_parts, column_parts)
}

struct Part {
    m0: usize,
    m1: usize,
    n0: usize,
    n1: usize,
}

impl Part {
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        exec: Exec<'_>,
        k: usize,
        a: &View<'_>,
        b: &Right<'_>,
        c: &Shared<'_, f32>,
        ldc: usize,
        epilogue: &Epilogue<'_>,
    ) {
        let (mr, nr) = micro::tile(exec.set());
        let rows = self.m1 - self.m0;
        let mut a_block = vec![0.0f32; rows.min(MC) * KC.min(k)];
        let mut b_block = match b {
            Right::Pack(_) => vec![0.0f32; (self.n1 - self.n0).min(NC).next_multiple_of(nr) * KC.min(k)],
            Right::Packed(_) => Vec::new(),
        };
        let mut edge = [0.0f32; 12 * 32];
        for jc in (self.n0..self.n1).step_by(NC) {
            let nc = NC.min(self.n1 - jc);
            for k0 in (0..k).step_by(KC) {
                let kc = KC.min(k - k0);
                if let Right::Pack(columns) = b {
                    columns.pack(k0, kc, jc, nc, nr, &mut b_block[..nc.next_multiple_of(nr) * kc]);
                }
                for ic in (self.m0..self.m1).step_by(MC) {
                    let mc = MC.min(self.m1 - ic);
                    pack_a(a, ic, mc, k0, kc, mr, &mut a_block[..mc * kc]);
                    for jr in (0..nc).step_by(nr) {
                        let panel = match b {
                            Right::Pack(_) => &b_block[jr * kc..(jr + nr) * kc],
                            Right::Packed(b) => {
                                let from = (jc + jr) * k + k0 * nr;
                                &b.panels[from..from + kc * nr]
                            }
                        };
                        let cols = nr.min(nc - jr);
                        for ir in (0..mc).step_by(mr) {
                            let rows = mr.min(mc - ir);
                            let block = &a_block[ir * kc..(ir + rows) * kc];
                            let at = (ic + ir) * ldc + jc + jr;
                            tile(exec, rows, cols, kc, block, panel, c, at, ldc, k0 > 0, &mut edge);
                        }
                    }
                    if k0 + kc == k && !epilogue.is_empty() {
                        for i in ic..ic + mc {
                            // SAFETY: rows and columns of this part, which no other piece touches.
                            let row = unsafe { c.slice(i * ldc + jc, nc) };
                            crate::dispatch::apply_epilogue(exec.set(), epilogue, i, jc, row);
                        }
                    }
                }
            }
        }
    }
}

#[allow(clippy::too_many_arguments)]
#[inline(always)]
fn tile(
    exec: Exec<'_>,
    rows: usize,
    cols: usize,
    kc: usize,
    a: &[f32],
    b: &[f32],
    c: &Shared<'_, f32>,
    at: usize,
    ldc: usize,
    resume: bool,
    edge: &mut [f32; 12 * 32],
) {
    let (_, nr) = micro::tile(exec.set());
    debug_assert!(a.len() == rows * kc && b.len() == nr * kc);
    let mut t = micro::Tile {
        k: kc,
        a: a.as_ptr(),
        a_row: 1,
        a_step: rows,
        b: b.as_ptr(),
        c: std::ptr::null_mut(),
        ldc,
        resume,
    };
    if cols == nr {
        // SAFETY: the caller's part covers `rows` rows of NR columns from `at`, all inside C.
        t.c = unsafe { c.slice(at, (rows - 1) * ldc + nr).as_mut_ptr() };
        // SAFETY: `Exec` guarantees the instruction set; A and B hold kc steps, C the whole tile.
        unsafe { micro::run(exec.set(), rows, t) };
        return;
    }
    // Fewer columns than the tile: compute the whole tile aside and keep the columns that exist.
    if resume {
        for i in 0..rows {
            // SAFETY: `cols` elements of row i of this part.
            edge[i * nr..i * nr + cols].copy_from_slice(unsafe { c.slice(at + i * ldc, cols) });
        }
    }
    t.c = edge.as_mut_ptr();
    t.ldc = nr;
    // SAFETY: as above, with a C of 12 rows of 32, which is at least any tile.
    unsafe { micro::run(exec.set(), rows, t) };
    for i in 0..rows {
        // SAFETY: `cols` elements of row i of this part.
        unsafe { c.slice(at + i * ldc, cols) }.copy_from_slice(&edge[i * nr..i * nr + cols]);
    }
}
