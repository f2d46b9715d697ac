//! Small element types to and from those of a byte or more: widening is exact, narrowing rounds once.

use isobit_numerics::small::{
    E2M1, E2M3, E3M2, E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ, Format, PowerRounding, decode_e8m0, encode_e8m0,
};
use isobit_tensor::{DType, Element, I2, I4, Small, Tensor, U2, U4};

use crate::cast::{Castable, Value, odd_int};
use crate::typed::typed;
use crate::{OpError, RunCtx};

/// What a number outside of a small float's range, and one between two powers of two, becomes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounding {
    pub(crate) saturate: bool,
    pub(crate) power: PowerRounding,
}

impl Default for Rounding {
    fn default() -> Self {
        Self { saturate: true, power: PowerRounding::Up }
    }
}

/// The format of a small float, except E8M0.
fn format(dtype: DType) -> Option<Format> {
    Some(match dtype {
        DType::F8E4M3FN => E4M3FN,
        DType::F8E4M3FNUZ => E4M3FNUZ,
        DType::F8E5M2 => E5M2,
        DType::F8E5M2FNUZ => E5M2FNUZ,
        DType::F6E2M3 => E2M3,
        DType::F6E3M2 => E3M2,
        DType::F4E2M1 => E2M1,
        _ => return None,
    })
}

/// The range of a small integer type.
pub(crate) fn small_range(dtype: DType) -> Option<(i64, i64)> {
    match dtype {
        DType::U4 => Some((0, 15)),
        DType::I4 => Some((-8, 7)),
        DType::U2 => Some((0, 3)),
        DType::I2 => Some((-2, 1)),
        _ => None,
    }
}

/// A small tensor exactly: floats as f32, integers as i8 or u8.
pub(crate) fn widen(ctx: &RunCtx<'_>, data: &Tensor) -> Result<Tensor, OpError> {
    fn of<S: Element, T: Element>(
        ctx: &RunCtx<'_>,
        data: &Tensor,
        f: impl Fn(&S) -> T,
    ) -> Result<Tensor, OpError> {
        let mut out = ctx.memory.alloc::<T>(data.shape())?;
        out.iter_mut().zip(data.as_slice::<S>()?).for_each(|(o, s)| *o = f(s));
        Ok(Tensor::new(data.shape(), out)?)
    }
    match data.dtype() {
        DType::U4 => of(ctx, data, |v: &U4| v.value()),
        DType::I4 => of(ctx, data, |v: &I4| v.value()),
        DType::U2 => of(ctx, data, |v: &U2| v.value()),
        DType::I2 => of(ctx, data, |v: &I2| v.value()),
        dtype => typed!(small dtype, S => {
            let format = format(dtype);
            of(ctx, data, |v: &S| match format {
                Some(format) => format.decode(v.to_bits()),
                None => decode_e8m0(v.to_bits()),
            })
        }),
    }
}

/// A tensor of a byte an element or more in the small type `to`.
pub(crate) fn narrow(
    ctx: &RunCtx<'_>,
    data: &Tensor,
    to: DType,
    rounding: Rounding,
) -> Result<Tensor, OpError> {
    let bits = ctx.memory.alloc::<u8>(data.shape())?;
    let bits = typed!(plain data.dtype(), S => match small_range(to) {
        Some(_) => integers::<S>(data.as_slice()?, bits),
        None => floats::<S>(data.as_slice()?, to, rounding, bits),
    })?;
    typed!(small to, T => {
        let out: Vec<T> = bits.into_iter().map(Small::from_bits).collect();
        Ok(Tensor::new(data.shape(), out)?)
    })
}

/// The low bits of the integer; a float is cut toward zero first, at most to 64 bits.
fn integers<S: Castable>(data: &[S], mut out: Vec<u8>) -> Result<Vec<u8>, OpError> {
    for (o, s) in out.iter_mut().zip(data) {
        let value = match s.value() {
            Value::Int(v) => v as i64,
            Value::F32(v) => v as i64,
            Value::F64(v) => v as i64,
            Value::Text(v) => number(v)?,
        };
        *o = value as u8;
    }
    Ok(out)
}

fn floats<S: Castable>(
    data: &[S],
    to: DType,
    rounding: Rounding,
    mut out: Vec<u8>,
) -> Result<Vec<u8>, OpError> {
    let format = format(to);
    for (o, s) in out.iter_mut().zip(data) {
        let value = match s.value() {
            Value::Int(v) => odd_int(v).into(),
            Value::F32(v) => v.into(),
            Value::F64(v) => v,
            Value::Text(v) => number(v)?,
        };
        *o = match format {
            Some(format) => format.encode(value, rounding.saturate),
            None => encode_e8m0(value, rounding.power, rounding.saturate),
        };
    }
    Ok(out)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, OpError> {
    text.trim().parse().map_err(|_| OpError::input(format!("the string {text:?} is no number of this type")))
}
