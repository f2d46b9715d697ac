//! Reductions over any set of axes. The elements of one result are taken in row-major order of the reduced
//! coordinates, under the 32-lane rule.

use isobit_kernels::math::{Unary, unary_in_place};
use isobit_kernels::reduce::{Reduction, reduce};
use isobit_numerics as num;
use isobit_tensor::{DType, Element, Tensor};

use crate::arith::{floats, narrow, widen};
use crate::axes::{axes, bounded, fact, given, ints, known_ints};
use crate::blocked::{Blockwise, Role, Value, Wanted, run_plain};
use crate::cast::convert;
use crate::entries::each_alone;
use crate::fold::fold;
use crate::number::{Number, magnitude};
use crate::pool::blocked_mean;
use crate::transpose::transpose;
use crate::typed::typed;
use crate::unary;
use crate::{BuildCtx, Code, Fact, Inputs, Op, OpDef, OpError, RunCtx, Tail};

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
    OpDef::onnx("ReduceLogSumExp", 18, |ctx| reduce_by(ctx, Kind::LogSumExp)),
];

fn build(ctx: &BuildCtx<'_>, reduction: Reduction, then: Option<Unary>) -> Result<Box<dyn Op>, OpError> {
    reduce_by(ctx, Kind::Plain(reduction, then))
}

fn reduce_by(ctx: &BuildCtx<'_>, kind: Kind) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Reduce {
        kind,
        keep: ctx.flag("keepdims", true)?,
        noop: ctx.flag("noop_with_empty_axes", false)?,
    })
}

#[derive(Clone, Copy)]
enum Kind {
    /// A reduction, and what is applied to each result.
    Plain(Reduction, Option<Unary>),
    /// m = max, or +0 where that is not finite; s = sum of exp(x_i - m); ln(s) + m.
    LogSumExp,
}

struct Reduce {
    kind: Kind,
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
        let extreme = matches!(self.kind, Kind::Plain(Reduction::Max | Reduction::Min, _));
        match t {
            DType::F32 | DType::F16 | DType::BF16 | DType::F64 => true,
            DType::I32 | DType::I64 | DType::U32 | DType::U64 => true,
            DType::I8 | DType::U8 | DType::Bool => extreme,
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
        let weight = if matches!(self.kind, Kind::LogSumExp) { 10 } else { 1 };
        (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(weight)
    }

    fn blockwise(&self) -> Option<&dyn Blockwise> {
        matches!(self.kind, Kind::Plain(Reduction::Mean, None)).then_some(self as &dyn Blockwise)
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let axis = each_alone(batch)?;
        let given = known_ints(operands, 1).ok()?;
        let reduced = self.reduced(given.as_deref(), fact(operands, 0).rank()?).ok()??;
        let gone = if self.keep { 0 } else { reduced[..axis].iter().filter(|&&r| r).count() };
        (!reduced[axis]).then_some(axis - gone)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let given = inputs.opt(1).map(ints).transpose()?;
        let x = inputs.take(0)?;
        bounded([&x])?;
        if !self.accepts(x.dtype()) {
            return Err(OpError::unsupported_type(x.dtype()));
        }
        let Some(reduced) = self.reduced(given.as_deref(), x.rank())? else { return Ok(vec![x]) };
        let shape = self.shape(x.shape(), &reduced, 1);
        // Reduced dimensions that are one block need no move: [outer, reduce, inner].
        let first = reduced.iter().position(|&r| r).unwrap_or(x.rank());
        let end = reduced.iter().rposition(|&r| r).map_or(first, |i| i + 1);
        let count = x.shape().iter().zip(&reduced).filter(|(_, r)| **r).map(|(d, _)| d).product();
        let inner = x.shape()[end..].iter().product();
        let in_place = inner == 1 || !matches!(self.kind, Kind::LogSumExp);
        let (x, inner) = if in_place && reduced[first..end].iter().all(|&r| r) {
            (x, inner)
        } else {
            let kept = (0..x.rank()).filter(|&i| !reduced[i]);
            let perm: Vec<usize> = kept.chain((0..x.rank()).filter(|&i| reduced[i])).collect();
            (transpose(ctx, x, &perm)?, 1)
        };
        Ok(vec![self.reduce(ctx, &x, count, inner, &shape)?])
    }
}

impl Blockwise for Reduce {
    fn role(&self) -> Role {
        Role::Ends
    }

    fn run_blocked(
        &self,
        ctx: &RunCtx<'_>,
        operands: Vec<Option<Value>>,
        tail: &[Tail],
        _: Option<Wanted>,
    ) -> Result<(Value, usize), OpError> {
        if let Some(Some(Value::Blocked(x))) = operands.first() {
            let axes = operands.get(1).and_then(Option::as_ref).and_then(Value::as_tensor);
            let axes = axes.map(ints).transpose()?;
            let shape = x.shape();
            // The mean over height and width alone.
            let reduced = self.reduced(axes.as_deref(), shape.len())?;
            if let Some(reduced) = reduced.filter(|r| **r == [false, false, true, true]) {
                return Ok((blocked_mean(ctx, x, &self.shape(&shape, &reduced, 1))?.into(), 0));
            }
        }
        run_plain(self, ctx, operands, tail)
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
        match (x.dtype(), self.kind) {
            (DType::Bool, Kind::Plain(r, _)) => {
                let x = x.as_slice::<bool>()?;
                let out = each(ctx, x, n, inner, shape, |x| match r {
                    Reduction::Max => Ok(x.fold(false, |a, b| a | b)),
                    _ => Ok(x.fold(true, |a, b| a & b)),
                })?;
                Ok(Tensor::new(shape, out)?)
            }
            (DType::F64, kind) => {
                let out = each(ctx, x.as_slice()?, n, inner, shape, |x| Ok(double(kind, n, x)))?;
                Ok(Tensor::new(shape, out)?)
            }
            (t, Kind::Plain(r, None)) if t.is_int() => integers(ctx, r, x, n, inner, shape),
            (t, Kind::Plain(r, Some(f))) if t.is_int() => {
                let sum = convert(ctx, integers(ctx, r, x, n, inner, shape)?, DType::F64)?;
                let out = sum.as_slice::<f64>()?.iter().map(|&s| unary::double(f, s)).collect();
                convert(ctx, Tensor::new(shape, out)?, t)
            }
            (t, Kind::LogSumExp) if t.is_int() => {
                let x = convert(ctx, x.clone(), DType::F64)?;
                convert(ctx, self.reduce(ctx, &x, n, inner, shape)?, t)
            }
            (t, Kind::Plain(r, then)) => {
                let mut out = ctx.memory.alloc::<f32>(shape)?;
                reduce(ctx.exec, r, &floats(x)?, n, inner, &mut out);
                if let Some(f) = then {
                    unary_in_place(ctx.exec, f, &mut out);
                }
                narrow(t, shape, out)
            }
            (t, Kind::LogSumExp) => {
                let mut m = ctx.memory.alloc::<f32>(shape)?;
                let mut x = widen(x)?;
                reduce(ctx.exec, Reduction::Max, &x, n, 1, &mut m);
                m.iter_mut().filter(|m| !m.is_finite()).for_each(|m| *m = 0.0);
                for (row, m) in x.chunks_exact_mut(n.max(1)).zip(&m) {
                    row.iter_mut().for_each(|x| *x -= m);
                }
                unary_in_place(ctx.exec, Unary::Exp, &mut x);
                let mut out = ctx.memory.alloc::<f32>(shape)?;
                reduce(ctx.exec, Reduction::Sum, &x, n, 1, &mut out);
                unary_in_place(ctx.exec, Unary::Ln, &mut out);
                out.iter_mut().zip(&m).for_each(|(s, m)| *s += m);
                narrow(t, shape, out)
            }
        }
    }
}

/// Each result from its `n` elements in row-major order of the reduced coordinates.
fn each<T: Element + Copy>(
    ctx: &RunCtx<'_>,
    x: &[T],
    n: usize,
    inner: usize,
    shape: &[usize],
    f: impl Fn(&mut dyn Iterator<Item = T>) -> Result<T, OpError>,
) -> Result<Vec<T>, OpError> {
    let mut out = ctx.memory.alloc::<T>(shape)?;
    for (o, out) in out.chunks_exact_mut(inner.max(1)).enumerate() {
        for (i, out) in out.iter_mut().enumerate() {
            *out = f(&mut (0..n).map(|p| x[(o * n + p) * inner + i]))?;
        }
    }
    Ok(out)
}

/// The same sequences of operations as in f32.
fn double(kind: Kind, n: usize, x: &mut dyn Iterator<Item = f64>) -> f64 {
    let (reduction, then) = match kind {
        Kind::Plain(reduction, then) => (reduction, then),
        Kind::LogSumExp => {
            let x: Vec<f64> = x.collect();
            let m = x.iter().copied().fold(f64::NEG_INFINITY, num::max64);
            let m = if m.is_finite() { m } else { 0.0 };
            return num::ln64(num::sum64(x.into_iter().map(|x| num::exp64(x - m)))) + m;
        }
    };
    let y = match reduction {
        Reduction::Mean => num::sum64(x) / n as f64,
        Reduction::SumSquares => num::sum_squares64(x),
        Reduction::SumAbs => num::sum_abs64(x),
        Reduction::Product => x.fold(1.0, |a, b| a * b),
        Reduction::Max => x.fold(f64::NEG_INFINITY, num::max64),
        Reduction::Min => x.fold(f64::INFINITY, num::min64),
        _ => num::sum64(x),
    };
    then.map_or(y, |f| unary::double(f, y))
}

/// Integers wrap; a mean is the wrapped sum divided toward zero, and a root or logarithm that of the wrapped sum in f64, cut
/// toward zero as Cast does. The largest and smallest of nothing are an error, as no
/// integer stands for infinity.
fn integers(
    ctx: &RunCtx<'_>,
    reduction: Reduction,
    x: &Tensor,
    n: usize,
    inner: usize,
    shape: &[usize],
) -> Result<Tensor, OpError> {
    typed!(ints x.dtype(), T => {
        let nothing = || OpError::shape("the largest or smallest of no elements");
        let out = each(ctx, x.as_slice::<T>()?, n, inner, shape, |x| Ok(match reduction {
            Reduction::Sum => x.fold(T::ZERO, |a, b| a.plus(b)),
            Reduction::Mean => {
                let sum = i128::from(x.fold(T::ZERO, |a, b| a.plus(b)));
                let mean = sum.checked_div(n as i128);
                let mean = mean.ok_or_else(|| OpError::new(Code::DivisionByZero, "the mean of no integers"))?;
                // No further from zero than the sum, which is one of T.
                T::try_from(mean).unwrap_or(T::ZERO)
            }
            Reduction::SumAbs => x.fold(T::ZERO, |a, b| a.plus(magnitude(b))),
            Reduction::SumSquares => x.fold(T::ZERO, |a, b| a.plus(b.times(b))),
            Reduction::Product => x.fold(T::ONE, |a, b| a.times(b)),
            Reduction::Max => x.reduce(|a, b| a.larger(b)).ok_or_else(nothing)?,
            Reduction::Min => x.reduce(|a, b| a.smaller(b)).ok_or_else(nothing)?,
            other => return Err(OpError::unsupported(format!("{other:?} of integers"))),
        }))?;
        Ok(Tensor::new(shape, out)?)
    })
}
