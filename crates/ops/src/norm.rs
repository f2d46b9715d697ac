//! Normalisations over channels, groups and rows: BatchNormalization, InstanceNormalization, GroupNormalization,
//! LayerNormalization, RMSNormalization; the order of operations is written at `isobit_kernels::norm`. What is normalised
//! in f32 of an f64 tensor, as `stash_type` says by default, is scaled and shifted in f64.

use isobit_kernels::elementwise::{Binary, Operand, binary_in_place};
use isobit_kernels::norm;
use isobit_tensor::{DType, Tensor};

use crate::arith::{narrow, through_f32};
use crate::axes::{axis, bounded, fact};
use crate::broadcast::{Walk, broadcast, broadcast_strides, copy_strided};
use crate::entries::{each_alone, images_alone};
use crate::real::{Real, check_real, elements, read, through};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("InstanceNormalization", 22, |ctx| group(ctx, false)),
    OpDef::onnx("GroupNormalization", 21, |ctx| group(ctx, true)),
    OpDef::onnx("LayerNormalization", 17, |ctx| rows(ctx, true)),
    OpDef::onnx("RMSNormalization", 23, |ctx| rows(ctx, false)),
];

fn cost(inputs: &[Option<Fact>], weight: u64) -> u64 {
    (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(weight)
}

/// Whether what is normalised of an f64 tensor is computed in f64 too.
fn stashes_doubles(ctx: &BuildCtx<'_>) -> Result<bool, OpError> {
    match ctx.int("stash_type", 1)? {
        1 => Ok(false),
        11 => Ok(true),
        _ => Err(OpError::unsupported("stash_type other than 1 (float32) and 11 (float64)")),
    }
}

/// Refuses what `stash_type` 11 says of other types: they are normalised in f32.
fn check_stash(doubles: bool, t: Option<DType>) -> Result<(), OpError> {
    match t.filter(|&t| doubles && t != DType::F64) {
        Some(t) => {
            Err(OpError::unsupported(format!("stash_type 11 (float64) of {t}; cast the input to float64")))
        }
        None => Ok(()),
    }
}

/// Each group's elements are normalised as by LayerNormalization, then scaled and shifted by channel:
/// (d_i * inv) * scale_c, then + bias_c. InstanceNormalization has a group a channel.
struct Group {
    epsilon: f32,
    /// `None` is one a channel.
    groups: Option<usize>,
    doubles: bool,
}

fn group(ctx: &BuildCtx<'_>, grouped: bool) -> Result<Box<dyn Op>, OpError> {
    // InstanceNormalization has no such attribute, and computes in its own type.
    let doubles = !grouped || stashes_doubles(ctx)?;
    let groups = match ctx.opt_int("num_groups")? {
        _ if !grouped => None,
        Some(n) if n > 0 => usize::try_from(n).ok(),
        other => {
            return Err(OpError::attribute(format!(
                "num_groups is {other:?}; it must be given and positive"
            )));
        }
    };
    ctx.one(Group { epsilon: ctx.float("epsilon", 1e-5)?, groups, doubles })
}

impl Op for Group {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check_real(x.dtype)?;
        check_stash(self.doubles && self.groups.is_some(), x.dtype)?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        cost(inputs, 5)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        images_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        bounded([&x])?;
        check_stash(self.doubles && self.groups.is_some(), Some(x.dtype()))?;
        let shape = x.shape().to_vec();
        let (scale, bias) = (inputs.get(1)?, inputs.get(2)?);
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
        if x.dtype() == DType::F64 {
            let (scale, bias) = (elements::<f64>(ctx, scale)?, elements::<f64>(ctx, bias)?);
            return Ok(vec![through::<f64>(ctx, x, |x| {
                normalize(self.doubles, x, width, true, self.epsilon);
                for (i, row) in x.chunks_exact_mut(inner.max(1)).enumerate() {
                    let c = i % channels.max(1);
                    row.iter_mut().for_each(|x| *x = *x * scale[c] + bias[c]);
                }
                Ok(())
            })?]);
        }
        let (scale, bias) = (read::<f32>(ctx, scale)?, read::<f32>(ctx, bias)?);
        Ok(vec![through_f32(ctx, x, |x| {
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
    let doubles = stashes_doubles(ctx)?;
    let (axis, epsilon) = (ctx.int("axis", -1)?, ctx.float("epsilon", 1e-5)?);
    let most = if centred { 3 } else { 1 };
    ctx.at_most(most, Rows { axis, epsilon, centred, doubles, outputs: ctx.outputs() })
}

/// LayerNormalization (centred, with bias) and RMSNormalization over the dimensions from `axis` on.
struct Rows {
    axis: i64,
    epsilon: f32,
    centred: bool,
    doubles: bool,
    outputs: usize,
}

impl Op for Rows {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check_real(x.dtype)?;
        check_stash(self.doubles, x.dtype)?;
        let mut out = vec![Fact::new(x.dtype, x.shape.clone())];
        if self.outputs > 1 {
            let stats = match &x.shape {
                Some(s) => {
                    let axis = axis(self.axis, s.len())?;
                    Some(s.iter().enumerate().map(|(i, &d)| if i < axis { d } else { Some(1) }).collect())
                }
                None => None,
            };
            let stash = if self.doubles { DType::F64 } else { DType::F32 };
            out.resize(self.outputs, Fact::new(Some(stash), stats));
        }
        Ok(out)
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        cost(inputs, 5)
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let from = axis(self.axis, fact(operands, 0).rank()?).ok()?;
        each_alone(batch).filter(|&axis| axis < from)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.take(0)?;
        bounded([&x])?;
        check_stash(self.doubles, Some(x.dtype()))?;
        let shape = x.shape().to_vec();
        let axis = axis(self.axis, shape.len())?;
        let width: usize = shape[axis..].iter().product();
        let stats: Vec<usize> =
            shape.iter().enumerate().map(|(i, &d)| if i < axis { d } else { 1 }).collect();
        let scale = inputs.opt(1).ok_or_else(|| OpError::input("the scale is missing"))?;
        let (y, moments) = if x.dtype() == DType::F64 {
            let scale = spread::<f64>(ctx, scale, &shape[axis..])?;
            let bias = inputs.opt(2).map(|b| spread::<f64>(ctx, b, &shape[axis..])).transpose()?;
            let mut moments = [Vec::new(), Vec::new()];
            let y = through::<f64>(ctx, x, |x| {
                moments = normalize(self.doubles, x, width, self.centred, self.epsilon);
                for row in x.chunks_exact_mut(width.max(1)) {
                    row.iter_mut().zip(&scale).for_each(|(x, s)| *x *= s);
                    row.iter_mut().zip(bias.iter().flatten()).for_each(|(x, b)| *x += b);
                }
                Ok(())
            })?;
            (y, moments)
        } else {
            let scale = spread::<f32>(ctx, scale, &shape[axis..])?;
            let bias = inputs.opt(2).map(|b| spread::<f32>(ctx, b, &shape[axis..])).transpose()?;
            let n = if self.outputs > 1 { stats.iter().product() } else { 0 };
            let (mut means, mut invs) = (ctx.memory.alloc::<f32>(&[n])?, ctx.memory.alloc::<f32>(&[n])?);
            let y = through_f32(ctx, x, |x| {
                if self.centred {
                    let stats = (self.outputs > 1).then_some((&mut means[..], &mut invs[..]));
                    norm::layer_norm(ctx.exec, x, width, self.epsilon, &scale, bias.as_deref(), stats);
                } else {
                    norm::rms_norm(ctx.exec, x, width, self.epsilon, &scale);
                }
                Ok(())
            })?;
            (y, [means, invs].map(|m| m.into_iter().map(f64::from).collect()))
        };
        let mut out = vec![y];
        for values in moments.into_iter().take(self.outputs - 1) {
            // A row of nothing has moments as well; they are not computed.
            let values = if width == 0 { vec![0.0; stats.iter().product()] } else { values };
            out.push(match self.doubles {
                true => Tensor::new(&stats, values)?,
                false => narrow(DType::F32, &stats, values.into_iter().map(|x| x as f32).collect())?,
            });
        }
        Ok(out)
    }
}

/// Normalises each row in f32 or in f64; the means and inverse deviations.
fn normalize(doubles: bool, x: &mut [f64], width: usize, centred: bool, epsilon: f32) -> [Vec<f64>; 2] {
    let mut moments = [Vec::new(), Vec::new()];
    for row in x.chunks_exact_mut(width.max(1)) {
        let (mean, inv) = match doubles {
            true => normalize_row::<f64>(row, centred, epsilon),
            false => normalize_row::<f32>(row, centred, epsilon),
        };
        moments[0].push(mean);
        moments[1].push(inv);
    }
    moments
}

/// The sequence of operations of `isobit_kernels::norm`, without scale and bias, on the elements rounded to `T`.
fn normalize_row<T: Real>(row: &mut [f64], centred: bool, epsilon: f32) -> (f64, f64) {
    let mut x: Vec<T> = row.iter().map(|&x| T::of(x)).collect();
    let n = T::of(x.len() as f64);
    let mean = if centred { T::sum(x.iter().copied()) / n } else { T::ZERO };
    x.iter_mut().for_each(|x| *x = *x - mean);
    let variance = T::sum(x.iter().map(|&d| d * d)) / n;
    let inv = T::ONE / (variance + T::of(epsilon.into())).root();
    row.iter_mut().zip(x).for_each(|(y, d)| *y = (d * inv).wide());
    (mean.wide(), inv.wide())
}

/// A parameter, written out for all the normalised dimensions where it only broadcasts to them.
fn spread<T: Real>(ctx: &RunCtx<'_>, t: &Tensor, shape: &[usize]) -> Result<Vec<T>, OpError> {
    if t.shape() == shape {
        return read(ctx, t);
    }
    if t.rank() > shape.len() || broadcast(&[t.shape(), shape])?[..] != *shape {
        return Err(OpError::shape(format!(
            "a parameter of shape {:?} does not broadcast to the normalised dimensions {shape:?}",
            t.shape()
        )));
    }
    let mut out = ctx.memory.alloc::<T>(shape)?;
    copy_strided(
        ctx.exec,
        &Walk::new(shape, [&broadcast_strides(t.shape(), shape)], [0]),
        &elements::<T>(ctx, t)?,
        &mut out,
    );
    Ok(out)
}
