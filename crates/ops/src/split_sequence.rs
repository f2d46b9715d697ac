//! SplitToSequence: a tensor cut along an axis into a sequence of parts.

use isobit_tensor::{Datum, Tensor};

use crate::axes::{axis, extents, ints};
use crate::broadcast::strides;
use crate::slice::part;
use crate::{BuildCtx, Code, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("SplitToSequence", 24, split_to_sequence)];

struct SplitToSequence {
    axis: i64,
    keepdims: bool,
}

fn split_to_sequence(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(SplitToSequence { axis: ctx.int("axis", 0)?, keepdims: ctx.flag("keepdims", true)? })
}

/// Most parts of one tensor: parts of empty tensors take memory too.
const MAX_PARTS: usize = 1 << 24;

/// The lengths of the parts: all of one length (the last one may be shorter), or as listed.
fn lengths(split: &Tensor, extent: usize) -> Result<Vec<usize>, OpError> {
    let values = ints(split)?;
    if split.rank() > 0 {
        let lengths = extents(&values)?;
        return match lengths.iter().try_fold(0usize, |sum, &d| sum.checked_add(d)) {
            Some(sum) if sum == extent => Ok(lengths),
            _ => Err(OpError::shape(format!("parts {values:?} of an extent of {extent}"))),
        };
    }
    match usize::try_from(values[0]) {
        Ok(each) if each > 0 => Ok((0..extent).step_by(each).map(|at| each.min(extent - at)).collect()),
        _ => Err(OpError::input(format!("parts of length {}; give a length of at least 1", values[0]))),
    }
}

impl Op for SplitToSequence {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::unknown()])
    }

    fn run_any(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        let data = inputs.get(0)?;
        let a = axis(self.axis, data.rank())?;
        if data.shape()[a] > MAX_PARTS {
            let message = format!("up to {} parts; at most {MAX_PARTS} are made", data.shape()[a]);
            return Err(OpError::new(Code::LimitExceeded, message));
        }
        let split = inputs.opt(1);
        let lengths = match split {
            Some(split) => lengths(split, data.shape()[a])?,
            None => vec![1; data.shape()[a]],
        };
        let steps = strides(data.shape());
        let mut at = 0;
        let mut items = Vec::with_capacity(lengths.len());
        for length in lengths {
            let mut shape = data.shape().to_vec();
            shape[a] = length;
            let item = part(ctx, data, &shape, &steps, at)?;
            at += length as isize * steps[a];
            // Dimensions are only dropped where nothing says how to split.
            if split.is_none() && !self.keepdims {
                shape.remove(a);
            }
            items.push(item.reshape(&shape)?.into());
        }
        Ok(vec![Datum::sequence(items)])
    }
}
