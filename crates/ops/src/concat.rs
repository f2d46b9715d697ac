//! Larger tensors from smaller ones: Concat, Tile.

use isobit_tensor::{Element, Tensor};

use crate::axes::{axis, extent, extents, fact, ints, known, known_ints, settled};
use crate::broadcast::strides;
use crate::fold::fold;
use crate::slice::part;
use crate::typed::typed;
use crate::{Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Concat", 13, |ctx| {
        let axis = ctx.opt_int("axis")?.ok_or_else(|| OpError::attribute("attribute 'axis' is missing"))?;
        ctx.one(Concat { axis })
    }),
    OpDef::onnx("Tile", 13, |ctx| ctx.one(Tile)),
];

struct Concat {
    axis: i64,
}

/// The extents of all of `parts` one after the other along axis `a`.
pub(crate) fn joined(parts: &[&[Option<usize>]], a: i64) -> Result<(usize, Vec<Option<usize>>), OpError> {
    let Some(first) = parts.first() else { return Err(OpError::input("nothing to concatenate")) };
    let a = axis(a, first.len())?;
    let mut out = first.to_vec();
    for part in &parts[1..] {
        let refuse = || {
            OpError::shape(format!(
                "shapes {first:?} and {part:?} do not concatenate along axis {a}; all other extents must be equal"
            ))
        };
        if part.len() != out.len() {
            return Err(refuse());
        }
        for (i, (o, &d)) in out.iter_mut().zip(*part).enumerate() {
            if i == a {
                *o = match (*o, d) {
                    (Some(x), Some(y)) => Some(x.checked_add(y).ok_or_else(refuse)?),
                    _ => None,
                };
            } else {
                match (*o, d) {
                    (Some(x), Some(y)) if x != y => return Err(refuse()),
                    (None, d) => *o = d,
                    _ => {}
                }
            }
        }
    }
    Ok((a, out))
}

/// `parts` of one type one after the other along axis `a`.
pub(crate) fn concat(ctx: &RunCtx<'_>, parts: &[&Tensor], a: i64) -> Result<Tensor, OpError> {
    fn go<T: Element>(
        ctx: &RunCtx<'_>,
        parts: &[&Tensor],
        axis: usize,
        shape: &[usize],
    ) -> Result<Tensor, OpError> {
        let mut out = ctx.memory.alloc::<T>(shape)?;
        let inner: usize = shape[axis + 1..].iter().product();
        let row = (shape[axis] * inner).max(1);
        let parts = parts.iter().map(|part| Ok((part.as_slice::<T>()?, part.shape()[axis] * inner)));
        let parts = parts.collect::<Result<Vec<_>, OpError>>()?;
        isobit_kernels::rows(ctx.exec, &mut out, row, 1 << 14, |first, rows| {
            for (r, mut row) in rows.chunks_exact_mut(row).enumerate() {
                for &(x, n) in &parts {
                    let (own, rest) = row.split_at_mut(n);
                    own.clone_from_slice(&x[(first + r) * n..][..n]);
                    row = rest;
                }
            }
        });
        Ok(Tensor::new(shape, out)?)
    }
    let shapes: Vec<Vec<Option<usize>>> = parts.iter().map(|p| known(p.shape())).collect();
    let shapes: Vec<&[Option<usize>]> = shapes.iter().map(Vec::as_slice).collect();
    let (axis, shape) = joined(&shapes, a)?;
    let shape = settled(shape)?;
    if let [one] = parts {
        return Ok((*one).clone());
    }
    typed!(parts[0].dtype(), T => go::<T>(ctx, parts, axis, &shape))
}

impl Op for Concat {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let dtype = inputs.iter().flatten().find_map(|f| f.dtype);
            let shapes: Option<Vec<&[Option<usize>]>> =
                inputs.iter().map(|f| f.as_ref().and_then(|f| f.shape.as_deref())).collect();
            let shape = match shapes {
                Some(shapes) => Some(joined(&shapes, self.axis)?.1),
                None => inputs.iter().flatten().find_map(Fact::rank).map(|rank| vec![None; rank]),
            };
            Ok(vec![Fact::new(dtype, shape)])
        })
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let joined = axis(self.axis, fact(operands, 0).rank()?).ok()?;
        let first = batch.first().copied().flatten()?;
        (first != joined && batch.iter().all(|&a| a == Some(first))).then_some(first)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let parts = (0..inputs.len()).map(|i| inputs.get(i)).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![concat(ctx, &parts, self.axis)?])
    }
}

struct Tile;

fn tiled(dims: &[Option<usize>], repeats: &[i64]) -> Result<Vec<Option<usize>>, OpError> {
    if repeats.len() != dims.len() {
        return Err(OpError::shape(format!("repeats {repeats:?} for a rank-{} tensor", dims.len())));
    }
    let repeats = extents(repeats)?;
    dims.iter()
        .zip(&repeats)
        .map(|(d, &r)| d.map(|d| extent((d as i64).saturating_mul(r as i64))).transpose())
        .collect()
}

impl Op for Tile {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let shape = match (&data.shape, known_ints(inputs, 1)?) {
                (Some(dims), Some(repeats)) => Some(tiled(dims, &repeats)?),
                (Some(dims), None) => Some(vec![None; dims.len()]),
                _ => None,
            };
            Ok(vec![Fact::new(data.dtype, shape)])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let repeats = ints(inputs.get(1)?)?;
        let shape = settled(tiled(&known(data.shape()), &repeats)?)?;
        // Each dimension becomes two, (repeat, extent), the first of step 0.
        let (mut split, mut steps) = (Vec::new(), Vec::new());
        for ((&d, &r), s) in data.shape().iter().zip(&repeats).zip(strides(data.shape())) {
            for (extent, step) in [(r as usize, 0), (d, s)] {
                if extent != 1 {
                    split.push(extent);
                    steps.push(step);
                }
            }
        }
        Ok(vec![part(ctx, data, &split, &steps, 0)?.reshape(&shape)?])
    }
}
