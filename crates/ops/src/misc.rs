//! Dropout, which at inference is the identity.

use isobit_tensor::{DType, Tensor};

use crate::axes::fact;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Dropout", 22, dropout)];

fn dropout(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    if let Some(mode) = ctx.constant(2) {
        let ratio = ctx.constant(1).map(ratio).transpose()?;
        // A ratio that is not known now is looked at by the run.
        if ratio.is_some() || !ctx.has_input(1) {
            refuse(training(mode)?, ratio.unwrap_or(0.5))?;
        }
    }
    ctx.at_most(2, Dropout { mask: ctx.outputs() > 1 })
}

/// Inference (or a ratio of 0): the operand itself, and a mask of `true`.
struct Dropout {
    mask: bool,
}

fn training(mode: &Tensor) -> Result<bool, OpError> {
    Ok(mode.as_slice::<bool>()?.first().copied().unwrap_or(false))
}

fn ratio(t: &Tensor) -> Result<f32, OpError> {
    if t.dtype() == DType::F64 {
        return Ok(t.as_slice::<f64>()?.first().copied().unwrap_or(0.5) as f32);
    }
    Ok(crate::arith::widen(t)?.first().copied().unwrap_or(0.5))
}

fn refuse(training: bool, ratio: f32) -> Result<(), OpError> {
    if training && ratio != 0.0 {
        return Err(OpError::unsupported("Dropout in training mode; export the model for inference"));
    }
    Ok(())
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
        let training = inputs.opt(2).map(training).transpose()?.unwrap_or(false);
        let ratio = inputs.opt(1).map(ratio).transpose()?.unwrap_or(0.5);
        refuse(training, ratio)?;
        let x = inputs.take(0)?;
        let mask = self.mask.then(|| ctx.memory.filled(x.shape(), true)).transpose()?;
        let mask = mask.map(|m| Tensor::new(x.shape(), m)).transpose()?;
        Ok([Some(x), mask].into_iter().flatten().collect())
    }
}
