//! BatchNormalization, for inference and for training.

use isobit_kernels::norm;
use isobit_tensor::{DType, Tensor};

use crate::arith::{through_f32, widen};
use crate::axes::{bounded, fact};
use crate::entries::images_alone;
use crate::real::{Real, read, real, write};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("BatchNormalization", 15, batch)];

/// a = scale / sqrt(var + epsilon); (x - mean) * a + bias. In training, mean and var are the channel's own: the 32-lane sum
/// over (batch, space), ascending, over the count, and the same of (x - mean) squared; the running ones become
/// running * momentum + own * (1 - momentum).
struct Batch {
    epsilon: f32,
    /// The momentum, in training.
    training: Option<f32>,
}

fn batch(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let momentum = ctx.float("momentum", 0.9)?;
    let training = ctx.flag("training_mode", false)?.then_some(momentum);
    ctx.at_most(
        if training.is_some() { 3 } else { 1 },
        Batch { epsilon: ctx.float("epsilon", 1e-5)?, training },
    )
}

impl Op for Batch {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        x.dtype.map(|t| real!(t, T => Ok(std::mem::size_of::<T>()))).transpose()?;
        let running = |i: usize| Fact::new(fact(inputs, i).dtype, fact(inputs, i).shape.clone());
        Ok(vec![Fact::new(x.dtype, x.shape.clone()), running(3), running(4)])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let weight = if self.training.is_some() { 6 } else { 3 };
        (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(weight)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        images_alone(batch).filter(|_| self.training.is_none())
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        bounded([x])?;
        let &[_, channels, ref space @ ..] = x.shape() else {
            return Err(OpError::shape(format!("an input of shape {:?}; it must be [N, C, ...]", x.shape())));
        };
        let inner: usize = space.iter().product();
        for i in 1..5 {
            let n = inputs.get(i)?.len();
            if n != channels {
                return Err(OpError::shape(format!("input {i} has {n} elements for {channels} channels")));
            }
        }
        if self.training.is_some() || x.dtype() == DType::F64 {
            return real!(x.dtype(), T => self.run_in::<T>(ctx, &inputs, (channels, inner)));
        }
        let x = inputs.take(0)?;
        let parameter = |i: usize| widen(inputs.get(i)?);
        let (scale, bias, mean, var) = (parameter(1)?, parameter(2)?, parameter(3)?, parameter(4)?);
        Ok(vec![through_f32(ctx, x, |x| {
            if !x.is_empty() {
                norm::batch_norm(ctx.exec, x, inner, self.epsilon, &scale, &bias, &mean, &var);
            }
            Ok(())
        })?])
    }
}

impl Batch {
    fn run_in<T: Real>(
        &self,
        ctx: &RunCtx<'_>,
        inputs: &Inputs,
        (channels, inner): (usize, usize),
    ) -> Result<Vec<Tensor>, OpError> {
        let all = (0..5).map(|i| read::<T>(ctx, inputs.get(i)?)).collect::<Result<Vec<Vec<T>>, _>>()?;
        let [mut x, scale, bias, mut mean, mut var]: [Vec<T>; 5] =
            all.try_into().map_err(|_| OpError::input("five operands are needed"))?;
        let mut running = Vec::new();
        if let Some(momentum) = self.training {
            let own = statistics(&x, channels, inner);
            let (momentum, rest) = (T::of(momentum.into()), T::ONE - T::of(momentum.into()));
            for (i, old, new) in [(3, &mut mean, own.0), (4, &mut var, own.1)] {
                let moved = old.iter().zip(&new).map(|(&old, &new)| old * momentum + new * rest).collect();
                running.push(write::<T>(ctx, inputs.get(i)?.dtype(), inputs.get(i)?.shape(), moved)?);
                *old = new;
            }
        }
        let factors: Vec<T> =
            scale.iter().zip(&var).map(|(&s, &v)| s / (v + T::of(self.epsilon.into())).root()).collect();
        for (i, plane) in x.chunks_exact_mut(inner.max(1)).enumerate() {
            let c = i % channels.max(1);
            plane.iter_mut().for_each(|x| *x = (*x - mean[c]) * factors[c] + bias[c]);
        }
        let y = write(ctx, inputs.get(0)?.dtype(), inputs.get(0)?.shape(), x)?;
        Ok([vec![y], running].concat())
    }
}

/// Mean and population variance of each channel.
fn statistics<T: Real>(x: &[T], channels: usize, inner: usize) -> (Vec<T>, Vec<T>) {
    let count = T::of((x.len() / channels.max(1)) as f64);
    (0..channels)
        .map(|c| {
            let own = || x.chunks_exact(inner.max(1)).skip(c).step_by(channels).flatten().copied();
            let mean = T::sum(own()) / count;
            (mean, T::sum(own().map(|x| (x - mean) * (x - mean))) / count)
        })
        .unzip()
}
