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
    rows(exec, x, width, |set, row| {
        let m = reduce::max(set, row);
        subtract(set, row, m);
        apply(set, Unary::Exp, row);
        let s = reduce::sum(set, row);
        divide(set, row, s);
    });
}

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
    if width == 0 {
        return;
    }
    crate::rows(exec, x, width, 1 << 12, |_, part| {
        for row in part.chunks_exact_mut(width) {
            f(exec.set(), row);
        }
    });
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
crate::dispatch::multiversion! {
    fn divide(x: &mut [f32], y: f32) {
        for x in x.iter_mut() { *x /= y; }
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
