//! The inner tiles: pixels of one row by the filters of a panel, all accumulators in registers.

use super::LANES;
use crate::KernelSet;

/// Filters of a panel.
pub(super) fn filters(set: KernelSet) -> usize {
    if set == KernelSet::Avx512 { 32 } else { 16 }
}

/// Most pixels of a tile, where they are `pixel` apart.
pub(super) fn pixels(set: KernelSet, pixel: usize) -> usize {
    match (set, pixel) {
        (KernelSet::Avx512, LANES | TWICE | 2) => 14,
        (KernelSet::Avx512, _) => 12,
        _ => 6,
    }
}

/// From pixel to pixel where windows are two apart.
const TWICE: usize = 2 * LANES;

/// Whether a tile can be of two rows of `width` pixels, `pixel` apart, each.
pub(super) fn takes_two_rows(set: KernelSet, width: usize, pixel: usize) -> bool {
    set == KernelSet::Avx512 && matches!(width, 4..=7) && matches!(pixel, LANES | TWICE)
}

/// Operands of one tile.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Groups of channels, `a_block` apart, of `lanes` channels each that lie side by side; the last has `last`.
    pub(super) blocks: usize,
    pub(super) lanes: usize,
    pub(super) last: usize,
    pub(super) a: *const f32,
    pub(super) a_block: usize,
    /// From pixel to pixel, and to the second row of the tile.
    pub(super) a_pixel: usize,
    pub(super) a_row: usize,
    /// Where each tap lies, from the first one.
    pub(super) taps: *const usize,
    pub(super) count: usize,
    /// Weights: for each channel, each tap, those of the panel.
    pub(super) b: *const f32,
    /// What is read soon: each step asks for a line of it, `next_step` elements further, where there is an instruction for
    /// that.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) next: *const f32,
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(super) next_step: usize,
    /// The first pixel of the result, from block to block of filters, and to the second row.
    pub(super) y: *mut f32,
    pub(super) y_block: usize,
    pub(super) y_row: usize,
    /// Whether the accumulators start from the result instead of +0.
    pub(super) resume: bool,
    /// What happens at the end; null where there is nothing to add.
    pub(super) bias: *const f32,
    pub(super) add: *const f32,
    pub(super) add_block: usize,
    pub(super) add_row: usize,
    pub(super) relu: bool,
}

/// Operands of some pixels of a row with one filter a channel.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    pub(super) a: *const f32,
    pub(super) a_pixel: usize,
    pub(super) taps: *const usize,
    pub(super) count: usize,
    /// For each tap a block of weights.
    pub(super) w: *const f32,
    pub(super) y: *mut f32,
    pub(super) bias: *const f32,
    pub(super) add: *const f32,
    pub(super) relu: bool,
}

macro_rules! by_pixels {
    ($mr:expr, $f:ident<$v:tt, $px:tt>($t:expr), [$($n:literal)*]) => {
        match $mr { $($n => $f::<$n, $v, $px>($t),)* n => unreachable!("a strip of {n} pixels") }
    };
    ($mr:expr, $f:ident<$r:tt, $v:tt, $px:tt>($t:expr), [$($n:literal)*]) => {
        match $mr { $($n => $f::<$n, $r, $v, $px>($t),)* n => unreachable!("a tile of {n} pixels") }
    };
}

/// Computes one tile of `mr` pixels (1 to [`pixels`]) in one row or two, and a panel of filters, or the first half of it.
///
/// # Safety
/// The machine has the instruction set; what `t` points to is valid for the extents given there.
#[cfg_attr(not(all(target_arch = "x86_64", isobit_avx512)), allow(unused_variables))]
pub(super) unsafe fn run(set: KernelSet, mr: usize, two_rows: bool, half: bool, t: &Tile) {
    // SAFETY: the caller promises what the tiles ask for.
    unsafe {
        match set {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            KernelSet::Avx512 => match (t.a_pixel, two_rows, half) {
                (LANES, true, false) => by_pixels!(mr, avx512<2, 2, LANES>(t), [8 10 12 14]),
                (LANES, true, true) => by_pixels!(mr, avx512<2, 1, LANES>(t), [8 10 12 14]),
                (_, true, false) => by_pixels!(mr, avx512<2, 2, TWICE>(t), [8 10 12 14]),
                (_, true, true) => by_pixels!(mr, avx512<2, 1, TWICE>(t), [8 10 12 14]),
                (LANES, false, false) => {
                    by_pixels!(mr, avx512<1, 2, LANES>(t), [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
                }
                (LANES, false, true) => {
                    by_pixels!(mr, avx512<1, 1, LANES>(t), [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
                }
                (TWICE, false, false) => {
                    by_pixels!(mr, avx512<1, 2, TWICE>(t), [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
                }
                (TWICE, false, true) => {
                    by_pixels!(mr, avx512<1, 1, TWICE>(t), [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
                }
                (2, false, false) => {
                    by_pixels!(mr, avx512<1, 2, 2>(t), [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
                }
                (2, false, true) => {
                    by_pixels!(mr, avx512<1, 1, 2>(t), [1 2 3 4 5 6 7 8 9 10 11 12 13 14]);
                }
                (_, false, false) => by_pixels!(mr, avx512<1, 2, 0>(t), [1 2 3 4 5 6 7 8 9 10 11 12]),
                (_, false, true) => by_pixels!(mr, avx512<1, 1, 0>(t), [1 2 3 4 5 6 7 8 9 10 11 12]),
            },
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx2 if t.a_pixel == LANES => by_pixels!(mr, avx2<1, 2, LANES>(t), [1 2 3 4 5 6]),
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx2 => by_pixels!(mr, avx2<1, 2, 0>(t), [1 2 3 4 5 6]),
            #[cfg(target_arch = "aarch64")]
            KernelSet::Neon if t.a_pixel == LANES => by_pixels!(mr, neon<1, 4, LANES>(t), [1 2 3 4 5 6]),
            #[cfg(target_arch = "aarch64")]
            KernelSet::Neon => by_pixels!(mr, neon<1, 4, 0>(t), [1 2 3 4 5 6]),
            _ => unreachable!("blocks are for vectors"),
        }
    }
}

/// Computes a strip of `mr` pixels (1 to [`pixels`]).
///
/// # Safety
/// As [`run`].
pub(super) unsafe fn run_strip(set: KernelSet, mr: usize, t: &Strip) {
    // SAFETY: the caller promises what the strips ask for.
    unsafe {
        match set {
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            KernelSet::Avx512 => match t.a_pixel {
                LANES => by_pixels!(mr, avx512_strip<1, LANES>(t), [1 2 3 4 5 6 7 8 9 10 11 12 13 14]),
                TWICE => by_pixels!(mr, avx512_strip<1, TWICE>(t), [1 2 3 4 5 6 7 8 9 10 11 12 13 14]),
                _ => by_pixels!(mr, avx512_strip<1, 0>(t), [1 2 3 4 5 6 7 8 9 10 11 12]),
            },
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx2 => by_pixels!(mr, avx2_strip<2, 0>(t), [1 2 3 4 5 6]),
            #[cfg(target_arch = "aarch64")]
            KernelSet::Neon => by_pixels!(mr, neon_strip<4, 0>(t), [1 2 3 4 5 6]),
            _ => unreachable!("blocks are for vectors"),
        }
    }
}

/// `$body` for each pixel `$i` of a tile of `$mr`, written out: the compiler unrolls no loop of fourteen, and accumulators of
/// one that is not unrolled are in memory.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! pixels {
    ($mr:expr, |$i:ident| $body:expr) => {
        pixels!(@ $mr, $i, $body, [0 1 2 3 4 5 6 7 8 9 10 11 12 13])
    };
    (@ $mr:expr, $i:ident, $body:expr, [$($n:literal)*]) => {
        $(if $n < $mr {
            let $i: usize = $n;
            $body
        })*
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! simd {
    ($name:ident, $strip:ident, $feature:literal, $lanes:literal, $vec:ty, $zero:expr, $load:path, $store:path,
     $splat:path, $add:path, |$a:ident, $b:ident, $acc:ident| $fma:expr, |$x:ident| $relu:expr) => {
        /// `MR` pixels in `R` rows, `PX` apart (0: as the tile says), by `V` vectors of filters.
        #[target_feature(enable = $feature)]
        unsafe fn $name<const MR: usize, const R: usize, const V: usize, const PX: usize>(t: &Tile) {
            // SAFETY: pixels below mr, filters of the panel, channels and taps as given are inside the tile's extents.
            unsafe {
                let mut acc: [[$vec; V]; MR] = [[$zero; V]; MR];
                let per_row = MR / R;
                let y = |i: usize, v: usize| {
                    let row = if i < per_row { t.y } else { t.y.add(t.y_row) };
                    row.add(v * $lanes / LANES * t.y_block + v * $lanes % LANES + i % per_row * LANES)
                };
                if t.resume {
                    pixels!(MR, |i| {
                        for v in 0..V {
                            acc[i][v] = $load(y(i, v));
                        }
                    });
                }
                let far = if PX == 0 { t.a_pixel } else { PX };
                let (mut b, mut block) = (t.b, t.a);
                #[cfg(target_arch = "x86_64")]
                let mut next = t.next;
                #[cfg(target_arch = "x86_64")]
                let soon = *t.taps.add(t.count - 1) + per_row * far;
                for group in 0..t.blocks {
                    let lanes = if group + 1 == t.blocks { t.last } else { t.lanes };
                    #[cfg(target_arch = "x86_64")]
                    let mut ahead = block.wrapping_add(soon);
                    for lane in 0..lanes {
                        // The pixels that the next tile is the first to read, one a lane.
                        #[cfg(target_arch = "x86_64")]
                        {
                            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
                            ahead = ahead.wrapping_add(far);
                        }
                        for tap in 0..t.count {
                            let first = block.add(lane + *t.taps.add(tap));
                            // Every third pixel has a pointer of its own.
                            let second = first.wrapping_add(if R == 2 { t.a_row } else { 0 });
                            let a: [*const f32; 5] = [0, 1, 2, 3, 4].map(|i| first.wrapping_add(3 * i * far));
                            #[cfg(target_arch = "x86_64")]
                            {
                                for v in 0..V {
                                    let soon = b.wrapping_add(V * $lanes * 24 + v * $lanes);
                                    _mm_prefetch::<_MM_HINT_T0>(soon.cast());
                                }
                                _mm_prefetch::<_MM_HINT_T1>(next.cast());
                                next = next.wrapping_add(t.next_step);
                            }
                            let mut row = [$zero; V];
                            for v in 0..V {
                                row[v] = $load(b.add(v * $lanes));
                            }
                            pixels!(MR, |i| {
                                let $a = if i < per_row {
                                    $splat(*a[i / 3].add(i % 3 * far))
                                } else {
                                    $splat(*second.add(i % per_row * far))
                                };
                                for v in 0..V {
                                    let ($b, $acc) = (row[v], acc[i][v]);
                                    acc[i][v] = $fma;
                                }
                            });
                            b = b.add(V * $lanes);
                        }
                    }
                    block = block.wrapping_add(t.a_block);
                }
                if !t.bias.is_null() {
                    for v in 0..V {
                        let bias = $load(t.bias.add(v * $lanes));
                        pixels!(MR, |i| {
                            acc[i][v] = $add(acc[i][v], bias);
                        });
                    }
                }
                if !t.add.is_null() {
                    for v in 0..V {
                        let add = t.add.add(v * $lanes / LANES * t.add_block + v * $lanes % LANES);
                        pixels!(MR, |i| {
                            let row = if i < per_row { add } else { add.add(t.add_row) };
                            acc[i][v] = $add(acc[i][v], $load(row.add(i % per_row * LANES)));
                        });
                    }
                }
                if t.relu {
                    pixels!(MR, |i| {
                        for v in 0..V {
                            let $x = acc[i][v];
                            acc[i][v] = $relu;
                        }
                    });
                }
                pixels!(MR, |i| {
                    for v in 0..V {
                        $store(y(i, v), acc[i][v]);
                    }
                });
            }
        }

        /// `MR` pixels, `PX` apart (0: as the strip says), of one block, which is `V` vectors.
        #[target_feature(enable = $feature)]
        unsafe fn $strip<const MR: usize, const V: usize, const PX: usize>(t: &Strip) {
            // SAFETY: pixels below mr and taps as given are inside the strip's extents.
            unsafe {
                let mut acc: [[$vec; V]; MR] = [[$zero; V]; MR];
                let far = if PX == 0 { t.a_pixel } else { PX };
                for tap in 0..t.count {
                    let first = t.a.add(*t.taps.add(tap));
                    let a: [*const f32; 5] = [0, 1, 2, 3, 4].map(|i| first.wrapping_add(3 * i * far));
                    for v in 0..V {
                        let $b = $load(t.w.add(tap * LANES + v * $lanes));
                        pixels!(MR, |i| {
                            let ($a, $acc) = ($load(a[i / 3].add(i % 3 * far + v * $lanes)), acc[i][v]);
                            acc[i][v] = $fma;
                        });
                    }
                }
                for v in 0..V {
                    if !t.bias.is_null() {
                        let bias = $load(t.bias.add(v * $lanes));
                        pixels!(MR, |i| {
                            acc[i][v] = $add(acc[i][v], bias);
                        });
                    }
                    if !t.add.is_null() {
                        pixels!(MR, |i| {
                            acc[i][v] = $add(acc[i][v], $load(t.add.add(i * LANES + v * $lanes)));
                        });
                    }
                    pixels!(MR, |i| {
                        if t.relu {
                            let $x = acc[i][v];
                            acc[i][v] = $relu;
                        }
                        $store(t.y.add(i * LANES + v * $lanes), acc[i][v]);
                    });
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(all(target_arch = "x86_64", isobit_avx512))]
simd!(
    avx512,
    avx512_strip,
    "avx512f",
    16,
    __m512,
    _mm512_setzero_ps(),
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_set1_ps,
    _mm512_add_ps,
    |a, b, acc| _mm512_fmadd_ps(a, b, acc),
    // Zeros of either sign become +0, and what is not a number stays.
    |x| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(x, _mm512_setzero_ps()), x)
);

#[cfg(target_arch = "x86_64")]
simd!(
    avx2,
    avx2_strip,
    "avx2,fma",
    8,
    __m256,
    _mm256_setzero_ps(),
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    |a, b, acc| _mm256_fmadd_ps(a, b, acc),
    |x| _mm256_and_ps(_mm256_cmp_ps::<_CMP_NLE_UQ>(x, _mm256_setzero_ps()), x)
);

#[cfg(target_arch = "aarch64")]
use std::arch::aarch64::*;

#[cfg(target_arch = "aarch64")]
simd!(
    neon,
    neon_strip,
    "neon",
    4,
    float32x4_t,
    vdupq_n_f32(0.0),
    vld1q_f32,
    vst1q_f32,
    vdupq_n_f32,
    vaddq_f32,
    |a, b, acc| vfmaq_f32(acc, a, b),
    |x| {
        let below = vcleq_f32(x, vdupq_n_f32(0.0));
        vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), below))
    }
);
