use std::ops::Range;

use super::micro::{self, Width};
use super::pack::{Columns, PAD, PackedA, PackedB, pack_a};
use super::{Bias, Epilogue, View, scalar};
use crate::shared::Shared;
use crate::{Exec, Serial, scratch};

/// Steps of the contraction between two visits of C.
const KC: usize = 1024;
/// Columns that are packed together, so that they stay in the second-level cache.
const NC: usize = 256;
/// Rows whose part of A stays in the second-level cache beside it.
const MC: usize = 144;
/// Columns after which the epilogue visits what is complete.
const FINISH: usize = 256;
/// Every multiple of so many columns begins a panel, whatever the kernel set.
pub const COLUMNS: usize = 32;
/// Rows up to which a right side that lies in rows is read where it is: packing would cost more than it saves.
const FEW_ROWS: usize = 64;

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
    assert!(a.holds(m, k), "A is smaller than {m} x {k}");
    assert!(b.holds(k, n), "B is smaller than {k} x {n}");
    if exec.set() == crate::KernelSet::Scalar {
        check(m, n, c, ldc);
        return scalar::gemm(m, n, k, a, b, c, ldc, epilogue);
    }
    product(exec, [m, n, k], Left::View(a), Right::view(&b, m), c, ldc, epilogue);
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
    gemm_columns(exec, m, a, b, 0..b.n, c, ldc, epilogue);
}

/// As [`gemm_packed`] of some of the columns: `c` has only these, and so have the epilogue's operands. They begin and end at
/// multiples of [`COLUMNS`], or end with the last one.
///
/// # Panics
/// When an operand is smaller than its extents, the columns are others, or `b` was packed for another kernel set.
#[allow(clippy::too_many_arguments)] // the BLAS argument list
pub fn gemm_columns(
    exec: Exec<'_>,
    m: usize,
    a: View<'_>,
    b: &PackedB,
    columns: Range<usize>,
    c: &mut [f32],
    ldc: usize,
    epilogue: &Epilogue<'_>,
) {
    let at_edge = |column: usize| column.is_multiple_of(COLUMNS) || column == b.n;
    assert!(at_edge(columns.start) && at_edge(columns.end) && columns.end <= b.n, "{columns:?} of {}", b.n);
    let right = Right::Packed(b, columns.start);
    product(exec, [m, columns.len(), b.k], Left::View(a), right, c, ldc, epilogue);
}

/// A product for each pair of offsets into `a` and `b` (row-major matrices), into consecutive matrices of `c`.
///
/// # Panics
/// When an operand is smaller than its extents.
pub fn gemm_batch(
    exec: Exec<'_>,
    [m, n, k]: [usize; 3],
    a: &[f32],
    b: &[f32],
    offsets: &[(usize, usize)],
    c: &mut [f32],
) {
    assert_eq!(c.len(), offsets.len() * m * n);
    let one = |exec: Exec<'_>, (at, bt): (usize, usize), c: &mut [f32]| {
        let (a, b) = (View::row_major(&a[at..at + m * k], k), View::row_major(&b[bt..bt + k * n], n));
        gemm(exec, m, n, k, a, b, c, n, &Epilogue::default());
    };
    let threads = exec.pool().threads();
    if threads == 1 || offsets.len() < threads {
        for (i, &offset) in offsets.iter().enumerate() {
            one(exec, offset, &mut c[i * m * n..(i + 1) * m * n]);
        }
        return;
    }
    let c = Shared::new(c);
    let pieces = offsets.len().min(4 * threads);
    exec.pool().for_each(pieces, &|piece| {
        let mine = piece * offsets.len() / pieces..(piece + 1) * offsets.len() / pieces;
        for (i, &offset) in mine.clone().zip(&offsets[mine]) {
            // SAFETY: the matrices of this piece.
            one(Exec::new(exec.set(), &Serial), offset, unsafe { c.slice(i * m * n, m * n) });
        }
    });
}

/// The left side of a product.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// A matrix where it lies.
    View(View<'a>),
    /// Packed before.
    Packed(&'a PackedA),
    /// As [`PackedA::panels`], made for this product.
    Panels(&'a [f32]),
}

/// The right side of a product.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a> {
    /// A matrix whose rows are read where they lie.
    Direct(View<'a>),
    /// Columns that are packed as they are needed.
    Columns(&'a dyn Columns),
    /// Packed before; the columns from one on, with which a panel begins.
    Packed(&'a PackedB, usize),
}

impl<'a> Right<'a> {
    /// A matrix, read or packed by its layout and the rows it is multiplied with.
    pub(crate) fn view(b: &'a View<'a>, m: usize) -> Self {
        if b.col_stride == 1 && m <= FEW_ROWS { Right::Direct(*b) } else { Right::Columns(b) }
    }
}

fn check(m: usize, n: usize, c: &[f32], ldc: usize) {
    assert!(ldc >= n && (m == 0 || n == 0 || (m - 1) * ldc + n <= c.len()), "C is smaller than {m} x {n}");
}

/// The product of two sides of any kind, then the epilogue.
pub(crate) fn product(
    exec: Exec<'_>,
    [m, n, k]: [usize; 3],
    a: Left<'_>,
    b: Right<'_>,
    c: &mut [f32],
    ldc: usize,
    epilogue: &Epilogue<'_>,
) {
    check(m, n, c, ldc);
    // The tiles read through pointers: everything they read is in bounds from here on.
    match a {
        Left::View(a) => assert!(a.holds(m, k), "A is smaller than {m} x {k}"),
        Left::Packed(a) => {
            assert!(a.set == exec.set() && a.m == m && a.k == k, "A was packed for another product");
        }
        Left::Panels(panels) => assert!(panels.len() >= m * k, "A was made for another product"),
    }
    match b {
        Right::Direct(b) => assert!(b.holds(k, n), "B is smaller than {k} x {n}"),
        Right::Columns(_) => {}
        Right::Packed(b, first) => {
            let inside = first.checked_add(n).is_some_and(|end| end <= b.n);
            assert!(b.set == exec.set() && b.k == k && inside, "B was packed for another product");
        }
    }
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        for i in 0..m {
            let row = &mut c[i * ldc..i * ldc + n];
            row.fill(0.0);
            epilogue.apply(exec.set(), i, 0, ldc, row);
        }
        return;
    }
    let (_, nr) = micro::tile(exec.set());
    let rows = PackedA::rows(exec.set(), m);
    // Work is cut by shape and threads; where the cuts fall changes no chain.
    let threads = exec.pool().threads();
    let (tiles, panels) = (m.div_ceil(rows), n.div_ceil(nr));
    let small = m * n * k < 1 << 16;
    let (row_parts, column_parts) = if threads == 1 || small { (1, 1) } else { cut(tiles, panels, threads) };
    let whole = Product { exec, k, rows, nr, a, b, c: Shared::new(c), ldc, epilogue };
    exec.pool().for_each(row_parts * column_parts, &|piece| {
        let (i, j) = (piece % row_parts, piece / row_parts);
        let part = |i: usize, parts: usize, units: usize, unit: usize, end: usize| {
            (i * units / parts * unit).min(end)..((i + 1) * units / parts * unit).min(end)
        };
        whole.part(part(i, row_parts, tiles, rows, m), part(j, column_parts, panels, nr, n));
    });
}

/// How many parts of rows and of columns to cut: what the busiest thread has to do is least, and columns are preferred,
/// because every part of the rows packs the columns again.
fn cut(tiles: usize, panels: usize, threads: usize) -> (usize, usize) {
    let mut best = (usize::MAX, (1, 1));
    for row_parts in [1, 2, 3, 4, 6, 8, 12, 16].into_iter().filter(|&r| r <= tiles.min(2 * threads)) {
        for column_parts in 1..=panels.min(3 * threads) {
            let turns = (row_parts * column_parts).div_ceil(threads);
            let busiest = turns * tiles.div_ceil(row_parts) * panels.div_ceil(column_parts);
            let cost = busiest * (32 + row_parts);
            if cost < best.0 {
                best = (cost, (row_parts, column_parts));
            }
        }
    }
    best.1
}

struct Product<'a> {
    exec: Exec<'a>,
    k: usize,
    /// Most rows and columns of a tile.
    rows: usize,
    nr: usize,
    a: Left<'a>,
    b: Right<'a>,
    c: Shared<'a, f32>,
    ldc: usize,
    epilogue: &'a Epilogue<'a>,
}

/// Where the values of one tile's operand begin, and the distances of its rows and steps.
#[derive(Clone, Copy)]
struct Place<'a> {
    data: &'a [f32],
    row: usize,
    step: usize,
}

impl Product<'_> {
    /// Computes rows `m` of columns `n`, which no other part touches.
    fn part(&self, m: Range<usize>, n: Range<usize>) {
        let (k, nr) = (self.k, self.nr);
        let (mut a_block, mut b_block) = (scratch::take(), scratch::take());
        let mut edge = [0.0f32; 12 * 32];
        let most = if let Right::Packed(..) = self.b { n.len() } else { NC };
        let few = micro::few(self.exec.set()).min(self.rows);
        for jc in n.clone().step_by(most) {
            let nc = most.min(n.end - jc);
            for k0 in (0..k).step_by(KC) {
                let kc = KC.min(k - k0);
                let last = k0 + kc == k;
                let sums = last && self.epilogue.in_tiles();
                self.pack_columns(k0, kc, jc, nc, &mut b_block);
                let mc = MC / self.rows * self.rows;
                for ic in m.clone().step_by(mc) {
                    let mc = mc.min(m.end - ic);
                    self.pack_rows(k0, kc, ic, mc, &mut a_block);
                    // No faster than memory can give it.
                    let parts = (mc.div_ceil(self.rows).next_power_of_two()).clamp(2, 8);
                    let parts = if parts > mc.div_ceil(self.rows) { (parts / 2).max(2) } else { parts };
                    let panel = self.panel(kc);
                    for jg in (0..nc).step_by(FINISH) {
                        let group = jg..nc.min(jg + FINISH);
                        let mut jr = group.start;
                        while jr < group.end {
                            let pair = mc <= few && jr + 2 * nr <= group.end;
                            let cols = if pair { 2 * nr } else { nr.min(nc - jr) };
                            let b = self.columns(k0, kc, jc, jr, nc, &b_block);
                            for ir in (0..mc).step_by(self.rows) {
                                let rows = self.rows.min(mc - ir);
                                let a = self.rows(k0, kc, ic, ir, rows, &a_block);
                                // The first tiles ask for the next panel, each for its part.
                                let part = (ir / self.rows).min(parts - 1);
                                let next = b.data.as_ptr().wrapping_add(panel + part * kc * nr / parts);
                                let next = (next, nr / parts);
                                let at = [ic + ir, jc + jr];
                                self.tile(
                                    [rows, cols],
                                    kc,
                                    a,
                                    (b, panel),
                                    at,
                                    [k0 > 0, sums],
                                    next,
                                    &mut edge,
                                );
                            }
                            jr += cols;
                        }
                        if last && !(sums && self.epilogue.activation.is_none()) {
                            for i in ic..ic + mc {
                                let at = jc + group.start;
                                // SAFETY: rows and columns of this part, which no other part touches.
                                let row = unsafe { self.c.slice(i * self.ldc + at, group.len()) };
                                match sums {
                                    true => self.epilogue.activate(self.exec.set(), row),
                                    false => self.epilogue.apply(self.exec.set(), i, at, self.ldc, row),
                                }
                            }
                        }
                    }
                }
            }
        }
        scratch::give(a_block);
        scratch::give(b_block);
    }

    /// Packs what of columns `jc..jc + nc` cannot be read where it is.
    fn pack_columns(&self, k0: usize, kc: usize, jc: usize, nc: usize, block: &mut Vec<f32>) {
        let nr = self.nr;
        match self.b {
            Right::Packed(..) => {}
            Right::Columns(columns) => {
                block.resize(nc.next_multiple_of(nr) * kc + PAD, 0.0);
                columns.pack(self.exec.set(), k0, kc, jc, nc, nr, block);
            }
            Right::Direct(view) => {
                // The last columns, where they do not fill half a tile or a whole one.
                let tail = nc % (nr / 2);
                if tail > 0 {
                    let from = nc / nr * nr;
                    block.resize(nr * kc, 0.0);
                    view.pack(self.exec.set(), k0, kc, jc + from, nc - from, nr, block);
                }
            }
        }
    }

    /// From a panel of columns to the next one.
    fn panel(&self, kc: usize) -> usize {
        match self.b {
            Right::Packed(..) => self.k * self.nr,
            Right::Columns(_) => kc * self.nr,
            Right::Direct(_) => self.nr,
        }
    }

    /// The columns of one tile, and what follows of them.
    fn columns<'b>(
        &'b self,
        k0: usize,
        kc: usize,
        jc: usize,
        jr: usize,
        nc: usize,
        block: &'b [f32],
    ) -> Place<'b> {
        let nr = self.nr;
        match &self.b {
            Right::Packed(b, first) => {
                let from = (first + jc + jr) * self.k + k0 * nr;
                Place { data: &b.panels[from..], row: 1, step: nr }
            }
            Right::Columns(_) => Place { data: &block[jr * kc..], row: 1, step: nr },
            Right::Direct(view) => {
                let cols = nr.min(nc - jr);
                if cols == nr || cols == nr / 2 {
                    Place {
                        data: &view.data[k0 * view.row_stride + jc + jr..],
                        row: 1,
                        step: view.row_stride,
                    }
                } else {
                    Place { data: &block[..nr * kc], row: 1, step: nr }
                }
            }
        }
    }

    /// Packs what of rows `ic..ic + mc` cannot be read where it is.
    fn pack_rows(&self, k0: usize, kc: usize, ic: usize, mc: usize, block: &mut Vec<f32>) {
        match self.a {
            Left::Packed(_) | Left::Panels(_) => {}
            Left::View(a) if direct(&a) => {}
            Left::View(a) => {
                block.resize(mc * (kc + PAD), 0.0);
                pack_a(&a, ic, mc, k0, kc, self.rows, block);
            }
        }
    }

    /// The rows of one tile.
    fn rows<'b>(
        &'b self,
        k0: usize,
        kc: usize,
        ic: usize,
        ir: usize,
        rows: usize,
        block: &'b [f32],
    ) -> Place<'b> {
        let packed = |panels: &'b [f32]| {
            let from = (ic + ir) * self.k + k0 * rows;
            Place { data: &panels[from..from + kc * rows], row: 1, step: rows }
        };
        match &self.a {
            Left::Packed(a) => packed(&a.panels),
            Left::Panels(panels) => packed(panels),
            Left::View(a) if direct(a) => {
                Place { data: &a.data[(ic + ir) * a.row_stride + k0..], row: a.row_stride, step: 1 }
            }
            Left::View(a) if a.col_stride == 1 => {
                Place { data: &block[ir * (kc + PAD)..], row: kc + PAD, step: 1 }
            }
            Left::View(_) => Place { data: &block[ir * kc..(ir + rows) * kc], row: 1, step: rows },
        }
    }

    #[allow(clippy::too_many_arguments)]
    #[inline(always)]
    fn tile(
        &self,
        [rows, cols]: [usize; 2],
        kc: usize,
        a: Place<'_>,
        (b, b_panel): (Place<'_>, usize),
        [i, j]: [usize; 2],
        [resume, sums]: [bool; 2],
        (next, next_step): (*const f32, usize),
        edge: &mut [f32; 12 * 32],
    ) {
        let (set, ldc, nr) = (self.exec.set(), self.ldc, self.nr);
        let (kind, width, beyond) = match cols {
            _ if cols <= nr / 2 => (Width::Half, nr / 2, 0),
            _ if cols <= nr => (Width::Full, nr, 0),
            _ => (Width::Pair, 2 * nr, b_panel),
        };
        debug_assert!(a.data.len() > (rows - 1) * a.row + (kc - 1) * a.step);
        debug_assert!(b.data.len() >= (kc - 1) * b.step + beyond + width.min(nr));
        let at = i * ldc + j;
        let mut t = micro::Tile {
            k: kc,
            a: a.data.as_ptr(),
            a_row: a.row,
            a_step: a.step,
            b: b.data.as_ptr(),
            b_step: b.step,
            b_panel,
            next,
            next_step,
            c: std::ptr::null_mut(),
            ldc,
            resume,
            bias: std::ptr::null(),
            add: std::ptr::null(),
        };
        if cols == width {
            // SAFETY: the part covers `rows` rows of `width` columns from `at`, all inside C.
            t.c = unsafe { self.c.slice(at, (rows - 1) * ldc + width).as_mut_ptr() };
            if let (true, Bias::Columns(bias)) = (sums, self.epilogue.bias) {
                t.bias = bias[j..j + width].as_ptr();
            }
            if let (true, Some(add)) = (sums, self.epilogue.add) {
                t.add = add[at..][..(rows - 1) * ldc + width].as_ptr();
            }
            // SAFETY: `Exec` guarantees the instruction set; A and B hold kc steps, C the whole tile.
            unsafe { micro::run(set, rows, kind, t) };
            return;
        }
        // Fewer columns than the tile: compute the whole tile aside and keep the columns that exist.
        if resume {
            for r in 0..rows {
                // SAFETY: `cols` elements of row r of this part.
                edge[r * nr..r * nr + cols].copy_from_slice(unsafe { self.c.slice(at + r * ldc, cols) });
            }
        }
        t.c = edge.as_mut_ptr();
        t.ldc = nr;
        // SAFETY: as above, with a C of 12 rows of 32, which is at least any tile.
        unsafe { micro::run(set, rows, kind, t) };
        for r in 0..rows {
            // SAFETY: `cols` elements of row r of this part.
            let row = unsafe { self.c.slice(at + r * ldc, cols) };
            row.copy_from_slice(&edge[r * nr..r * nr + cols]);
            if sums {
                self.epilogue.apply_sums(set, i + r, j, ldc, row);
            }
        }
    }
}

/// Whether the rows of A can be read where they lie: their steps side by side, and the rows not all in the same
/// sets of the first-level cache.
fn direct(a: &View<'_>) -> bool {
    a.col_stride == 1 && !a.row_stride.is_multiple_of(512)
}
