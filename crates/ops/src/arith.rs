//! Arithmetic of two operands with broadcasting: Add, Sub, Mul, Div, Max, Min, Pow; and of any number: Sum, Mean.

use isobit_kernels::elementwise::{self, Binary, Operand};
use isobit_numerics as num;
use isobit_tensor::{DType, Tensor, bf16, f16};

use crate::axes::{fact, ints};
use crate::broadcast::{broadcast, broadcast_facts, zip};
use crate::fold::fold;
use crate::number::Number;
use crate::typed::typed;
use crate::{BuildCtx, Code, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Add", 14, |_| Ok(Box::new(Arith(Binary::Add)))),
    OpDef::onnx("Sub", 14, |_| Ok(Box::new(Arith(Binary::Sub)))),
    OpDef::onnx("Mul", 14, |_| Ok(Box::new(Arith(Binary::Mul)))),
    OpDef::onnx("Div", 14, |_| Ok(Box::new(Arith(Binary::Div)))),
    OpDef::onnx("Pow", 15, |_| Ok(Box::new(Pow))),
    OpDef::onnx("Max", 13, |ctx| variadic(ctx, Binary::Max, false)),
    OpDef::onnx("Min", 13, |ctx| variadic(ctx, Binary::Min, false)),
    OpDef::onnx("Sum", 13, |ctx| variadic(ctx, Binary::Add, false)),
    OpDef::onnx("Mean", 13, |ctx| variadic(ctx, Binary::Add, true)),
];

/// One rounded operation an element. Integers wrap; their division rounds toward zero, and by zero fails.
struct Arith(Binary);

impl Op for Arith {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || infer_binary(inputs))
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.iter().map(|f| f.numel().unwrap_or(0) as u64).sum()
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![arith(ctx, self.0, inputs.take(0)?, inputs.take(1)?)?])
    }
}

fn infer_binary(inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
    let (a, b) = (fact(inputs, 0), fact(inputs, 1));
    if let (Some(a), Some(b)) = (a.dtype, b.dtype) {
        if a != b {
            return Err(OpError::input(format!("operands of types {a} and {b}; both must be of one type")));
        }
        if matches!(a, DType::Bool | DType::String) || a.bits() == 0 {
            return Err(OpError::unsupported_type(a));
        }
    }
    Ok(vec![Fact::new(a.dtype.or(b.dtype), broadcast_facts(&[a, b])?)])
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
            Binary::Add => zip(&shape, x, y, &mut out, |a, b| a.plus(*b)),
            Binary::Sub => zip(&shape, x, y, &mut out, |a, b| a.minus(*b)),
            Binary::Mul => zip(&shape, x, y, &mut out, |a, b| a.times(*b)),
            Binary::Max => zip(&shape, x, y, &mut out, |a, b| a.larger(*b)),
            Binary::Min => zip(&shape, x, y, &mut out, |a, b| a.smaller(*b)),
            Binary::Div => {
                let failed = std::cell::Cell::new(false);
                zip(&shape, x, y, &mut out, |a, b| {
                    a.over(*b).unwrap_or_else(|| {
                        failed.set(true);
                        T::ZERO
                    })
                });
                by_zero = failed.get();
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
    } else if b.shape() == &shape[..] {
        if let Some(split) = split(a.shape(), &shape) {
            return repeat(ctx, f, b, &a, split, true);
        }
    }
    let mut out = ctx.memory.alloc::<f32>(&shape)?;
    zip(&shape, (a.as_slice()?, a.shape()), (b.as_slice()?, b.shape()), &mut out, |&a, &b| f.scalar(a, b));
    Ok(Tensor::new(&shape, out)?)
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
    let mut x = match full.try_unique::<f32>() {
        Ok((_, x)) => x,
        Err(shared) => {
            let mut x = ctx.memory.alloc::<f32>(&shape)?;
            x.copy_from_slice(shared.as_slice()?);
            x
        }
    };
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

/// x^y. f32 as `isobit_numerics::pow`, an integer exponent converted to f32; integers by wrapping
/// multiplication, a negative exponent fails.
struct Pow;

impl Op for Pow {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let (a, b) = (fact(inputs, 0), fact(inputs, 1));
            if let Some(t) = a
                .dtype
                .filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::I64))
            {
                return Err(OpError::unsupported_type(t));
            }
            Ok(vec![Fact::new(a.dtype, broadcast_facts(&[a, b])?)])
        })
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.iter().map(|f| 8 * f.numel().unwrap_or(0) as u64).sum()
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, y) = (inputs.take(0)?, inputs.take(1)?);
        let shape = broadcast(&[x.shape(), y.shape()])?;
        if matches!(x.dtype(), DType::I32 | DType::I64) && y.dtype().is_int() {
            return Ok(vec![pow_int(ctx, &shape, &x, &y)?]);
        }
        let base = widen(&x)?;
        let exponent: Vec<f32> = typed!(numbers y.dtype(), T => {
            Ok::<_, OpError>(y.as_slice::<T>()?.iter().map(|v| v.wide() as f32).collect())
        })?;
        let mut out = ctx.memory.alloc::<f32>(&shape)?;
        match exponent[..] {
            [2.0] if x.shape() == &shape[..] => out.iter_mut().zip(&base).for_each(|(o, x)| *o = x * x),
            [3.0] if x.shape() == &shape[..] => out.iter_mut().zip(&base).for_each(|(o, x)| *o = cube(*x)),
            _ => zip(&shape, (&base, x.shape()), (&exponent, y.shape()), &mut out, |&a, &b| num::pow(a, b)),
        }
        Ok(vec![narrow(x.dtype(), &shape, out)?])
    }
}

/// `pow(x, 3)`: from f64, where its error bound leaves no doubt about the rounding.
fn cube(x: f32) -> f32 {
    let d = f64::from(x);
    let y = d * d * d;
    let error = y * (1.0 / (1u64 << 50) as f64);
    let (a, b) = ((y - error) as f32, (y + error) as f32);
    if a == b && a != 0.0 { a } else { num::pow(x, 3.0) }
}

fn pow_int(ctx: &RunCtx<'_>, shape: &[usize], x: &Tensor, y: &Tensor) -> Result<Tensor, OpError> {
    let exponent = ints(y)?;
    if let Some(e) = exponent.iter().find(|e| **e < 0) {
        return Err(OpError::input(format!("an integer to the power {e}; cast it to a float type first")));
    }
    macro_rules! go {
        ($t:ty) => {{
            let mut out = ctx.memory.alloc::<$t>(shape)?;
            zip(shape, (x.as_slice::<$t>()?, x.shape()), (&exponent, y.shape()), &mut out, |&a, &e| {
                let (mut result, mut base, mut e) = (1 as $t, a, e);
                while e > 0 {
                    if e & 1 == 1 {
                        result = result.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    e >>= 1;
                }
                result
            });
            Ok(Tensor::new(shape, out)?)
        }};
    }
    if x.dtype() == DType::I32 { go!(i32) } else { go!(i64) }
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
    t: Tensor,
    f: impl FnOnce(&mut [f32]) -> Result<(), OpError>,
) -> Result<Tensor, OpError> {
    let (dtype, shape) = (t.dtype(), t.shape().to_vec());
    let mut x = match t.try_unique::<f32>() {
        Ok((_, x)) => x,
        Err(t) => widen(&t)?,
    };
    f(&mut x)?;
    narrow(dtype, &shape, x)
}

/// Left to right over any number of operands; Mean divides the sum by their number.
struct Variadic {
    f: Binary,
    mean: bool,
}

fn variadic(_: &BuildCtx<'_>, f: Binary, mean: bool) -> Result<Box<dyn Op>, OpError> {
    Ok(Box::new(Variadic { f, mean }))
}

impl Op for Variadic {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let facts: Vec<&Fact> = inputs.iter().flatten().collect();
            let dtype = facts.iter().find_map(|f| f.dtype);
            Ok(vec![Fact::new(dtype, broadcast_facts(&facts)?)])
        })
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let n = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
        n.saturating_mul(inputs.len() as u64)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let n = inputs.len();
        let mut acc = inputs.take(0)?;
        for i in 1..n {
            acc = arith(ctx, self.f, acc, inputs.take(i)?)?;
        }
        if self.mean {
            let n = n as f32;
            acc = through_f32(acc, |x| {
                x.iter_mut().for_each(|x| *x /= n);
                Ok(())
            })?;
        }
        Ok(vec![acc])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubes_are_powers() {
        let mut rng = num::rng::Rng::new(5, 0);
        for _ in 0..200_000 {
            let x = rng.f32_any();
            let (a, b) = (cube(x), num::pow(x, 3.0));
            assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{x:e}");
        }
    }

    #[test]
    fn operands_that_repeat_in_one_block() {
        assert_eq!(split(&[4], &[2, 3, 4]), Some((6, 4, 1)));
        assert_eq!(split(&[3, 1], &[2, 3, 4]), Some((2, 3, 4)));
        assert_eq!(split(&[], &[2, 3]), Some((6, 1, 1)));
        assert_eq!(split(&[2, 1, 4], &[2, 3, 4]), None);
    }
}
