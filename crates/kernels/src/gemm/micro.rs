//! The inner tiles, one an instruction set: `mr` rows by `NR` columns, all accumulators in registers.

use crate::KernelSet;

/// Most rows of a tile, and its columns, for a kernel set.
pub(super) fn tile(set: KernelSet) -> (usize, usize) {
    match set {
        KernelSet::Avx512 => (12, 32),
        KernelSet::Avx2 => (6, 16),
        KernelSet::Neon => (6, 16),
        KernelSet::Scalar => (4, 8),
    }
}

/// Most rows of a tile of two panels: there are registers for no more.
pub(super) fn few(set: KernelSet) -> usize {
    match set {
        KernelSet::Avx512 => 6,
        KernelSet::Avx2 => 2,
        KernelSet::Neon => 3,
        KernelSet::Scalar => 0,
    }
}

/// The columns of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// The first half of a panel.
    Half,
    /// A panel.
    Full,
    /// Two panels: few rows alone would neither fill the registers nor hide how long a multiply-add takes.
    Pair,
}

/// Operands of one tile: `k` steps of `mr` values of A (row i of step p at `a[i * a_row + p * a_step]`; one of
/// the two distances is 1) against `k` steps of columns of B, `b_step` apart, onto `mr` rows of C at distance
/// `ldc`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) k: usize,
    pub(super) a: *const f32,
    pub(super) a_row: usize,
    pub(super) a_step: usize,
    pub(super) b: *const f32,
    pub(super) b_step: usize,
    /// From a panel to the second one, where a kernel set has tiles of two.
    #[cfg_attr(not(any(target_arch = "x86_64", target_arch = "aarch64")), allow(dead_code))]
    pub(super) b_panel: usize,
    /// What is read soon: each step asks for a line of it, `next_step` elements further, where there is an instruction for
    /// that.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) next: *const f32,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) next_step: usize,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    /// Whether the accumulators start from C instead of +0.
    pub(super) resume: bool,
    /// What is added to the chains at the end: a row, then as many rows as C, `ldc` apart; null where there is nothing.
    pub(super) bias: *const f32,
    pub(super) add: *const f32,
}

macro_rules! by_rows {
    ($mr:expr, $f:ident, $t:expr, $v:literal, $panels:literal, [$($n:literal)*]) => {
        if $t.a_row == 1 {
            match $mr { $($n => $f::<$n, $v, $panels, true>($t),)* _ => unreachable!("tile of {} rows", $mr) }
        } else {
            match $mr { $($n => $f::<$n, $v, $panels, false>($t),)* _ => unreachable!("tile of {} rows", $mr) }
        }
    };
}

/// Computes one tile of `mr` rows: 1 to the set's most, of a pair of panels to [`few`].
///
/// # Safety
/// The machine has the instruction set; `t`'s pointers are valid for the extents given there: `k` steps of A and
/// B, `mr` rows of C, of as many columns as `width` says.
pub(super) unsafe fn run(set: KernelSet, mr: usize, width: Width, t: Tile) {
    use Width::*;
    // SAFETY: the caller promises exactly what the tiles ask for.
    unsafe {
        match (set, width) {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            (KernelSet::Avx512, Full) => by_rows!(mr, avx512, t, 2, 1, [1 2 3 4 5 6 7 8 9 10 11 12]),
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            (KernelSet::Avx512, Half) => by_rows!(mr, avx512, t, 1, 1, [1 2 3 4 5 6 7 8 9 10 11 12]),
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            (KernelSet::Avx512, Pair) => by_rows!(mr, avx512, t, 4, 2, [1 2 3 4 5 6]),
            #[cfg(target_arch = "x86_64")]
            (KernelSet::Avx2, Full) => by_rows!(mr, avx2, t, 2, 1, [1 2 3 4 5 6]),
            #[cfg(target_arch = "x86_64")]
            (KernelSet::Avx2, Half) => by_rows!(mr, avx2, t, 1, 1, [1 2 3 4 5 6]),
            #[cfg(target_arch = "x86_64")]
            (KernelSet::Avx2, Pair) => by_rows!(mr, avx2, t, 4, 2, [1 2]),
            #[cfg(target_arch = "aarch64")]
            (KernelSet::Neon, Full) => by_rows!(mr, neon, t, 4, 1, [1 2 3 4 5 6]),
            #[cfg(target_arch = "aarch64")]
            (KernelSet::Neon, Half) => by_rows!(mr, neon, t, 2, 1, [1 2 3 4 5 6]),
            #[cfg(target_arch = "aarch64")]
            (KernelSet::Neon, Pair) => by_rows!(mr, neon, t, 8, 2, [1 2 3]),
            (_, Half) => by_rows!(mr, scalar, t, 4, 1, [1 2 3 4]),
            _ => by_rows!(mr, scalar, t, 8, 1, [1 2 3 4]),
        }
    }
}

unsafe fn scalar<const MR: usize, const V: usize, const PANELS: usize, const PACKED: bool>(t: Tile) {
    for i in 0..MR {
        for j in 0..V {
            // SAFETY: i < mr, j < columns, p < k: inside the tile's extents.
            unsafe {
                let c = t.c.add(i * t.ldc + j);
                let mut acc = if t.resume { *c } else { 0.0 };
                for p in 0..t.k {
                    let a = *t.a.add(i * t.a_row + p * t.a_step);
                    acc = isobit_numerics::fma(a, *t.b.add(p * t.b_step + j), acc);
                }
                if !t.bias.is_null() {
                    acc += *t.bias.add(j);
                }
                if !t.add.is_null() {
                    acc += *t.add.add(i * t.ldc + j);
                }
                *c = acc;
            }
        }
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! simd_tile {
    ($name:ident, $feature:literal, $lanes:literal, $vec:ty, $zero:expr, $load:path, $store:path, $splat:path,
     $add:path, |$a:ident, $b:ident, $acc:ident| $fma:expr) => {
        /// `MR` rows of `V` vectors of `PANELS` panels. `PACKED`: the rows of A lie side by side.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const MR: usize, const V: usize, const PANELS: usize, const PACKED: bool>(t: Tile) {
            // SAFETY: rows below mr, columns below NR and steps below k are inside the tile's extents.
            unsafe {
                let mut acc: [[$vec; V]; MR] = [[$zero; V]; MR];
                if t.resume {
                    for i in 0..MR {
                        for v in 0..V {
                            acc[i][v] = $load(t.c.add(i * t.ldc + v * $lanes));
                        }
                    }
                }
                // Every third row has a pointer of its own; the two after it are at distances from there.
                let far = if PACKED { 1 } else { t.a_row };
                let mut a: [*const f32; 4] = [0, 1, 2, 3].map(|i| t.a.wrapping_add(3 * i * far));
                let mut b = t.b;
                // Where vector v of a step is.
                let vector = |v: usize| v / (V / PANELS) * t.b_panel + v % (V / PANELS) * $lanes;
                #[cfg(target_arch = "x86_64")]
                let mut next = t.next;
                for _ in 0..t.k {
                    let mut row = [$zero; V];
                    #[cfg(target_arch = "x86_64")]
                    {
                        // One row alone is read as fast as memory gives it, and that is fastest if nobody interferes.
                        if MR > 1 || PANELS == 1 {
                            for v in 0..V {
                                _mm_prefetch::<_MM_HINT_T0>(b.wrapping_add(t.b_step * 24 + vector(v)).cast());
                            }
                        }
                        if PACKED {
                            _mm_prefetch::<_MM_HINT_T0>(a[0].wrapping_add(t.a_step * 64).cast());
                        }
                        // Few rows need the next panel too soon for this to be of use.
                        if PANELS == 1 {
                            _mm_prefetch::<_MM_HINT_T1>(next.cast());
                        }
                        next = next.wrapping_add(t.next_step);
                    }
                    for v in 0..V {
                        row[v] = $load(b.add(vector(v)));
                    }
                    for i in 0..MR {
                        let $a =
                            if PACKED { $splat(*a[0].add(i)) } else { $splat(*a[i / 3].add(i % 3 * far)) };
                        for v in 0..V {
                            let ($b, $acc) = (row[v], acc[i][v]);
                            acc[i][v] = $fma;
                        }
                    }
                    for a in &mut a {
                        *a = a.wrapping_add(if PACKED { t.a_step } else { 1 });
                    }
                    b = b.wrapping_add(t.b_step);
                }
                if !t.bias.is_null() {
                    for v in 0..V {
                        let bias = $load(t.bias.add(v * $lanes));
                        for acc in &mut acc {
                            acc[v] = $add(acc[v], bias);
                        }
                    }
                }
                if !t.add.is_null() {
                    for i in 0..MR {
                        for v in 0..V {
                            acc[i][v] = $add(acc[i][v], $load(t.add.add(i * t.ldc + v * $lanes)));
                        }
                    }
                }
                for i in 0..MR {
                    for v in 0..V {
                        $store(t.c.add(i * t.ldc + v * $lanes), acc[i][v]);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
simd_tile!(
    avx512,
    "avx512f",
    16,
    __m512,
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    |a, b, acc| _mm512_fmadd_ps(a, b, acc)
);

#[cfg(target_arch = "x86_64")]
simd_tile!(
    avx2,
    "avx2,fma",
    8,
    __m256,
    _mm256_setzero_ps(),
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    |a, b, acc| _mm256_fmadd_ps(a, b, acc)
);

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

#[cfg(target_arch = "aarch64")]
simd_tile!(
    neon,
    "neon",
    4,
    float32x4_t,
    vdupq_n_f32(0.0),
    vld1q_f32,
    vst1q_f32,
    vdupq_n_f32,
    vaddq_f32,
    |a, b, acc| vfmaq_f32(acc, a, b)
);
