//! Arithmetic with broadcasting: Add, Sub, Mul, Div, PRelu of two operands; Max, Min, Sum, Mean of any number.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use isobit_kernels::blocked;
use isobit_kernels::elementwise::{self, Binary, Operand, Part};
use isobit_tensor::{DType, Tensor, bf16, f16};

use crate::axes::fact;
use crate::blocked::{Blocked, Blockwise, Gated, Role, Value, Wanted, run_plain};
use crate::broadcast::{Walk, broadcast, broadcast_facts, zip};
use crate::entries::of_broadcast;
use crate::fold::fold;
use crate::memory::buffer;
use crate::number::Number;
use crate::tail::{Stage, Tail};
use crate::typed::typed;
use crate::{BuildCtx, Code, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Add", 14, |ctx| ctx.one(Arith(Binary::Add))),
    OpDef::onnx("Sub", 14, |ctx| ctx.one(Arith(Binary::Sub))),
    OpDef::onnx("Mul", 14, |ctx| ctx.one(Arith(Binary::Mul))),
    OpDef::onnx("Div", 14, |ctx| ctx.one(Arith(Binary::Div))),
    OpDef::onnx("PRelu", 16, |ctx| ctx.one(PRelu)),
    OpDef::onnx("Max", 13, |ctx| variadic(ctx, Binary::Max, false)),
    OpDef::onnx("Min", 13, |ctx| variadic(ctx, Binary::Min, false)),
    OpDef::onnx("Sum", 13, |ctx| variadic(ctx, Binary::Add, false)),
    OpDef::onnx("Mean", 13, |ctx| variadic(ctx, Binary::Add, true)),
];

/// One rounded operation an element. Integers wrap; their division rounds toward zero, and by zero fails.
struct Arith(Binary);

impl Op for Arith {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        infer_binary(inputs)?;
        fold(self, inputs, || infer_binary(inputs))
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.iter().map(|f| f.numel().unwrap_or(0) as u64).sum()
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        of_broadcast(operands, batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![arith(ctx, self.0, inputs.take(0)?, inputs.take(1)?)?])
    }

    fn blockwise(&self) -> Option<&dyn Blockwise> {
        Some(self)
    }

    fn stage(&self) -> Option<Stage> {
        match self.0 {
            Binary::Add => Some(Stage::Add),
            Binary::Mul => Some(Stage::Mul),
            _ => None,
        }
    }
}

impl Blockwise for Arith {
    fn role(&self) -> Role {
        Role::Keeps { operands: 2 }
    }

    fn run_blocked(
        &self,
        ctx: &RunCtx<'_>,
        operands: Vec<Option<Value>>,
        tail: &[Tail],
        to: Option<Wanted>,
    ) -> Result<(Value, usize), OpError> {
        let mut operands = operands;
        let gate = |t: &Value, x: &Blocked| {
            let [batch, channels, ..] = x.shape();
            let fits = |t: &&Tensor| *t.shape() == [batch, channels, 1, 1] && t.dtype() == DType::F32;
            t.as_tensor().filter(fits).cloned()
        };
        // One value a channel, in either place: only where the operands' order has no say.
        let gated = match &operands[..] {
            _ if to.is_none() || !matches!(self.0, Binary::Add | Binary::Mul) => None,
            [Some(Value::Blocked(x)), Some(other)] => gate(other, x).map(|t| (0, t)),
            [Some(other), Some(Value::Blocked(x))] => gate(other, x).map(|t| (1, t)),
            _ => None,
        };
        if let Some((i, gate)) = gated
            && let Some(Value::Blocked(x)) = operands[i].take()
        {
            let value = match to {
                Some(Wanted { gated: true, .. }) if self.0 == Binary::Mul => {
                    Value::Gated(Gated { images: x, gate })
                }
                _ => Value::Blocked(x.gated(ctx, self.0, &gate)?),
            };
            return Ok((value, 0));
        }
        let result = match (&operands[..], to) {
            ([Some(Value::Blocked(a)), Some(Value::Blocked(b))], Some(to)) if a.shape() == b.shape() => a
                .map(ctx, to.border, |exec, layout, y| {
                    let (a, b) = ((a.layout(), a.elements()), (b.layout(), b.elements()));
                    blocked::binary(exec, self.0, a, b, layout, y);
                })?,
            _ => None,
        };
        match result {
            Some(y) => Ok((Value::Blocked(y), 0)),
            None => run_plain(self, ctx, operands, tail),
        }
    }
}

fn infer_binary(inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
    let (a, b) = (fact(inputs, 0), fact(inputs, 1));
    if let (Some(a), Some(b)) = (a.dtype, b.dtype)
        && a != b
    {
        return Err(OpError::input(format!("operands of types {a} and {b}; both must be of one type")));
    }
    if let Some(t) = a.dtype.or(b.dtype).filter(|&t| !number(t)) {
        return Err(OpError::unsupported_type(t));
    }
    Ok(vec![Fact::new(a.dtype.or(b.dtype), broadcast_facts(&[a, b])?)])
}

/// The types that arithmetic is written for.
pub(crate) fn number(t: DType) -> bool {
    let float = matches!(t, DType::F32 | DType::F16 | DType::BF16 | DType::F64);
    float || t.is_int() && t.bits() >= 8
}

/// `f(a, b)` with broadcasting.
pub(crate) fn arith(ctx: &RunCtx<'_>, f: Binary, a: Tensor, b: Tensor) -> Result<Tensor, OpError> {
    if a.dtype() != b.dtype() {
        return Err(OpError::input(format!("operands of types {} and {}", a.dtype(), b.dtype())));
    }
    if a.dtype() == DType::F32 {
        return arith_f32(ctx, f, a, b);
    }
    let shape = broadcast(&[a.shape(), b.shape()])?;
    typed!(numbers a.dtype(), T => {
        let (x, y) = (a.as_slice::<T>()?, b.as_slice::<T>()?);
        let mut out = ctx.memory.alloc::<T>(&shape)?;
        let (x, y) = ((x, a.shape()), (y, b.shape()));
        let mut by_zero = false;
        match f {
            Binary::Add => zip(ctx.exec, &shape, x, y, &mut out, |a, b| a.plus(*b)),
            Binary::Sub => zip(ctx.exec, &shape, x, y, &mut out, |a, b| a.minus(*b)),
            Binary::Mul => zip(ctx.exec, &shape, x, y, &mut out, |a, b| a.times(*b)),
            Binary::Max => zip(ctx.exec, &shape, x, y, &mut out, |a, b| a.larger(*b)),
            Binary::Min => zip(ctx.exec, &shape, x, y, &mut out, |a, b| a.smaller(*b)),
            Binary::Div => {
                let failed = AtomicBool::new(false);
                zip(ctx.exec, &shape, x, y, &mut out, |a, b| {
                    a.over(*b).unwrap_or_else(|| {
                        failed.store(true, Relaxed);
                        T::ZERO
                    })
                });
                by_zero = failed.into_inner();
            }
            _ => return Err(OpError::new(Code::UnsupportedOperator, format!("{f:?}"))),
        }
        if by_zero {
            return Err(OpError::new(Code::DivisionByZero, "an integer is divided by zero"));
        }
        Ok(Tensor::new(&shape, out)?)
    })
}

/// Quotients: integers toward zero, `None` by zero; the most negative by -1 wraps.
trait Quotient: Number {
    fn over(self, other: Self) -> Option<Self>;
}

macro_rules! quotients {
    (ints $($i:ty),*; floats $($f:ty),*) => {
        $(impl Quotient for $i {
            fn over(self, other: Self) -> Option<Self> {
                (other != 0).then(|| self.wrapping_div(other))
            }
        })*
        $(impl Quotient for $f {
            fn over(self, other: Self) -> Option<Self> {
                Some(self / other)
            }
        })*
    };
}
quotients!(ints i8, i16, i32, i64, u8, u16, u32, u64; floats f32, f64);

impl Quotient for f16 {
    fn over(self, other: Self) -> Option<Self> {
        Some(f16::from_f32(self.to_f32() / other.to_f32()))
    }
}

impl Quotient for bf16 {
    fn over(self, other: Self) -> Option<Self> {
        Some(bf16::from_f32(self.to_f32() / other.to_f32()))
    }
}

fn arith_f32(ctx: &RunCtx<'_>, f: Binary, a: Tensor, b: Tensor) -> Result<Tensor, OpError> {
    if a.shape() == b.shape() {
        let shape: Vec<usize> = a.shape().to_vec();
        let n = a.len();
        return match (a.try_unique::<f32>(), b) {
            (Ok((_, mut x)), b) => {
                elementwise::binary_in_place(ctx.exec, f, &mut x, Operand::Full(b.as_slice()?), n, false);
                Ok(Tensor::new(&shape, x)?)
            }
            (Err(a), b) => match b.try_unique::<f32>() {
                Ok((_, mut x)) => {
                    elementwise::binary_in_place(ctx.exec, f, &mut x, Operand::Full(a.as_slice()?), n, true);
                    Ok(Tensor::new(&shape, x)?)
                }
                Err(b) => {
                    let mut out = ctx.memory.alloc::<f32>(&shape)?;
                    let (a, b) = (Operand::Full(a.as_slice()?), Operand::Full(b.as_slice()?));
                    elementwise::binary(ctx.exec, f, a, b, n, &mut out);
                    Ok(Tensor::new(&shape, out)?)
                }
            },
        };
    }
    let shape = broadcast(&[a.shape(), b.shape()])?;
    if a.shape() == &shape[..] {
        if let Some(split) = split(b.shape(), &shape) {
            return repeat(ctx, f, a, &b, split, false);
        }
    } else if b.shape() == &shape[..]
        && let Some(split) = split(a.shape(), &shape)
    {
        return repeat(ctx, f, b, &a, split, true);
    }
    let mut out = ctx.memory.alloc::<f32>(&shape)?;
    let walk = Walk::broadcast(&shape, [a.shape(), b.shape()]);
    let (x, y, steps) = (a.as_slice::<f32>()?, b.as_slice::<f32>()?, walk.run_strides());
    if steps.iter().all(|s| matches!(s, 0 | 1)) {
        walk.each_row(ctx.exec, &mut out, |[i, j], row| {
            elementwise::run(ctx.exec, f, run(x, i, steps[0]), run(y, j, steps[1]), row);
        });
    } else {
        zip(ctx.exec, &shape, (x, a.shape()), (y, b.shape()), &mut out, |&a, &b| f.scalar(a, b));
    }
    Ok(Tensor::new(&shape, out)?)
}

/// The elements of an operand in a run that begins at `at`, a `step` of 0 or 1 apart.
pub(crate) fn run(x: &[f32], at: usize, step: isize) -> Part<'_> {
    if step == 0 { Part::One(x[at]) } else { Part::Many(&x[at..]) }
}

/// `(before, own, after)` extents where the operand has all extents of `shape` in one block and 1 elsewhere.
fn split(operand: &[usize], shape: &[usize]) -> Option<(usize, usize, usize)> {
    let mut own = vec![1; shape.len() - operand.len()];
    own.extend_from_slice(operand);
    let varies = |i: &usize| own[*i] != 1;
    let first = (0..shape.len()).find(varies).unwrap_or(shape.len());
    let end = (0..shape.len()).rfind(varies).map_or(first, |i| i + 1);
    let whole = (first..end).all(|i| own[i] == shape[i]);
    let product = |s: &[usize]| s.iter().product::<usize>();
    whole.then(|| (product(&shape[..first]), product(&shape[first..end]), product(&shape[end..])))
}

/// `f(full, other)` where `other` repeats before and after its own block of extents.
fn repeat(
    ctx: &RunCtx<'_>,
    f: Binary,
    full: Tensor,
    other: &Tensor,
    (before, own, after): (usize, usize, usize),
    exchanged: bool,
) -> Result<Tensor, OpError> {
    let shape: Vec<usize> = full.shape().to_vec();
    let mut x = owned(ctx, full)?;
    let b: &[f32] = other.as_slice()?;
    if x.is_empty() {
        return Ok(Tensor::new(&shape, x)?);
    }
    if own == 1 {
        let n = x.len();
        elementwise::binary_in_place(ctx.exec, f, &mut x, Operand::Column(b), n, exchanged);
    } else if after == 1 {
        elementwise::binary_in_place(ctx.exec, f, &mut x, Operand::Row(b), own, exchanged);
    } else {
        debug_assert_eq!(x.len(), before * own * after);
        for block in x.chunks_exact_mut(own * after) {
            elementwise::binary_in_place(ctx.exec, f, block, Operand::Column(b), after, exchanged);
        }
    }
    Ok(Tensor::new(&shape, x)?)
}

/// An f32 copy of an f32, f16 or bf16 tensor's elements, exact.
pub(crate) fn widen(t: &Tensor) -> Result<Vec<f32>, OpError> {
    match t.dtype() {
        DType::F32 => Ok(t.as_slice::<f32>()?.to_vec()),
        DType::F16 => Ok(t.as_slice::<f16>()?.iter().map(|x| x.to_f32()).collect()),
        DType::BF16 => Ok(t.as_slice::<bf16>()?.iter().map(|x| x.to_f32()).collect()),
        other => Err(OpError::unsupported_type(other)),
    }
}

/// As [`widen`], without a copy of what is f32.
pub(crate) fn floats(t: &Tensor) -> Result<Cow<'_, [f32]>, OpError> {
    match t.dtype() {
        DType::F32 => Ok(Cow::Borrowed(t.as_slice()?)),
        _ => widen(t).map(Cow::Owned),
    }
}

/// The tensor of `dtype` (f32, f16 or bf16) with these elements, each rounded once.
pub(crate) fn narrow(dtype: DType, shape: &[usize], x: Vec<f32>) -> Result<Tensor, OpError> {
    Ok(match dtype {
        DType::F32 => Tensor::new(shape, x)?,
        DType::F16 => Tensor::new(shape, x.into_iter().map(f16::from_f32).collect())?,
        DType::BF16 => Tensor::new(shape, x.into_iter().map(bf16::from_f32).collect())?,
        other => return Err(OpError::unsupported_type(other)),
    })
}

/// Runs an f32 computation on a tensor of f32, f16 or bf16, in place where it can be.
pub(crate) fn through_f32(
    ctx: &RunCtx<'_>,
    t: Tensor,
    f: impl FnOnce(&mut [f32]) -> Result<(), OpError>,
) -> Result<Tensor, OpError> {
    let (dtype, shape) = (t.dtype(), t.shape().to_vec());
    let mut x = match t.dtype() {
        DType::F32 => owned(ctx, t)?,
        _ => widen(&t)?,
    };
    f(&mut x)?;
    narrow(dtype, &shape, x)
}

/// The elements of an f32 tensor: its own memory where nobody else holds it, else a copy.
pub(crate) fn owned(ctx: &RunCtx<'_>, t: Tensor) -> Result<Vec<f32>, OpError> {
    match t.try_unique::<f32>() {
        Ok((_, x)) => Ok(x),
        Err(shared) => {
            let n = shared.len();
            let mut x = buffer(n);
            isobit_kernels::copy(ctx.exec, shared.as_slice()?, &mut x);
            Ok(x)
        }
    }
}

/// Left to right over any number of operands; Mean divides the sum by their number. f16 and bf16 compute in f32 and
/// round once, at the end.
struct Variadic {
    f: Binary,
    mean: bool,
}

fn variadic(ctx: &BuildCtx<'_>, f: Binary, mean: bool) -> Result<Box<dyn Op>, OpError> {
    if ctx.node.inputs.is_empty() {
        return Err(OpError::input("no operands; give 1 or more"));
    }
    ctx.one(Variadic { f, mean })
}

impl Variadic {
    fn accepts(&self, t: DType) -> bool {
        match self.f {
            Binary::Add => matches!(t, DType::F32 | DType::F16 | DType::BF16 | DType::F64),
            _ => number(t),
        }
    }
}

impl Op for Variadic {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().flatten().collect();
        let dtype = facts.iter().find_map(|f| f.dtype);
        if let Some(t) = dtype.filter(|&t| !self.accepts(t)) {
            return Err(OpError::unsupported_type(t));
        }
        if let Some(other) = facts.iter().find(|f| f.dtype.is_some() && f.dtype != dtype) {
            let types = (dtype.map(DType::name), other.dtype.map(DType::name));
            return Err(OpError::input(format!("operands of types {types:?}; all must be of one type")));
        }
        fold(self, inputs, || Ok(vec![Fact::new(dtype, broadcast_facts(&facts)?)]))
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let n = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
        n.saturating_mul(inputs.len() as u64)
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        of_broadcast(operands, batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let n = inputs.len();
        let dtype = inputs.get(0)?.dtype();
        let small = matches!(dtype, DType::F16 | DType::BF16);
        let mut next = |i: usize| {
            let t = inputs.take(i)?;
            match small && t.dtype() == dtype {
                true => Ok::<_, OpError>(Tensor::new(t.shape(), widen(&t)?)?),
                false => Ok(t),
            }
        };
        let mut acc = next(0)?;
        for i in 1..n {
            acc = arith(ctx, self.f, acc, next(i)?)?;
        }
        if self.mean {
            acc = match dtype {
                DType::F64 => arith(ctx, Binary::Div, acc, Tensor::scalar(n as f64))?,
                _ => arith(ctx, Binary::Div, acc, Tensor::scalar(n as f32))?,
            };
        }
        if small {
            let shape = acc.shape().to_vec();
            acc = narrow(dtype, &shape, acc.into_vec()?)?;
        }
        Ok(vec![acc])
    }
}

fn leaky<T: Number>(x: T, slope: T) -> T {
    if x < T::ZERO { slope.times(x) } else { x }
}

/// slope * x below zero, else x; the slope broadcasts to x.
struct PRelu;

impl Op for PRelu {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        infer_binary(inputs)?;
        fold(self, inputs, || {
            let x = fact(inputs, 0);
            Ok(vec![Fact::new(x.dtype, x.shape.clone())])
        })
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        of_broadcast(operands, batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, slope) = (inputs.get(0)?, inputs.get(1)?);
        let shape = broadcast(&[x.shape(), slope.shape()])?;
        if &shape[..] != x.shape() {
            return Err(OpError::shape(format!(
                "a slope of shape {:?} does not broadcast to {:?}",
                slope.shape(),
                x.shape()
            )));
        }
        typed!(numbers x.dtype(), T => {
            let mut out = ctx.memory.alloc::<T>(&shape)?;
            let (x, slope) = ((x.as_slice::<T>()?, x.shape()), (slope.as_slice::<T>()?, slope.shape()));
            zip(ctx.exec, &shape, x, slope, &mut out, |x, slope| leaky(*x, *slope));
            Ok(vec![Tensor::new(&shape, out)?])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_that_repeat_in_one_block() {
        assert_eq!(split(&[4], &[2, 3, 4]), Some((6, 4, 1)));
        assert_eq!(split(&[3, 1], &[2, 3, 4]), Some((2, 3, 4)));
        assert_eq!(split(&[], &[2, 3]), Some((6, 1, 1)));
        assert_eq!(split(&[2, 1, 4], &[2, 3, 4]), None);
    }
}
