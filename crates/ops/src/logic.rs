//! Logic, comparison and bits: And, Or, Xor, Not, Equal, Less, LessOrEqual, Greater, GreaterOrEqual,
//! Where, IsNaN, IsInf, BitwiseAnd, BitwiseOr, BitwiseXor, BitwiseNot, BitShift.
//!
//! Comparisons with a NaN are false; -0 equals +0.

use isobit_kernels::elementwise;
use isobit_tensor::{DType, Element, Tensor};

use crate::arith::{owned, run};
use crate::axes::fact;
use crate::broadcast::{Walk, broadcast, broadcast_facts, zip};
use crate::cast::convert;
use crate::entries::{each_alone, of_broadcast};
use crate::fold::fold;
use crate::number::Number;
use crate::shape::expand;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("And", 7, |ctx| ctx.one(Binary::And)),
    OpDef::onnx("Or", 7, |ctx| ctx.one(Binary::Or)),
    OpDef::onnx("Xor", 7, |ctx| ctx.one(Binary::Xor)),
    OpDef::onnx("Equal", 19, |ctx| ctx.one(Binary::Equal)),
    OpDef::onnx("Less", 13, |ctx| ctx.one(Binary::Less)),
    OpDef::onnx("LessOrEqual", 16, |ctx| ctx.one(Binary::LessOrEqual)),
    OpDef::onnx("Greater", 13, |ctx| ctx.one(Binary::Greater)),
    OpDef::onnx("GreaterOrEqual", 16, |ctx| ctx.one(Binary::GreaterOrEqual)),
    OpDef::onnx("BitwiseAnd", 18, |ctx| ctx.one(Binary::BitAnd)),
    OpDef::onnx("BitwiseOr", 18, |ctx| ctx.one(Binary::BitOr)),
    OpDef::onnx("BitwiseXor", 18, |ctx| ctx.one(Binary::BitXor)),
    OpDef::onnx("BitShift", 11, bit_shift),
    OpDef::onnx("Not", 1, |ctx| ctx.one(Unary::Not)),
    OpDef::onnx("BitwiseNot", 18, |ctx| ctx.one(Unary::BitNot)),
    OpDef::onnx("IsNaN", 20, |ctx| ctx.one(Unary::IsNan)),
    OpDef::onnx("IsInf", 20, |ctx| {
        let (negative, positive) = (ctx.flag("detect_negative", true)?, ctx.flag("detect_positive", true)?);
        ctx.one(Unary::IsInf { negative, positive })
    }),
    OpDef::onnx("Where", 16, |ctx| ctx.one(Where)),
];

#[derive(Clone, Copy, PartialEq)]
enum Binary {
    And,
    Or,
    Xor,
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    BitAnd,
    BitOr,
    BitXor,
    ShiftLeft,
    ShiftRight,
}

fn bit_shift(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    match ctx.opt_str("direction")? {
        Some("LEFT") => ctx.one(Binary::ShiftLeft),
        Some("RIGHT") => ctx.one(Binary::ShiftRight),
        other => Err(OpError::attribute(format!("direction {other:?}; accepted: LEFT, RIGHT"))),
    }
}

impl Binary {
    fn keeps_type(self) -> bool {
        use Binary::*;
        matches!(self, BitAnd | BitOr | BitXor | ShiftLeft | ShiftRight)
    }
}

/// Shifting by the width or more, or by a negative number, moves every bit out.
fn distance(shift: impl Into<i128>) -> u32 {
    u32::try_from(shift.into()).unwrap_or(64).min(64)
}

fn map2<T: Element, O: Element>(
    ctx: &RunCtx<'_>,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(&T, &T) -> O + Sync,
) -> Result<Tensor, OpError> {
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let mut out = ctx.memory.alloc::<O>(&shape)?;
    zip(ctx.exec, &shape, (a.as_slice()?, a.shape()), (b.as_slice()?, b.shape()), &mut out, f);
    Ok(Tensor::new(&shape, out)?)
}

impl Op for Binary {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let (a, b) = (fact(inputs, 0), fact(inputs, 1));
            let dtype = if self.keeps_type() { a.dtype.or(b.dtype) } else { Some(DType::Bool) };
            Ok(vec![Fact::new(dtype, broadcast_facts(&[a, b])?)])
        })
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        of_broadcast(operands, batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        use Binary::*;
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let t = a.dtype();
        let out = match self {
            And => map2::<bool, bool>(ctx, a, b, |a, b| a & b),
            Or => map2::<bool, bool>(ctx, a, b, |a, b| a | b),
            Xor => map2::<bool, bool>(ctx, a, b, |a, b| a ^ b),
            Equal => typed!(t, T => map2::<T, bool>(ctx, a, b, |a, b| a == b)),
            Less => typed!(numbers t, T => map2::<T, bool>(ctx, a, b, |a, b| a < b)),
            LessOrEqual => typed!(numbers t, T => map2::<T, bool>(ctx, a, b, |a, b| a <= b)),
            Greater => typed!(numbers t, T => map2::<T, bool>(ctx, a, b, |a, b| a > b)),
            GreaterOrEqual => typed!(numbers t, T => map2::<T, bool>(ctx, a, b, |a, b| a >= b)),
            BitAnd => typed!(ints t, T => map2::<T, T>(ctx, a, b, |a, b| a & b)),
            BitOr => typed!(ints t, T => map2::<T, T>(ctx, a, b, |a, b| a | b)),
            BitXor => typed!(ints t, T => map2::<T, T>(ctx, a, b, |a, b| a ^ b)),
            ShiftLeft => typed!(ints t, T => map2::<T, T>(ctx, a, b, |&a, &b| {
                (i128::from(a) << distance(b)) as T
            })),
            ShiftRight => typed!(ints t, T => map2::<T, T>(ctx, a, b, |&a, &b| {
                (i128::from(a) >> distance(b)) as T
            })),
        };
        Ok(vec![out?])
    }
}

enum Unary {
    Not,
    BitNot,
    IsNan,
    IsInf { negative: bool, positive: bool },
}

fn map<T: Element, O: Element>(ctx: &RunCtx<'_>, a: &Tensor, f: impl Fn(&T) -> O) -> Result<Tensor, OpError> {
    let mut out = ctx.memory.alloc::<O>(a.shape())?;
    out.iter_mut().zip(a.as_slice::<T>()?).for_each(|(o, a)| *o = f(a));
    Ok(Tensor::new(a.shape(), out)?)
}

impl Op for Unary {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let a = fact(inputs, 0);
            let dtype = if matches!(self, Unary::BitNot) { a.dtype } else { Some(DType::Bool) };
            Ok(vec![Fact::new(dtype, a.shape.clone())])
        })
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        each_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let a = inputs.get(0)?;
        let wide;
        let a = match self {
            Unary::IsNan | Unary::IsInf { .. } if a.dtype().is_small() && !a.dtype().is_int() => {
                wide = convert(ctx, a.clone(), DType::F32)?;
                &wide
            }
            _ => a,
        };
        let t = a.dtype();
        let out = match *self {
            Unary::Not => map::<bool, bool>(ctx, a, |a| !a),
            Unary::BitNot => typed!(ints t, T => map::<T, T>(ctx, a, |a| !a)),
            Unary::IsNan if t == DType::F32 => {
                let mut out = ctx.memory.alloc::<bool>(a.shape())?;
                elementwise::is_nan(ctx.exec, a.as_slice()?, &mut out);
                Ok(Tensor::new(a.shape(), out)?)
            }
            Unary::IsNan => typed!(floats t, T => map::<T, bool>(ctx, a, |a| a.nan())),
            Unary::IsInf { negative, positive } => typed!(floats t, T => map::<T, bool>(ctx, a, |a| {
                let a = a.wide();
                positive && a == f64::INFINITY || negative && a == f64::NEG_INFINITY
            })),
        };
        Ok(vec![out?])
    }
}

struct Where;

impl Op for Where {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let (c, x, y) = (fact(inputs, 0), fact(inputs, 1), fact(inputs, 2));
            Ok(vec![Fact::new(x.dtype.or(y.dtype), broadcast_facts(&[c, x, y])?)])
        })
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        of_broadcast(operands, batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let y = inputs.take(2)?;
        let (c, x) = (inputs.get(0)?, inputs.get(1)?);
        if [x, &y].iter().all(|t| t.dtype() == DType::F32) {
            return Ok(vec![select_f32(ctx, c, x, y)?]);
        }
        let out = typed!(x.dtype(), T => select::<T>(ctx, c, x, &y))?;
        Ok(vec![out])
    }
}

/// As [`select`] where runs are of elements side by side: `y`, in its own memory if nobody else needs it, and `x` in its places.
fn select_f32(ctx: &RunCtx<'_>, c: &Tensor, x: &Tensor, y: Tensor) -> Result<Tensor, OpError> {
    let shape = broadcast(&[c.shape(), x.shape(), y.shape()])?;
    ctx.memory.check::<f32>(&shape)?;
    let walk = Walk::broadcast(&shape, [c.shape(), x.shape()]);
    let [c_step, x_step] = walk.run_strides();
    if c_step != 1 || !matches!(x_step, 0 | 1) {
        return select::<f32>(ctx, c, x, &y);
    }
    // Not through a clone: that would not be the only holder.
    let y = if *y.shape() == *shape { y } else { expand(ctx, &y, &shape)? };
    let mut out = owned(ctx, y)?;
    let (c, x) = (c.as_slice::<bool>()?, x.as_slice::<f32>()?);
    walk.each_row(ctx.exec, &mut out, |[i, j], row| {
        elementwise::replace(ctx.exec, &c[i..], run(x, j, x_step), row);
    });
    Ok(Tensor::new(&shape, out)?)
}

fn select<T: Element>(ctx: &RunCtx<'_>, c: &Tensor, x: &Tensor, y: &Tensor) -> Result<Tensor, OpError> {
    let shape = broadcast(&[c.shape(), x.shape(), y.shape()])?;
    let mut out = ctx.memory.alloc::<T>(&shape)?;
    let walk = Walk::broadcast(&shape, [c.shape(), x.shape(), y.shape()]);
    let (n, steps) = (walk.run_len(), walk.run_strides());
    let (c, x, y) = (c.as_slice::<bool>()?, x.as_slice::<T>()?, y.as_slice::<T>()?);
    let pick = |c: bool, x: &T, y: &T| if c { x.clone() } else { y.clone() };
    walk.each_row(ctx.exec, &mut out, |at, row| {
        let [c_at, x_at, y_at] = at;
        match steps {
            [1, 1, 1] => {
                let operands = c[c_at..c_at + n].iter().zip(&x[x_at..x_at + n]).zip(&y[y_at..y_at + n]);
                return row.iter_mut().zip(operands).for_each(|(o, ((&c, x), y))| *o = pick(c, x, y));
            }
            [1, 1, 0] => {
                let operands = c[c_at..c_at + n].iter().zip(&x[x_at..x_at + n]);
                return row.iter_mut().zip(operands).for_each(|(o, (&c, x))| *o = pick(c, x, &y[y_at]));
            }
            [1, 0, 1] => {
                let operands = c[c_at..c_at + n].iter().zip(&y[y_at..y_at + n]);
                return row.iter_mut().zip(operands).for_each(|(o, (&c, y))| *o = pick(c, &x[x_at], y));
            }
            _ => {}
        }
        for (i, o) in row.iter_mut().enumerate() {
            let [c_at, x_at, y_at]: [usize; 3] =
                std::array::from_fn(|k| at[k].wrapping_add_signed(steps[k] * i as isize));
            o.clone_from(if c[c_at] { &x[x_at] } else { &y[y_at] });
        }
    });
    Ok(Tensor::new(&shape, out)?)
}
