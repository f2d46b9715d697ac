//! Functions of one operand, element by element.

use isobit_kernels::blocked;
use isobit_kernels::elementwise::{self, Binary, Operand};
use isobit_kernels::math::{self, Unary};
use isobit_numerics as num;
use isobit_tensor::{DType, Tensor};

use crate::arith::{number, owned, through_f32};
use crate::axes::fact;
use crate::blocked::{Blockwise, Role, Value, Wanted, run_plain};
use crate::cast::convert;
use crate::entries::each_alone;
use crate::fold::fold;
use crate::number::{Number, magnitude};
use crate::tail::{Stage, Tail};
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("Exp", 13, |ctx| map(ctx, Unary::Exp)),
    OpDef::onnx("Log", 13, |ctx| map(ctx, Unary::Ln)),
    OpDef::onnx("Erf", 13, |ctx| map(ctx, Unary::Erf)),
    OpDef::onnx("Tanh", 13, |ctx| map(ctx, Unary::Tanh)),
    OpDef::onnx("Sigmoid", 13, |ctx| map(ctx, Unary::Sigmoid)),
    OpDef::onnx("Sin", 22, |ctx| map(ctx, Unary::Sin)),
    OpDef::onnx("Cos", 22, |ctx| map(ctx, Unary::Cos)),
    OpDef::onnx("Tan", 22, |ctx| map(ctx, Unary::Tan)),
    OpDef::onnx("Asin", 22, |ctx| map(ctx, Unary::Asin)),
    OpDef::onnx("Acos", 22, |ctx| map(ctx, Unary::Acos)),
    OpDef::onnx("Atan", 22, |ctx| map(ctx, Unary::Atan)),
    OpDef::onnx("Sinh", 22, |ctx| map(ctx, Unary::Sinh)),
    OpDef::onnx("Cosh", 22, |ctx| map(ctx, Unary::Cosh)),
    OpDef::onnx("Asinh", 22, |ctx| map(ctx, Unary::Asinh)),
    OpDef::onnx("Acosh", 22, |ctx| map(ctx, Unary::Acosh)),
    OpDef::onnx("Atanh", 22, |ctx| map(ctx, Unary::Atanh)),
    OpDef::onnx("Softplus", 22, |ctx| map(ctx, Unary::Softplus)),
    OpDef::onnx("Softsign", 22, |ctx| map(ctx, Unary::Softsign)),
    OpDef::onnx("Mish", 22, |ctx| map(ctx, Unary::Mish)),
    OpDef::onnx("Elu", 22, |ctx| map(ctx, Unary::Elu { alpha: ctx.float("alpha", 1.0)? })),
    OpDef::onnx("Celu", 12, |ctx| map(ctx, Unary::Celu { alpha: ctx.float("alpha", 1.0)? })),
    OpDef::onnx("Selu", 22, |ctx| {
        map(
            ctx,
            Unary::Selu { alpha: ctx.float("alpha", 1.673_263_2)?, gamma: ctx.float("gamma", 1.050_701)? },
        )
    }),
    OpDef::onnx("ThresholdedRelu", 22, |ctx| {
        map(ctx, Unary::ThresholdedRelu { alpha: ctx.float("alpha", 1.0)? })
    }),
    OpDef::onnx("Sqrt", 13, |ctx| map(ctx, Unary::Sqrt)),
    OpDef::onnx("Reciprocal", 13, |ctx| map(ctx, Unary::Reciprocal)),
    OpDef::onnx("Neg", 13, |ctx| map(ctx, Unary::Neg)),
    OpDef::onnx("Abs", 13, |ctx| map(ctx, Unary::Abs)),
    OpDef::onnx("Floor", 13, |ctx| map(ctx, Unary::Floor)),
    OpDef::onnx("Ceil", 13, |ctx| map(ctx, Unary::Ceil)),
    OpDef::onnx("Round", 22, |ctx| map(ctx, Unary::Round)),
    OpDef::onnx("Relu", 14, |ctx| map(ctx, Unary::Relu)),
    OpDef::onnx("HardSwish", 22, |ctx| map(ctx, Unary::HardSwish)),
    OpDef::onnx("LeakyRelu", 16, |ctx| map(ctx, Unary::LeakyRelu { alpha: ctx.float("alpha", 0.01)? })),
    OpDef::onnx("HardSigmoid", 22, |ctx| {
        map(ctx, Unary::HardSigmoid { alpha: ctx.float("alpha", 0.2)?, beta: ctx.float("beta", 0.5)? })
    }),
    OpDef::onnx("Gelu", 20, gelu),
    OpDef::onnx("Swish", 24, |ctx| ctx.one(Swish { alpha: ctx.float("alpha", 1.0)? })),
    OpDef::onnx("Shrink", 9, |ctx| {
        ctx.one(Shrink { lambd: ctx.float("lambd", 0.5)?, bias: ctx.float("bias", 0.0)? })
    }),
    OpDef::onnx("Sign", 13, |ctx| ctx.one(Sign)),
    OpDef::onnx("Clip", 13, |ctx| ctx.one(Clip)),
];

fn map(ctx: &BuildCtx<'_>, f: Unary) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Map(f))
}

fn gelu(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    match ctx.str("approximate", "none")? {
        "none" => map(ctx, Unary::Gelu),
        "tanh" => map(ctx, Unary::GeluTanh),
        other => Err(OpError::attribute(format!("approximate '{other}'; accepted: none, tanh"))),
    }
}

/// The function as `isobit_kernels::math` defines it, in f32 (f16 and bf16 through f32). In f64 the same sequence of
/// operations, with the elementary functions of `isobit_numerics`; the arithmetic ones also on integers.
struct Map(Unary);

impl Map {
    fn accepts(&self, t: DType) -> bool {
        use Unary::*;
        match t {
            DType::F32 | DType::F64 | DType::F16 | DType::BF16 => true,
            t => t.is_int() && t.bits() >= 8 && matches!(self.0, Neg | Abs | Relu),
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
        same(self, inputs, |t| self.accepts(t))
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        weighted(outputs, self.weight())
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        each_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        if !self.accepts(x.dtype()) {
            return Err(OpError::unsupported_type(x.dtype()));
        }
        Ok(vec![match x.dtype() {
            DType::F64 => through_f64(x, |x| double(self.0, x))?,
            t if t.is_int() => integer(self.0, &x)?,
            _ => through_f32(ctx, x, |x| {
                math::unary_in_place(ctx.exec, self.0, x);
                Ok(())
            })?,
        }])
    }

    fn stage(&self) -> Option<Stage> {
        Some(Stage::Unary(self.0))
    }

    fn blockwise(&self) -> Option<&dyn Blockwise> {
        Some(self)
    }
}

impl Blockwise for Map {
    fn role(&self) -> Role {
        Role::Keeps { operands: 1 }
    }

    fn run_blocked(
        &self,
        ctx: &RunCtx<'_>,
        operands: Vec<Option<Value>>,
        tail: &[Tail],
        to: Option<Wanted>,
    ) -> Result<(Value, usize), OpError> {
        let y = match (&operands[..], to) {
            ([Some(Value::Blocked(x))], Some(to)) => x.map(ctx, to.border, |exec, layout, y| {
                blocked::unary(exec, self.0, x.layout(), x.elements(), layout, y);
            })?,
            _ => None,
        };
        match y {
            Some(y) => Ok((Value::Blocked(y), 0)),
            None => run_plain(self, ctx, operands, tail),
        }
    }
}

/// One result of the operand's type and shape.
fn same(op: &dyn Op, inputs: &[Option<Fact>], accepts: impl Fn(DType) -> bool) -> Result<Vec<Fact>, OpError> {
    let x = fact(inputs, 0);
    if let Some(t) = x.dtype.filter(|&t| !accepts(t)) {
        return Err(OpError::unsupported_type(t));
    }
    fold(op, inputs, || Ok(vec![Fact::new(x.dtype, x.shape.clone())]))
}

/// `weight` units an element of the first result.
fn weighted(outputs: &[Fact], weight: u64) -> u64 {
    let n = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
    n.saturating_mul(weight)
}

/// Applies `f` to each element of an f64 tensor, in place where it can be.
fn through_f64(t: Tensor, f: impl Fn(f64) -> f64) -> Result<Tensor, OpError> {
    let shape = t.shape().to_vec();
    let mut x = t.into_vec::<f64>()?;
    x.iter_mut().for_each(|x| *x = f(*x));
    Ok(Tensor::new(&shape, x)?)
}

/// The functions in f64. Parameters and the constants 0.044715, 2/pi and 1/6 are the f32 values that operators' attributes and
/// ONNX's functions have; square roots are those of f64.
pub(crate) fn double(f: Unary, x: f64) -> f64 {
    let wide = f64::from;
    let hard_sigmoid = |alpha: f32, beta: f32| num::max64(0.0, num::min64(1.0, wide(alpha) * x + wide(beta)));
    match f {
        Unary::Exp => num::exp64(x),
        Unary::Ln => num::ln64(x),
        Unary::Erf => num::erf64(x),
        Unary::Tanh => num::tanh64(x),
        Unary::Sigmoid => num::sigmoid64(x),
        Unary::Sin => num::sin64(x),
        Unary::Cos => num::cos64(x),
        Unary::Tan => num::tan64(x),
        Unary::Asin => num::asin64(x),
        Unary::Acos => num::acos64(x),
        Unary::Atan => num::atan64(x),
        Unary::Sinh => num::sinh64(x),
        Unary::Cosh => num::cosh64(x),
        Unary::Asinh => num::asinh64(x),
        Unary::Acosh => num::acosh64(x),
        Unary::Atanh => num::atanh64(x),
        Unary::Softplus => num::softplus64(x),
        Unary::Mish => x * num::tanh64(num::softplus64(x)),
        Unary::Sqrt => x.sqrt(),
        Unary::Reciprocal => 1.0 / x,
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Relu => num::relu64(x),
        Unary::LeakyRelu { alpha } => {
            if x < 0.0 {
                wide(alpha) * x
            } else {
                x
            }
        }
        Unary::HardSigmoid { alpha, beta } => hard_sigmoid(alpha, beta),
        Unary::HardSwish => x * hard_sigmoid(1.0 / 6.0, 0.5),
        Unary::Silu => x * num::sigmoid64(x),
        Unary::Gelu => (0.5 * x) * (1.0 + num::erf64(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::GeluTanh => {
            let factor = wide(std::f32::consts::FRAC_2_PI).sqrt();
            (0.5 * x) * (1.0 + num::tanh64(factor * (x + wide(0.044715) * (x * x * x))))
        }
        Unary::Elu { alpha } => {
            if x < 0.0 {
                wide(alpha) * (num::exp64(x) - 1.0)
            } else {
                x
            }
        }
        Unary::Selu { alpha, gamma } => {
            wide(gamma) * if x > 0.0 { x } else { wide(alpha) * num::exp64(x) - wide(alpha) }
        }
        Unary::Celu { alpha } => {
            let below = wide(alpha) * (num::exp64(x / wide(alpha)) - 1.0);
            num::max64(0.0, x) + num::min64(0.0, below)
        }
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::ThresholdedRelu { alpha } => {
            if x <= wide(alpha) {
                0.0
            } else {
                x
            }
        }
        // Square and Cube stand for Pow, GeluNew for several operators, and in f32 only.
        other => unreachable!("{other:?} in f64"),
    }
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

/// x * sigmoid(alpha * x), each operation rounded; alpha of 1 is no multiplication.
pub(crate) struct Swish {
    pub(crate) alpha: f32,
}

fn any_float(t: DType) -> bool {
    matches!(t, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
}

impl Op for Swish {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        same(self, inputs, any_float)
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        weighted(outputs, 8)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        each_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let alpha = self.alpha;
        Ok(vec![if x.dtype() == DType::F64 {
            through_f64(x, |x| x * num::sigmoid64(f64::from(alpha) * x))?
        } else {
            through_f32(ctx, x, |x| {
                if alpha == 1.0 {
                    math::unary_in_place(ctx.exec, Unary::Silu, x);
                    return Ok(());
                }
                let mut s = ctx.memory.alloc::<f32>(&[x.len()])?;
                s.iter_mut().zip(x.iter()).for_each(|(s, x)| *s = alpha * x);
                math::unary_in_place(ctx.exec, Unary::Sigmoid, &mut s);
                x.iter_mut().zip(&s).for_each(|(x, s)| *x *= s);
                Ok(())
            })?
        }])
    }
}

/// x + bias below -lambd, x - bias above lambd, else +0 (NaN included). Integers are converted to f64, and the result back as
/// Cast does: cut toward zero, saturated.
struct Shrink {
    lambd: f32,
    bias: f32,
}

impl Op for Shrink {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        same(self, inputs, number)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        each_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let (lambd, bias) = (self.lambd, self.bias);
        if x.dtype().is_int() {
            let dtype = x.dtype();
            let y = self.run(ctx, Inputs::new(vec![Some(convert(ctx, x, DType::F64)?)]))?;
            return y.into_iter().map(|y| convert(ctx, y, dtype)).collect();
        }
        Ok(vec![if x.dtype() == DType::F64 {
            let (lambd, bias) = (f64::from(lambd), f64::from(bias));
            through_f64(x, |x| match x {
                x if x < -lambd => x + bias,
                x if x > lambd => x - bias,
                _ => 0.0,
            })?
        } else {
            through_f32(ctx, x, |x| {
                for x in x {
                    *x = match *x {
                        x if x < -lambd => x + bias,
                        x if x > lambd => x - bias,
                        _ => 0.0,
                    };
                }
                Ok(())
            })?
        }])
    }
}

fn sign<T: Number>(x: T) -> T {
    match x {
        x if x > T::ZERO => T::ONE,
        x if x < T::ZERO => T::ZERO.minus(T::ONE),
        x if x.nan() => x,
        _ => T::ZERO,
    }
}

/// 1 above zero, -1 below, zero at zero; NaN stays NaN.
struct Sign;

impl Op for Sign {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        same(self, inputs, number)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        each_alone(batch)
    }

    fn run(&self, _: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let shape = x.shape().to_vec();
        typed!(numbers x.dtype(), T => {
            let mut x = x.into_vec::<T>()?;
            for x in &mut x {
                *x = sign(*x);
            }
            Ok(vec![Tensor::new(&shape, x)?])
        })
    }
}

/// min(max, max(x, min)) by the profile's rules; a bound that is left out does not limit.
struct Clip;

/// A bound of one element, where given.
fn bound<T: Number>(inputs: &Inputs, i: usize) -> Result<Option<T>, OpError> {
    match inputs.opt(i) {
        None => Ok(None),
        Some(t) => match t.as_slice::<T>()? {
            [v] => Ok(Some(*v)),
            other => Err(OpError::shape(format!("a bound of {} elements; give one", other.len()))),
        },
    }
}

impl Op for Clip {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        same(self, inputs, number)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        each_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let shape = x.shape().to_vec();
        if x.dtype() == DType::F32 {
            let mut x = owned(ctx, x)?;
            let n = x.len();
            for (i, f) in [(1, Binary::Max), (2, Binary::Min)] {
                if let Some(bound) = bound::<f32>(&inputs, i)? {
                    elementwise::binary_in_place(ctx.exec, f, &mut x, Operand::Column(&[bound]), n, false);
                }
            }
            return Ok(vec![Tensor::new(&shape, x)?]);
        }
        typed!(numbers x.dtype(), T => {
            let (low, high) = (bound::<T>(&inputs, 1)?, bound::<T>(&inputs, 2)?);
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
