//! Det: the determinant, by elimination with partial pivoting.

use isobit_tensor::{DType, Tensor};

use crate::axes::fact;
use crate::cast::convert;
use crate::real::real;
use crate::{Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Det", 22, |ctx| ctx.one(Det))];

struct Det;

impl Op for Det {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        let batch = |s: &Vec<Option<usize>>| s[..s.len().saturating_sub(2)].to_vec();
        Ok(vec![Fact::new(x.dtype, x.shape.as_ref().map(batch))])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let x = fact(inputs, 0);
        let n = x.shape.as_ref().and_then(|s| s.last().copied().flatten()).unwrap_or(1);
        (x.numel().unwrap_or(0) as u64).saturating_mul(n as u64)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let [batch @ .., m, n] = x.shape() else {
            return Err(OpError::shape(format!("an input of shape {:?}; it must be [..., M, M]", x.shape())));
        };
        if m != n {
            return Err(OpError::shape(format!("matrices of {m} by {n}; they must be square")));
        }
        let (batch, n) = (batch.to_vec(), *n);
        real!(x.dtype(), T => Ok::<_, OpError>(std::mem::size_of::<T>()))?;
        let wide = convert(ctx, x.clone(), DType::F64)?;
        let mut data = wide.into_vec::<f64>()?;
        let mut out = ctx.memory.filled::<f64>(&batch, 1.0)?;
        if n > 0 {
            for (o, matrix) in out.iter_mut().zip(data.chunks_exact_mut(n * n)) {
                *o = determinant(matrix, n);
            }
        }
        Ok(vec![convert(ctx, Tensor::new(&batch, out)?, x.dtype())?])
    }
}

/// In f64. Column by column: the pivot is the first element of greatest magnitude on or below the diagonal; rows are
/// exchanged, which turns the sign; each row below becomes fma(-(a / pivot), pivot row, row). The result is
/// the product of the pivots from the first to the last, in the end with the sign.
fn determinant(a: &mut [f64], n: usize) -> f64 {
    let (mut product, mut negative) = (1.0, false);
    for k in 0..n {
        let mut pivot = k;
        for row in k + 1..n {
            if a[row * n + k].abs() > a[pivot * n + k].abs() {
                pivot = row;
            }
        }
        if pivot != k {
            negative = !negative;
            (0..n).for_each(|c| a.swap(k * n + c, pivot * n + c));
        }
        let p = a[k * n + k];
        product *= p;
        if p == 0.0 {
            break;
        }
        for row in k + 1..n {
            let factor = -(a[row * n + k] / p);
            for c in k + 1..n {
                a[row * n + c] = isobit_numerics::fma64(factor, a[k * n + c], a[row * n + c]);
            }
        }
    }
    if negative { -product } else { product }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_determinants() {
        assert_eq!(determinant(&mut [0.0, 1.0, 1.0, 0.0], 2), -1.0);
        assert_eq!(determinant(&mut [2.0, 0.0, 0.0, 0.0, 3.0, 1.0, 0.0, 1.0, 3.0], 3), 16.0);
        assert_eq!(determinant(&mut [1.0, 2.0, 2.0, 4.0], 2), 0.0);
    }
}
