//! Floating-point operators that are written once for two precisions: f64 computes in f64, f32, f16 and bf16 compute
//! in f32 and round once at the end.

use std::borrow::Cow;
use std::ops::{Add, Div, Mul, Neg, Range, Sub};

use isobit_kernels::double::{self, Panels};
use isobit_kernels::elementwise::{Binary, Operand, binary};
use isobit_kernels::gemm::{Bias, Epilogue, PackedB, View, gemm, gemm_columns};
use isobit_kernels::math::{Unary, unary_in_place};
use isobit_kernels::{Exec, norm, recurrent};
use isobit_numerics as num;
use isobit_tensor::{DType, Tensor};

use crate::cast::convert;
use crate::number::Number;
use crate::product::Product;
use crate::softmax::softmax64;
use crate::unary::double;
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
    /// The 32-lane sum of squares, by fused multiply-adds.
    fn sum_squares(elements: impl IntoIterator<Item = Self>) -> Self;
    /// The function of each element, in place.
    fn apply(exec: Exec<'_>, f: Unary, x: &mut [Self]);
    /// The softmax of each row of `width` elements, in place.
    fn softmax(exec: Exec<'_>, x: &mut [Self], width: usize);

    /// The right side of products.
    type Right: Send + Sync;
    /// A right side of `k` rows and `n` columns.
    fn right(exec: Exec<'_>, k: usize, n: usize, b: View<'_, Self>) -> Self::Right;
    /// `c`, of rows `stride` apart, = the product of `a`, of `m` rows, and columns of the right side, plus a bias for each of these,
    /// plus `add`, which is laid out as `c`. The columns begin and end at multiples of [`COLUMNS`], or end with the last one.
    #[allow(clippy::too_many_arguments)]
    fn times_columns(
        exec: Exec<'_>,
        m: usize,
        a: View<'_, Self>,
        b: &Self::Right,
        columns: Range<usize>,
        c: &mut [Self],
        stride: usize,
        bias: Option<&[Self]>,
        add: Option<&[Self]>,
    );
    /// As [`recurrent::keep`].
    fn keep(exec: Exec<'_>, state: &mut [Self], forget: &[Self], input: &[Self], candidate: &[Self]);
    /// As [`recurrent::mix`].
    fn mix(exec: Exec<'_>, state: &mut [Self], update: &[Self], candidate: &[Self]);
    /// `y[i] = a[i] * b[i]`.
    fn products(exec: Exec<'_>, a: &[Self], b: &[Self], y: &mut [Self]);
    /// `c`, of rows `stride` apart, = the product of `a` [m, k] and `b` [k, n].
    fn matmul(
        exec: Exec<'_>,
        extents: [usize; 3],
        a: View<'_, Self>,
        b: View<'_, Self>,
        c: &mut [Self],
        stride: usize,
    );
}

macro_rules! implement {
    ($t:ty, $fma:path, $pow:path, $sum:path, $sum_squares:path, $($rest:tt)*) => {
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
            fn sum_squares(elements: impl IntoIterator<Item = Self>) -> Self {
                $sum_squares(elements)
            }
            $($rest)*
        }
    };
}

implement! {
    f32, num::fma, num::pow, num::sum, num::sum_squares,

    fn apply(exec: Exec<'_>, f: Unary, x: &mut [f32]) {
        unary_in_place(exec, f, x);
    }
    fn softmax(exec: Exec<'_>, x: &mut [f32], width: usize) {
        norm::softmax(exec, x, width);
    }
    type Right = PackedB;
    fn right(exec: Exec<'_>, k: usize, n: usize, b: View<'_, f32>) -> PackedB {
        PackedB::new(exec, k, n, b)
    }
    fn times_columns(
        exec: Exec<'_>,
        m: usize,
        a: View<'_, f32>,
        b: &PackedB,
        columns: Range<usize>,
        c: &mut [f32],
        stride: usize,
        bias: Option<&[f32]>,
        add: Option<&[f32]>,
    ) {
        let bias = bias.map_or(Bias::None, Bias::Columns);
        gemm_columns(exec, m, a, b, columns, c, stride, &Epilogue { bias, add, activation: None });
    }
    fn keep(exec: Exec<'_>, state: &mut [f32], forget: &[f32], input: &[f32], candidate: &[f32]) {
        recurrent::keep(exec, state, forget, input, candidate);
    }
    fn mix(exec: Exec<'_>, state: &mut [f32], update: &[f32], candidate: &[f32]) {
        recurrent::mix(exec, state, update, candidate);
    }
    fn products(exec: Exec<'_>, a: &[f32], b: &[f32], y: &mut [f32]) {
        binary(exec, Binary::Mul, Operand::Full(a), Operand::Full(b), y.len().max(1), y);
    }
    fn matmul(
        exec: Exec<'_>,
        [m, n, k]: [usize; 3],
        a: View<'_, f32>,
        b: View<'_, f32>,
        c: &mut [f32],
        stride: usize,
    ) {
        gemm(exec, m, n, k, a, b, c, stride, &Epilogue::default());
    }
}

implement! {
    f64, num::fma64, num::pow64, num::sum64, num::sum_squares64,

    fn apply(_: Exec<'_>, f: Unary, x: &mut [f64]) {
        x.iter_mut().for_each(|x| *x = double(f, *x));
    }
    fn softmax(_: Exec<'_>, x: &mut [f64], width: usize) {
        x.chunks_exact_mut(width.max(1)).for_each(softmax64);
    }
    type Right = Panels;
    fn right(_: Exec<'_>, k: usize, n: usize, b: View<'_, f64>) -> Panels {
        Panels::new(k, n, b)
    }
    fn times_columns(
        exec: Exec<'_>,
        m: usize,
        a: View<'_, f64>,
        b: &Panels,
        columns: Range<usize>,
        c: &mut [f64],
        stride: usize,
        bias: Option<&[f64]>,
        plus: Option<&[f64]>,
    ) {
        let n = columns.len();
        double::columns(exec, m, a, b, columns, c, stride);
        for row in 0..m {
            let c = &mut c[row * stride..][..n];
            if let Some(bias) = bias {
                add(c, bias);
            }
            if let Some(plus) = plus {
                add(c, &plus[row * stride..][..n]);
            }
        }
    }
    fn keep(_: Exec<'_>, state: &mut [f64], forget: &[f64], input: &[f64], candidate: &[f64]) {
        for (((s, f), i), c) in state.iter_mut().zip(forget).zip(input).zip(candidate) {
            *s = f * *s + i * c;
        }
    }
    fn mix(_: Exec<'_>, state: &mut [f64], update: &[f64], candidate: &[f64]) {
        for ((s, z), n) in state.iter_mut().zip(update).zip(candidate) {
            *s = (1.0 - z) * n + z * *s;
        }
    }
    fn products(_: Exec<'_>, a: &[f64], b: &[f64], y: &mut [f64]) {
        for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
            *y = a * b;
        }
    }
    fn matmul(
        exec: Exec<'_>,
        [m, n, k]: [usize; 3],
        a: View<'_, f64>,
        b: View<'_, f64>,
        c: &mut [f64],
        stride: usize,
    ) {
        double::product(exec, m, a, &Panels::new(k, n, b), c, stride);
    }
}

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

/// Refuses types that no float operator computes with.
pub(crate) fn check_real(t: Option<DType>) -> Result<(), OpError> {
    match t.filter(|t| !matches!(t, DType::F64 | DType::F32 | DType::F16 | DType::BF16)) {
        Some(t) => Err(OpError::unsupported_type(t)),
        None => Ok(()),
    }
}

/// The elements of a tensor in the type to compute in, without a copy of what has it.
pub(crate) fn elements<'a, T: Real>(ctx: &RunCtx<'_>, t: &'a Tensor) -> Result<Cow<'a, [T]>, OpError> {
    if t.dtype() == T::DTYPE { Ok(Cow::Borrowed(t.as_slice()?)) } else { read(ctx, t).map(Cow::Owned) }
}

/// Computes on a tensor's elements, in place where it can be.
pub(crate) fn through<T: Real>(
    ctx: &RunCtx<'_>,
    t: Tensor,
    f: impl FnOnce(&mut [T]) -> Result<(), OpError>,
) -> Result<Tensor, OpError> {
    let (dtype, shape) = (t.dtype(), t.shape().to_vec());
    let mut x = convert(ctx, t, T::DTYPE)?.into_vec::<T>()?;
    f(&mut x)?;
    write(ctx, dtype, &shape, x)
}

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

/// x + y into x.
pub(crate) fn add<T: Real>(x: &mut [T], y: &[T]) {
    x.iter_mut().zip(y).for_each(|(x, &y)| *x = *x + y);
}
