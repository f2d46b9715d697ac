//! Floating-point operators that are written once for two precisions: f64 computes in f64, f32, f16 and bf16 compute
//! in f32 and round once at the end.

use std::ops::{Add, Div, Mul, Neg, Sub};

use isobit_numerics as num;
use isobit_tensor::{DType, Tensor};

use crate::cast::convert;
use crate::number::Number;
use crate::product::Product;
use crate::{OpError, RunCtx};

/// The type that an operator computes in.
pub(crate) trait Real:
    Number
    + Product
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// The nearest number.
    fn of(x: f64) -> Self;
    /// self * b + c, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The square root.
    fn root(self) -> Self;
    /// self to the power of y.
    fn power(self, y: Self) -> Self;
    /// The largest whole number not above.
    fn down(self) -> Self;
    /// The nearest whole number, ties to even.
    fn nearest(self) -> Self;
    /// A whole number as an integer; beyond the range the nearest, NaN 0.
    fn whole(self) -> i64;
    /// The 32-lane sum.
    fn sum(elements: impl IntoIterator<Item = Self>) -> Self;
}

macro_rules! implement {
    ($t:ty, $fma:path, $pow:path, $sum:path) => {
        impl Real for $t {
            fn of(x: f64) -> Self {
                x as $t
            }
            fn fma(self, b: Self, c: Self) -> Self {
                $fma(self, b, c)
            }
            fn root(self) -> Self {
                self.sqrt()
            }
            fn power(self, y: Self) -> Self {
                $pow(self, y)
            }
            fn down(self) -> Self {
                self.floor()
            }
            fn nearest(self) -> Self {
                self.round_ties_even()
            }
            fn whole(self) -> i64 {
                self as i64
            }
            fn sum(elements: impl IntoIterator<Item = Self>) -> Self {
                $sum(elements)
            }
        }
    };
}

implement!(f32, num::fma, num::pow, num::sum);
implement!(f64, num::fma64, num::pow64, num::sum64);

/// Evaluates `$body`, a `Result`, with `$t` naming the type that a float tensor of `$dtype` is computed in.
macro_rules! real {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            isobit_tensor::DType::F64 => {
                type $t = f64;
                $body
            }
            isobit_tensor::DType::F32 | isobit_tensor::DType::F16 | isobit_tensor::DType::BF16 => {
                type $t = f32;
                $body
            }
            other => Err($crate::OpError::unsupported_type(other)),
        }
    };
}

pub(crate) use real;

/// The elements of a tensor in the type to compute in.
pub(crate) fn read<T: Real>(ctx: &RunCtx<'_>, t: &Tensor) -> Result<Vec<T>, OpError> {
    Ok(convert(ctx, t.clone(), T::DTYPE)?.into_vec()?)
}

/// Computed elements as a tensor of `dtype`.
pub(crate) fn write<T: Real>(
    ctx: &RunCtx<'_>,
    dtype: DType,
    shape: &[usize],
    x: Vec<T>,
) -> Result<Tensor, OpError> {
    convert(ctx, Tensor::new(shape, x)?, dtype)
}

/// The one number in a tensor of any numeric type.
pub(crate) fn number(ctx: &RunCtx<'_>, t: &Tensor) -> Result<f64, OpError> {
    match convert(ctx, t.clone(), DType::F64)?.as_slice::<f64>()? {
        [x] => Ok(*x),
        other => Err(OpError::input(format!("{} numbers where one is expected", other.len()))),
    }
}
