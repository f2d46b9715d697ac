//! AffineGrid: the positions that an affine map gives to the pixels of an image.

use isobit_tensor::Tensor;

use crate::axes::{extents, fact, ints, known_ints};
use crate::real::{Real, read, real, write};
use crate::{Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("AffineGrid", 20, |ctx| {
    ctx.one(AffineGrid { align_corners: ctx.flag("align_corners", false)? })
})];

struct AffineGrid {
    align_corners: bool,
}

/// [N, spatial extents .., axes] of the grid for an image of this size.
fn shape(size: &[i64]) -> Result<Vec<usize>, OpError> {
    match extents(size)?.as_slice() {
        [n, _, dims @ ..] if (2..=3).contains(&dims.len()) => Ok([&[*n], dims, &[dims.len()]].concat()),
        _ => Err(OpError::input(format!("size is {size:?}; it must be [N, C, H, W] or [N, C, D, H, W]"))),
    }
}

impl AffineGrid {
    /// The coordinate of pixel `i`: 2 i / (d - 1) - 1 (0 where d is 1) or (2 i + 1) / d - 1.
    fn coordinate<T: Real>(&self, i: usize, d: usize) -> T {
        let t = |n: usize| T::of(n as f64);
        match self.align_corners {
            true if d == 1 => T::ZERO,
            true => t(2 * i) / t(d - 1) - T::ONE,
            false => t(2 * i + 1) / t(d) - T::ONE,
        }
    }

    fn run_in<T: Real>(&self, ctx: &RunCtx<'_>, theta: &Tensor, shape: &[usize]) -> Result<Tensor, OpError> {
        let dims = &shape[1..shape.len() - 1];
        let axes = dims.len();
        let maps = read::<T>(ctx, theta)?;
        let points: usize = dims.iter().product();
        let mut out = ctx.memory.filled::<T>(shape, T::ZERO)?;
        for (point, o) in out.chunks_exact_mut(axes).enumerate() {
            let (batch, mut rest) = (point / points, point % points);
            // x, y, (z): the innermost axis comes first.
            let mut position = [T::ONE; 4];
            for (p, &d) in position.iter_mut().zip(dims.iter().rev()) {
                *p = self.coordinate(rest % d, d);
                rest /= d;
            }
            position[axes] = T::ONE;
            let map = &maps[batch * axes * (axes + 1)..];
            for (o, row) in o.iter_mut().zip(map.chunks_exact(axes + 1)) {
                *o = row.iter().zip(position).fold(T::ZERO, |acc, (&m, p)| m.fma(p, acc));
            }
        }
        write(ctx, theta.dtype(), shape, out)
    }
}

impl Op for AffineGrid {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let known = known_ints(inputs, 1)?.map(|size| shape(&size)).transpose()?;
        Ok(vec![Fact::new(fact(inputs, 0).dtype, known.map(|s| s.into_iter().map(Some).collect()))])
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(4))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let theta = inputs.get(0)?;
        let shape = shape(&ints(inputs.get(1)?)?)?;
        let axes = shape[shape.len() - 1];
        if theta.shape() != [shape[0], axes, axes + 1] {
            let need = [shape[0], axes, axes + 1];
            return Err(OpError::shape(format!("theta has shape {:?}; {need:?} is needed", theta.shape())));
        }
        Ok(vec![real!(theta.dtype(), T => self.run_in::<T>(ctx, theta, &shape))?])
    }
}
