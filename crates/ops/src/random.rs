//! Random tensors: RandomNormal, RandomUniform, their Like forms, Bernoulli, Multinomial.
//!
//! Each step of a graph draws from its own Philox stream of the job's seed; a node with a seed of its own
//! draws from that stream of its own seed instead.

use isobit_numerics::ln;
use isobit_numerics::rng::Rng;
use isobit_tensor::{DType, Tensor};

use crate::axes::{extents, fact, known};
use crate::cast::convert;
use crate::create::dtype_attr;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("RandomNormal", 22, |ctx| random(ctx, true, false)),
    OpDef::onnx("RandomUniform", 22, |ctx| random(ctx, false, false)),
    OpDef::onnx("RandomNormalLike", 22, |ctx| random(ctx, true, true)),
    OpDef::onnx("RandomUniformLike", 22, |ctx| random(ctx, false, true)),
    OpDef::onnx("Bernoulli", 22, |ctx| {
        ctx.one(Random { law: Law::Bernoulli, shape: None, dtype: dtype_attr(ctx)?, seed: seed(ctx)? })
    }),
    OpDef::onnx("Multinomial", 22, multinomial),
];

enum Law {
    /// `mean + scale * z`, with `z` by the polar method.
    Normal { mean: f32, scale: f32 },
    /// `low + (high - low) * u`, with `u` in [0, 1).
    Uniform { low: f32, high: f32 },
    /// Whether `u` in [0, 1) is below the operand's element.
    Bernoulli,
}

struct Random {
    law: Law,
    /// The shape where no operand gives it.
    shape: Option<Vec<usize>>,
    dtype: Option<DType>,
    seed: Option<u64>,
}

fn seed(ctx: &BuildCtx<'_>) -> Result<Option<u64>, OpError> {
    Ok(ctx.opt_float("seed")?.map(|s| isobit_numerics::convert::canonical_bits(s).into()))
}

fn random(ctx: &BuildCtx<'_>, normal: bool, like: bool) -> Result<Box<dyn Op>, OpError> {
    let law = match normal {
        true => Law::Normal { mean: ctx.float("mean", 0.0)?, scale: ctx.float("scale", 1.0)? },
        false => Law::Uniform { low: ctx.float("low", 0.0)?, high: ctx.float("high", 1.0)? },
    };
    let shape = match (like, ctx.opt_ints("shape")?) {
        (true, _) => None,
        (false, Some(shape)) => Some(extents(shape)?),
        (false, None) => return Err(OpError::attribute("attribute 'shape' is missing")),
    };
    let dtype = if like { dtype_attr(ctx)? } else { Some(dtype_attr(ctx)?.unwrap_or(DType::F32)) };
    ctx.one(Random { law, shape, dtype, seed: seed(ctx)? })
}

/// A standard normal number: Marsaglia's polar method, one of each pair.
fn normal(rng: &mut Rng) -> f32 {
    loop {
        let (u, v) = (2.0 * rng.f32_unit() - 1.0, 2.0 * rng.f32_unit() - 1.0);
        let s = u * u + v * v;
        if s > 0.0 && s < 1.0 {
            return u * (-2.0 * ln(s) / s).sqrt();
        }
    }
}

impl Op for Random {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let like = fact(inputs, 0);
        let shape = self.shape.as_ref().map(|s| known(s)).or_else(|| like.shape.clone());
        Ok(vec![Fact::new(self.dtype.or(like.dtype), shape)])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let shape = match &self.shape {
            Some(shape) => shape,
            None => inputs.get(0)?.shape(),
        };
        let dtype = match self.dtype {
            Some(dtype) => dtype,
            None => inputs.get(0)?.dtype(),
        };
        let mut rng = Rng::new(self.seed.unwrap_or(ctx.seed), ctx.step);
        let mut out = ctx.memory.alloc::<f32>(shape)?;
        match self.law {
            Law::Normal { mean, scale } => {
                out.iter_mut().for_each(|o| *o = mean + scale * normal(&mut rng));
            }
            Law::Uniform { low, high } => {
                out.iter_mut().for_each(|o| *o = low + (high - low) * rng.f32_unit());
            }
            Law::Bernoulli => {
                let p = convert(ctx, inputs.get(0)?.clone(), DType::F32)?;
                for (o, &p) in out.iter_mut().zip(p.as_slice::<f32>()?) {
                    *o = f32::from(u8::from(rng.f32_unit() < p));
                }
            }
        }
        Ok(vec![convert(ctx, Tensor::new(shape, out)?, dtype)?])
    }
}

struct Multinomial {
    samples: usize,
    dtype: DType,
    seed: Option<u64>,
}

fn multinomial(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let n = ctx.int("sample_size", 1)?;
    let samples = usize::try_from(n)
        .map_err(|_| OpError::attribute(format!("sample_size is {n}; it must not be negative")))?;
    let dtype = dtype_attr(ctx)?.unwrap_or(DType::I32);
    if !matches!(dtype, DType::I32 | DType::I64) {
        return Err(OpError::attribute(format!("dtype is {dtype}; accepted: int32, int64")));
    }
    ctx.one(Multinomial { samples, dtype, seed: seed(ctx)? })
}

impl Op for Multinomial {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let rows = fact(inputs, 0).shape.as_ref().and_then(|s| s.first().copied().flatten());
        Ok(vec![Fact::new(Some(self.dtype), Some(vec![rows, Some(self.samples)]))])
    }

    /// Class `c` has weight `exp(x_c - max)`; running sums over the classes in order, in f32; a draw is
    /// the first class whose running sum exceeds `u` times the total.
    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let logits = convert(ctx, inputs.get(0)?.clone(), DType::F32)?;
        let &[rows, classes] = logits.shape() else {
            return Err(OpError::shape(format!("a shape of {:?}; it must have rank 2", logits.shape())));
        };
        let mut out = ctx.memory.alloc::<i64>(&[rows, self.samples])?;
        if classes == 0 && !out.is_empty() {
            return Err(OpError::shape("nothing can be drawn from 0 classes"));
        }
        let mut rng = Rng::new(self.seed.unwrap_or(ctx.seed), ctx.step);
        let logits = logits.as_slice::<f32>()?.chunks_exact(classes.max(1));
        for (row, draws) in logits.zip(out.chunks_exact_mut(self.samples.max(1))) {
            let top = row.iter().copied().fold(f32::NEG_INFINITY, isobit_numerics::max);
            let mut total = 0.0;
            let sums: Vec<f32> = row
                .iter()
                .map(|&x| {
                    total += isobit_numerics::exp(x - top);
                    total
                })
                .collect();
            for draw in draws {
                let u = rng.f32_unit() * total;
                *draw = sums.iter().position(|&s| s > u).unwrap_or(classes - 1) as i64;
            }
        }
        Ok(vec![convert(ctx, Tensor::new(&[rows, self.samples], out)?, self.dtype)?])
    }
}
