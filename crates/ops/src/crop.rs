//! CenterCropPad.

use isobit_tensor::{Element, Tensor};

use crate::axes::{axes, extents, fact, ints, known, known_ints, settled};
use crate::broadcast::{Walk, strides};
use crate::fold::fold;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("CenterCropPad", 18, center_crop_pad)];

/// The middle of each axis, or the operand in the middle of zeros; an odd remainder goes to the end.
struct CenterCropPad {
    axes: Option<Vec<i64>>,
}

fn center_crop_pad(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(CenterCropPad { axes: ctx.opt_ints("axes")?.map(<[i64]>::to_vec) })
}

impl CenterCropPad {
    fn shape(&self, dims: &[Option<usize>], target: &[i64]) -> Result<Vec<Option<usize>>, OpError> {
        let all: Vec<i64> = (0..dims.len() as i64).collect();
        let axes = axes(self.axes.as_deref().unwrap_or(&all), dims.len())?;
        if axes.len() != target.len() {
            return Err(OpError::shape(format!("{} extents for {} axes", target.len(), axes.len())));
        }
        let mut out = dims.to_vec();
        for (a, d) in axes.into_iter().zip(extents(target)?) {
            out[a] = Some(d);
        }
        Ok(out)
    }
}

impl Op for CenterCropPad {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let x = fact(inputs, 0);
            let shape = match (&x.shape, known_ints(inputs, 1)?) {
                (Some(dims), Some(target)) => Some(self.shape(dims, &target)?),
                (Some(dims), None) => Some(vec![None; dims.len()]),
                _ => None,
            };
            Ok(vec![Fact::new(x.dtype, shape)])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        fn go<T: Element>(ctx: &RunCtx<'_>, x: &Tensor, shape: &[usize]) -> Result<Tensor, OpError> {
            let src = x.as_slice::<T>()?;
            let mut out = ctx.memory.filled::<T>(shape, T::default())?;
            let common: Vec<usize> = x.shape().iter().zip(shape).map(|(&a, &b)| a.min(b)).collect();
            let (from, to) = (strides(x.shape()), strides(shape));
            // Half of what is cut off lies before, half of what is filled in.
            let start = |own: &[usize], steps: &[isize]| -> isize {
                own.iter().zip(&common).zip(steps).map(|((&d, &c), &s)| ((d - c) / 2) as isize * s).sum()
            };
            let offsets = [start(x.shape(), &from), start(shape, &to)];
            let walk = Walk::new(&common, [&from, &to], offsets);
            let (run, [by_from, by_to]) = (walk.run_len(), walk.run_strides());
            walk.for_each(|[at, into]| {
                for r in 0..run as isize {
                    let (at, into) =
                        (at.wrapping_add_signed(by_from * r), into.wrapping_add_signed(by_to * r));
                    out[into] = src[at].clone();
                }
            });
            Ok(Tensor::new(shape, out)?)
        }
        let x = inputs.get(0)?;
        let shape = settled(self.shape(&known(x.shape()), &ints(inputs.get(1)?)?)?)?;
        Ok(vec![typed!(x.dtype(), T => go::<T>(ctx, x, &shape))?])
    }
}
