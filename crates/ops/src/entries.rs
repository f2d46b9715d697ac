//! Batches: operators that compute each entry of one by itself ([`crate::Op::entrywise`]), and parts of batches.

use std::ops::Range;

use isobit_tensor::Tensor;

use crate::blocked::Blocked;
use crate::concat::concat;
use crate::{Fact, OpError, RunCtx, Value};

/// Of an operator that takes the entries of operand 0 one by one: whether the others are no batch.
pub(crate) fn first_alone(batch: &[bool]) -> bool {
    batch.first() == Some(&true) && !batch[1..].contains(&true)
}

/// Of an operator on operands that broadcast: whether those in the batch reach the result's first axis, and no others do.
pub(crate) fn of_broadcast(operands: &[Option<Fact>], batch: &[bool]) -> bool {
    let shapes: Option<Vec<_>> = operands.iter().map(|fact| fact.as_ref()?.known_shape()).collect();
    let Some(shapes) = shapes else { return false };
    let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
    let mut operands = shapes.iter().zip(batch);
    rank > 0 && operands.all(|(s, &batch)| if batch { s.len() == rank } else { s.len() < rank || s[0] == 1 })
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
