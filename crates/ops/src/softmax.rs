//! Softmax, LogSoftmax and Hardmax; the order of operations of the f32 forms is written at `isobit_kernels::norm`.

use isobit_kernels::norm;
use isobit_numerics as num;
use isobit_tensor::{DType, Tensor};

use crate::arith::through_f32;
use crate::axes::{axis, fact};
use crate::entries::each_alone;
use crate::number::Number;
use crate::transpose::transpose;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Softmax", 13, |ctx| softmax(ctx, Kind::Softmax)),
    OpDef::onnx("LogSoftmax", 13, |ctx| softmax(ctx, Kind::Log)),
    OpDef::onnx("Hardmax", 13, |ctx| softmax(ctx, Kind::Hard)),
];

fn softmax(ctx: &BuildCtx<'_>, kind: Kind) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Softmax { axis: ctx.int("axis", -1)?, kind })
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Softmax,
    Log,
    /// 1 at the first of the largest elements (a NaN is larger than all others), 0 elsewhere.
    Hard,
}

/// Along one axis; another than the last is moved there and back.
struct Softmax {
    axis: i64,
    kind: Kind,
}

fn accepts(t: DType) -> bool {
    matches!(t, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
}

impl Op for Softmax {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|&t| !accepts(t)) {
            return Err(OpError::unsupported_type(t));
        }
        if let Some(rank) = x.rank() {
            axis(self.axis, rank)?;
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let weight = if self.kind == Kind::Hard { 2 } else { 12 };
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(weight))
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let along = axis(self.axis, fact(operands, 0).rank()?).ok()?;
        each_alone(batch).filter(|&axis| axis != along)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let axis = axis(self.axis, x.rank())?;
        // Exchanging two dimensions is its own inverse.
        let mut perm: Vec<usize> = (0..x.rank()).collect();
        perm.swap(axis, x.rank() - 1);
        let width = x.shape()[axis];
        let x = transpose(ctx, x, &perm)?;
        let y = match (self.kind, x.dtype()) {
            (Kind::Hard, t) => typed!(floats t, T => rows::<T>(x, width, hard))?,
            (Kind::Softmax, DType::F64) => rows::<f64>(x, width, softmax64)?,
            (Kind::Log, DType::F64) => rows::<f64>(x, width, log_softmax64)?,
            (kind, _) => through_f32(ctx, x, |x| {
                match kind {
                    Kind::Log => norm::log_softmax(ctx.exec, x, width),
                    _ => norm::softmax(ctx.exec, x, width),
                }
                Ok(())
            })?,
        };
        Ok(vec![transpose(ctx, y, &perm)?])
    }
}

/// Log-softmax of an f32 or f64 tensor along `axis`.
pub(crate) fn log_softmax(ctx: &RunCtx<'_>, x: Tensor, axis: i64) -> Result<Tensor, OpError> {
    let mut results = Softmax { kind: Kind::Log, axis }.run(ctx, Inputs::new(vec![Some(x)]))?;
    results.pop().ok_or_else(|| OpError::input("no result"))
}

fn rows<T: Number>(t: Tensor, width: usize, f: impl Fn(&mut [T])) -> Result<Tensor, OpError> {
    let shape = t.shape().to_vec();
    let mut x = t.into_vec::<T>()?;
    x.chunks_exact_mut(width.max(1)).for_each(f);
    Ok(Tensor::new(&shape, x)?)
}

fn hard<T: Number>(row: &mut [T]) {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] || x.nan() && !row[best].nan() {
            best = i;
        }
    }
    for (i, x) in row.iter_mut().enumerate() {
        *x = if i == best { T::ONE } else { T::ZERO };
    }
}

/// Softmax of a row in f64: m = max; e_i = exp(x_i - m); s = 32-lane sum of e; e_i / s.
pub(crate) fn softmax64(row: &mut [f64]) {
    let m = row.iter().copied().fold(f64::NEG_INFINITY, num::max64);
    row.iter_mut().for_each(|x| *x = num::exp64(*x - m));
    let s = num::sum64(row.iter().copied());
    row.iter_mut().for_each(|x| *x /= s);
}

/// Log-softmax of a row in f64: m = max; d_i = x_i - m; s = 32-lane sum of exp(d_i); d_i - ln(s).
fn log_softmax64(row: &mut [f64]) {
    let m = row.iter().copied().fold(f64::NEG_INFINITY, num::max64);
    row.iter_mut().for_each(|x| *x -= m);
    let l = num::ln64(num::sum64(row.iter().map(|&d| num::exp64(d))));
    row.iter_mut().for_each(|x| *x -= l);
}
