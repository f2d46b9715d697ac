//! Functions of one operand, element by element.

use isobit_kernels::math::{self, Unary};
use isobit_numerics as num;
use isobit_tensor::{DType, Tensor};

use crate::arith::through_f32;
use crate::axes::fact;
use crate::fold::fold;
use crate::number::{Number, magnitude};
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Exp", 13, |_| map(Unary::Exp)),
    OpDef::onnx("Log", 13, |_| map(Unary::Ln)),
    OpDef::onnx("Erf", 13, |_| map(Unary::Erf)),
    OpDef::onnx("Tanh", 13, |_| map(Unary::Tanh)),
    OpDef::onnx("Sigmoid", 13, |_| map(Unary::Sigmoid)),
    OpDef::onnx("Sin", 22, |_| map(Unary::Sin)),
    OpDef::onnx("Cos", 22, |_| map(Unary::Cos)),
    OpDef::onnx("Tan", 22, |_| map(Unary::Tan)),
    OpDef::onnx("Asin", 22, |_| map(Unary::Asin)),
    OpDef::onnx("Acos", 22, |_| map(Unary::Acos)),
    OpDef::onnx("Atan", 22, |_| map(Unary::Atan)),
    OpDef::onnx("Sinh", 22, |_| map(Unary::Sinh)),
    OpDef::onnx("Cosh", 22, |_| map(Unary::Cosh)),
    OpDef::onnx("Asinh", 22, |_| map(Unary::Asinh)),
    OpDef::onnx("Acosh", 22, |_| map(Unary::Acosh)),
    OpDef::onnx("Atanh", 22, |_| map(Unary::Atanh)),
    OpDef::onnx("Softplus", 22, |_| map(Unary::Softplus)),
    OpDef::onnx("Softsign", 22, |_| map(Unary::Softsign)),
    OpDef::onnx("Mish", 22, |_| map(Unary::Mish)),
    OpDef::onnx("Elu", 22, |ctx| map(Unary::Elu { alpha: ctx.float("alpha", 1.0)? })),
    OpDef::onnx("Celu", 12, |ctx| map(Unary::Celu { alpha: ctx.float("alpha", 1.0)? })),
    OpDef::onnx("Selu", 22, |ctx| {
        map(Unary::Selu { alpha: ctx.float("alpha", 1.673_263_2)?, gamma: ctx.float("gamma", 1.050_701)? })
    }),
    OpDef::onnx("ThresholdedRelu", 22, |ctx| map(Unary::ThresholdedRelu { alpha: ctx.float("alpha", 1.0)? })),
    OpDef::onnx("Sqrt", 13, |_| map(Unary::Sqrt)),
    OpDef::onnx("Reciprocal", 13, |_| map(Unary::Reciprocal)),
    OpDef::onnx("Neg", 13, |_| map(Unary::Neg)),
    OpDef::onnx("Abs", 13, |_| map(Unary::Abs)),
    OpDef::onnx("Floor", 13, |_| map(Unary::Floor)),
    OpDef::onnx("Ceil", 13, |_| map(Unary::Ceil)),
    OpDef::onnx("Round", 22, |_| map(Unary::Round)),
    OpDef::onnx("Relu", 14, |_| map(Unary::Relu)),
    OpDef::onnx("HardSwish", 22, |_| map(Unary::HardSwish)),
    OpDef::onnx("LeakyRelu", 16, |ctx| map(Unary::LeakyRelu { alpha: ctx.float("alpha", 0.01)? })),
    OpDef::onnx("HardSigmoid", 22, |ctx| {
        map(Unary::HardSigmoid { alpha: ctx.float("alpha", 0.2)?, beta: ctx.float("beta", 0.5)? })
    }),
    OpDef::onnx("Gelu", 20, gelu),
    OpDef::onnx("Clip", 13, |_| Ok(Box::new(Clip))),
    OpDef::onnx("Dropout", 22, dropout),
];

fn map(f: Unary) -> Result<Box<dyn Op>, OpError> {
    Ok(Box::new(Map(f)))
}

fn gelu(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    match ctx.str("approximate", "none")? {
        "none" => map(Unary::Gelu),
        "tanh" => map(Unary::GeluTanh),
        other => Err(OpError::attribute(format!("approximate '{other}'; accepted: none, tanh"))),
    }
}

/// The function as `isobit_kernels::math` defines it, in f32 (f16 and bf16 through f32). Arithmetic ones also on f64
/// and integers.
struct Map(Unary);

impl Map {
    fn accepts(&self, t: DType) -> bool {
        match t {
            DType::F32 | DType::F16 | DType::BF16 => true,
            DType::F64 => {
                use Unary::*;
                matches!(self.0, Sqrt | Reciprocal | Neg | Abs | Floor | Ceil | Round | Relu)
            }
            t => t.is_int() && t.bits() >= 8 && matches!(self.0, Unary::Neg | Unary::Abs | Unary::Relu),
        }
    }

    /// Cost of an element: elementary functions are counted as eight operations.
    fn weight(&self) -> u64 {
        use Unary::*;
        match self.0 {
            Sqrt | Reciprocal | Neg | Abs | Floor | Ceil | Round | Relu => 1,
            LeakyRelu { .. } | HardSigmoid { .. } | HardSwish | ThresholdedRelu { .. } | Softsign => 1,
            _ => 8,
        }
    }
}

impl Op for Map {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|&t| !self.accepts(t)) {
            return Err(OpError::unsupported_type(t));
        }
        fold(self, inputs, || Ok(vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let n: u64 = outputs.iter().map(|f| f.numel().unwrap_or(0) as u64).sum();
        n.saturating_mul(self.weight())
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        if !self.accepts(x.dtype()) {
            return Err(OpError::unsupported_type(x.dtype()));
        }
        Ok(vec![match x.dtype() {
            DType::F64 => double(self.0, x)?,
            t if t.is_int() => integer(self.0, &x)?,
            _ => through_f32(x, |x| {
                math::unary_in_place(ctx.exec, self.0, x);
                Ok(())
            })?,
        }])
    }
}

fn double(f: Unary, t: Tensor) -> Result<Tensor, OpError> {
    let shape = t.shape().to_vec();
    let mut x = t.into_vec::<f64>()?;
    for x in &mut x {
        *x = match f {
            Unary::Sqrt => x.sqrt(),
            Unary::Reciprocal => 1.0 / *x,
            Unary::Neg => -*x,
            Unary::Abs => x.abs(),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Round => x.round_ties_even(),
            Unary::Relu => num::relu64(*x),
            _ => return Err(OpError::unsupported_type(DType::F64)),
        };
    }
    Ok(Tensor::new(&shape, x)?)
}

fn integer(f: Unary, t: &Tensor) -> Result<Tensor, OpError> {
    typed!(ints t.dtype(), T => {
        let out = t.as_slice::<T>()?.iter().map(|&x| match f {
            Unary::Neg => T::ZERO.minus(x),
            Unary::Abs => magnitude(x),
            Unary::Relu => x.larger(T::ZERO),
            _ => x,
        });
        Ok(Tensor::new(t.shape(), out.collect::<Vec<T>>())?)
    })
}

/// min(max, max(x, min)) by the profile's rules; a bound that is left out does not limit.
struct Clip;

impl Op for Clip {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|t| !(t.is_float() || t.is_int()) || t.bits() < 8) {
            return Err(OpError::unsupported_type(t));
        }
        fold(self, inputs, || Ok(vec![Fact::new(x.dtype, x.shape.clone())]))
    }

    fn run(&self, _: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let shape = x.shape().to_vec();
        typed!(numbers x.dtype(), T => {
            let bound = |i: usize| match inputs.opt(i) {
                None => Ok(None),
                Some(t) => match t.as_slice::<T>()? {
                    [v] => Ok(Some(*v)),
                    other => Err(OpError::shape(format!("a bound of {} elements; give one", other.len()))),
                },
            };
            let (low, high) = (bound(1)?, bound(2)?);
            let mut x = x.into_vec::<T>()?;
            for x in &mut x {
                if let Some(low) = low {
                    *x = x.larger(low);
                }
                if let Some(high) = high {
                    *x = x.smaller(high);
                }
            }
            Ok(vec![Tensor::new(&shape, x)?])
        })
    }
}

fn dropout(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let training = match ctx.constant(2) {
        None if ctx.has_input(2) => {
            return Err(OpError::unsupported("training_mode is computed; it must be a constant"));
        }
        None => false,
        Some(t) => t.as_slice::<bool>()?.first().copied().unwrap_or(false),
    };
    if training {
        return Err(OpError::unsupported("Dropout in training mode; export the model for inference"));
    }
    Ok(Box::new(Dropout { mask: ctx.outputs() > 1 }))
}

/// Inference: the operand itself, and a mask of `true`.
struct Dropout {
    mask: bool,
}

impl Op for Dropout {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        let mut out = vec![Fact::new(x.dtype, x.shape.clone())];
        if self.mask {
            out.push(Fact::new(Some(DType::Bool), x.shape.clone()));
        }
        Ok(out)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let mut out = Vec::new();
        if self.mask {
            out.push(Tensor::new(x.shape(), ctx.memory.filled(x.shape(), true)?)?);
        }
        out.insert(0, x);
        Ok(out)
    }
}
