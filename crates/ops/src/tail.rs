//! Operators that another one can do on its result before it leaves the cache.

use isobit_kernels::blocked;
use isobit_kernels::gemm::{Bias, Epilogue};
use isobit_kernels::math::Unary;
use isobit_tensor::{DType, Datum};

use crate::Value;

/// What an operator is, as part of a tail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stage {
    /// Add: the other operand is added.
    Add,
    /// Mul: of use after Sigmoid.
    Mul,
    /// Pow: of use in what is written out.
    Pow,
    /// A function of each element.
    Unary(Unary),
}

/// One thing to do with each element of a result.
#[derive(Debug, Clone)]
pub enum Tail {
    /// Adds the element of another tensor, broadcast as the operator does.
    Add(Value),
    /// Applies a function.
    Unary(Unary),
}

/// As much of `tail` as an epilogue can do on a result of `shape`, added to `epilogue`, and how much that is. Rows of
/// biases belong to products whose last extent are the columns.
pub(crate) fn absorb<'a>(
    mut epilogue: Epilogue<'a>,
    shape: &[usize],
    rows_of_bias: bool,
    tail: &'a [Tail],
) -> (Epilogue<'a>, usize) {
    for (done, part) in tail.iter().enumerate() {
        match part {
            Tail::Add(Value::Datum(Datum::Tensor(t)))
                if t.dtype() == DType::F32 && epilogue.activation.is_none() =>
            {
                let Ok(elements) = t.as_slice::<f32>() else { return (epilogue, done) };
                let free = matches!(epilogue.bias, Bias::None) && epilogue.add.is_none();
                if rows_of_bias && free && t.shape() == &shape[shape.len() - 1..] {
                    epilogue.bias = Bias::Columns(elements);
                } else if epilogue.add.is_none() && t.shape() == shape {
                    epilogue.add = Some(elements);
                } else {
                    return (epilogue, done);
                }
            }
            Tail::Unary(f) if epilogue.activation.is_none() => epilogue.activation = Some(*f),
            _ => return (epilogue, done),
        }
    }
    (epilogue, tail.len())
}

/// As [`absorb`], on images in blocks of channels.
pub(crate) fn absorb_blocked<'a>(
    mut epilogue: blocked::Epilogue<'a>,
    shape: &[usize],
    tail: &'a [Tail],
) -> (blocked::Epilogue<'a>, usize) {
    for (done, part) in tail.iter().enumerate() {
        match part {
            Tail::Add(Value::Blocked(b))
                if epilogue.activation.is_none() && epilogue.add.is_none() && b.shape() == shape =>
            {
                epilogue.add = Some((*b.layout(), b.elements()));
            }
            Tail::Unary(f) if epilogue.activation.is_none() => epilogue.activation = Some(*f),
            _ => return (epilogue, done),
        }
    }
    (epilogue, tail.len())
}
