//! The inner tiles, one an instruction set: `mr` rows by `NR` columns, all accumulators in registers.

// AVX-512 is compiled by compilers that have it (build.rs); older ones leave it out.
#![allow(clippy::incompatible_msrv)]

use crate::KernelSet;

/// Most rows of a tile, and its columns, for a kernel set.
pub(super) fn tile(set: KernelSet) -> (usize, usize) {
    match set {
        KernelSet::Avx512 => (12, 32),
        KernelSet::Avx2 => (6, 16),
        KernelSet::Neon => (8, 12),
        KernelSet::Scalar => (4, 8),
    }
}

/// Operands of one tile: `k` steps of `mr` values of A (row i of step p at `a[i * a_row + p * a_step]`)
/// against `k` steps of `NR` packed values of B, onto `mr` rows of C at distance `ldc`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) k: usize,
    pub(super) a: *const f32,
    pub(super) a_row: usize,
    pub(super) a_step: usize,
    pub(super) b: *const f32,
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    /// Whether the accumulators start from C instead of +0.
    pub(super) resume: bool,
}

macro_rules! by_rows {
    ($mr:expr, $f:ident, $t:expr, [$($n:literal)*]) => {
        match $mr { $($n => $f::<$n>($t),)* _ => unreachable!("tile of {} rows", $mr) }
    };
}

/// Computes one tile of `mr` rows (1 to the set's most) and all its columns.
///
/// # Safety
/// The machine has the instruction set; `t`'s pointers are valid for the extents given there:
/// `k` steps of A and B, `mr` rows of `NR` elements of C.
pub(super) unsafe fn run(set: KernelSet, mr: usize, t: Tile) {
    // SAFETY: the caller promises exactly what the tiles ask for.
    unsafe {
        match set {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            KernelSet::Avx512 => by_rows!(mr, avx512, t, [1 2 3 4 5 6 7 8 9 10 11 12]),
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx2 => by_rows!(mr, avx2, t, [1 2 3 4 5 6]),
            #[cfg(target_arch = "aarch64")]
            KernelSet::Neon => by_rows!(mr, neon, t, [1 2 3 4 5 6 7 8]),
            _ => by_rows!(mr, scalar, t, [1 2 3 4]),
        }
    }
}

unsafe fn scalar<const MR: usize>(t: Tile) {
    const NR: usize = 8;
    for i in 0..MR {
        for j in 0..NR {
            // SAFETY: i < mr, j < NR, p < k: inside the tile's extents.
            unsafe {
                let c = t.c.add(i * t.ldc + j);
                let mut acc = if t.resume { *c } else { 0.0 };
                for p in 0..t.k {
                    let a = *t.a.add(i * t.a_row + p * t.a_step);
                    acc = isobit_numerics::fma(a, *t.b.add(p * NR + j), acc);
                }
                *c = acc;
            }
        }
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! simd_tile {
    ($name:ident, $feature:literal, $nr:literal, $lanes:literal, $vec:ty,
     $zero:expr, $load:path, $store:path, $splat:path, |$a:ident, $b:ident, $acc:ident| $fma:expr) => {
        #[target_feature(enable = $feature)]
        unsafe fn $name<const MR: usize>(t: Tile) {
            const V: usize = $nr / $lanes;
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
                let (mut a, mut b) = (t.a, t.b);
                for _ in 0..t.k {
                    let mut row = [$zero; V];
                    for v in 0..V {
                        row[v] = $load(b.add(v * $lanes));
                    }
                    for i in 0..MR {
                        let $a = $splat(*a.add(i * t.a_row));
                        for v in 0..V {
                            let ($b, $acc) = (row[v], acc[i][v]);
                            acc[i][v] = $fma;
                        }
                    }
                    a = a.wrapping_add(t.a_step);
                    b = b.wrapping_add($nr);
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
    32,
    16,
    __m512,
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    |a, b, acc| _mm512_fmadd_ps(a, b, acc)
);

#[cfg(target_arch = "x86_64")]
simd_tile!(
    avx2,
    "avx2,fma",
    16,
    8,
    __m256,
    _mm256_setzero_ps(),
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    |a, b, acc| _mm256_fmadd_ps(a, b, acc)
);

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

#[cfg(target_arch = "aarch64")]
simd_tile!(
    neon,
    "neon",
    12,
    4,
    float32x4_t,
    vdupq_n_f32(0.0),
    vld1q_f32,
    vst1q_f32,
    vdupq_n_f32,
    |a, b, acc| vfmaq_f32(acc, a, b)
);
