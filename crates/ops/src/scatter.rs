//! Writing by index: ScatterElements, ScatterND. Updates apply in row-major order of the updates, so
//! that duplicates have one result: the last wins, and sums add in that order.

use isobit_tensor::{DType, Element, Tensor};

use crate::axes::{axis, fact, ints};
use crate::fold::fold;
use crate::gather::{element_offsets, tuple_offsets};
use crate::number::Number;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("ScatterElements", 18, |ctx| scatter(ctx, Some(ctx.int("axis", 0)?))),
    OpDef::onnx("ScatterND", 18, |ctx| scatter(ctx, None)),
];

#[derive(Clone, Copy)]
enum Reduction {
    Replace,
    Add,
    Mul,
    Max,
    Min,
}

struct Scatter {
    /// The axis indexed, or none for index tuples.
    axis: Option<i64>,
    reduction: Reduction,
}

fn scatter(ctx: &BuildCtx<'_>, axis: Option<i64>) -> Result<Box<dyn Op>, OpError> {
    let reduction = match ctx.str("reduction", "none")? {
        "none" => Reduction::Replace,
        "add" => Reduction::Add,
        "mul" => Reduction::Mul,
        "max" => Reduction::Max,
        "min" => Reduction::Min,
        other => {
            return Err(OpError::attribute(format!(
                "reduction '{other}'; accepted: none, add, mul, max, min"
            )));
        }
    };
    ctx.one(Scatter { axis, reduction })
}

impl Op for Scatter {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            Ok(vec![Fact::new(data.dtype, data.shape.clone())])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.take(0)?;
        let (indices, updates) = (inputs.get(1)?, inputs.get(2)?);
        let (offsets, run, expected) = match self.axis {
            Some(a) => {
                let a = axis(a, data.rank())?;
                let offsets = element_offsets(data.shape(), indices.shape(), a, &ints(indices)?)?;
                (offsets, 1, indices.shape().to_vec())
            }
            None => {
                let (offsets, run) = tuple_offsets(data.shape(), indices.shape(), 0, &ints(indices)?)?;
                let (&depth, outer) = indices.shape().split_last().expect("tuples have a dimension");
                (offsets, run, [outer, &data.shape()[depth..]].concat())
            }
        };
        if updates.shape() != expected {
            return Err(OpError::shape(format!(
                "updates of shape {:?}; expected {expected:?}",
                updates.shape()
            )));
        }
        let out = match (self.reduction, data.dtype()) {
            (Reduction::Replace, dtype) => {
                typed!(dtype, T => apply::<T>(ctx, data, updates, &offsets, run, |_, u| Clone::clone(u)))
            }
            (Reduction::Add | Reduction::Max, DType::Bool) => {
                apply::<bool>(ctx, data, updates, &offsets, run, |a, b| a | b)
            }
            (Reduction::Mul | Reduction::Min, DType::Bool) => {
                apply::<bool>(ctx, data, updates, &offsets, run, |a, b| a & b)
            }
            (reduction, dtype) => typed!(numbers dtype, T => {
                let f = match reduction {
                    Reduction::Add => T::plus,
                    Reduction::Mul => T::times,
                    Reduction::Max => T::larger,
                    _ => T::smaller,
                };
                apply::<T>(ctx, data, updates, &offsets, run, |a, b| f(*a, *b))
            }),
        };
        Ok(vec![out?])
    }
}

fn apply<T: Element>(
    ctx: &RunCtx<'_>,
    data: Tensor,
    updates: &Tensor,
    offsets: &[usize],
    run: usize,
    f: impl Fn(&T, &T) -> T,
) -> Result<Tensor, OpError> {
    let updates = updates.as_slice::<T>()?;
    let (shape, mut out) = match data.try_unique::<T>() {
        Ok((shape, out)) => (shape, out),
        Err(data) => {
            let mut out = ctx.memory.alloc::<T>(data.shape())?;
            out.clone_from_slice(data.as_slice()?);
            (data.shape().into(), out)
        }
    };
    if run > 0 {
        for (update, &at) in updates.chunks_exact(run).zip(offsets) {
            for (o, u) in out[at..at + run].iter_mut().zip(update) {
                *o = f(o, u);
            }
        }
    }
    Ok(Tensor::new(&shape, out)?)
}
