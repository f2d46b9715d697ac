//! The inner tile of integer products. Both sides are words of 32 bits, each two i16 or four bytes; a step multiplies a word of A by
//! a word of B, number by number, and adds the products to a sum in i32. B is packed in panels, or the windows of an image where they lie.

use crate::shared::Shared;
use crate::{Exec, KernelSet};

/// Columns of a panel.
pub(super) const NR: usize = 32;
/// Most rows of a tile.
pub(super) const MR: usize = 12;

/// The right side: panels of 32 columns, each with a line of 32 words a step. Words may follow that are not of the product.
#[derive(Debug, Clone)]
pub(super) struct Panels {
    pub(super) steps: usize,
    pub(super) n: usize,
    packed: crate::Panels,
}

impl Panels {
    /// Words of the panels.
    pub(super) fn len(steps: usize, n: usize) -> usize {
        steps.saturating_mul(n.next_multiple_of(NR))
    }

    /// `fill(step, columns, line)` writes the words of a step and some columns of `words`, which are zeros; panels are shared among
    /// threads.
    pub(super) fn fill(
        exec: Exec<'_>,
        steps: usize,
        n: usize,
        words: &mut [i32],
        fill: impl Fn(usize, std::ops::Range<usize>, &mut [i32]) + Sync,
    ) {
        let panel = (steps * NR).max(1);
        crate::split::rows(exec, words, panel, 1 << 16, |first, part| {
            for (i, part) in part.chunks_exact_mut(panel).enumerate() {
                let start = (first + i) * NR;
                let columns = start..n.min(start + NR);
                for (step, line) in part.chunks_exact_mut(NR).enumerate() {
                    fill(step, columns.clone(), &mut line[..columns.len()]);
                }
            }
        });
    }

    /// Those that begin `packed`.
    pub(super) fn of(steps: usize, n: usize, packed: crate::Panels) -> Self {
        Self { steps, n, packed }
    }

    /// What follows them.
    pub(super) fn rest(&self) -> &[i32] {
        &self.packed.words()[Self::len(self.steps, self.n)..]
    }
}

/// What a word is, and what multiplies words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Two i16; the definition.
    Plain,
    /// Two i16.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Two i16.
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    Avx512,
    /// Two i16.
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    Vnni,
    /// Four bytes, those of A unsigned and those of B signed; with windows it is the other way round.
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    FoursAvx2,
    /// As [`Kind::FoursAvx2`].
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    FoursAvx512,
}

impl Kind {
    /// For words of two i16.
    pub(super) fn pairs(set: KernelSet) -> Self {
        match set {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            KernelSet::Avx512 if std::arch::is_x86_feature_detected!("avx512vnni") => Kind::Vnni,
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            KernelSet::Avx512 => Kind::Avx512,
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx2 => Kind::Avx2,
            _ => Kind::Plain,
        }
    }

    /// For words of four bytes, where the machine multiplies them exactly.
    pub(super) fn fours(set: KernelSet) -> Option<Self> {
        match set {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            KernelSet::Avx512 if std::arch::is_x86_feature_detected!("avx512vnni") => Some(Kind::FoursAvx512),
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            KernelSet::Avx2 if std::arch::is_x86_feature_detected!("avxvnni") => Some(Kind::FoursAvx2),
            _ => None,
        }
    }

    /// Numbers of a word.
    pub(super) fn numbers(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            Kind::FoursAvx2 | Kind::FoursAvx512 => 4,
            _ => 2,
        }
    }

    /// Most rows of a tile.
    pub(super) fn rows(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            Kind::Avx512 | Kind::Vnni | Kind::FoursAvx512 => MR,
            _ => 3,
        }
    }

    /// Adds to `start`, for `rows` rows of `a` and the columns of a panel, and stores in the first columns of lines of `out` that are
    /// `width` apart.
    fn tile(self, rows: usize, a: &[u8], b: &[i32], start: &[i32; NR], out: &mut [i32], width: usize) {
        let steps = b.len() / NR;
        assert!(rows <= self.rows() && a.len() == rows * steps * 4 && out.len() >= (rows - 1) * width + NR);
        let t = Tile {
            steps,
            a: a.as_ptr(),
            b: b.as_ptr(),
            offsets: std::ptr::null(),
            start: start.as_ptr(),
            out: out.as_mut_ptr(),
            width,
        };
        // SAFETY: the extents were just checked.
        unsafe { self.run::<false>(rows, t) };
    }

    /// Adds to each row's `start`, for the rows of `a` and [`NR`] columns, whose words of each step begin at its offset in `b`. Lines of
    /// `out` are [`NR`] apart.
    pub(super) fn windows(self, a: &[u8], b: &[i32], offsets: &Offsets, start: &[i32], out: &mut [i32]) {
        let (rows, steps) = (start.len(), offsets.steps.len());
        assert!((1..=self.rows()).contains(&rows) && a.len() == rows * steps * 4 && out.len() == rows * NR);
        assert!(offsets.end <= b.len());
        let t = Tile {
            steps,
            a: a.as_ptr(),
            b: b.as_ptr(),
            offsets: offsets.steps.as_ptr(),
            start: start.as_ptr(),
            out: out.as_mut_ptr(),
            width: NR,
        };
        // SAFETY: the extents were just checked.
        unsafe { self.run::<true>(rows, t) };
    }

    /// # Safety
    /// `t` is of this many rows, which the kind has tiles of; the machine has its instructions.
    unsafe fn run<const WINDOWS: bool>(self, rows: usize, t: Tile) {
        #[cfg(target_arch = "x86_64")]
        macro_rules! by_rows {
            ($f:ident, [$($n:literal)*]) => {
                match rows {
                    // SAFETY: the caller's promise; the instruction sets were checked when the kind was chosen.
                    $($n => unsafe { $f::<$n, WINDOWS>(t) },)*
                    _ => unreachable!("tile of {rows} rows"),
                }
            };
        }
        match self {
            // SAFETY: the caller's promise.
            Kind::Plain => unsafe { plain::<WINDOWS>(rows, t) },
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => by_rows!(pairs_avx2, [1 2 3]),
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            Kind::Avx512 => by_rows!(pairs_avx512, [1 2 3 4 5 6 7 8 9 10 11 12]),
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            Kind::Vnni => by_rows!(pairs_vnni, [1 2 3 4 5 6 7 8 9 10 11 12]),
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            Kind::FoursAvx2 => by_rows!(fours_avx2, [1 2 3]),
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            Kind::FoursAvx512 => by_rows!(fours_avx512, [1 2 3 4 5 6 7 8 9 10 11 12]),
        }
    }
}

/// Where the lines of each step begin, and where the last one ends.
pub(super) struct Offsets {
    steps: Vec<usize>,
    end: usize,
}

impl Offsets {
    pub(super) fn new(steps: Vec<usize>) -> Self {
        let end = steps.iter().max().map_or(0, |last| last + NR);
        Self { steps, end }
    }
}

/// Operands of a tile: rows of `steps` words of A, one after another, and as many steps of a line of words of B, one after another or where
/// `offsets` say. Sums begin with a `start` of each column, or with windows of each row, and go to lines of `out` that are `width` apart.
#[derive(Clone, Copy)]
struct Tile {
    steps: usize,
    a: *const u8,
    b: *const i32,
    offsets: *const usize,
    start: *const i32,
    out: *mut i32,
    width: usize,
}

/// Sees the sums of some columns of a row before anybody else does: `(row, column, sums)`.
pub(super) type Finish<'a> = dyn Fn(usize, usize, &mut [i32]) + Sync + 'a;

/// `c[m, n]` from the rows of `a`, of as many words as `b` has steps. Sums begin with what `start` says of their column.
pub(super) fn product(
    exec: Exec<'_>,
    kind: Kind,
    (m, a): (usize, &[u8]),
    b: &Panels,
    start: &[i32],
    finish: Option<&Finish<'_>>,
    c: &mut [i32],
) {
    let (steps, n, words) = (b.steps, b.n, b.packed.words());
    assert!(a.len() == m * steps * 4 && c.len() == m * n && start.len() == n);
    if c.is_empty() {
        return;
    }
    let rows = kind.rows();
    let panels = n.div_ceil(NR);
    let threads = exec.pool().threads();
    let pieces = if threads == 1 || m * n * steps < 1 << 16 { 1 } else { panels.min(3 * threads) };
    let c = Shared::new(c);
    exec.pool().for_each(pieces, &|piece| {
        for panel in piece * panels / pieces..(piece + 1) * panels / pieces {
            let first_column = panel * NR;
            let columns = NR.min(n - first_column);
            let words = &words[panel * steps * NR..][..steps * NR];
            let mut starts = [0; NR];
            starts[..columns].copy_from_slice(&start[first_column..][..columns]);
            for first in (0..m).step_by(rows) {
                let count = rows.min(m - first);
                let a = &a[first * steps * 4..][..count * steps * 4];
                let len = (count - 1) * n + columns;
                // SAFETY: the rows of this tile, of which only the columns of this piece are touched.
                let c = unsafe { c.slice(first * n + first_column, len) };
                if columns == NR {
                    kind.tile(count, a, words, &starts, c, n);
                } else {
                    let mut edge = [0; MR * NR];
                    kind.tile(count, a, words, &starts, &mut edge, NR);
                    for (r, row) in edge.chunks_exact(NR).take(count).enumerate() {
                        c[r * n..][..columns].copy_from_slice(&row[..columns]);
                    }
                }
                if let Some(finish) = finish {
                    for r in 0..count {
                        finish(first + r, first_column, &mut c[r * n..][..columns]);
                    }
                }
            }
        }
    });
}

/// The definition, for words of two i16.
///
/// # Safety
/// The tile's pointers are good for its extents.
unsafe fn plain<const WINDOWS: bool>(rows: usize, t: Tile) {
    let halves = |w: [u8; 4]| [[w[0], w[1]], [w[2], w[3]]].map(|h| i32::from(i16::from_ne_bytes(h)));
    for r in 0..rows {
        // SAFETY: `rows` rows of `steps` words of A, as many lines of B, `rows` lines of results.
        unsafe {
            let row = &mut *t.out.add(r * t.width).cast::<[i32; NR]>();
            *row = if WINDOWS { [*t.start.add(r); NR] } else { *t.start.cast() };
            for step in 0..t.steps {
                let [a0, a1] = halves(*t.a.add((r * t.steps + step) * 4).cast());
                let b = t.b.add(if WINDOWS { *t.offsets.add(step) } else { step * NR });
                let b = &*b.cast::<[i32; NR]>();
                for (o, b) in row.iter_mut().zip(b) {
                    let [b0, b1] = halves(b.to_ne_bytes());
                    *o = o.wrapping_add(a0 * b0).wrapping_add(a1 * b1);
                }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
macro_rules! integer_tile {
    ($name:ident, $feature:literal, __m256i, $($add:tt)*) => {
        integer_tile!(
            @ $name, $feature, 8, __m256i, _mm256_loadu_si256, _mm256_storeu_si256, _mm256_set1_epi32, $($add)*
        );
    };
    ($name:ident, $feature:literal, __m512i, $($add:tt)*) => {
        integer_tile!(
            @ $name, $feature, 16, __m512i, _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32, $($add)*
        );
    };
    (@ $name:ident, $feature:literal, $lanes:literal, $vector:ty, $load:path, $store:path, $splat:path,
     |$a:ident, $b:ident, $acc:ident| $add:expr) => {
        #[target_feature(enable = $feature)]
        unsafe fn $name<const R: usize, const WINDOWS: bool>(t: Tile) {
            const V: usize = NR / $lanes;
            // SAFETY: R rows of `steps` words of A, as many lines of 32 words of B, R lines of 32 results.
            unsafe {
                let mut acc = if WINDOWS {
                    std::array::from_fn(|r| [$splat(*t.start.add(r)); V])
                } else {
                    let start: [$vector; V] = std::array::from_fn(|v| $load(t.start.add(v * $lanes).cast()));
                    [start; R]
                };
                // Every third row has a pointer of its own.
                let row = 4 * t.steps;
                let mut a: [*const u8; 4] = [0, 1, 2, 3].map(|i| t.a.wrapping_add(3 * i * row));
                let (mut b, mut offsets) = (t.b, t.offsets);
                for _ in 0..t.steps {
                    if WINDOWS {
                        b = t.b.add(*offsets);
                        offsets = offsets.add(1);
                    }
                    let columns: [$vector; V] = std::array::from_fn(|v| $load(b.add(v * $lanes).cast()));
                    for r in 0..R {
                        let $a = $splat(a[r / 3].add(r % 3 * row).cast::<i32>().read_unaligned());
                        for v in 0..V {
                            let ($b, $acc) = (columns[v], acc[r][v]);
                            acc[r][v] = $add;
                        }
                    }
                    for a in &mut a {
                        *a = a.wrapping_add(4);
                    }
                    if !WINDOWS {
                        b = b.wrapping_add(NR);
                    }
                }
                for r in 0..R {
                    for v in 0..V {
                        $store(t.out.add(r * t.width + v * $lanes).cast(), acc[r][v]);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
integer_tile!(pairs_avx2, "avx2", __m256i, |a, b, acc| _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)));

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
integer_tile!(pairs_avx512, "avx512f,avx512bw", __m512i, |a, b, acc| _mm512_add_epi32(
    acc,
    _mm512_madd_epi16(a, b)
));

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
integer_tile!(pairs_vnni, "avx512f,avx512bw,avx512vnni", __m512i, |a, b, acc| _mm512_dpwssd_epi32(acc, a, b));

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
integer_tile!(fours_avx2, "avx2,avxvnni", __m256i, |a, b, acc| if WINDOWS {
    _mm256_dpbusd_avx_epi32(acc, b, a)
} else {
    _mm256_dpbusd_avx_epi32(acc, a, b)
});

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
integer_tile!(fours_avx512, "avx512f,avx512bw,avx512vnni", __m512i, |a, b, acc| if WINDOWS {
    _mm512_dpbusd_epi32(acc, b, a)
} else {
    _mm512_dpbusd_epi32(acc, a, b)
});
