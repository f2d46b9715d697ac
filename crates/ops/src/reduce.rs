//! Reductions over any set of axes. The elements of one result are taken in row-major order of the reduced
//! coordinates, under the 32-lane rule.

use isobit_kernels::math::{Unary, unary_in_place};
use isobit_kernels::reduce::{Reduction, reduce};
use isobit_tensor::{DType, Tensor};

use crate::arith::{narrow, widen};
use crate::axes::{axes, fact, given, ints, known_ints};
use crate::fold::fold;
use crate::number::{Number, magnitude};
use crate::transpose::transpose;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("ReduceSum", 13, |ctx| build(ctx, Reduction::Sum, None)),
    OpDef::onnx("ReduceMean", 18, |ctx| build(ctx, Reduction::Mean, None)),
    OpDef::onnx("ReduceMax", 20, |ctx| build(ctx, Reduction::Max, None)),
    OpDef::onnx("ReduceMin", 20, |ctx| build(ctx, Reduction::Min, None)),
    OpDef::onnx("ReduceProd", 18, |ctx| build(ctx, Reduction::Product, None)),
    OpDef::onnx("ReduceL1", 18, |ctx| build(ctx, Reduction::SumAbs, None)),
    OpDef::onnx("ReduceL2", 18, |ctx| build(ctx, Reduction::SumSquares, Some(Unary::Sqrt))),
    OpDef::onnx("ReduceSumSquare", 18, |ctx| build(ctx, Reduction::SumSquares, None)),
    OpDef::onnx("ReduceLogSum", 18, |ctx| build(ctx, Reduction::Sum, Some(Unary::Ln))),
];

fn build(ctx: &BuildCtx<'_>, reduction: Reduction, then: Option<Unary>) -> Result<Box<dyn Op>, OpError> {
    Ok(Box::new(Reduce {
        reduction,
        then,
        keep: ctx.flag("keepdims", true)?,
        noop: ctx.flag("noop_with_empty_axes", false)?,
    }))
}

struct Reduce {
    reduction: Reduction,
    /// Applied to each result.
    then: Option<Unary>,
    keep: bool,
    noop: bool,
}

impl Reduce {
    /// Which dimensions are reduced; `None` when the operator does nothing.
    fn reduced(&self, given: Option<&[i64]>, rank: usize) -> Result<Option<Vec<bool>>, OpError> {
        let given = given.unwrap_or(&[]);
        if given.is_empty() {
            return Ok((!self.noop).then(|| vec![true; rank]));
        }
        let mut out = vec![false; rank];
        for a in axes(given, rank)? {
            out[a] = true;
        }
        Ok(Some(out))
    }

    fn shape<D: Copy>(&self, shape: &[D], reduced: &[bool], one: D) -> Vec<D> {
        let dims = shape.iter().zip(reduced);
        if self.keep {
            dims.map(|(&d, &r)| if r { one } else { d }).collect()
        } else {
            dims.filter(|(_, r)| !**r).map(|(&d, _)| d).collect()
        }
    }

    fn accepts(&self, t: DType) -> bool {
        match t {
            DType::F32 | DType::F16 | DType::BF16 => true,
            DType::I32 | DType::I64 | DType::U32 | DType::U64 => {
                self.then.is_none() && self.reduction != Reduction::Mean
            }
            DType::I8 | DType::U8 => matches!(self.reduction, Reduction::Max | Reduction::Min),
            _ => false,
        }
    }
}

impl Op for Reduce {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|&t| !self.accepts(t)) {
            return Err(OpError::unsupported_type(t));
        }
        fold(self, inputs, || {
            let axes = known_ints(inputs, 1)?;
            let unknown_axes = given(inputs, 1).is_some() && axes.is_none();
            let shape = match &x.shape {
                Some(s) if !unknown_axes => Some(match self.reduced(axes.as_deref(), s.len())? {
                    Some(reduced) => self.shape(s, &reduced, Some(1)),
                    None => s.clone(),
                }),
                Some(s) if self.keep => Some(vec![None; s.len()]),
                _ => None,
            };
            Ok(vec![Fact::new(x.dtype, shape)])
        })
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        fact(inputs, 0).numel().unwrap_or(0) as u64
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let given = inputs.opt(1).map(ints).transpose()?;
        let x = inputs.take(0)?;
        if !self.accepts(x.dtype()) {
            return Err(OpError::unsupported_type(x.dtype()));
        }
        let Some(reduced) = self.reduced(given.as_deref(), x.rank())? else { return Ok(vec![x]) };
        let shape = self.shape(x.shape(), &reduced, 1);
        // Reduced dimensions that are one block need no move: [outer, reduce, inner].
        let first = reduced.iter().position(|&r| r).unwrap_or(x.rank());
        let end = reduced.iter().rposition(|&r| r).map_or(first, |i| i + 1);
        let count = x.shape().iter().zip(&reduced).filter(|(_, r)| **r).map(|(d, _)| d).product();
        let (x, inner) = if reduced[first..end].iter().all(|&r| r) {
            let inner = x.shape()[end..].iter().product();
            (x, inner)
        } else {
            let kept = (0..x.rank()).filter(|&i| !reduced[i]);
            let perm: Vec<usize> = kept.chain((0..x.rank()).filter(|&i| reduced[i])).collect();
            (transpose(ctx, x, &perm)?, 1)
        };
        Ok(vec![self.reduce(ctx, &x, count, inner, &shape)?])
    }
}

impl Reduce {
    fn reduce(
        &self,
        ctx: &RunCtx<'_>,
        x: &Tensor,
        n: usize,
        inner: usize,
        shape: &[usize],
    ) -> Result<Tensor, OpError> {
        if x.dtype().is_int() {
            return self.integers(ctx, x, n, inner, shape);
        }
        let mut out = ctx.memory.alloc::<f32>(shape)?;
        if x.dtype() == DType::F32 {
            reduce(ctx.exec, self.reduction, x.as_slice()?, n, inner, &mut out);
        } else {
            reduce(ctx.exec, self.reduction, &widen(x)?, n, inner, &mut out);
        }
        if let Some(f) = self.then {
            unary_in_place(ctx.exec, f, &mut out);
        }
        narrow(x.dtype(), shape, out)
    }

    /// Integers wrap; the largest and smallest of nothing are an error, as no integer stands for infinity.
    fn integers(
        &self,
        ctx: &RunCtx<'_>,
        x: &Tensor,
        n: usize,
        inner: usize,
        shape: &[usize],
    ) -> Result<Tensor, OpError> {
        typed!(ints x.dtype(), T => {
            let data = x.as_slice::<T>()?;
            let mut out = ctx.memory.alloc::<T>(shape)?;
            for (o, out) in out.chunks_exact_mut(inner.max(1)).enumerate() {
                for (i, out) in out.iter_mut().enumerate() {
                    let mut items = (0..n).map(|p| data[(o * n + p) * inner + i]);
                    let nothing = || OpError::shape("the largest or smallest of no elements");
                    *out = match self.reduction {
                        Reduction::Sum => items.fold(T::ZERO, |a, b| a.plus(b)),
                        Reduction::SumAbs => items.fold(T::ZERO, |a, b| a.plus(magnitude(b))),
                        Reduction::SumSquares => items.fold(T::ZERO, |a, b| a.plus(b.times(b))),
                        Reduction::Product => items.fold(T::ONE, |a, b| a.times(b)),
                        Reduction::Max => {
                            let first = items.next().ok_or_else(nothing)?;
                            items.fold(first, |a, b| a.larger(b))
                        }
                        Reduction::Min => {
                            let first = items.next().ok_or_else(nothing)?;
                            items.fold(first, |a, b| a.smaller(b))
                        }
                        other => return Err(OpError::input(format!("{other:?} of integers"))),
                    };
                }
            }
            Ok(Tensor::new(shape, out)?)
        })
    }
}
