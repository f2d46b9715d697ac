//! Programs in vectors of f32, and what they leave in doubt.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

/// Vectors whose operations alternate.
const TOGETHER: usize = 2;
const STEP_LEN: usize = 16 * TOGETHER;
pub(super) type Some512 = [__m512; TOGETHER];

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn splat(x: f32) -> __m512 {
    _mm512_set1_ps(x)
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn zip(a: Some512, b: Some512, f: impl Fn(__m512, __m512) -> __m512) -> Some512 {
    [f(a[0], b[0]), f(a[1], b[1])]
}

/// `a * b + c`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn mul_add(a: Some512, b: Some512, c: Some512) -> Some512 {
    [_mm512_fmadd_ps(a[0], b[0], c[0]), _mm512_fmadd_ps(a[1], b[1], c[1])]
}

/// One bit an element: those of the first vector are the low ones.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) fn bits(of: impl Fn(usize) -> __mmask16) -> u32 {
    u32::from(of(0)) | u32::from(of(1)) << 16
}

/// Elements that go through the first half of a program before any goes through the second: what is between stays in the
/// first-level cache.
const BLOCK: usize = 8 * STEP_LEN;

/// `x[i] = second(x[i], first(x[i]))`, where `second` also says which elements are in doubt; `settle` computes these in place.
///
/// A long program is in two halves: all of its operations, each of which waits for the one before, would fill what the processor
/// looks ahead, and keep it from the next step's. A short one leaves nothing to the first.
///
/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) unsafe fn each_step<const N: usize>(
    x: &mut [f32],
    first: impl Fn(Some512) -> [Some512; N],
    second: impl Fn(Some512, [Some512; N]) -> (Some512, u32),
    settle: impl Fn(&mut [f32]),
) {
    let mut doubts = Doubts { settle, at: [0; MOST + STEP_LEN], x: [0.0; MOST + STEP_LEN], count: 0 };
    let mut last = [0.0; STEP_LEN];
    let whole = x.len() / STEP_LEN * STEP_LEN;
    last[..x.len() - whole].copy_from_slice(&x[whole..]);
    // Written before they are read, as far as they are read.
    let mut between = MaybeUninit::<[[Some512; N]; BLOCK / STEP_LEN]>::uninit();
    let between = between.as_mut_ptr().cast::<[Some512; N]>();
    for block in (0..x.len()).step_by(BLOCK) {
        let steps = (x.len() - block).min(BLOCK).div_ceil(STEP_LEN);
        let at = |i: usize, x: &mut [f32], last: &mut [f32; STEP_LEN]| match block + i * STEP_LEN {
            first if first < whole => x[first..first + STEP_LEN].as_mut_ptr(),
            _ => last.as_mut_ptr(),
        };
        for i in 0..steps {
            // SAFETY: as many elements as are read; a place of the block.
            unsafe { between.add(i).write(first(load(at(i, x, &mut last)))) };
        }
        for i in 0..steps {
            let place = at(i, x, &mut last);
            // SAFETY: as many elements as are read and written; the loop before wrote what is between.
            let (given, doubt) = unsafe {
                let given = load(place);
                let (y, doubt) = second(given, between.add(i).read());
                _mm512_storeu_ps(place, y[0]);
                _mm512_storeu_ps(place.add(16), y[1]);
                (given, doubt)
            };
            if doubt != 0 {
                if doubts.count > MOST {
                    doubts.settle(x);
                }
                doubts.push(block + i * STEP_LEN, given, doubt);
            }
        }
    }
    let rest = x.len() - whole;
    x[whole..].copy_from_slice(&last[..rest]);
    if doubts.count > 0 {
        doubts.settle(x);
    }
}

/// # Safety
/// There are as many elements.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
unsafe fn load(x: *const f32) -> Some512 {
    // SAFETY: the caller's promise.
    unsafe { [_mm512_loadu_ps(x), _mm512_loadu_ps(x.add(16))] }
}

/// Elements that are settled together: one by itself takes as long as several.
const MOST: usize = 32;

/// Elements in doubt, and what settles them in place.
struct Doubts<F> {
    settle: F,
    at: [usize; MOST + STEP_LEN],
    x: [f32; MOST + STEP_LEN],
    count: usize,
}

impl<F: Fn(&mut [f32])> Doubts<F> {
    /// Adds those of the elements `x`, the first of which is the one at `first`, whose bit is set.
    #[cold]
    fn push(&mut self, first: usize, x: Some512, mut doubt: u32) {
        // SAFETY: vectors are arrays of their elements.
        let x: [f32; STEP_LEN] = unsafe { std::mem::transmute(x) };
        while doubt != 0 {
            let i = doubt.trailing_zeros() as usize;
            (self.at[self.count], self.x[self.count]) = (first + i, x[i]);
            self.count += 1;
            doubt &= doubt - 1;
        }
    }

    /// Writes the results of all of them. Past the end of `y` there is nothing: the last step was filled up.
    #[cold]
    fn settle(&mut self, y: &mut [f32]) {
        let count = std::mem::take(&mut self.count);
        let settled = &mut self.x[..count];
        (self.settle)(settled);
        for (&at, &settled) in self.at.iter().zip(&*settled) {
            if let Some(y) = y.get_mut(at) {
                *y = settled;
            }
        }
    }
}
