//! Normalisations over channels, groups and rows: BatchNormalization, InstanceNormalization, GroupNormalization,
//! LayerNormalization, RMSNormalization; the order of operations is written at `isobit_kernels::norm`.

use isobit_kernels::elementwise::{Binary, Operand, binary_in_place};
use isobit_kernels::norm;
use isobit_tensor::{DType, Tensor};

use crate::arith::{through_f32, widen};
use crate::axes::{axis, bounded, fact};
use crate::broadcast::{Walk, broadcast, broadcast_strides, copy_strided};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("InstanceNormalization", 22, |ctx| group(ctx, false)),
    OpDef::onnx("GroupNormalization", 21, |ctx| group(ctx, true)),
    OpDef::onnx("LayerNormalization", 17, |ctx| rows(ctx, true)),
    OpDef::onnx("RMSNormalization", 23, |ctx| rows(ctx, false)),
];

pub(crate) fn check(x: &Fact) -> Result<(), OpError> {
    match x.dtype.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
        Some(t) => Err(OpError::unsupported_type(t)),
        None => Ok(()),
    }
}

fn cost(inputs: &[Option<Fact>], weight: u64) -> u64 {
    (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(weight)
}

/// Each group's elements are normalised as by LayerNormalization, then scaled and shifted by channel:
/// (d_i * inv) * scale_c, then + bias_c. InstanceNormalization has a group a channel.
struct Group {
    epsilon: f32,
    /// `None` is one a channel.
    groups: Option<usize>,
}

fn group(ctx: &BuildCtx<'_>, grouped: bool) -> Result<Box<dyn Op>, OpError> {
    if ctx.int("stash_type", 1)? != 1 {
        return Err(OpError::unsupported("stash_type other than 1 (float32)"));
    }
    let groups = match ctx.opt_int("num_groups")? {
        _ if !grouped => None,
        Some(n) if n > 0 => usize::try_from(n).ok(),
        other => {
            return Err(OpError::attribute(format!(
                "num_groups is {other:?}; it must be given and positive"
            )));
        }
    };
    ctx.one(Group { epsilon: ctx.float("epsilon", 1e-5)?, groups })
}

impl Op for Group {
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
        bounded([&x])?;
        let shape = x.shape().to_vec();
        let (scale, bias) = (widen(inputs.get(1)?)?, widen(inputs.get(2)?)?);
        let channels = shape.get(1).copied().unwrap_or(0);
        let groups = self.groups.unwrap_or(channels).max(1);
        if shape.len() < 2 || [scale.len(), bias.len()] != [channels; 2] || channels % groups != 0 {
            return Err(OpError::shape(format!(
                "an input of shape {shape:?} in {groups} groups with {} scales and {} biases; it must be [N, C, ...] with C \
                 of each and groups that divide C",
                scale.len(),
                bias.len()
            )));
        }
        let inner: usize = shape[2..].iter().product();
        let width = channels / groups * inner;
        Ok(vec![through_f32(x, |x| {
            if x.is_empty() {
                return Ok(());
            }
            // A factor of 1 changes nothing.
            let ones = ctx.memory.filled(&[width], 1.0f32)?;
            norm::layer_norm(ctx.exec, x, width, self.epsilon, &ones, None, None);
            for (f, parameter) in [(Binary::Mul, &scale), (Binary::Add, &bias)] {
                let columns: Vec<f32> = (0..shape[0]).flat_map(|_| parameter.iter().copied()).collect();
                binary_in_place(ctx.exec, f, x, Operand::Column(&columns), inner, false);
            }
            Ok(())
        })?])
    }
}

fn rows(ctx: &BuildCtx<'_>, centred: bool) -> Result<Box<dyn Op>, OpError> {
    if ctx.int("stash_type", 1)? != 1 {
        return Err(OpError::unsupported("stash_type other than 1 (float32)"));
    }
    let (axis, epsilon) = (ctx.int("axis", -1)?, ctx.float("epsilon", 1e-5)?);
    let most = if centred { 3 } else { 1 };
    ctx.at_most(most, Rows { axis, epsilon, centred, outputs: ctx.outputs() })
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
        bounded([&x])?;
        let shape = x.shape().to_vec();
        let axis = axis(self.axis, shape.len())?;
        let width: usize = shape[axis..].iter().product();
        let parameter = |i: usize| match inputs.opt(i) {
            None => Ok(None),
            Some(t) if t.shape() == &shape[axis..] => widen(t).map(Some),
            Some(t) => spread(ctx, t, &shape[axis..]).map(Some),
        };
        let scale = parameter(1)?.ok_or_else(|| OpError::input("the scale is missing"))?;
        let bias = parameter(2)?;
        let stats: Vec<usize> =
            shape.iter().enumerate().map(|(i, &d)| if i < axis { d } else { 1 }).collect();
        let (mut means, mut invs) = match self.outputs {
            1 => (Vec::new(), Vec::new()),
            _ => (ctx.memory.alloc::<f32>(&stats)?, ctx.memory.alloc::<f32>(&stats)?),
        };
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
        for values in [means, invs].into_iter().take(self.outputs - 1) {
            out.push(Tensor::new(&stats, values)?);
        }
        Ok(out)
    }
}

/// A parameter that broadcasts to the normalised dimensions, written out for all of them.
fn spread(ctx: &RunCtx<'_>, t: &Tensor, shape: &[usize]) -> Result<Vec<f32>, OpError> {
    if t.rank() > shape.len() || broadcast(&[t.shape(), shape])?[..] != *shape {
        return Err(OpError::shape(format!(
            "a parameter of shape {:?} does not broadcast to the normalised dimensions {shape:?}",
            t.shape()
        )));
    }
    let mut out = ctx.memory.alloc::<f32>(shape)?;
    copy_strided(&Walk::new(shape, [&broadcast_strides(t.shape(), shape)], [0]), &widen(t)?, &mut out);
    Ok(out)
}
