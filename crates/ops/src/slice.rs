//! Parts of a tensor: Slice, Split, Trilu.

use isobit_tensor::{Element, Tensor, with_data};

use crate::axes::{axes, axis, extents, fact, given, int, ints, known_ints};
use crate::broadcast::{Walk, copy_strided, strides};
use crate::entries::each_alone;
use crate::fold::fold;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Slice", 13, |ctx| ctx.one(Slice)),
    OpDef::onnx("Split", 18, split),
    OpDef::onnx("Trilu", 14, |ctx| ctx.one(Trilu { upper: ctx.flag("upper", true)? })),
];

struct Slice;

/// What a slice takes along one axis.
#[derive(Clone, Copy)]
struct Cut {
    start: isize,
    step: isize,
    len: usize,
}

impl Cut {
    /// Python's rule: `start` and `end` are clamped to the extent `n`.
    fn new(start: i64, end: i64, step: i64, n: usize) -> Result<Self, OpError> {
        let n = n as i64;
        let from_back = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
        let (start, end) = (from_back(start), from_back(end));
        let (start, span) = if step > 0 {
            let start = start.clamp(0, n);
            (start, end.clamp(0, n) - start)
        } else {
            let start = start.clamp(-1, n - 1);
            (start, start - end.clamp(-1, n - 1))
        };
        let every = step.unsigned_abs();
        if every == 0 {
            return Err(OpError::input("a step of 0; it must be positive or negative"));
        }
        let len = (span.max(0) as u64).div_ceil(every) as usize;
        Ok(Self { start: start as isize, step: step as isize, len })
    }
}

/// The numbers that direct a slice: axes are resolved, steps given.
struct Cuts {
    starts: Vec<i64>,
    ends: Vec<i64>,
    axes: Vec<usize>,
    steps: Vec<i64>,
}

impl Cuts {
    fn new(
        starts: Vec<i64>,
        ends: Vec<i64>,
        on: Option<Vec<i64>>,
        steps: Option<Vec<i64>>,
        rank: usize,
    ) -> Result<Self, OpError> {
        let n = starts.len();
        let on = axes(&on.unwrap_or_else(|| (0..n as i64).collect()), rank)?;
        let steps = steps.unwrap_or_else(|| vec![1; n]);
        if ends.len() != n || on.len() != n || steps.len() != n {
            return Err(OpError::shape(format!(
                "{n} starts, {} ends, {} axes and {} steps; their number must be the same",
                ends.len(),
                on.len(),
                steps.len()
            )));
        }
        Ok(Self { starts, ends, axes: on, steps })
    }

    fn cut(&self, i: usize, n: usize) -> Result<Cut, OpError> {
        Cut::new(self.starts[i], self.ends[i], self.steps[i], n)
    }
}

impl Op for Slice {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let optional = |i| match given(inputs, i) {
                None => Ok(Some(None)),
                Some(_) => Ok::<_, OpError>(known_ints(inputs, i)?.map(Some)),
            };
            let Some(dims) = &data.shape else { return Ok(vec![Fact::typed(data.dtype)]) };
            let mut shape = vec![None; dims.len()];
            if let Some(on) = optional(3)? {
                // Other axes keep their extent even where the bounds are computed.
                let count = fact(inputs, 1).shape.as_deref().and_then(|s| s.first().copied().flatten());
                let cut_axes = match (&on, count) {
                    (Some(on), _) => Some(axes(on, dims.len())?),
                    (None, Some(n)) => Some((0..n.min(dims.len())).collect()),
                    (None, None) => None,
                };
                if let Some(cut_axes) = cut_axes {
                    shape = dims.clone();
                    for a in cut_axes {
                        shape[a] = None;
                    }
                }
                if let (Some(starts), Some(ends), Some(steps)) =
                    (known_ints(inputs, 1)?, known_ints(inputs, 2)?, optional(4)?)
                {
                    let cuts = Cuts::new(starts, ends, on, steps, dims.len())?;
                    for (i, &a) in cuts.axes.iter().enumerate() {
                        shape[a] = dims[a].map(|n| Ok::<_, OpError>(cuts.cut(i, n)?.len)).transpose()?;
                    }
                }
            }
            Ok(vec![Fact::new(data.dtype, Some(shape))])
        })
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let known = |i| match given(operands, i) {
            None => Some(None),
            Some(_) => known_ints(operands, i).ok().flatten().map(Some),
        };
        let (axis, shape) = (each_alone(batch)?, fact(operands, 0).known_shape()?);
        let cuts = Cuts::new(known(1)??, known(2)??, known(3)?, known(4)?, shape.len()).ok()?;
        // Along the batch nothing may be cut off, of no part of it.
        let at = cuts.axes.iter().position(|&a| a == axis);
        let all = |i: usize| (cuts.starts[i], cuts.steps[i]) == (0, 1) && cuts.ends[i] >= shape[axis] as i64;
        at.is_none_or(all).then_some(axis)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let optional = |i| inputs.opt(i).map(ints).transpose();
        let (starts, ends) = (ints(inputs.get(1)?)?, ints(inputs.get(2)?)?);
        let cuts = Cuts::new(starts, ends, optional(3)?, optional(4)?, data.rank())?;
        let (mut shape, mut steps, mut offset) = (data.shape().to_vec(), strides(data.shape()), 0);
        for (i, &a) in cuts.axes.iter().enumerate() {
            let cut = cuts.cut(i, shape[a])?;
            shape[a] = cut.len;
            if cut.len > 0 {
                offset += cut.start * steps[a];
            }
            // A single element is never stepped over, so a step too wide for the extent cannot matter.
            steps[a] = if cut.len > 1 { steps[a] * cut.step } else { 0 };
        }
        if shape == data.shape() && offset == 0 {
            return Ok(vec![data.clone()]);
        }
        if let Some(rows) = rows_of_file(ctx, data, &shape, &steps, offset)? {
            return Ok(vec![rows]);
        }
        Ok(vec![part(ctx, data, &shape, &steps, offset)?])
    }
}

/// What [`part`] gives, shared, where it is some whole rows of weights in a file.
fn rows_of_file(
    ctx: &RunCtx<'_>,
    data: &Tensor,
    shape: &[usize],
    steps: &[isize],
    offset: isize,
) -> Result<Option<Tensor>, OpError> {
    let own = strides(data.shape());
    if !data.is_in_file() || shape[1..] != data.shape()[1..] || steps != own || own[0] == 0 {
        return Ok(None);
    }
    typed!(data.dtype(), T => ctx.memory.check::<T>(shape))?;
    let first = (offset / own[0]) as usize;
    Ok(data.entries(first..first + shape[0]))
}

/// The elements of `data` from `offset` on, by `steps`, in the order of `shape`.
pub(crate) fn part(
    ctx: &RunCtx<'_>,
    data: &Tensor,
    shape: &[usize],
    steps: &[isize],
    offset: isize,
) -> Result<Tensor, OpError> {
    fn go<T: Element>(
        ctx: &RunCtx<'_>,
        src: &[T],
        shape: &[usize],
        steps: &[isize],
        offset: isize,
    ) -> Result<Tensor, OpError> {
        let mut out = ctx.memory.alloc::<T>(shape)?;
        copy_strided(ctx.exec, &Walk::new(shape, [steps], [offset]), src, &mut out);
        Ok(Tensor::new(shape, out)?)
    }
    with_data!(data.data(), b => go(ctx, b, shape, steps, offset))
}

struct Split {
    axis: i64,
    /// Whether `num_outputs` is given: equal parts, the last one smaller.
    equal: bool,
    outputs: usize,
}

fn split(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let (equal, outputs) = (ctx.opt_int("num_outputs")?, ctx.outputs());
    if let Some(n) = equal.filter(|&n| n != outputs as i64) {
        return Err(OpError::attribute(format!("num_outputs is {n}, but the node declares {outputs}")));
    }
    if outputs == 0 {
        return Err(OpError::input("the node declares no results; the operator has 1 or more"));
    }
    if equal.is_some() && ctx.has_input(1) {
        return Err(OpError::attribute("both num_outputs and the input 'split' are given; give one"));
    }
    Ok(Box::new(Split { axis: ctx.int("axis", 0)?, equal: equal.is_some(), outputs }))
}

impl Split {
    fn sizes(&self, extent: usize, sizes: Option<&[i64]>) -> Result<Vec<usize>, OpError> {
        let n = self.outputs;
        let Some(sizes) = sizes else {
            let each = extent.div_ceil(n);
            if !self.equal && !extent.is_multiple_of(n) {
                return Err(OpError::shape(format!("an extent of {extent} is not {n} equal parts")));
            }
            return Ok((0..n).map(|i| each.min(extent.saturating_sub(i * each))).collect());
        };
        let sizes = extents(sizes)?;
        let sum = sizes.iter().try_fold(0usize, |n, &d| n.checked_add(d));
        if sizes.len() != n || sum != Some(extent) {
            return Err(OpError::shape(format!(
                "split {sizes:?} of an extent of {extent} into {n} results; their sum must be the extent"
            )));
        }
        Ok(sizes)
    }
}

impl Op for Split {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let Some(dims) = &data.shape else { return Ok(vec![Fact::typed(data.dtype); self.outputs]) };
            let a = axis(self.axis, dims.len())?;
            let sizes = match (given(inputs, 1), known_ints(inputs, 1)?, dims[a]) {
                (None, _, Some(n)) => Some(self.sizes(n, None)?),
                (Some(_), Some(sizes), Some(n)) => Some(self.sizes(n, Some(&sizes))?),
                _ => None,
            };
            let shape = |i| {
                let mut shape = dims.clone();
                shape[a] = sizes.as_ref().map(|s| s[i]);
                Fact::new(data.dtype, Some(shape))
            };
            Ok((0..self.outputs).map(shape).collect())
        })
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let along = axis(self.axis, fact(operands, 0).rank()?).ok()?;
        each_alone(batch).filter(|&axis| axis != along)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let a = axis(self.axis, data.rank())?;
        let sizes = inputs.opt(1).map(ints).transpose()?;
        let (steps, mut shape) = (strides(data.shape()), data.shape().to_vec());
        let mut at = 0;
        let sizes = self.sizes(shape[a], sizes.as_deref())?;
        sizes
            .into_iter()
            .map(|n| {
                shape[a] = n;
                let offset = at as isize * steps[a];
                at += n;
                part(ctx, data, &shape, &steps, offset)
            })
            .collect()
    }
}

struct Trilu {
    upper: bool,
}

impl Op for Trilu {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            if data.rank().is_some_and(|r| r < 2) {
                return Err(OpError::shape(format!(
                    "a shape of {:?}; the rank must be 2 or more",
                    data.shape
                )));
            }
            Ok(vec![Fact::new(data.dtype, data.shape.clone())])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let k = inputs.opt(1).map(int).transpose()?.unwrap_or(0);
        let data = inputs.take(0)?;
        let [.., rows, columns] = *data.shape() else {
            return Err(OpError::shape(format!("a shape of {:?}; the rank must be 2 or more", data.shape())));
        };
        fn go<T: Element>(
            ctx: &RunCtx<'_>,
            data: Tensor,
            (rows, columns): (usize, usize),
            zeroed: impl Fn(usize) -> std::ops::Range<usize>,
        ) -> Result<Tensor, OpError> {
            let (shape, mut out) = match data.try_unique::<T>() {
                Ok((shape, out)) => (shape, out),
                Err(data) => {
                    let mut out = ctx.memory.alloc::<T>(data.shape())?;
                    out.clone_from_slice(data.as_slice()?);
                    (data.shape().into(), out)
                }
            };
            for (i, row) in out.chunks_exact_mut(columns.max(1)).enumerate() {
                row[zeroed(i % rows.max(1))].fill(T::default());
            }
            Ok(Tensor::new(&shape, out)?)
        }
        let zeroed = |row: usize| {
            let diagonal = (row as i64).saturating_add(k);
            if self.upper {
                0..diagonal.clamp(0, columns as i64) as usize
            } else {
                diagonal.saturating_add(1).clamp(0, columns as i64) as usize..columns
            }
        };
        let out = typed!(data.dtype(), T => go::<T>(ctx, data, (rows, columns), zeroed))?;
        Ok(vec![out])
    }
}

#[cfg(test)]
mod tests {
    use super::Cut;

    #[test]
    fn cuts_follow_python() {
        for (start, end, step, n, want) in [
            (0, 10, 1, 4, (0, 4)),
            (-3, -1, 1, 4, (1, 2)),
            (3, 0, -1, 4, (3, 3)),
            (10, i64::MIN, -2, 4, (3, 2)),
            (i64::MIN, i64::MAX, 3, 4, (0, 2)),
            (2, 1, 1, 4, (2, 0)),
            (0, i64::MAX, i64::MAX, 4, (0, 1)),
            (0, 5, 1, 0, (0, 0)),
        ] {
            let cut = Cut::new(start, end, step, n).unwrap();
            assert_eq!((cut.start, cut.len), want, "[{start}:{end}:{step}] of {n}");
        }
        assert!(Cut::new(0, 1, 0, 4).is_err());
    }
}
