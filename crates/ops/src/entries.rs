//! Batches: operators that compute each entry of one by itself ([`crate::Op::batch_axis`]), and parts of batches.

use std::ops::Range;

use isobit_tensor::Tensor;

use crate::blocked::Blocked;
use crate::concat::concat;
use crate::{Fact, OpError, RunCtx, Value};

/// Of an operator that computes each element of operand 0 by itself, and takes no batch besides.
pub(crate) fn each_alone(batch: &[Option<usize>]) -> Option<usize> {
    batch.first().copied().flatten().filter(|_| batch[1..].iter().all(Option::is_none))
}

/// As [`each_alone`] for the images of operand 0, its entries along axis 0.
pub(crate) fn images_alone(batch: &[Option<usize>]) -> Option<usize> {
    each_alone(batch).filter(|&axis| axis == 0)
}

/// Of an operator on operands that broadcast: the result's axis that those in the batch share, and no others reach.
pub(crate) fn of_broadcast(operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
    let shapes = operands.iter().map(|fact| fact.as_ref()?.known_shape()).collect::<Option<Vec<_>>>()?;
    let rank = shapes.iter().map(Vec::len).max()?;
    let aligned = |(s, a): (&Vec<usize>, &Option<usize>)| a.map(|a| rank - s.len() + a);
    let mut axes = shapes.iter().zip(batch).filter_map(aligned);
    let axis = axes.next()?;
    let reaches = |s: &Vec<usize>| (axis + s.len()).checked_sub(rank).is_some_and(|a| s[a] != 1);
    let mut others = shapes.iter().zip(batch).filter(|(_, a)| a.is_none());
    (axes.all(|a| a == axis) && !others.any(|(s, _)| reaches(s))).then_some(axis)
}

impl Value {
    /// Some entries of a tensor along its first axis; `None` where it has not as many.
    pub fn entries(&self, range: Range<usize>) -> Option<Self> {
        self.as_tensor()?.entries(range).map(Value::from)
    }

    /// Parts of a batch one after the other, in the layout of the first.
    ///
    /// # Errors
    /// When their types or the extents of their entries differ, or a limit is reached.
    pub fn together(ctx: &RunCtx<'_>, parts: Vec<Self>) -> Result<Self, OpError> {
        let parts = parts.into_iter().map(|v| v.settled(ctx)).collect::<Result<Vec<_>, _>>()?;
        let blocked = |v: &Value| if let Value::Blocked(images) = v { Some(images.clone()) } else { None };
        if let Some(images) = parts.iter().map(blocked).collect::<Option<Vec<_>>>()
            && let Some(all) = Blocked::together(ctx, &images)?
        {
            return Ok(Value::Blocked(all));
        }
        let tensor = |v: Value| {
            v.into_datum(ctx)?.into_tensor().map_err(|d| OpError::input(format!("{} in a batch", d.kind())))
        };
        let parts = parts.into_iter().map(tensor).collect::<Result<Vec<Tensor>, _>>()?;
        Ok(concat(ctx, &parts.iter().collect::<Vec<_>>(), 0)?.into())
    }
}
