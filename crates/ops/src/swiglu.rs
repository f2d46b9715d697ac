//! SwiGLU: one operand gated by the Swish of another.

use isobit_kernels::elementwise::Binary;
use isobit_tensor::{DType, Tensor};

use crate::arith::arith;
use crate::axes::fact;
use crate::cast::convert;
use crate::unary::Swish;
use crate::{Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] =
    &[OpDef::onnx("SwiGLU", 28, |ctx| ctx.one(SwiGlu { gate: Swish { alpha: ctx.float("alpha", 1.0)? } }))];

/// Swish(a) * b, rounded once to a 16-bit type.
struct SwiGlu {
    gate: Swish,
}

impl Op for SwiGlu {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (fact(inputs, 0), fact(inputs, 1));
        if let Some(b) = &b.shape {
            a.shape.as_ref().map(|a| same(a, b)).transpose()?;
        }
        self.gate.infer(&inputs[..inputs.len().min(1)])
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(9))
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.take(0)?, inputs.take(1)?);
        if a.shape() != b.shape() || a.dtype() != b.dtype() {
            let message = format!("operands {} {:?} and {} {:?}", a.dtype(), a.shape(), b.dtype(), b.shape());
            return Err(OpError::shape(format!("{message}; they must be of one type and shape")));
        }
        let dtype = a.dtype();
        let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
        let gate = self.gate.run(ctx, Inputs::new(vec![Some(convert(ctx, a, wide)?)]))?;
        let gate = gate.into_iter().next().ok_or_else(|| OpError::input("no gate"))?;
        let y = arith(ctx, Binary::Mul, gate, convert(ctx, b, wide)?)?;
        Ok(vec![convert(ctx, y, dtype)?])
    }
}

fn same(a: &[Option<usize>], b: &[Option<usize>]) -> Result<(), OpError> {
    let fits = |(a, b): (&Option<usize>, &Option<usize>)| a.is_none() || b.is_none() || a == b;
    match a.len() == b.len() && a.iter().zip(b).all(fits) {
        true => Ok(()),
        false => Err(OpError::shape(format!("operands of shapes {a:?} and {b:?}; they must be equal"))),
    }
}
