//! Products of small integers, exact in i32 (which wraps), and what turns numbers into small integers and back.
//!
//! Operands are i16: 8-bit numbers less their zero points fit, and two products of them fit i32, so that every instruction
//! set's multiply-add of pairs is exact. Nothing here saturates.

use crate::dispatch::multiversion;
use crate::shared::Shared;
use crate::{Exec, KernelSet};

/// Columns of a panel.
const NR: usize = 32;

/// The right side of an integer product, packed: panels of 32 columns, each with steps of two rows, for each column its
/// two values side by side.
#[derive(Debug, Clone)]
pub struct PackedInts {
    k: usize,
    n: usize,
    panels: Vec<i16>,
}

impl PackedInts {
    /// Packs the row-major `k` by `n` matrix `b`.
    ///
    /// # Panics
    /// When `b` has not as many elements.
    pub fn new(k: usize, n: usize, b: &[i16]) -> Self {
        assert_eq!(b.len(), k * n);
        let steps = k.div_ceil(2);
        let mut panels = vec![0; steps * 2 * n.next_multiple_of(NR)];
        for (panel, out) in panels.chunks_exact_mut((steps * 2 * NR).max(1)).enumerate() {
            let columns = NR.min(n - panel * NR);
            for (p, out) in out.chunks_exact_mut(2 * NR).enumerate() {
                for r in 0..2.min(k - 2 * p) {
                    let row = &b[(2 * p + r) * n + panel * NR..][..columns];
                    for (o, &v) in out[r..].iter_mut().step_by(2).zip(row) {
                        *o = v;
                    }
                }
            }
        }
        Self { k, n, panels }
    }
}

/// `c[m, n] = a[m, k] * b[k, n]`, all row-major; sums wrap. Elements of -32768 are not taken: a pair of their products is
/// beyond i32.
///
/// # Panics
/// When `a` or `c` has not as many elements as its extents say.
pub fn gemm(exec: Exec<'_>, m: usize, a: &[i16], b: &PackedInts, c: &mut [i32]) {
    assert!(a.len() == m * b.k && c.len() == m * b.n);
    debug_assert!(!a.contains(&i16::MIN) && !b.panels.contains(&i16::MIN));
    if c.is_empty() {
        return;
    }
    // Rows of whole steps.
    let steps = b.k.div_ceil(2);
    let mut even = Vec::new();
    let a = if b.k.is_multiple_of(2) {
        a
    } else {
        even.resize(m * steps * 2, 0);
        for (to, from) in even.chunks_exact_mut(steps * 2).zip(a.chunks_exact(b.k)) {
            to[..b.k].copy_from_slice(from);
        }
        &even[..]
    };
    let kind = Kind::of(exec.set());
    let rows = kind.rows();
    let (tiles, panels) = (m.div_ceil(rows), b.n.div_ceil(NR));
    let threads = exec.pool().threads();
    let pieces = if threads == 1 || m * b.n * b.k < 1 << 17 { 1 } else { panels.min(3 * threads) };
    let c = Shared::new(c);
    exec.pool().for_each(pieces, &|piece| {
        for panel in piece * panels / pieces..(piece + 1) * panels / pieces {
            let columns = NR.min(b.n - panel * NR);
            let values = &b.panels[panel * steps * 2 * NR..][..steps * 2 * NR];
            for tile in 0..tiles {
                let first = tile * rows;
                let count = rows.min(m - first);
                let mut out = [0i32; 12 * NR];
                kind.tile(count, steps, &a[first * steps * 2..][..count * steps * 2], values, &mut out);
                for (r, row) in out.chunks_exact(NR).take(count).enumerate() {
                    // SAFETY: rows of this tile in the columns of this piece.
                    let c = unsafe { c.slice((first + r) * b.n + panel * NR, columns) };
                    c.copy_from_slice(&row[..columns]);
                }
            }
        }
    });
}

#[cfg(target_arch = "x86_64")]
macro_rules! by_rows {
    ($rows:expr, $f:ident, ($steps:expr, $a:expr, $b:expr, $out:expr), [$($n:literal)*]) => {
        match $rows {
            $($n => $f::<$n>($steps, $a.as_ptr(), $b.as_ptr(), $out.as_mut_ptr()),)*
            _ => unreachable!("tile of {} rows", $rows),
        }
    };
}

/// Which inner tile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    Avx512,
    #[cfg(all(target_arch = "x86_64", isobit_avx512))]
    Vnni,
}

impl Kind {
    fn of(set: KernelSet) -> Self {
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

    /// Most rows of a tile.
    fn rows(self) -> usize {
        match self {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            Kind::Avx512 | Kind::Vnni => 12,
            _ => 3,
        }
    }

    /// `out[r][j]` over `steps` pairs, for `rows` rows of `a` and the columns of a panel.
    fn tile(self, rows: usize, steps: usize, a: &[i16], b: &[i16], out: &mut [i32; 12 * NR]) {
        assert!(rows <= 12 && a.len() == rows * steps * 2 && b.len() == steps * 2 * NR);
        match self {
            // SAFETY: the extents were just checked; the instruction sets when the kind was chosen.
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            Kind::Vnni => unsafe { by_rows!(rows, vnni, (steps, a, b, out), [1 2 3 4 5 6 7 8 9 10 11 12]) },
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            // SAFETY: as above.
            Kind::Avx512 => unsafe {
                by_rows!(rows, avx512, (steps, a, b, out), [1 2 3 4 5 6 7 8 9 10 11 12])
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kind::Avx2 => unsafe { by_rows!(rows, avx2, (steps, a, b, out), [1 2 3]) },
            Kind::Plain => plain(rows, steps, a, b, out),
        }
    }
}

/// The definition.
fn plain(rows: usize, steps: usize, a: &[i16], b: &[i16], out: &mut [i32; 12 * NR]) {
    for (r, row) in out.chunks_exact_mut(NR).take(rows).enumerate() {
        let a = &a[r * steps * 2..][..steps * 2];
        for (a, b) in a.chunks_exact(2).zip(b.chunks_exact(2 * NR)) {
            let (a0, a1) = (i32::from(a[0]), i32::from(a[1]));
            for (o, b) in row.iter_mut().zip(b.chunks_exact(2)) {
                *o = o.wrapping_add(a0 * i32::from(b[0])).wrapping_add(a1 * i32::from(b[1]));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "x86_64")]
macro_rules! integer_tile {
    ($name:ident, $feature:literal, $lanes:literal, $zero:expr, $load:path, $store:path, $splat:path,
     |$a:ident, $b:ident, $acc:ident| $add:expr) => {
        #[target_feature(enable = $feature)]
        unsafe fn $name<const R: usize>(steps: usize, a: *const i16, b: *const i16, out: *mut i32) {
            const V: usize = NR / $lanes;
            // SAFETY: R rows of `steps` pairs of A, `steps` times 32 pairs of B, R rows of 32 results.
            unsafe {
                let mut acc = [[$zero; V]; R];
                // Every third row has a pointer of its own.
                let row = 2 * steps;
                let mut a: [*const i16; 4] = [0, 1, 2, 3].map(|i| a.wrapping_add(3 * i * row));
                let mut b = b;
                for _ in 0..steps {
                    let mut columns = [$zero; V];
                    for v in 0..V {
                        columns[v] = $load(b.add(2 * v * $lanes).cast());
                    }
                    for r in 0..R {
                        let $a = $splat(a[r / 3].add(r % 3 * row).cast::<i32>().read_unaligned());
                        for v in 0..V {
                            let ($b, $acc) = (columns[v], acc[r][v]);
                            acc[r][v] = $add;
                        }
                    }
                    for a in &mut a {
                        *a = a.wrapping_add(2);
                    }
                    b = b.wrapping_add(2 * NR);
                }
                for r in 0..R {
                    for v in 0..V {
                        $store(out.add(r * NR + v * $lanes).cast(), acc[r][v]);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
integer_tile!(
    avx2,
    "avx2",
    8,
    _mm256_setzero_si256(),
    _mm256_loadu_si256,
    _mm256_storeu_si256,
    _mm256_set1_epi32,
    |a, b, acc| _mm256_add_epi32(acc, _mm256_madd_epi16(a, b))
);

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
integer_tile!(
    avx512,
    "avx512f,avx512bw",
    16,
    _mm512_setzero_si512(),
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_set1_epi32,
    |a, b, acc| _mm512_add_epi32(acc, _mm512_madd_epi16(a, b))
);

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
integer_tile!(
    vnni,
    "avx512f,avx512bw,avx512vnni",
    16,
    _mm512_setzero_si512(),
    _mm512_loadu_si512,
    _mm512_storeu_si512,
    _mm512_set1_epi32,
    |a, b, acc| _mm512_dpwssd_epi32(acc, a, b)
);

/// Rounds `x / scale` to the nearest integer, ties to even, NaN to 0, adds `zero` and limits to `low..=high`, into an 8-bit
/// number's bits.
#[inline(always)]
fn quantized(x: f32, scale: f32, zero: i32, low: i32, high: i32) -> i32 {
    let q = x / scale;
    // Beyond these the result is a limit whatever the zero point.
    let q = if q > 1024.0 { 1024.0 } else { q };
    let q = if q < -1024.0 { -1024.0 } else { q };
    let q = if q.is_nan() { 0.0 } else { q };
    // Adding this rounds, ties to even, and leaves the integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let q = (q + ROUND).to_bits() as i32 - ROUND.to_bits() as i32;
    (q + zero).clamp(low, high)
}

multiversion! {
    fn quantize_part(x: &[f32], scale: f32, zero: i32, low: i32, high: i32, y: &mut [u8]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = quantized(x, scale, zero, low, high) as u8;
        }
    }
}

multiversion! {
    fn dequantize_part(x: &[u8], signed: bool, scale: f32, zero: i32, y: &mut [f32]) {
        if signed {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (i32::from(x as i8) - zero) as f32 * scale;
            }
        } else {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (i32::from(x) - zero) as f32 * scale;
            }
        }
    }
}

/// `y[i]` is `x[i] / scale` rounded to nearest even, NaN as 0, plus `zero`, limited to the range of u8, or of i8 (as its bits)
/// where `signed`.
///
/// # Panics
/// When the lengths differ.
pub fn quantize(exec: Exec<'_>, x: &[f32], scale: f32, zero: i32, signed: bool, y: &mut [u8]) {
    assert_eq!(x.len(), y.len());
    let (low, high) = if signed { (-128, 127) } else { (0, 255) };
    crate::split(exec, y, 1 << 14, |at, y| {
        quantize_part(exec.set(), &x[at..at + y.len()], scale, zero, low, high, y);
    });
}

/// `y[i] = (x[i] - zero) * scale`, with x of u8, or of i8 (as its bits) where `signed`.
///
/// # Panics
/// When the lengths differ.
pub fn dequantize(exec: Exec<'_>, x: &[u8], signed: bool, scale: f32, zero: i32, y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    crate::split(exec, y, 1 << 14, |at, y| {
        dequantize_part(exec.set(), &x[at..at + y.len()], signed, scale, zero, y);
    });
}

multiversion! {
    fn centre_part(x: &[u8], signed: bool, zero: i16, y: &mut [i16]) {
        if signed {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = i16::from(x as i8) - zero;
            }
        } else {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = i16::from(x) - zero;
            }
        }
    }
}

/// `y[i] = x[i] - zero`, with x of u8, or of i8 (as its bits) where `signed`.
///
/// # Panics
/// When the lengths differ.
pub fn centre(exec: Exec<'_>, x: &[u8], signed: bool, zero: i16, y: &mut [i16]) {
    assert_eq!(x.len(), y.len());
    crate::split(exec, y, 1 << 14, |at, y| {
        centre_part(exec.set(), &x[at..at + y.len()], signed, zero, y);
    });
}
