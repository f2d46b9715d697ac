//! Operators that reorder elements by a permutation of dimensions: Transpose, DepthToSpace, SpaceToDepth.

use isobit_kernels::transpose::permute;
use isobit_tensor::{Element, Tensor, with_data};

use crate::axes::{axes, fact, known, settled};
use crate::broadcast::{Walk, copy_strided, strides};
use crate::entries::{each_alone, images_alone};
use crate::fold::fold;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Transpose", 23, |ctx| {
        ctx.one(Transpose { perm: ctx.opt_ints("perm")?.map(<[i64]>::to_vec) })
    }),
    OpDef::onnx("DepthToSpace", 13, |ctx| blocks(ctx, true)),
    OpDef::onnx("SpaceToDepth", 13, |ctx| blocks(ctx, false)),
];

struct Transpose {
    perm: Option<Vec<i64>>,
}

impl Transpose {
    fn perm(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        match &self.perm {
            None => Ok((0..rank).rev().collect()),
            Some(perm) if perm.len() != rank => Err(OpError::attribute(format!(
                "perm {perm:?} for a rank-{rank} tensor; it needs {rank} entries"
            ))),
            Some(perm) => axes(perm, rank),
        }
    }
}

impl Op for Transpose {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let shape = match &data.shape {
                Some(dims) => Some(self.perm(dims.len())?.iter().map(|&p| dims[p]).collect()),
                None => self.perm.as_ref().map(|perm| vec![None; perm.len()]),
            };
            Ok(vec![Fact::new(data.dtype, shape)])
        })
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let (axis, rank) = (each_alone(batch)?, fact(operands, 0).rank()?);
        self.perm(rank).ok()?.iter().position(|&p| p == axis)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.take(0)?;
        let perm = self.perm(data.rank())?;
        Ok(vec![transpose(ctx, data, &perm)?])
    }
}

/// `data` with dimension `perm[i]` at position `i`; `perm` is a permutation.
pub(crate) fn transpose(ctx: &RunCtx<'_>, data: Tensor, perm: &[usize]) -> Result<Tensor, OpError> {
    let shape: Vec<usize> = perm.iter().map(|&p| data.shape()[p]).collect();
    let moved: Vec<usize> = perm.iter().copied().filter(|&p| data.shape()[p] != 1).collect();
    if moved.is_sorted() {
        return Ok(data.reshape(&shape)?);
    }
    let from = strides(data.shape());
    let steps: Vec<isize> = perm.iter().map(|&p| from[p]).collect();
    if let Ok(x) = data.as_slice::<f32>() {
        let steps: Vec<usize> = steps.iter().map(|&s| s as usize).collect();
        let mut out = ctx.memory.alloc::<f32>(&shape)?;
        permute(ctx.exec, x, &shape, &steps, &mut out);
        return Ok(Tensor::new(&shape, out)?);
    }
    fn go<T: Element>(
        ctx: &RunCtx<'_>,
        src: &[T],
        shape: &[usize],
        steps: &[isize],
    ) -> Result<Tensor, OpError> {
        let mut out = ctx.memory.alloc::<T>(shape)?;
        copy_strided(ctx.exec, &Walk::new(shape, [steps], [0]), src, &mut out);
        Ok(Tensor::new(shape, out)?)
    }
    with_data!(data.data(), b => go(ctx, b, &shape, &steps))
}

fn blocks(ctx: &BuildCtx<'_>, to_space: bool) -> Result<Box<dyn Op>, OpError> {
    let block = ctx.opt_int("blocksize")?;
    let block = block.and_then(|b| usize::try_from(b).ok().filter(|&b| b > 0)).ok_or_else(|| {
        OpError::attribute(format!("blocksize is {block:?}; it must be given and positive"))
    })?;
    let columns_first = match ctx.str("mode", "DCR")? {
        "DCR" => false,
        "CRD" => true,
        other => return Err(OpError::attribute(format!("mode '{other}'; accepted: DCR, CRD"))),
    };
    ctx.one(Blocks { block, to_space, columns_first })
}

/// Moves `block` x `block` squares between the channels and the plane of an NCHW tensor.
struct Blocks {
    block: usize,
    to_space: bool,
    columns_first: bool,
}

impl Blocks {
    fn shape(&self, dims: &[Option<usize>]) -> Result<Vec<Option<usize>>, OpError> {
        let &[n, c, h, w] = dims else {
            return Err(OpError::shape(format!("a shape of {dims:?}; expected [N, C, H, W]")));
        };
        let b = self.block;
        let refuse = || OpError::shape(format!("shape {dims:?} does not divide into blocks of {b}"));
        let mul = |d: Option<usize>, by: usize| d.map(|d| d.checked_mul(by).ok_or_else(refuse)).transpose();
        let div = |d: Option<usize>, by: usize| match d {
            Some(d) if d % by != 0 => Err(refuse()),
            d => Ok(d.map(|d| d / by)),
        };
        let square = b.checked_mul(b).ok_or_else(refuse)?;
        Ok(if self.to_space {
            vec![n, div(c, square)?, mul(h, b)?, mul(w, b)?]
        } else {
            vec![n, mul(c, square)?, div(h, b)?, div(w, b)?]
        })
    }
}

impl Op for Blocks {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let shape = data.shape.as_ref().map(|dims| self.shape(dims)).transpose()?;
            Ok(vec![Fact::new(data.dtype, shape)])
        })
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        images_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.take(0)?;
        let shape = settled(self.shape(&known(data.shape()))?)?;
        let (b, s) = (self.block, data.shape());
        let (split, perm) = match (self.to_space, self.columns_first) {
            (true, false) => ([s[0], b, b, s[1] / (b * b), s[2], s[3]], [0, 3, 4, 1, 5, 2]),
            (true, true) => ([s[0], s[1] / (b * b), b, b, s[2], s[3]], [0, 1, 4, 2, 5, 3]),
            (false, false) => ([s[0], s[1], s[2] / b, b, s[3] / b, b], [0, 3, 5, 1, 2, 4]),
            (false, true) => ([s[0], s[1], s[2] / b, b, s[3] / b, b], [0, 1, 3, 5, 2, 4]),
        };
        Ok(vec![transpose(ctx, data.reshape(&split)?, &perm)?.reshape(&shape)?])
    }
}
