//! Programs in vectors of f32, and what they leave in doubt.

use std::arch::x86_64::*;

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

/// `x[i] = f(x[i])`, where `f` also says which elements are in doubt; `settle` computes these in place.
///
/// # Safety
/// The machine has AVX-512 F, DQ, BW and VL.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
pub(super) unsafe fn each_step(
    x: &mut [f32],
    f: impl Fn(Some512) -> (Some512, u32),
    settle: impl Fn(&mut [f32]),
) {
    let mut doubts = Doubts { settle, at: [0; MOST + STEP_LEN], x: [0.0; MOST + STEP_LEN], count: 0 };
    let mut last = [0.0; STEP_LEN];
    let whole = x.len() / STEP_LEN * STEP_LEN;
    last[..x.len() - whole].copy_from_slice(&x[whole..]);
    for first in (0..x.len()).step_by(STEP_LEN) {
        let step = if first < whole { &mut x[first..first + STEP_LEN] } else { &mut last[..] };
        // SAFETY: as many elements as are read and written.
        let (given, doubt) = unsafe {
            let at = step.as_mut_ptr();
            let given = [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(16))];
            let (y, doubt) = f(given);
            _mm512_storeu_ps(at, y[0]);
            _mm512_storeu_ps(at.add(16), y[1]);
            (given, doubt)
        };
        if doubt != 0 {
            if doubts.count > MOST {
                doubts.settle(x);
            }
            doubts.push(first, given, doubt);
        }
    }
    let rest = x.len() - whole;
    x[whole..].copy_from_slice(&last[..rest]);
    if doubts.count > 0 {
        doubts.settle(x);
    }
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
