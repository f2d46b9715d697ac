//! Normalisations by neighbouring or chosen elements: LRN, LpNormalization, MeanVarianceNormalization.

use isobit_tensor::Tensor;

use crate::axes::{axes, axis, bounded, fact};
use crate::number::{Number, magnitude};
use crate::real::{Real, check_real, elements, real, through, write};
use crate::transpose::transpose;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("LRN", 13, lrn),
    OpDef::onnx("LpNormalization", 22, |ctx| {
        let p = ctx.int("p", 2)?;
        if !(1..=2).contains(&p) {
            return Err(OpError::attribute(format!("p is {p}; accepted: 1, 2")));
        }
        ctx.one(Lp { axis: ctx.int("axis", -1)?, p })
    }),
    OpDef::onnx("MeanVarianceNormalization", 13, |ctx| {
        ctx.one(MeanVariance { axes: ctx.opt_ints("axes")?.unwrap_or(&[0, 2, 3]).to_vec() })
    }),
];

fn infer(inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
    let x = fact(inputs, 0);
    check_real(x.dtype)?;
    Ok(vec![Fact::new(x.dtype, x.shape.clone())])
}

fn cost(inputs: &[Option<Fact>], weight: u64) -> u64 {
    (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(weight)
}

/// x / pow(bias + (alpha / size) * s, beta), s being the 32-lane sum of the squares in the channels from
/// c - floor((size - 1) / 2) to c + ceil((size - 1) / 2), ascending; every operation rounded.
struct Lrn {
    size: usize,
    alpha: f32,
    beta: f32,
    bias: f32,
}

fn lrn(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let size = ctx.opt_int("size")?;
    let given = size.and_then(|s| usize::try_from(s).ok()).filter(|s| (1..1 << 24).contains(s));
    let size = given.ok_or_else(|| {
        OpError::attribute(format!("size is {size:?}; it must be given, from 1 to {}", (1 << 24) - 1))
    })?;
    ctx.one(Lrn {
        size,
        alpha: ctx.float("alpha", 1e-4)?,
        beta: ctx.float("beta", 0.75)?,
        bias: ctx.float("bias", 1.0)?,
    })
}

impl Op for Lrn {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        infer(inputs)
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        cost(inputs, self.size as u64 + 10)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        bounded([x])?;
        real!(x.dtype(), T => self.compute::<T>(ctx, x))
    }
}

impl Lrn {
    fn compute<T: Real>(&self, ctx: &RunCtx<'_>, x: &Tensor) -> Result<Vec<Tensor>, OpError> {
        let &[_, channels, ref spatial @ ..] = x.shape() else {
            return Err(OpError::shape(format!("an input of shape {:?}; it must be [N, C, ...]", x.shape())));
        };
        let plane: usize = spatial.iter().product();
        let data = elements::<T>(ctx, x)?;
        let mut out = ctx.memory.alloc::<T>(x.shape())?;
        let (before, after) = ((self.size - 1) / 2, self.size / 2);
        let [alpha, beta, bias] = [self.alpha, self.beta, self.bias].map(|p| T::of(p.into()));
        let factor = alpha / T::of(self.size as f64);
        for (i, row) in out.chunks_exact_mut(plane.max(1)).enumerate() {
            let (n, c) = (i / channels, i % channels);
            let window = c.saturating_sub(before)..channels.min(c + after + 1);
            for (p, y) in row.iter_mut().enumerate() {
                let at = |c: usize| data[(n * channels + c) * plane + p];
                let s = T::sum_squares(window.clone().map(at));
                *y = at(c) / (bias + factor * s).power(beta);
            }
        }
        Ok(vec![write(ctx, x.dtype(), x.shape(), out)?])
    }
}

/// x / norm along an axis, +0 where the norm is 0; the norm is the sum of |x| (p = 1) or the square root of the sum
/// of squares (p = 2), in 32 lanes.
struct Lp {
    axis: i64,
    p: i64,
}

impl Op for Lp {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        infer(inputs)
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        cost(inputs, 2)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let axis = axis(self.axis, x.rank())?;
        // Exchanging two dimensions is its own inverse.
        let mut perm: Vec<usize> = (0..x.rank()).collect();
        perm.swap(axis, x.rank() - 1);
        let width = x.shape()[axis];
        let x = transpose(ctx, x, &perm)?;
        let y = real!(x.dtype(), T => through::<T>(ctx, x, |x| {
            for row in x.chunks_exact_mut(width.max(1)) {
                let elements = row.iter().copied();
                let norm = match self.p {
                    1 => T::sum(elements.map(magnitude)),
                    _ => T::sum_squares(elements).root(),
                };
                match norm == T::ZERO {
                    true => row.fill(T::ZERO),
                    false => row.iter_mut().for_each(|x| *x /= norm),
                }
            }
            Ok(())
        }))?;
        Ok(vec![transpose(ctx, y, &perm)?])
    }
}

/// With sums in 32 lanes over the axes and every operation rounded: mean = sum(x) / n; var = sum(x * x) / n - mean * mean,
/// the squares rounded before they are added; (x - mean) / (sqrt(var) + 1e-9).
struct MeanVariance {
    axes: Vec<i64>,
}

impl Op for MeanVariance {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        infer(inputs)
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        cost(inputs, 5)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        bounded([&x])?;
        let reduced = axes(&self.axes, x.rank())?;
        let mut perm: Vec<usize> = (0..x.rank()).filter(|i| !reduced.contains(i)).collect();
        perm.extend((0..x.rank()).filter(|i| reduced.contains(i)));
        let width: usize = reduced.iter().map(|&i| x.shape()[i]).product();
        let mut back = vec![0; perm.len()];
        perm.iter().enumerate().for_each(|(i, &p)| back[p] = i);
        let x = transpose(ctx, x, &perm)?;
        let y = real!(x.dtype(), T => through::<T>(ctx, x, |x| {
            for row in x.chunks_exact_mut(width.max(1)) {
                let n = T::of(row.len() as f64);
                let mean = T::sum(row.iter().copied()) / n;
                let var = T::sum(row.iter().map(|&x| x * x)) / n - mean * mean;
                let deviation = var.root() + T::of(1e-9f32.into());
                row.iter_mut().for_each(|x| *x = (*x - mean) / deviation);
            }
            Ok(())
        }))?;
        Ok(vec![transpose(ctx, y, &back)?])
    }
}
