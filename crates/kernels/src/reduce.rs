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
    /// The largest element; order does not matter.
    pub(crate) fn max(x: &[f32]) -> f32 {
        extreme(x, |_, largest| largest)
    }
}
crate::dispatch::multiversion! {
    fn min(x: &[f32]) -> f32 {
        extreme(x, |least, _| least)
    }
}

/// Of the least and the largest element the one that `pick` takes, each said by an integer in the order of SEMANTICS.md: -0 is
/// less than +0, and NaN, which is more than infinity or less than its negative there, is the result where there is one.
#[inline(always)]
fn extreme(x: &[f32], pick: impl Fn(i32, i32) -> i32) -> f32 {
    // Its own inverse.
    let turned = |bits: i32| bits ^ ((bits >> 31) as u32 >> 1) as i32;
    let start = [f32::INFINITY, f32::NEG_INFINITY].map(|x| turned(x.to_bits() as i32));
    let (least, largest) = x.iter().fold((start[0], start[1]), |(least, largest), x| {
        let n = turned(x.to_bits() as i32);
        (least.min(n), largest.max(n))
    });
    if largest > start[0] || least < start[1] {
        return f32::NAN;
    }
    f32::from_bits(turned(pick(least, largest)) as u32)
}

#[cfg(test)]
mod tests {
    use isobit_numerics::rng::Rng;

    use super::*;
    use crate::KernelSet;

    #[test]
    fn extremes_are_those_of_the_definition() {
        let mut rng = Rng::new(3, 0);
        let nan = |bits: u32| f32::from_bits(0x7fc0_0001 | bits);
        let special =
            [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, -1e-45, nan(0), nan(1 << 31)];
        for round in 0..4_000 {
            // More and more of them are special, the last ones all.
            let element = |rng: &mut Rng| match rng.below(4_000) < round {
                true => special[rng.below(if round % 2 == 0 { 6 } else { 8 })],
                false => rng.f32_unit() - 0.5,
            };
            let x: Vec<f32> = (0..rng.below(150)).map(|_| element(&mut rng)).collect();
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, num::max);
            let least = x.iter().copied().fold(f32::INFINITY, num::min);
            for set in KernelSet::available() {
                assert_eq!(max(set, &x).to_bits(), largest.to_bits(), "{x:?} on {set}");
                assert_eq!(min(set, &x).to_bits(), least.to_bits(), "{x:?} on {set}");
            }
        }
    }
}
