//! TensorScatter: a cache of keys or values with new ones written into it.

use isobit_tensor::{Element, Tensor};

use crate::axes::{axis, bounded, fact, ints};
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("TensorScatter", 24, tensor_scatter)];

struct TensorScatter {
    axis: i64,
    /// Positions past the end go on at the front.
    circular: bool,
}

fn tensor_scatter(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let circular = ctx.choice("mode", &[("linear", false), ("circular", true)])?;
    ctx.one(TensorScatter { axis: ctx.int("axis", -2)?, circular })
}

impl Op for TensorScatter {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let cache = fact(inputs, 0);
        if let Some(rank) = cache.rank() {
            self.axis_of(rank)?;
        }
        Ok(vec![Fact::new(cache.dtype, cache.shape.clone())])
    }

    fn run(&self, _: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let cache = inputs.take(0)?;
        let update = inputs.get(1)?;
        bounded([&cache, update])?;
        let axis = self.axis_of(cache.rank())?;
        let (room, length) = (cache.shape()[axis], update.shape().get(axis).copied().unwrap_or(0));
        let mut expected = cache.shape().to_vec();
        expected[axis] = length;
        if update.shape() != expected || length > room {
            let message =
                format!("an update of shape {:?} for a cache of {:?}", update.shape(), cache.shape());
            return Err(OpError::shape(format!("{message}; they may differ along axis {axis} only")));
        }
        let starts = match inputs.opt(2).map(ints).transpose()? {
            None => vec![0; cache.shape()[0]],
            Some(starts) if starts.len() == cache.shape()[0] => starts,
            Some(starts) => {
                return Err(OpError::shape(format!(
                    "{} write_indices for {:?}",
                    starts.len(),
                    cache.shape()
                )));
            }
        };
        let starts =
            starts.into_iter().map(|s| self.start(s, length, room)).collect::<Result<Vec<_>, _>>()?;
        let shape = cache.shape().to_vec();
        let out = typed!(cache.dtype(), T => {
            let out = write::<T>(cache.into_vec()?, update.as_slice::<T>()?, &shape, axis, (&starts, length));
            Ok::<_, OpError>(Tensor::new(&shape, out)?)
        })?;
        Ok(vec![out])
    }
}

impl TensorScatter {
    fn axis_of(&self, rank: usize) -> Result<usize, OpError> {
        match axis(self.axis, rank)? {
            0 => Err(OpError::attribute("axis 0 is the batch; give the axis of the sequence")),
            axis => Ok(axis),
        }
    }

    fn start(&self, start: i64, length: usize, room: usize) -> Result<usize, OpError> {
        let at = usize::try_from(start).ok().filter(|&s| self.circular || s <= room - length);
        let error = || OpError::index(format!("{length} positions from {start} in a cache of {room}"));
        Ok(at.ok_or_else(error)?.checked_rem(room).unwrap_or(0))
    }
}

fn write<T: Element>(
    mut cache: Vec<T>,
    update: &[T],
    shape: &[usize],
    axis: usize,
    (starts, length): (&[usize], usize),
) -> Vec<T> {
    let (room, inner): (usize, usize) = (shape[axis], shape[axis + 1..].iter().product());
    let middle: usize = shape[1..axis].iter().product();
    if cache.is_empty() || length == 0 {
        return cache;
    }
    let parts = cache.chunks_exact_mut(room * inner).zip(update.chunks_exact(length * inner));
    for (i, (cache, update)) in parts.enumerate() {
        for (s, row) in update.chunks_exact(inner).enumerate() {
            let at = (starts[i / middle] + s) % room;
            cache[at * inner..(at + 1) * inner].clone_from_slice(row);
        }
    }
    cache
}
