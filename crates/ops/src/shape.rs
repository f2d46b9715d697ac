//! Operators that look at or change a shape alone: Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze,
//! Expand. All but Expand move no element.

use isobit_kernels::math::unary_in_place;
use isobit_tensor::{DType, Element, Tensor, with_data};

use crate::arith::owned;
use crate::axes::{axes, fact, ints, known, known_ints, settled, split_axis};
use crate::broadcast::{Walk, broadcast, broadcast_dims, copy_strided};
use crate::fold::fold;
use crate::tail::Tail;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Shape", 23, |ctx| {
        ctx.one(ShapeOf { start: ctx.int("start", 0)?, end: ctx.int("end", i64::MAX)? })
    }),
    OpDef::onnx("Size", 23, |ctx| ctx.one(Size)),
    OpDef::onnx("Expand", 13, |ctx| ctx.one(Expand)),
    OpDef::onnx("Reshape", 23, reshape),
    OpDef::onnx("Flatten", 23, |ctx| ctx.one(View::Flatten { axis: ctx.int("axis", 1)? })),
    OpDef::onnx("Squeeze", 23, |ctx| ctx.one(View::Squeeze)),
    OpDef::onnx("Unsqueeze", 23, |ctx| ctx.one(View::Unsqueeze)),
];

struct ShapeOf {
    start: i64,
    end: i64,
}

impl ShapeOf {
    fn part<'a, T>(&self, shape: &'a [T]) -> &'a [T] {
        let n = shape.len() as i64;
        let clamp = |v: i64| if v < 0 { v.saturating_add(n).max(0) } else { v.min(n) } as usize;
        let (start, end) = (clamp(self.start), clamp(self.end));
        &shape[start.min(end)..end]
    }
}

impl Op for ShapeOf {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let Some(shape) = &fact(inputs, 0).shape else { return Ok(vec![Fact::typed(Some(DType::I64))]) };
        let part = self.part(shape);
        let numbers: Option<Vec<i64>> = part.iter().map(|d| d.map(|d| d as i64)).collect();
        Ok(vec![match numbers {
            Some(numbers) => Fact::constant(Tensor::vector(numbers)),
            None => Fact::fixed(DType::I64, &[part.len()]),
        }])
    }

    fn run(&self, _: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let shape = self.part(inputs.get(0)?.shape());
        Ok(vec![Tensor::vector(shape.iter().map(|&d| d as i64).collect())])
    }
}

struct Size;

impl Op for Size {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![match fact(inputs, 0).numel() {
            Some(n) => Fact::constant(Tensor::scalar(n as i64)),
            None => Fact::fixed(DType::I64, &[]),
        }])
    }

    fn run(&self, _: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![Tensor::scalar(inputs.get(0)?.len() as i64)])
    }
}

struct Expand;

impl Op for Expand {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let shape = match (&data.shape, known_ints(inputs, 1)?) {
                (Some(shape), Some(target)) => {
                    Some(broadcast_dims(&[shape, &known(&crate::axes::extents(&target)?)])?)
                }
                _ => None,
            };
            Ok(vec![Fact::new(data.dtype, shape)])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let target = crate::axes::extents(&ints(inputs.get(1)?)?)?;
        Ok(vec![expand(ctx, data, &broadcast(&[data.shape(), &target])?)?])
    }
}

/// `data` repeated to the broadcast shape `shape`.
pub(crate) fn expand(ctx: &RunCtx<'_>, data: &Tensor, shape: &[usize]) -> Result<Tensor, OpError> {
    fn go<T: Element>(ctx: &RunCtx<'_>, src: &[T], from: &[usize], to: &[usize]) -> Result<Tensor, OpError> {
        let mut out = ctx.memory.alloc::<T>(to)?;
        copy_strided(ctx.exec, &Walk::broadcast(to, [from]), src, &mut out);
        Ok(Tensor::new(to, out)?)
    }
    if data.shape() == shape {
        return Ok(data.clone());
    }
    with_data!(data.data(), b => go(ctx, b, data.shape(), shape))
}

fn reshape(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(View::Reshape { allow_zero: ctx.flag("allowzero", false)? })
}

/// The same elements under another shape; operand 1, where there is one, says which.
enum View {
    Reshape { allow_zero: bool },
    Flatten { axis: i64 },
    Squeeze,
    Unsqueeze,
}

impl View {
    /// The result's extents from those of the operand and the numbers in operand 1.
    fn target(&self, dims: &[Option<usize>], numbers: Option<&[i64]>) -> Result<Vec<Option<usize>>, OpError> {
        let required = || numbers.ok_or_else(|| OpError::input("input 1 is missing"));
        match self {
            View::Reshape { allow_zero } => reshaped(dims, required()?, *allow_zero),
            View::Flatten { axis } => {
                let (rows, columns) = dims.split_at(split_axis(*axis, dims.len())?);
                let product =
                    |dims: &[Option<usize>]| dims.iter().try_fold(1usize, |n, d| n.checked_mul((*d)?));
                Ok(vec![product(rows), product(columns)])
            }
            View::Squeeze => match numbers {
                None => Ok(dims.iter().copied().filter(|d| *d != Some(1)).collect()),
                Some(numbers) => {
                    let gone = axes(numbers, dims.len())?;
                    if let Some(a) = gone.iter().find(|a| dims[**a].is_some_and(|d| d != 1)) {
                        return Err(OpError::shape(format!(
                            "axis {a} of {dims:?} cannot be squeezed; its extent must be 1"
                        )));
                    }
                    let kept = dims.iter().enumerate().filter(|(i, _)| !gone.contains(i));
                    Ok(kept.map(|(_, d)| *d).collect())
                }
            },
            View::Unsqueeze => {
                let numbers = required()?;
                let new = axes(numbers, dims.len() + numbers.len())?;
                let mut old = dims.iter().copied();
                let dim = |i| if new.contains(&i) { Some(1) } else { old.next().flatten() };
                Ok((0..dims.len() + new.len()).map(dim).collect())
            }
        }
    }
}

fn reshaped(dims: &[Option<usize>], target: &[i64], allow_zero: bool) -> Result<Vec<Option<usize>>, OpError> {
    let refuse = |why: &str| OpError::shape(format!("cannot reshape {dims:?} to {target:?}: {why}"));
    let mut out = Vec::with_capacity(target.len());
    let mut wildcard = None;
    for (i, &t) in target.iter().enumerate() {
        out.push(match t {
            -1 if wildcard.replace(i).is_some() => return Err(refuse("only one extent may be -1")),
            -1 => Some(1),
            0 if !allow_zero => *dims.get(i).ok_or_else(|| refuse("a 0 beyond the operand's rank"))?,
            t => Some(usize::try_from(t).map_err(|_| refuse("extents are at least -1"))?),
        });
    }
    let product =
        |dims: &[Option<usize>]| dims.iter().try_fold(1usize, |n, d| d.map(|d| n.saturating_mul(d)));
    if let Some(at) = wildcard {
        if allow_zero && target.contains(&0) {
            return Err(refuse("with allowzero, -1 beside 0 has no meaning"));
        }
        out[at] = match (product(dims), product(&out)) {
            (Some(_), Some(0)) => Some(0),
            (Some(n), Some(rest)) if n % rest == 0 => Some(n / rest),
            (Some(_), Some(_)) => return Err(refuse("the element counts do not divide")),
            _ => None,
        };
    }
    if let (Some(n), Some(m)) = (product(dims), product(&out))
        && n != m
    {
        return Err(refuse(&format!("{n} elements against {m}")));
    }
    Ok(out)
}

impl Op for View {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let numbers = known_ints(inputs, 1)?;
            let unread = crate::axes::given(inputs, 1).is_some() && numbers.is_none();
            let shape = match &data.shape {
                _ if unread => match (self, fact(inputs, 1).shape.as_deref()) {
                    (View::Reshape { .. }, Some([Some(rank)])) => Some(vec![None; *rank]),
                    _ => None,
                },
                Some(dims) => Some(self.target(dims, numbers.as_deref())?),
                None => match (self, &numbers) {
                    (View::Reshape { .. }, Some(t)) => {
                        Some(t.iter().map(|&t| usize::try_from(t).ok().filter(|&t| t > 0)).collect())
                    }
                    (View::Flatten { .. }, _) => Some(vec![None; 2]),
                    _ => None,
                },
            };
            // A squeeze of every unit extent has an unknown rank while an extent is unknown.
            let shape = match (self, &data.shape, &numbers) {
                (View::Squeeze, Some(dims), None) if dims.contains(&None) => None,
                _ => shape,
            };
            Ok(vec![Fact::new(data.dtype, shape)])
        })
    }

    fn keeps_order(&self) -> bool {
        true
    }

    fn extents_operand(&self) -> Option<usize> {
        matches!(self, View::Reshape { .. }).then_some(1)
    }

    fn run(&self, _: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let numbers = inputs.opt(1).map(ints).transpose()?;
        let data = inputs.take(0)?;
        let shape = settled(self.target(&known(data.shape()), numbers.as_deref())?)?;
        Ok(vec![data.reshape(&shape)?])
    }

    fn takes_tail(&self) -> bool {
        true
    }

    fn run_tail(
        &self,
        ctx: &RunCtx<'_>,
        inputs: Inputs,
        tail: &[Tail],
    ) -> Result<(Vec<Tensor>, usize), OpError> {
        let results = self.run(ctx, inputs)?;
        let [Tail::Unary(f), ..] = *tail else { return Ok((results, 0)) };
        let in_place = |x: Tensor| {
            let (shape, mut x) = (x.shape().to_vec(), owned(ctx, x)?);
            unary_in_place(ctx.exec, f, &mut x);
            Ok(Tensor::new(&shape, x)?)
        };
        if results.iter().any(|x| x.dtype() != DType::F32) {
            return Ok((results, 0));
        }
        Ok((results.into_iter().map(in_place).collect::<Result<_, OpError>>()?, 1))
    }
}
