//! Sequences and optionals: SequenceEmpty, SequenceConstruct, SequenceInsert, SequenceErase, SequenceAt,
//! SequenceLength, ConcatFromSequence, Optional, OptionalGetElement, OptionalHasElement, Identity.

use std::sync::Arc;

use isobit_tensor::{DType, Datum, Tensor};

use crate::axes::int;
use crate::concat::concat;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("SequenceEmpty", 11, empty),
    OpDef::onnx("SequenceConstruct", 11, |ctx| ctx.one(Construct)),
    OpDef::onnx("SequenceInsert", 11, |ctx| ctx.one(Insert)),
    OpDef::onnx("SequenceErase", 11, |ctx| ctx.one(Erase)),
    OpDef::onnx("SequenceAt", 11, |ctx| ctx.one(At)),
    OpDef::onnx("SequenceLength", 11, |ctx| ctx.one(Length)),
    OpDef::onnx("ConcatFromSequence", 11, concat_from),
    OpDef::onnx("Optional", 15, |ctx| ctx.one(Optional)),
    OpDef::onnx("OptionalGetElement", 18, |ctx| ctx.one(GetElement)),
    OpDef::onnx("OptionalHasElement", 18, |ctx| ctx.one(HasElement)),
    OpDef::onnx("Identity", 25, |ctx| ctx.one(Identity)),
];

/// Operand `i`, which must be a sequence.
pub(crate) fn sequence(inputs: &Inputs, i: usize) -> Result<&Arc<Vec<Datum>>, OpError> {
    match inputs.datum(i) {
        Some(Datum::Sequence(items)) => Ok(items),
        Some(other) => Err(OpError::input(format!("input {i} is {}; a sequence is expected", other.kind()))),
        None => Err(OpError::input(format!("input {i} is missing"))),
    }
}

/// Position `i` of `n`, negative ones from the back; up to `most`.
fn position(i: i64, n: usize, most: usize) -> Result<usize, OpError> {
    let at = if i < 0 { i.checked_add(n as i64) } else { Some(i) };
    at.and_then(|at| usize::try_from(at).ok())
        .filter(|&at| at < most)
        .ok_or_else(|| OpError::index(format!("position {i} of a sequence of {n}")))
}

fn unknown() -> Result<Vec<Fact>, OpError> {
    Ok(vec![Fact::unknown()])
}

/// Implements an operator whose results nothing is known of beforehand, and which costs a unit for each
/// operand rather than for what is in it: it moves references.
macro_rules! by_reference {
    ($t:ty, |$ctx:ident, $inputs:ident| $body:expr) => {
        impl Op for $t {
            fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
                unknown()
            }
            fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
                1 + inputs.len() as u64
            }
            #[allow(unused_mut)]
            fn run_any(&self, $ctx: &RunCtx<'_>, mut $inputs: Inputs) -> Result<Vec<Datum>, OpError> {
                let _ = ($ctx, &$inputs);
                Ok(vec![$body])
            }
        }
    };
}

struct Empty;

fn empty(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let code = ctx.int("dtype", DType::F32.onnx().into())?;
    if i32::try_from(code).ok().and_then(DType::from_onnx).is_none() {
        return Err(OpError::attribute(format!("dtype is {code}, which is no element type")));
    }
    ctx.one(Empty)
}

by_reference!(Empty, |ctx, inputs| Datum::sequence(Vec::new()));

struct Construct;

by_reference!(Construct, |ctx, inputs| {
    let missing = |i| OpError::input(format!("input {i} is missing"));
    let items = (0..inputs.len()).map(|i| inputs.take_datum(i).ok_or_else(|| missing(i)));
    let items = items.collect::<Result<Vec<_>, _>>()?;
    let dtype = items.first().and_then(Datum::dtype);
    if items.iter().any(|d| d.dtype() != dtype) {
        return Err(OpError::input("the items of a sequence are of one type; these are of several"));
    }
    Datum::sequence(items)
});

/// The items, to be changed: a copy of the references where somebody else holds the sequence.
fn owned(inputs: &mut Inputs) -> Result<Vec<Datum>, OpError> {
    sequence(inputs, 0)?;
    match inputs.take_datum(0) {
        Some(Datum::Sequence(items)) => Ok(Arc::try_unwrap(items).unwrap_or_else(|shared| shared.to_vec())),
        _ => Err(OpError::input("input 0 is missing")),
    }
}

struct Insert;

by_reference!(Insert, |ctx, inputs| {
    let mut items = owned(&mut inputs)?;
    let n = items.len();
    let at = inputs.opt(2).map(int).transpose()?.map_or(Ok(n), |i| position(i, n, n + 1))?;
    let item = inputs.take_datum(1).ok_or_else(|| OpError::input("input 1 is missing"))?;
    if let (Some(a), Some(b)) = (items.first().and_then(Datum::dtype), item.dtype())
        && a != b
    {
        return Err(OpError::input(format!("an item of {b} for a sequence of {a}")));
    }
    items.insert(at, item);
    Datum::sequence(items)
});

struct Erase;

by_reference!(Erase, |ctx, inputs| {
    let mut items = owned(&mut inputs)?;
    let n = items.len();
    let at = inputs.opt(1).map(int).transpose()?.unwrap_or(-1);
    items.remove(position(at, n, n)?);
    Datum::sequence(items)
});

struct At;

by_reference!(At, |ctx, inputs| {
    let items = sequence(&inputs, 0)?;
    items[position(int(inputs.get(1)?)?, items.len(), items.len())?].clone()
});

struct Length;

impl Op for Length {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::fixed(DType::I64, &[])])
    }

    fn run_any(&self, _: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        Ok(vec![Tensor::scalar(sequence(&inputs, 0)?.len() as i64).into()])
    }
}

struct ConcatFrom {
    axis: i64,
    new_axis: bool,
}

fn concat_from(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let axis = ctx.opt_int("axis")?.ok_or_else(|| OpError::attribute("attribute 'axis' is missing"))?;
    ctx.one(ConcatFrom { axis, new_axis: ctx.flag("new_axis", false)? })
}

impl Op for ConcatFrom {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        unknown()
    }

    fn run_any(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        let tensor = |d: &Datum| {
            d.as_tensor().cloned().ok_or_else(|| OpError::input(format!("{} in the sequence", d.kind())))
        };
        let mut parts = sequence(&inputs, 0)?.iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
        if self.new_axis {
            let rank = parts.first().map_or(0, Tensor::rank);
            let at = crate::axes::axis(self.axis, rank + 1)?;
            for part in &mut parts {
                let mut shape = part.shape().to_vec();
                shape.insert(at.min(shape.len()), 1);
                *part = part.clone().reshape(&shape)?;
            }
        }
        let parts: Vec<&Tensor> = parts.iter().collect();
        Ok(vec![concat(ctx, &parts, self.axis)?.into()])
    }
}

struct Optional;

by_reference!(Optional, |ctx, inputs| Datum::Optional(inputs.take_datum(0).map(Arc::new)));

struct GetElement;

by_reference!(GetElement, |ctx, inputs| match inputs.take_datum(0) {
    Some(Datum::Optional(Some(value))) => (*value).clone(),
    Some(Datum::Optional(None)) | None => {
        return Err(OpError::input("the optional is empty; ask OptionalHasElement first"));
    }
    Some(value) => value,
});

struct HasElement;

impl Op for HasElement {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::fixed(DType::Bool, &[])])
    }

    fn run_any(&self, _: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        let has = !matches!(inputs.datum(0), None | Some(Datum::Optional(None)));
        Ok(vec![Tensor::scalar(has).into()])
    }
}

struct Identity;

impl Op for Identity {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![inputs.first().cloned().flatten().unwrap_or_default()])
    }

    fn run_any(&self, _: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        Ok(vec![inputs.take_datum(0).ok_or_else(|| OpError::input("input 0 is missing"))?])
    }
}
