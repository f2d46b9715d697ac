//! What is done to scores in the end.

use isobit_kernels::Exec;
use isobit_kernels::math::{self, Unary};
use isobit_kernels::norm;
use isobit_numerics::{exp, ln, max, sum};

use crate::{BuildCtx, OpError};

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Post {
    None,
    /// As the operator Softmax.
    Softmax,
    /// As the operator Sigmoid.
    Logistic,
    /// Softmax in which a score within 1e-7 of 0 is x * exp(-max) instead of exp(x - max); all 0 give 0.5.
    SoftmaxZero,
    /// The quantile function of the normal distribution, by Winitzki's approximation: see [`probit`].
    Probit,
}

impl Post {
    pub(super) fn named(ctx: &BuildCtx<'_>) -> Result<Self, OpError> {
        let choices = [
            ("NONE", Post::None),
            ("SOFTMAX", Post::Softmax),
            ("LOGISTIC", Post::Logistic),
            ("SOFTMAX_ZERO", Post::SoftmaxZero),
            ("PROBIT", Post::Probit),
        ];
        ctx.choice("post_transform", &choices)
    }

    pub(super) fn numbered(ctx: &BuildCtx<'_>) -> Result<Self, OpError> {
        match ctx.int("post_transform", 0)? {
            0 => Ok(Post::None),
            1 => Ok(Post::Softmax),
            2 => Ok(Post::Logistic),
            3 => Ok(Post::SoftmaxZero),
            4 => Ok(Post::Probit),
            other => Err(OpError::attribute(format!("post_transform is {other}; accepted: 0 to 4"))),
        }
    }

    /// To rows of `width` scores.
    pub(super) fn apply(self, exec: Exec<'_>, x: &mut [f32], width: usize) {
        if width == 0 {
            return;
        }
        match self {
            Post::None => {}
            Post::Softmax => norm::softmax(exec, x, width),
            Post::Logistic => math::unary_in_place(exec, Unary::Sigmoid, x),
            Post::SoftmaxZero => x.chunks_exact_mut(width).for_each(softmax_zero),
            Post::Probit => x.iter_mut().for_each(|x| *x = probit(*x)),
        }
    }
}

fn softmax_zero(row: &mut [f32]) {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, max);
    let scale = exp(-top);
    for x in row.iter_mut() {
        *x = if *x > 1e-7 || *x < -1e-7 { exp(*x - top) } else { *x * scale };
    }
    let total = sum(row.iter().copied());
    row.iter_mut().for_each(|x| *x = if total == 0.0 { 0.5 } else { *x / total });
}

/// sqrt(2) times the inverse error function of 2 x - 1: with l = ln((1 - y) (1 + y)) and v = 2 / (pi 0.147) + l / 2, it
/// is sqrt(sqrt(v v - l / 0.147) - v) with the sign of y; each operation is rounded.
fn probit(x: f32) -> f32 {
    let y = 2.0 * x - 1.0;
    let product = (1.0 - y) * (1.0 + y);
    if product == 0.0 {
        return 0.0;
    }
    let l = ln(product);
    let v = 2.0 / (std::f32::consts::PI * 0.147) + 0.5 * l;
    let root = ((v * v - 1.0 / 0.147 * l).sqrt() - v).sqrt();
    std::f32::consts::SQRT_2 * if y < 0.0 { -root } else { root }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probit_is_near_the_quantile() {
        for (p, q) in [(0.5, 0.0), (0.975, 1.959_964), (0.1, -1.281_552)] {
            assert!((probit(p) - q).abs() < 5e-3, "{p}: {}", probit(p));
        }
    }

    #[test]
    fn softmax_zero_keeps_zeros() {
        let mut row = [0.0, 1.0, 0.0];
        softmax_zero(&mut row);
        assert_eq!(row, [0.0, 1.0, 0.0]);
        let mut none = [0.0, 0.0];
        softmax_zero(&mut none);
        assert_eq!(none, [0.5, 0.5]);
    }
}
