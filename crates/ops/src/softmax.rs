//! Softmax and LogSoftmax; the order of operations is written at `isobit_kernels::norm`.

use isobit_kernels::norm;
use isobit_tensor::{DType, Tensor};

use crate::arith::through_f32;
use crate::axes::{axis, fact};
use crate::transpose::transpose;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Softmax", 13, |ctx| softmax(ctx, false)),
    OpDef::onnx("LogSoftmax", 13, |ctx| softmax(ctx, true)),
];

fn softmax(ctx: &BuildCtx<'_>, log: bool) -> Result<Box<dyn Op>, OpError> {
    Ok(Box::new(Softmax { axis: ctx.int("axis", -1)?, log }))
}

/// Along one axis; another than the last is moved there and back.
struct Softmax {
    axis: i64,
    log: bool,
}

impl Op for Softmax {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
            return Err(OpError::unsupported_type(t));
        }
        if let Some(rank) = x.rank() {
            axis(self.axis, rank)?;
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.iter().map(|f| 12 * f.numel().unwrap_or(0) as u64).sum()
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let axis = axis(self.axis, x.rank())?;
        // Exchanging two dimensions is its own inverse.
        let mut perm: Vec<usize> = (0..x.rank()).collect();
        perm.swap(axis, x.rank() - 1);
        let width = x.shape()[axis];
        let y = through_f32(transpose(ctx, x, &perm)?, |x| {
            if self.log {
                norm::log_softmax(ctx.exec, x, width);
            } else {
                norm::softmax(ctx.exec, x, width);
            }
            Ok(())
        })?;
        Ok(vec![transpose(ctx, y, &perm)?])
    }
}
