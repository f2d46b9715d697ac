//! Tensors from nothing or from numbers: Constant, ConstantOfShape, Range, EyeLike.

use isobit_graph::Attr;
use isobit_tensor::{DType, Element, Tensor, bf16, f16};

use crate::axes::{extents, fact, ints, known, known_ints};
use crate::fold::fold;
use crate::number::Number;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Constant", 23, constant),
    OpDef::onnx("ConstantOfShape", 23, constant_of_shape),
    OpDef::onnx("Range", 11, |ctx| ctx.one(Range)),
    OpDef::onnx("EyeLike", 22, eye_like),
];

struct Constant(Tensor);

fn constant(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let text = |v: &[u8]| {
        String::from_utf8(v.to_vec()).map_err(|_| OpError::attribute("a string constant is not UTF-8"))
    };
    let tensor = match ctx.node.attrs.iter().next() {
        Some((_, Attr::Tensor(t))) => t.clone(),
        Some((_, Attr::Float(v))) => Tensor::scalar(*v),
        Some((_, Attr::Floats(v))) => Tensor::vector(v.clone()),
        Some((_, Attr::Int(v))) => Tensor::scalar(*v),
        Some((_, Attr::Ints(v))) => Tensor::vector(v.clone()),
        Some((_, Attr::String(v))) => Tensor::scalar(text(v)?),
        Some((_, Attr::Strings(v))) => Tensor::vector(v.iter().map(|v| text(v)).collect::<Result<_, _>>()?),
        _ => return Err(OpError::attribute("a constant needs one attribute with its value")),
    };
    if ctx.node.attrs.len() != 1 {
        return Err(OpError::attribute("a constant has exactly one attribute"));
    }
    ctx.one(Constant(tensor))
}

impl Op for Constant {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::constant(self.0.clone())])
    }

    fn run(&self, _: &RunCtx<'_>, _: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![self.0.clone()])
    }
}

struct ConstantOfShape(Tensor);

fn constant_of_shape(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let value = ctx.opt_tensor("value")?.cloned().unwrap_or_else(|| Tensor::scalar(0f32));
    if value.len() != 1 {
        return Err(OpError::attribute(format!("a value of {} elements; it must have one", value.len())));
    }
    ctx.one(ConstantOfShape(value))
}

impl Op for ConstantOfShape {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let shape = match (known_ints(inputs, 0)?, fact(inputs, 0).shape.as_deref()) {
                (Some(shape), _) => Some(known(&extents(&shape)?)),
                (None, Some([Some(rank)])) => Some(vec![None; *rank]),
                _ => None,
            };
            Ok(vec![Fact::new(Some(self.0.dtype()), shape)])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let shape = extents(&ints(inputs.get(0)?)?)?;
        let out = typed!(self.0.dtype(), T => {
            let value = Clone::clone(&self.0.as_slice::<T>()?[0]);
            Ok::<_, OpError>(Tensor::new(&shape, ctx.memory.filled::<T>(&shape, value)?)?)
        })?;
        Ok(vec![out])
    }
}

/// Element `i` is `start + i * delta`: one product and one sum, each rounded (in f32 for f16
/// and bf16, which round once).
struct Range;

/// How many steps of `delta` fit before `limit`: exact for integers, in f64 for floats.
trait Steps: Number {
    fn steps(start: Self, limit: Self, delta: Self) -> Option<usize>;
    /// Element `i`.
    fn element(start: Self, i: usize, delta: Self) -> Self;
}

macro_rules! steps {
    (int $($t:ty),*) => {$(
        impl Steps for $t {
            fn steps(start: Self, limit: Self, delta: Self) -> Option<usize> {
                let (span, delta) = (i128::from(limit) - i128::from(start), i128::from(delta));
                if delta == 0 {
                    return None;
                }
                let n = span / delta + i128::from(span % delta != 0 && (span < 0) == (delta < 0));
                // What saturates is refused by the limit on memory.
                Some(usize::try_from(n.max(0)).unwrap_or(usize::MAX))
            }
            fn element(start: Self, i: usize, delta: Self) -> Self {
                start.wrapping_add((i as $t).wrapping_mul(delta))
            }
        }
    )*};
    (float $($t:ty: $nth:expr),*) => {$(
        impl Steps for $t {
            fn steps(start: Self, limit: Self, delta: Self) -> Option<usize> {
                let n = ((limit.wide() - start.wide()) / delta.wide()).ceil();
                // Saturates; a count that large is refused by the limit on memory.
                (n.is_finite() && delta.wide() != 0.0).then_some(n as usize)
            }
            fn element(start: Self, i: usize, delta: Self) -> Self { $nth(start, i, delta) }
        }
    )*};
}
steps!(int i16, i32, i64);
steps!(float
    f32: |start, i, delta| start + i as f32 * delta,
    f64: |start, i, delta| start + i as f64 * delta,
    f16: |start: f16, i, delta: f16| f16::from_f32(start.to_f32() + i as f32 * delta.to_f32()),
    bf16: |start: bf16, i, delta: bf16| bf16::from_f32(start.to_f32() + i as f32 * delta.to_f32()));

macro_rules! range_type {
    ($dtype:expr, $t:ident => $body:expr) => {
        typed!(@ $dtype, $t => $body, F32: f32, F64: f64, F16: f16, BF16: bf16,
            I16: i16, I32: i32, I64: i64)
    };
}

impl Op for Range {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || Ok(vec![Fact::new(fact(inputs, 0).dtype, Some(vec![None]))]))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        fn go<T: Steps>(ctx: &RunCtx<'_>, inputs: &Inputs) -> Result<Tensor, OpError> {
            let one = |i| match inputs.slice::<T>(i)? {
                [v] => Ok(*v),
                other => {
                    Err(OpError::input(format!("input {i} has {} elements; it must have one", other.len())))
                }
            };
            let (start, limit, delta) = (one(0)?, one(1)?, one(2)?);
            let n = T::steps(start, limit, delta).ok_or_else(|| {
                OpError::input(format!("no range from {start:?} to {limit:?} in steps of {delta:?}"))
            })?;
            let mut out = ctx.memory.alloc::<T>(&[n])?;
            for (i, o) in out.iter_mut().enumerate() {
                *o = T::element(start, i, delta);
            }
            Ok(Tensor::vector(out))
        }
        let out = range_type!(inputs.get(0)?.dtype(), T => go::<T>(ctx, &inputs))?;
        Ok(vec![out])
    }
}

struct EyeLike {
    dtype: Option<DType>,
    k: i64,
}

/// The element type in the attribute `dtype`, where given.
pub(crate) fn dtype_attr(ctx: &BuildCtx<'_>) -> Result<Option<DType>, OpError> {
    dtype_attr_of(ctx, "dtype")
}

/// The element type in an attribute, where given.
pub(crate) fn dtype_attr_of(ctx: &BuildCtx<'_>, name: &str) -> Result<Option<DType>, OpError> {
    let Some(code) = ctx.opt_int(name)? else { return Ok(None) };
    let dtype = i32::try_from(code).ok().and_then(DType::from_onnx);
    let dtype =
        dtype.ok_or_else(|| OpError::attribute(format!("{name} is {code}, which is no element type")))?;
    Tensor::zeros(dtype, &[0])?;
    Ok(Some(dtype))
}

fn eye_like(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(EyeLike { dtype: dtype_attr(ctx)?, k: ctx.int("k", 0)? })
}

impl Op for EyeLike {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let like = fact(inputs, 0);
            Ok(vec![Fact::new(self.dtype.or(like.dtype), like.shape.clone())])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let like = inputs.get(0)?;
        let &[rows, columns] = like.shape() else {
            return Err(OpError::shape(format!("a shape of {:?}; it must have rank 2", like.shape())));
        };
        fn go<T: Element>(ctx: &RunCtx<'_>, shape: [usize; 2], k: i64, one: T) -> Result<Tensor, OpError> {
            let mut out = ctx.memory.filled(&shape, T::default())?;
            for row in 0..shape[0] {
                let column = (row as i64).checked_add(k).and_then(|c| usize::try_from(c).ok());
                if let Some(column) = column.filter(|&c| c < shape[1]) {
                    out[row * shape[1] + column] = one.clone();
                }
            }
            Ok(Tensor::new(&shape, out)?)
        }
        let shape = [rows, columns];
        let out = match self.dtype.unwrap_or(like.dtype()) {
            DType::Bool => go(ctx, shape, self.k, true),
            dtype => typed!(numbers dtype, T => go(ctx, shape, self.k, T::ONE)),
        };
        Ok(vec![out?])
    }
}
