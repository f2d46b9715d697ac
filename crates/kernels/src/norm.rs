//! Row kernels: softmax and normalisations, each the written sequence of profile operations.

use isobit_numerics as num;

use crate::math::{Unary, apply};
use crate::{Exec, KernelSet, reduce};

/// Softmax of each row of `width` elements, in place:
/// m = max; e_i = exp(x_i - m); s = 32-lane sum of e; y_i = e_i / s.
///
/// # Panics
/// When `x` is not a whole number of rows.
pub fn softmax(exec: Exec<'_>, x: &mut [f32], width: usize) {
    parts(exec, x, width, |set, part| {
        // As many rows as the first-level cache holds.
        for rows in part.chunks_mut((TOGETHER / width).max(1) * width) {
            for row in rows.chunks_exact_mut(width) {
                let m = reduce::max(set, row);
                subtract(set, row, m);
            }
            apply(set, Unary::Exp, rows);
            for row in rows.chunks_exact_mut(width) {
                let s = reduce::sum(set, row);
                divide(set, row, s);
            }
        }
    });
}

/// Elements that one pass after the other goes over.
const TOGETHER: usize = 1 << 12;

/// Log-softmax of each row, in place: m = max; d_i = x_i - m; s = 32-lane sum of exp(d_i); y_i = d_i - ln(s).
///
/// # Panics
/// When `x` is not a whole number of rows.
pub fn log_softmax(exec: Exec<'_>, x: &mut [f32], width: usize) {
    rows(exec, x, width, |set, row| {
        let m = reduce::max(set, row);
        subtract(set, row, m);
        let mut e = row.to_vec();
        apply(set, Unary::Exp, &mut e);
        let l = num::ln(reduce::sum(set, &e));
        subtract(set, row, l);
    });
}

/// Layer normalisation of each row of `width` elements, in place. With n = `width` and every operation rounded:
/// mean = sum(x) / n; d_i = x_i - mean; var = sum(d_i * d_i) / n, the products rounded before the 32-lane sum;
/// inv = 1 / sqrt(var + epsilon); y_i = (d_i * inv) * scale_i, then + bias_i if there is a bias.
/// `stats(row, mean, inv)` receives the intermediate results.
///
/// # Panics
/// When `x` is not a whole number of rows, or scale or bias is not one row.
pub fn layer_norm(
    exec: Exec<'_>,
    x: &mut [f32],
    width: usize,
    epsilon: f32,
    scale: &[f32],
    bias: Option<&[f32]>,
    stats: Option<(&mut [f32], &mut [f32])>,
) {
    assert!(scale.len() == width && bias.is_none_or(|b| b.len() == width));
    if let Some((means, invs)) = stats {
        for ((row, mean), inv) in x.chunks_exact(width.max(1)).zip(means).zip(invs) {
            (*mean, *inv) = moments(exec.set(), row, epsilon);
        }
    }
    rows(exec, x, width, |set, row| {
        let (mean, inv) = moments(set, row, epsilon);
        normalize(set, row, mean, inv, scale, bias);
    });
}

/// RMS normalisation of each row, in place: inv = 1 / sqrt(sum(x_i * x_i) / n + epsilon); y_i = (x_i * inv) * scale_i.
///
/// # Panics
/// As [`layer_norm`].
pub fn rms_norm(exec: Exec<'_>, x: &mut [f32], width: usize, epsilon: f32, scale: &[f32]) {
    assert!(scale.len() == width);
    rows(exec, x, width, |set, row| {
        let inv = inverse_deviation(sum_of_squares(set, row, 0.0), width, epsilon);
        scale_row(set, row, inv, scale);
    });
}

fn rows(exec: Exec<'_>, x: &mut [f32], width: usize, f: impl Fn(KernelSet, &mut [f32]) + Sync) {
    parts(exec, x, width, |set, part| part.chunks_exact_mut(width).for_each(|row| f(set, row)));
}

/// Several rows at a time, as threads share them; none where they have no elements.
fn parts(exec: Exec<'_>, x: &mut [f32], width: usize, f: impl Fn(KernelSet, &mut [f32]) + Sync) {
    if width > 0 {
        crate::rows(exec, x, width, 1 << 12, |_, part| f(exec.set(), part));
    }
}

fn moments(set: KernelSet, row: &[f32], epsilon: f32) -> (f32, f32) {
    let mean = reduce::sum(set, row) / row.len() as f32;
    (mean, inverse_deviation(sum_of_squares(set, row, mean), row.len(), epsilon))
}

fn inverse_deviation(squares: f32, n: usize, epsilon: f32) -> f32 {
    1.0 / (squares / n as f32 + epsilon).sqrt()
}

crate::dispatch::multiversion! {
    /// The 32-lane sum of (x - mean)^2, each square rounded.
    pub(crate) fn sum_of_squares(x: &[f32], mean: f32) -> f32 {
        num::fold_lanes(reduce::lanes(x, 0.0, |a, b| {
            let d = b - mean;
            a + d * d
        }))
    }
}
crate::dispatch::multiversion! {
    fn subtract(x: &mut [f32], y: f32) {
        for x in x.iter_mut() { *x -= y; }
    }
}
/// Every element over `y`. Long vectors take as many cycles to divide as they have elements, short ones half as many.
fn divide(set: KernelSet, x: &mut [f32], y: f32) {
    if set == KernelSet::Avx512 && (1.0..=1e9).contains(&y) && in_range(set, x) {
        quotients(set, x, y);
    } else {
        divisions(set, x, y);
    }
}
crate::dispatch::multiversion! {
    fn divisions(x: &mut [f32], y: f32) {
        for x in x.iter_mut() { *x /= y; }
    }
}
crate::dispatch::multiversion! {
    /// Whether [`quotients`] takes these elements: remainders of smaller ones would not be exact.
    fn in_range(x: &[f32]) -> bool {
        x.iter().fold(true, |all, x| all & ((1e-27..=1e9).contains(x) | (x.to_bits() == 0)))
    }
}
crate::dispatch::multiversion! {
    /// Every element over `y`, correctly rounded without a division for each (Markstein): with 1 / y correctly rounded and
    /// a quotient that is one of the two next to the exact one, what its exact remainder adds makes it the nearest.
    fn quotients(x: &mut [f32], y: f32) {
        let inverse = 1.0 / y;
        #[allow(clippy::disallowed_methods)] // an instruction of the set that takes it
        for x in x.iter_mut() {
            let mut q = *x * inverse;
            for _ in 0..2 {
                q = q.mul_add(-y, *x).mul_add(inverse, q);
            }
            *x = q;
        }
    }
}
crate::dispatch::multiversion! {
    fn normalize(x: &mut [f32], mean: f32, inv: f32, scale: &[f32], bias: Option<&[f32]>) {
        match bias {
            Some(bias) => {
                for ((x, &s), &b) in x.iter_mut().zip(scale).zip(bias) { *x = ((*x - mean) * inv) * s + b; }
            }
            None => {
                for (x, &s) in x.iter_mut().zip(scale) { *x = ((*x - mean) * inv) * s; }
            }
        }
    }
}
crate::dispatch::multiversion! {
    fn scale_row(x: &mut [f32], inv: f32, scale: &[f32]) {
        for (x, &s) in x.iter_mut().zip(scale) { *x = (*x * inv) * s; }
    }
}
crate::dispatch::multiversion! {
    /// y = (x - mean) * a + b, each operation rounded.
    pub(crate) fn affine(x: &mut [f32], mean: f32, a: f32, b: f32) {
        for x in x.iter_mut() { *x = (*x - mean) * a + b; }
    }
}

/// Batch normalisation for inference of `[n, channels, inner]`, in place. For each channel
/// a = scale / sqrt(var + epsilon); y = (x - mean) * a + bias; every operation rounded.
///
/// # Panics
/// When the lengths do not fit.
#[allow(clippy::too_many_arguments)]
pub fn batch_norm(
    exec: Exec<'_>,
    x: &mut [f32],
    inner: usize,
    epsilon: f32,
    scale: &[f32],
    bias: &[f32],
    mean: &[f32],
    var: &[f32],
) {
    let c = scale.len();
    assert!(bias.len() == c && mean.len() == c && var.len() == c);
    if x.is_empty() {
        return;
    }
    assert_eq!(x.len() % (c * inner), 0);
    let a: Vec<f32> = scale.iter().zip(var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    crate::rows(exec, x, inner, 1 << 14, |first, part| {
        for (r, row) in part.chunks_exact_mut(inner).enumerate() {
            let ch = (first + r) % c;
            affine(exec.set(), row, mean[ch], a[ch], bias[ch]);
        }
    });
}

#[cfg(test)]
mod tests {
    use isobit_numerics::rng::Rng;

    use super::*;

    #[test]
    fn quotients_are_those_of_divisions() {
        let mut rng = Rng::new(7, 0);
        let mut significand = |special: bool| match rng.below(if special { 4 } else { 1 }) {
            1 => rng.below(4) as u32,
            2 => (1 << 23) - 1 - rng.below(4) as u32,
            _ => rng.below(1 << 23) as u32,
        };
        let number =
            |exponent: i32, significand: u32| f32::from_bits(((127 + exponent) as u32) << 23 | significand);
        for round in 0..20_000 {
            let y = number(round % 29, significand(true));
            let x: Vec<f32> = (0..67)
                .map(|i| match i {
                    0 => 0.0,
                    1 => y,
                    _ => number((i + round) % 117 - 88, significand(i % 2 == 0)),
                })
                .collect();
            let expected: Vec<u32> = x.iter().map(|x| (x / y).to_bits()).collect();
            for set in KernelSet::available() {
                assert!(in_range(set, &x));
                let mut q = x.clone();
                quotients(set, &mut q, y);
                let q: Vec<u32> = q.iter().map(|q| q.to_bits()).collect();
                assert_eq!(q, expected, "over {y:e} on {set}");
            }
        }
        for x in [-0.0, f32::NAN, f32::INFINITY, 1e-30, -1.0] {
            assert!(!in_range(KernelSet::best(), &[1.0, x, 1.0]));
        }
    }
}
