//! Cast and CastLike between all element types.
//!
//! To a float: round to nearest even, once. Float to integer: toward zero, saturating, NaN to 0. Integer
//! to a narrower integer: wraps. To a small float: see `narrow`. To bool: whether it is not 0. Strings hold the shortest decimal that
//! reads back as the same number; `NaN`, `INF` and `-INF` for what is not finite.

use isobit_numerics::small::PowerRounding;
use isobit_tensor::{DType, Element, Tensor, bf16, f16};

use crate::axes::fact;
use crate::entries::each_alone;
use crate::fold::fold;
use crate::narrow::{Rounding, narrow, widen};
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Cast", 23, cast), OpDef::onnx("CastLike", 23, cast_like)];

struct Cast {
    /// The type to produce; that of operand 1 where it is not fixed.
    to: Option<DType>,
    rounding: Rounding,
}

fn cast_like(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Cast { to: None, rounding: rounding(ctx)? })
}

fn rounding(ctx: &BuildCtx<'_>) -> Result<Rounding, OpError> {
    let power = match ctx.str("round_mode", "up")? {
        "up" => PowerRounding::Up,
        "down" => PowerRounding::Down,
        "nearest" => PowerRounding::Nearest,
        other => {
            return Err(OpError::attribute(format!("round_mode is {other:?}; give up, down or nearest")));
        }
    };
    Ok(Rounding { saturate: ctx.flag("saturate", true)?, power })
}

fn cast(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let to = ctx.opt_int("to")?;
    let to = to
        .and_then(|to| DType::from_onnx(i32::try_from(to).ok()?))
        .ok_or_else(|| OpError::attribute(format!("attribute 'to' is {to:?}; it must be an element type")))?;
    if matches!(to, DType::Complex64 | DType::Complex128) {
        return Err(OpError::unsupported_type(to));
    }
    ctx.one(Cast { to: Some(to), rounding: rounding(ctx)? })
}

impl Op for Cast {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            Ok(vec![Fact::new(self.to.or(fact(inputs, 1).dtype), fact(inputs, 0).shape.clone())])
        })
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        each_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let to = match self.to {
            Some(to) => to,
            None => inputs.get(1)?.dtype(),
        };
        Ok(vec![convert_with(ctx, inputs.take(0)?, to, self.rounding)?])
    }
}

/// `data` in element type `to`, saturating.
pub(crate) fn convert(ctx: &RunCtx<'_>, data: Tensor, to: DType) -> Result<Tensor, OpError> {
    convert_with(ctx, data, to, Rounding::default())
}

/// `data` in element type `to`.
pub(crate) fn convert_with(
    ctx: &RunCtx<'_>,
    data: Tensor,
    to: DType,
    rounding: Rounding,
) -> Result<Tensor, OpError> {
    if data.dtype() == to {
        return Ok(data);
    }
    let data = if data.dtype().is_small() { widen(ctx, &data)? } else { data };
    if to.is_small() { narrow(ctx, &data, to, rounding) } else { plain(ctx, data, to) }
}

/// Between types of a byte or more.
fn plain(ctx: &RunCtx<'_>, data: Tensor, to: DType) -> Result<Tensor, OpError> {
    fn from<S: Castable>(ctx: &RunCtx<'_>, data: &Tensor, to: DType) -> Result<Tensor, OpError> {
        typed!(plain to, T => {
            let mut out = ctx.memory.alloc::<T>(data.shape())?;
            for (o, s) in out.iter_mut().zip(data.as_slice::<S>()?) {
                *o = T::of(s)?;
            }
            Ok(Tensor::new(data.shape(), out)?)
        })
    }
    if data.dtype() == to {
        return Ok(data);
    }
    typed!(plain data.dtype(), S => from::<S>(ctx, &data, to))
}

/// An element that any other can be read as.
pub(crate) trait Castable: Element {
    fn of<S: Castable>(s: &S) -> Result<Self, OpError>;
    /// Its value exactly, or its text.
    fn value(&self) -> Value<'_>;
}

pub(crate) enum Value<'a> {
    Int(i128),
    F32(f32),
    F64(f64),
    Text(&'a str),
}

fn unread(text: &str, dtype: DType) -> OpError {
    OpError::input(format!("the string {text:?} is no {dtype}"))
}

macro_rules! ints {
    ($($t:ty),*) => {$(
        impl Castable for $t {
            #[inline(always)]
            fn of<S: Castable>(s: &S) -> Result<Self, OpError> {
                match s.value() {
                    Value::Int(v) => Ok(v as $t),
                    Value::F32(v) => Ok(v as $t),
                    Value::F64(v) => Ok(v as $t),
                    Value::Text(v) => v.trim().parse().map_err(|_| unread(v, Self::DTYPE)),
                }
            }
            #[inline(always)]
            fn value(&self) -> Value<'_> {
                Value::Int((*self).into())
            }
        }
    )*};
}
ints!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Castable for f32 {
    #[inline(always)]
    fn of<S: Castable>(s: &S) -> Result<Self, OpError> {
        match s.value() {
            Value::Int(v) => Ok(v as f32),
            Value::F32(v) => Ok(v),
            Value::F64(v) => Ok(v as f32),
            Value::Text(v) => v.trim().parse().map_err(|_| unread(v, Self::DTYPE)),
        }
    }
    #[inline(always)]
    fn value(&self) -> Value<'_> {
        Value::F32(*self)
    }
}

impl Castable for f64 {
    #[inline(always)]
    fn of<S: Castable>(s: &S) -> Result<Self, OpError> {
        match s.value() {
            Value::Int(v) => Ok(v as f64),
            Value::F32(v) => Ok(v.into()),
            Value::F64(v) => Ok(v),
            Value::Text(v) => v.trim().parse().map_err(|_| unread(v, Self::DTYPE)),
        }
    }
    #[inline(always)]
    fn value(&self) -> Value<'_> {
        Value::F64(*self)
    }
}

/// `x` in f32, rounded to odd: an inexact result has its last bit set, so that rounding it once more to
/// 16 bits gives what rounding `x` itself would.
pub(crate) fn odd(x: f64) -> f32 {
    let near = x as f32;
    if f64::from(near) == x || near.is_nan() {
        return near;
    }
    let bits = near.to_bits();
    if bits & 1 == 1 {
        return near;
    }
    // The neighbour on the other side of `x` is odd. Infinity's neighbour is the largest finite number.
    let away = f64::from(near).abs() < x.abs();
    f32::from_bits(if away { bits + 1 } else { bits - 1 })
}

/// `v` in f32, rounded to odd.
pub(crate) fn odd_int(v: i128) -> f32 {
    let near = v as f32;
    // |v| < 2^64, so the rounded value is an exact i128.
    let exact = near as i128;
    if exact == v || near.to_bits() & 1 == 1 {
        return near;
    }
    let away = exact.unsigned_abs() < v.unsigned_abs();
    f32::from_bits(if away { near.to_bits() + 1 } else { near.to_bits() - 1 })
}

macro_rules! halves {
    ($($t:ty),*) => {$(
        impl Castable for $t {
            #[inline(always)]
            fn of<S: Castable>(s: &S) -> Result<Self, OpError> {
                let wide = match s.value() {
                    Value::Int(v) => odd_int(v),
                    Value::F32(v) => v,
                    Value::F64(v) => odd(v),
                    Value::Text(v) => odd(v.trim().parse().map_err(|_| unread(v, Self::DTYPE))?),
                };
                Ok(<$t>::from_f32(wide))
            }
            #[inline(always)]
            fn value(&self) -> Value<'_> {
                Value::F32(self.to_f32())
            }
        }
    )*};
}
halves!(f16, bf16);

impl Castable for bool {
    #[inline(always)]
    fn of<S: Castable>(s: &S) -> Result<Self, OpError> {
        match s.value() {
            Value::Int(v) => Ok(v != 0),
            Value::F32(v) => Ok(v != 0.0),
            Value::F64(v) => Ok(v != 0.0),
            Value::Text(v) => Err(unread(v, Self::DTYPE)),
        }
    }
    #[inline(always)]
    fn value(&self) -> Value<'_> {
        Value::Int((*self).into())
    }
}

impl Castable for String {
    fn of<S: Castable>(s: &S) -> Result<Self, OpError> {
        let not_finite = |x: f64| {
            let text = if x.is_nan() {
                "NaN"
            } else if x > 0.0 {
                "INF"
            } else {
                "-INF"
            };
            text.to_owned()
        };
        Ok(match s.value() {
            Value::Int(v) => v.to_string(),
            Value::F32(v) if v.is_finite() => format!("{v:?}"),
            Value::F32(v) => not_finite(v.into()),
            Value::F64(v) if v.is_finite() => format!("{v:?}"),
            Value::F64(v) => not_finite(v),
            Value::Text(v) => v.to_owned(),
        })
    }
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_saturate_and_integers_wrap() {
        assert_eq!(u8::of(&-1.5f32), Ok(0));
        assert_eq!(i8::of(&300f32), Ok(127));
        assert_eq!(i32::of(&f32::NAN), Ok(0));
        assert_eq!(u8::of(&257i32), Ok(1));
        assert_eq!(bool::of(&f32::NAN), Ok(true));
        assert_eq!(String::of(&f32::NEG_INFINITY), Ok("-INF".into()));
        assert_eq!(f32::of(&"1e-3".to_string()), Ok(1e-3));
        assert!(i32::of(&"x".to_string()).is_err());
    }

    #[test]
    fn sixteen_bits_are_rounded_once() {
        // Just above the midpoint of two f16 numbers: through f32 it would tie and go down.
        let x = 1.0 + f64::from(f16::EPSILON) / 2.0 + 1e-12;
        assert_eq!(f16::of(&x), Ok(f16::from_f32(1.0 + f16::EPSILON.to_f32())));
        let v = (1i64 << 60) + (1 << 52) + 1;
        assert_eq!(bf16::of(&v).unwrap().to_f64(), (1i64 << 60) as f64 + (1i64 << 53) as f64);
        assert_eq!(f16::of(&1e300f64), Ok(f16::INFINITY));
        assert_eq!(f16::of(&i64::MIN), Ok(f16::NEG_INFINITY));
    }
}
