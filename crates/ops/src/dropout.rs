//! Dropout.

use isobit_numerics::rng::Rng;
use isobit_tensor::{DType, Tensor};

use crate::axes::fact;
use crate::cast::convert;
use crate::real::{Real, real};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Dropout", 22, dropout)];

fn dropout(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.at_most(2, Dropout { mask: ctx.outputs() > 1, seed: ctx.opt_int("seed")?.map(|s| s as u64) })
}

/// At inference, or for a ratio of 0, the operand itself and a mask of `true`. In training an element stays where u in
/// [0, 1) is not below the ratio, and is multiplied by 1 / (1 - ratio), rounded; others become +0.
struct Dropout {
    mask: bool,
    seed: Option<u64>,
}

fn ratio(ctx: &RunCtx<'_>, t: Option<&Tensor>) -> Result<f32, OpError> {
    let Some(t) = t else { return Ok(0.5) };
    match convert(ctx, t.clone(), DType::F32)?.as_slice::<f32>()? {
        [r] if (0.0..1.0).contains(r) => Ok(*r),
        other => Err(OpError::input(format!("ratio {other:?}; it must be one number from 0 to below 1"))),
    }
}

fn training(t: Option<&Tensor>) -> Result<bool, OpError> {
    match t.map(|t| t.as_slice::<bool>()).transpose()? {
        None => Ok(false),
        Some([flag]) => Ok(*flag),
        Some(other) => {
            Err(OpError::input(format!("training_mode has {} elements; it must have one", other.len())))
        }
    }
}

impl Op for Dropout {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        let mut out = vec![Fact::new(x.dtype, x.shape.clone())];
        if self.mask {
            out.push(Fact::new(Some(DType::Bool), x.shape.clone()));
        }
        Ok(out)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let training = training(inputs.opt(2))?;
        let x = inputs.take(0)?;
        let mut mask = ctx.memory.filled(x.shape(), true)?;
        let mut y = x.clone();
        if training {
            let ratio = ratio(ctx, inputs.opt(1))?;
            if ratio != 0.0 {
                let mut rng = Rng::new(self.seed.unwrap_or(ctx.seed), ctx.step);
                mask.iter_mut().for_each(|m| *m = rng.f32_unit() >= ratio);
                y = real!(x.dtype(), T => thin::<T>(ctx, &x, &mask, ratio))?;
            }
        }
        let mask = self.mask.then(|| Tensor::new(x.shape(), mask)).transpose()?;
        Ok([Some(y), mask].into_iter().flatten().collect())
    }
}

fn thin<T: Real>(ctx: &RunCtx<'_>, x: &Tensor, mask: &[bool], ratio: f32) -> Result<Tensor, OpError> {
    let scale = T::ONE / (T::ONE - T::of(ratio.into()));
    let data = crate::real::read::<T>(ctx, x)?;
    let kept = data.into_iter().zip(mask).map(|(x, &stays)| if stays { x * scale } else { T::ZERO });
    crate::real::write(ctx, x.dtype(), x.shape(), kept.collect())
}
