//! Reductions over the middle of `[outer, reduce, inner]` under the 32-lane rule.

use isobit_numerics as num;
use num::LANES;

use crate::Exec;

/// What is reduced, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reduction {
    /// Sum in 32 lanes.
    Sum,
    /// Sum in 32 lanes, divided by the count.
    Mean,
    /// Sum of squares: lanes of fused multiply-adds.
    SumSquares,
    /// Sum of absolute values.
    SumAbs,
    /// Ascending chain of multiplications from 1.
    Product,
    /// The largest, from -infinity.
    Max,
    /// The smallest, from +infinity.
    Min,
}

impl Reduction {
    /// The definition, on the elements in row-major order of the reduced coordinates.
    pub fn scalar(self, x: impl ExactSizeIterator<Item = f32>) -> f32 {
        let n = x.len();
        match self {
            Reduction::Sum => num::sum(x),
            Reduction::Mean => num::sum(x) / n as f32,
            Reduction::SumSquares => num::sum_squares(x),
            Reduction::SumAbs => num::sum_abs(x),
            Reduction::Product => x.fold(1.0, |a, b| a * b),
            Reduction::Max => x.fold(f32::NEG_INFINITY, num::max),
            Reduction::Min => x.fold(f32::INFINITY, num::min),
        }
    }
}

/// `y[o, i] = r(x[o, 0, i], x[o, 1, i], ...)` for `x` seen as `[outer, reduce, inner]`.
///
/// # Panics
/// When the lengths do not fit.
pub fn reduce(exec: Exec<'_>, r: Reduction, x: &[f32], reduce: usize, inner: usize, y: &mut [f32]) {
    if y.is_empty() {
        return;
    }
    assert_eq!(x.len(), y.len() * reduce);
    let block = reduce * inner;
    let grain = (1 << 14) / reduce.max(1);
    crate::rows(exec, y, inner, grain.max(1), |first, y| {
        for (o, y) in y.chunks_exact_mut(inner).enumerate() {
            let x = &x[(first + o) * block..][..block];
            if inner == 1 {
                y[0] = one(exec, r, x);
            } else {
                for (i, y) in y.iter_mut().enumerate() {
                    *y = r.scalar((0..reduce).map(|p| x[p * inner + i]));
                }
            }
        }
    });
}

fn one(exec: Exec<'_>, r: Reduction, x: &[f32]) -> f32 {
    match r {
        Reduction::Sum => sum(exec.set(), x),
        Reduction::Mean => sum(exec.set(), x) / x.len() as f32,
        Reduction::SumAbs => sum_abs(exec.set(), x),
        Reduction::Max => max(exec.set(), x),
        Reduction::Min => min(exec.set(), x),
        _ => r.scalar(x.iter().copied()),
    }
}

/// Lane by lane over a slice: whole blocks of 32, then the rest into the first lanes.
#[inline(always)]
pub(crate) fn lanes(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut lanes = [start; LANES];
    let blocks = x.chunks_exact(LANES);
    let rest = blocks.remainder();
    for block in blocks {
        for l in 0..LANES {
            lanes[l] = f(lanes[l], block[l]);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, x);
    }
    lanes
}

crate::dispatch::multiversion! {
    /// The 32-lane sum of a slice.
    pub(crate) fn sum(x: &[f32]) -> f32 {
        num::fold_lanes(lanes(x, 0.0, |a, b| a + b))
    }
}
crate::dispatch::multiversion! {
    fn sum_abs(x: &[f32]) -> f32 {
        num::fold_lanes(lanes(x, 0.0, |a, b| a + b.abs()))
    }
}
crate::dispatch::multiversion! {
    /// The largest element: order does not matter, so lanes are free here.
    pub(crate) fn max(x: &[f32]) -> f32 {
        lanes(x, f32::NEG_INFINITY, num::max).into_iter().fold(f32::NEG_INFINITY, num::max)
    }
}
crate::dispatch::multiversion! {
    fn min(x: &[f32]) -> f32 {
        lanes(x, f32::INFINITY, num::min).into_iter().fold(f32::INFINITY, num::min)
    }
}
