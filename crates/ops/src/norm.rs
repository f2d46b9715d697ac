//! Normalisations: BatchNormalization, LayerNormalization, RMSNormalization, InstanceNormalization; the order of
//! operations is written at `isobit_kernels::norm`.

use isobit_kernels::norm;
use isobit_tensor::{DType, Tensor};

use crate::arith::{through_f32, widen};
use crate::axes::{axis, fact};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("BatchNormalization", 15, batch),
    OpDef::onnx("InstanceNormalization", 22, |ctx| {
        Ok(Box::new(Instance { epsilon: ctx.float("epsilon", 1e-5)? }))
    }),
    OpDef::onnx("LayerNormalization", 17, |ctx| rows(ctx, true)),
    OpDef::onnx("RMSNormalization", 23, |ctx| rows(ctx, false)),
];

fn check(x: &Fact) -> Result<(), OpError> {
    match x.dtype.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
        Some(t) => Err(OpError::unsupported_type(t)),
        None => Ok(()),
    }
}

fn cost(inputs: &[Option<Fact>], weight: u64) -> u64 {
    (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(weight)
}

fn batch(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    if ctx.flag("training_mode", false)? {
        return Err(OpError::unsupported("training_mode is set; export the model for inference"));
    }
    Ok(Box::new(Batch { epsilon: ctx.float("epsilon", 1e-5)? }))
}

struct Batch {
    epsilon: f32,
}

impl Op for Batch {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check(x)?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        cost(inputs, 3)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let shape = x.shape().to_vec();
        if shape.len() < 2 {
            return Err(OpError::shape(format!("an input of shape {shape:?}; it must be [N, C, ...]")));
        }
        let parameter = |i: usize| {
            let t = inputs.get(i)?;
            if t.len() != shape[1] {
                return Err(OpError::shape(format!(
                    "input {i} has {} elements for {} channels",
                    t.len(),
                    shape[1]
                )));
            }
            widen(t)
        };
        let (scale, bias, mean, var) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
        let inner = shape[2..].iter().product();
        Ok(vec![through_f32(x, |x| {
            if !x.is_empty() {
                norm::batch_norm(ctx.exec, x, inner, self.epsilon, &scale, &bias, &mean, &var);
            }
            Ok(())
        })?])
    }
}

struct Instance {
    epsilon: f32,
}

impl Op for Instance {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check(x)?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        cost(inputs, 5)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let shape = x.shape().to_vec();
        let (scale, bias) = (widen(inputs.get(1)?)?, widen(inputs.get(2)?)?);
        if shape.len() < 3 || scale.len() != shape[1] || bias.len() != shape[1] {
            return Err(OpError::shape(format!(
                "an input of shape {shape:?} with {} scales and {} biases; it must be [N, C, ...] with C of each",
                scale.len(),
                bias.len()
            )));
        }
        let inner: usize = shape[2..].iter().product();
        Ok(vec![through_f32(x, |x| {
            // A layer normalisation of each plane, whose scale and bias are the channel's.
            for (i, plane) in x.chunks_exact_mut(inner.max(1)).enumerate() {
                let c = i % shape[1];
                let (scale, bias) = (vec![scale[c]; inner], vec![bias[c]; inner]);
                norm::layer_norm(ctx.exec, plane, inner, self.epsilon, &scale, Some(&bias), None);
            }
            Ok(())
        })?])
    }
}

fn rows(ctx: &BuildCtx<'_>, centred: bool) -> Result<Box<dyn Op>, OpError> {
    if ctx.int("stash_type", 1)? != 1 {
        return Err(OpError::attribute("stash_type other than 1 (float32)"));
    }
    let (axis, epsilon) = (ctx.int("axis", -1)?, ctx.float("epsilon", 1e-5)?);
    Ok(Box::new(Rows { axis, epsilon, centred, outputs: ctx.outputs() }))
}

/// LayerNormalization (centred, with bias) and RMSNormalization over the dimensions from `axis` on.
struct Rows {
    axis: i64,
    epsilon: f32,
    centred: bool,
    outputs: usize,
}

impl Op for Rows {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check(x)?;
        let mut out = vec![Fact::new(x.dtype, x.shape.clone())];
        if self.outputs > 1 {
            let stats = match &x.shape {
                Some(s) => {
                    let axis = axis(self.axis, s.len())?;
                    Some(s.iter().enumerate().map(|(i, &d)| if i < axis { d } else { Some(1) }).collect())
                }
                None => None,
            };
            out.resize(self.outputs, Fact::new(Some(DType::F32), stats));
        }
        Ok(out)
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        cost(inputs, 5)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        let shape = x.shape().to_vec();
        let axis = axis(self.axis, shape.len())?;
        let width: usize = shape[axis..].iter().product();
        let parameter = |i: usize| match inputs.opt(i) {
            None => Ok(None),
            Some(t) if t.len() == width => widen(t).map(Some),
            Some(t) => Err(OpError::shape(format!(
                "input {i} of shape {:?} for normalised dimensions {:?}",
                t.shape(),
                &shape[axis..]
            ))),
        };
        let scale = parameter(1)?.ok_or_else(|| OpError::input("the scale is missing"))?;
        let bias = parameter(2)?;
        let count = shape[..axis].iter().product::<usize>();
        let (mut means, mut invs) = (vec![0.0; count], vec![0.0; count]);
        let y = through_f32(x, |x| {
            if self.centred {
                let stats = (self.outputs > 1).then_some((&mut means[..], &mut invs[..]));
                norm::layer_norm(ctx.exec, x, width, self.epsilon, &scale, bias.as_deref(), stats);
            } else {
                norm::rms_norm(ctx.exec, x, width, self.epsilon, &scale);
            }
            Ok(())
        })?;
        let mut out = vec![y];
        let stats: Vec<usize> =
            shape.iter().enumerate().map(|(i, &d)| if i < axis { d } else { 1 }).collect();
        for values in [means, invs].into_iter().take(self.outputs - 1) {
            out.push(Tensor::new(&stats, values)?);
        }
        Ok(out)
    }
}
