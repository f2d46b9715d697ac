//! Elements by index: Gather, GatherElements, GatherND, Compress, OneHot, ReverseSequence.

use isobit_tensor::{Data, Element, Tensor};

use crate::axes::{axis, fact, index, ints};
use crate::fold::fold;
use crate::number::Number;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Gather", 13, |ctx| ctx.one(Gather { axis: ctx.int("axis", 0)? })),
    OpDef::onnx("GatherElements", 13, |ctx| ctx.one(GatherElements { axis: ctx.int("axis", 0)? })),
    OpDef::onnx("GatherND", 13, gather_nd),
    OpDef::onnx("Compress", 11, |ctx| ctx.one(Compress { axis: ctx.opt_int("axis")? })),
    OpDef::onnx("OneHot", 11, |ctx| ctx.one(OneHot { axis: ctx.int("axis", -1)? })),
    OpDef::onnx("ReverseSequence", 10, reverse_sequence),
];

struct Gather {
    axis: i64,
}

impl Op for Gather {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let (data, indices) = (fact(inputs, 0), fact(inputs, 1));
            let (Some(dims), Some(picked)) = (&data.shape, &indices.shape) else {
                return Ok(vec![Fact::typed(data.dtype)]);
            };
            let a = axis(self.axis, dims.len())?;
            let shape = [&dims[..a], picked, &dims[a + 1..]].concat();
            Ok(vec![Fact::new(data.dtype, Some(shape))])
        })
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let (data, picked) = (fact(operands, 0).rank()?, fact(operands, 1).rank()?);
        let along = axis(self.axis, data).ok()?;
        match *batch {
            [None, Some(a)] => Some(along + a),
            [Some(a), None] if a < along => Some(a),
            [Some(a), None] if a > along => Some(a - 1 + picked),
            _ => None,
        }
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (inputs.get(0)?, inputs.get(1)?);
        let a = axis(self.axis, data.rank())?;
        let n = data.shape()[a];
        let picked = ints(indices)?.into_iter().map(|i| index(i, n)).collect::<Result<Vec<_>, _>>()?;
        let shape = [&data.shape()[..a], indices.shape(), &data.shape()[a + 1..]].concat();
        let out = typed!(data.dtype(), T => rows::<T>(ctx, data, a, &picked, &shape))?;
        Ok(vec![out])
    }
}

/// The slices `picked` of `data` along axis `a`.
pub(crate) fn rows<T: Element>(
    ctx: &RunCtx<'_>,
    data: &Tensor,
    a: usize,
    picked: &[usize],
    shape: &[usize],
) -> Result<Tensor, OpError> {
    let mut out = ctx.memory.alloc::<T>(shape)?;
    let inner: usize = data.shape()[a + 1..].iter().product();
    let block = data.shape()[a] * inner;
    if !out.is_empty() {
        let (src, mut to) = (data.as_slice::<T>()?, out.chunks_exact_mut(inner));
        for block in src.chunks_exact(block) {
            for (&i, row) in picked.iter().zip(&mut to) {
                row.clone_from_slice(&block[i * inner..][..inner]);
            }
        }
    }
    Ok(Tensor::new(shape, out)?)
}

struct GatherElements {
    axis: i64,
}

/// Where each element of a tensor of shape `picked` lies in one of shape `dims`, when its coordinate
/// along `a` is replaced by the index given for it.
pub(crate) fn element_offsets(
    dims: &[usize],
    picked: &[usize],
    a: usize,
    indices: &[i64],
) -> Result<Vec<usize>, OpError> {
    let fits = dims.len() == picked.len() && (0..dims.len()).all(|d| d == a || picked[d] <= dims[d]);
    if !fits {
        return Err(OpError::shape(format!(
            "indices of shape {picked:?} into {dims:?} along axis {a}; no other extent may be larger"
        )));
    }
    let mut steps = vec![1usize; dims.len()];
    for d in (1..dims.len()).rev() {
        steps[d - 1] = steps[d] * dims[d];
    }
    let mut at = vec![0usize; dims.len()];
    let mut out = Vec::with_capacity(indices.len());
    for &i in indices {
        let others: usize = (0..at.len()).filter(|&d| d != a).map(|d| at[d] * steps[d]).sum();
        out.push(others + index(i, dims[a])? * steps[a]);
        for d in (0..at.len()).rev() {
            at[d] += 1;
            if at[d] < picked[d] {
                break;
            }
            at[d] = 0;
        }
    }
    Ok(out)
}

/// The elements of `data` at `offsets`, each the start of a run of `run` elements.
fn pick<T: Element>(
    ctx: &RunCtx<'_>,
    data: &Tensor,
    offsets: &[usize],
    run: usize,
    shape: &[usize],
) -> Result<Tensor, OpError> {
    let mut out = ctx.memory.alloc::<T>(shape)?;
    let src = data.as_slice::<T>()?;
    if run > 0 {
        for (row, &at) in out.chunks_exact_mut(run).zip(offsets) {
            row.clone_from_slice(&src[at..at + run]);
        }
    }
    Ok(Tensor::new(shape, out)?)
}

impl Op for GatherElements {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || Ok(vec![Fact::new(fact(inputs, 0).dtype, fact(inputs, 1).shape.clone())]))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (inputs.get(0)?, inputs.get(1)?);
        let a = axis(self.axis, data.rank())?;
        let offsets = element_offsets(data.shape(), indices.shape(), a, &ints(indices)?)?;
        let out = typed!(data.dtype(), T => pick::<T>(ctx, data, &offsets, 1, indices.shape()))?;
        Ok(vec![out])
    }
}

struct GatherNd {
    batch: usize,
}

fn gather_nd(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let batch = ctx.int("batch_dims", 0)?;
    let batch = usize::try_from(batch)
        .map_err(|_| OpError::attribute(format!("batch_dims is {batch}; it must not be negative")))?;
    ctx.one(GatherNd { batch })
}

/// Where index tuples (the last dimension of `picked`) point in a tensor of shape `dims`, after `batch`
/// leading dimensions shared with the indices; and how many elements lie at each.
pub(crate) fn tuple_offsets(
    dims: &[usize],
    picked: &[usize],
    batch: usize,
    indices: &[i64],
) -> Result<(Vec<usize>, usize), OpError> {
    let refuse = || {
        OpError::shape(format!(
            "index tuples of shape {picked:?} into {dims:?} with {batch} batch dimensions"
        ))
    };
    let Some((&depth, outer)) = picked.split_last() else { return Err(refuse()) };
    if batch > outer.len() || batch > dims.len() || depth > dims.len() - batch {
        return Err(refuse());
    }
    if dims[..batch] != outer[..batch] {
        return Err(refuse());
    }
    let block: usize = dims[batch..].iter().product();
    let run: usize = dims[batch + depth..].iter().product();
    let count: usize = outer.iter().product();
    let per_batch: usize = outer[batch..].iter().product();
    let mut out = Vec::with_capacity(count);
    for t in 0..count {
        let tuple = &indices[t * depth..(t + 1) * depth];
        let mut at = 0;
        for (&i, &n) in tuple.iter().zip(&dims[batch..]) {
            at = at * n + index(i, n)?;
        }
        out.push(t / per_batch * block + at * run);
    }
    Ok((out, run))
}

impl Op for GatherNd {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let (Some(dims), Some(picked)) = (&data.shape, &fact(inputs, 1).shape) else {
                return Ok(vec![Fact::typed(data.dtype)]);
            };
            let shape = match picked.split_last() {
                Some((&Some(depth), outer)) => {
                    let rest = self.batch.checked_add(depth).and_then(|n| dims.get(n..));
                    let rest = rest.ok_or_else(|| {
                        OpError::shape(format!("index tuples of shape {picked:?} into {dims:?}"))
                    })?;
                    Some([outer, rest].concat())
                }
                _ => None,
            };
            Ok(vec![Fact::new(data.dtype, shape)])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (data, indices) = (inputs.get(0)?, inputs.get(1)?);
        let (offsets, run) = tuple_offsets(data.shape(), indices.shape(), self.batch, &ints(indices)?)?;
        let depth = indices.shape()[indices.rank() - 1];
        let shape = [&indices.shape()[..indices.rank() - 1], &data.shape()[self.batch + depth..]].concat();
        let out = typed!(data.dtype(), T => pick::<T>(ctx, data, &offsets, run, &shape))?;
        Ok(vec![out])
    }
}

struct Compress {
    axis: Option<i64>,
}

impl Op for Compress {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let shape = match (self.axis, &data.shape) {
                (None, _) => Some(vec![None]),
                (Some(a), Some(dims)) => {
                    let mut shape = dims.clone();
                    shape[axis(a, dims.len())?] = None;
                    Some(shape)
                }
                _ => None,
            };
            Ok(vec![Fact::new(data.dtype, shape)])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let mut data = inputs.take(0)?;
        let flags = inputs.slice::<bool>(1)?;
        let a = match self.axis {
            Some(a) => axis(a, data.rank())?,
            None => {
                let n = data.len();
                data = data.reshape(&[n])?;
                0
            }
        };
        let n = data.shape()[a];
        if flags.len() > n && flags[n..].contains(&true) {
            return Err(OpError::index(format!("{} conditions for an extent of {n}", flags.len())));
        }
        let picked: Vec<usize> = (0..n.min(flags.len())).filter(|&i| flags[i]).collect();
        let mut shape = data.shape().to_vec();
        shape[a] = picked.len();
        let out = typed!(data.dtype(), T => rows::<T>(ctx, &data, a, &picked, &shape))?;
        Ok(vec![out])
    }
}

struct OneHot {
    axis: i64,
}

/// An index given in any numeric type, rounded toward zero.
fn whole(tensor: &Tensor) -> Result<Vec<i64>, OpError> {
    match tensor.data() {
        Data::I64(b) => Ok(b.to_vec()),
        _ => typed!(numbers tensor.dtype(), T => {
            Ok(tensor.as_slice::<T>()?.iter().map(|v| v.wide() as i64).collect())
        }),
    }
}

impl Op for OneHot {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let dtype = fact(inputs, 2).dtype;
            let Some(dims) = &fact(inputs, 0).shape else { return Ok(vec![Fact::typed(dtype)]) };
            let depth = match &fact(inputs, 1).value {
                Some(depth) => whole(depth)?.first().and_then(|&d| usize::try_from(d).ok()),
                None => None,
            };
            let mut shape = dims.clone();
            shape.insert(axis(self.axis, dims.len() + 1)?, depth);
            Ok(vec![Fact::new(dtype, Some(shape))])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (indices, values) = (inputs.get(0)?, inputs.get(2)?);
        let depth = match whole(inputs.get(1)?)?.as_slice() {
            [d] if *d >= 0 => *d as usize,
            other => return Err(OpError::input(format!("depth {other:?}; expected one number, 0 or more"))),
        };
        let a = axis(self.axis, indices.rank() + 1)?;
        let mut shape = indices.shape().to_vec();
        shape.insert(a, depth);
        let inner: usize = indices.shape()[a..].iter().product();
        let hot = whole(indices)?;
        fn go<T: Element>(
            ctx: &RunCtx<'_>,
            values: &Tensor,
            shape: &[usize],
            hot: &[i64],
            (depth, inner): (usize, usize),
        ) -> Result<Tensor, OpError> {
            let [off, on] = values.as_slice::<T>()? else {
                return Err(OpError::input(format!("values of shape {:?}; expected [2]", values.shape())));
            };
            let mut out = ctx.memory.filled(shape, off.clone())?;
            for (k, &i) in hot.iter().enumerate() {
                // An index out of range is all off; that is the standard's word, not an error.
                if let Ok(i) = index(i, depth) {
                    out[(k / inner * depth + i) * inner + k % inner] = on.clone();
                }
            }
            Ok(Tensor::new(shape, out)?)
        }
        let out = typed!(values.dtype(), T => go::<T>(ctx, values, &shape, &hot, (depth, inner)))?;
        Ok(vec![out])
    }
}

struct ReverseSequence {
    batch: i64,
    time: i64,
}

fn reverse_sequence(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(ReverseSequence { batch: ctx.int("batch_axis", 1)?, time: ctx.int("time_axis", 0)? })
}

impl Op for ReverseSequence {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let data = fact(inputs, 0);
        Ok(vec![Fact::new(data.dtype, data.shape.clone())])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let dims = data.shape();
        let (batch, time) = (axis(self.batch, dims.len())?, axis(self.time, dims.len())?);
        if batch + time != 1 {
            return Err(OpError::attribute(format!(
                "batch_axis {batch} and time_axis {time}; one must be 0 and the other 1"
            )));
        }
        let lengths = ints(inputs.get(1)?)?;
        if lengths.len() != dims[batch] {
            return Err(OpError::shape(format!("{} lengths for a batch of {}", lengths.len(), dims[batch])));
        }
        if let Some(n) = lengths.iter().find(|&&n| n < 0 || n as u64 > dims[time] as u64) {
            return Err(OpError::index(format!("a length of {n} in a time axis of {}", dims[time])));
        }
        let run: usize = dims[2..].iter().product();
        let offsets: Vec<usize> = (0..dims[0] * dims[1])
            .map(|k| {
                let mut at = [k / dims[1], k % dims[1]];
                let n = lengths[at[batch]] as usize;
                if at[time] < n {
                    at[time] = n - 1 - at[time];
                }
                (at[0] * dims[1] + at[1]) * run
            })
            .collect();
        let out = typed!(data.dtype(), T => pick::<T>(ctx, data, &offsets, run, dims))?;
        Ok(vec![out])
    }
}
