//! CausalConvWithState: a depthwise convolution over the past, whose end is handed on.

use isobit_kernels::math::{self, Unary};
use isobit_tensor::{DType, Tensor};

use crate::arith::{narrow, widen};
use crate::axes::{bounded, fact};
use crate::broadcast::strides;
use crate::concat::concat;
use crate::slice::part;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("CausalConvWithState", 27, causal_conv)];

/// Each element is a chain from +0 over the kernel's taps, ascending, then + bias, then x * sigmoid(x) where asked for.
struct CausalConv {
    silu: bool,
}

fn causal_conv(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let silu = ctx.choice("activation", &[("none", false), ("silu", true), ("swish", true)])?;
    ctx.at_most(2, CausalConv { silu })
}

impl Op for CausalConv {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (fact(inputs, 0), fact(inputs, 1));
        if let Some(t) = x.dtype.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
            return Err(OpError::unsupported_type(t));
        }
        let state = match (x.shape.as_deref(), w.shape.as_deref()) {
            (Some([n, c, _]), Some([_, _, k])) => Some(vec![*n, *c, k.map(|k| k.saturating_sub(1))]),
            _ => None,
        };
        Ok(vec![Fact::new(x.dtype, x.shape.clone()), Fact::new(x.dtype, state)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let taps = fact(inputs, 1).shape.as_deref().and_then(|s| *s.get(2)?).unwrap_or(1) as u64;
        let each = taps.saturating_add(if self.silu { 8 } else { 0 });
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(each))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, w) = (inputs.get(0)?, inputs.get(1)?);
        bounded([x, w])?;
        let (&[n, c, length], &[channels, 1, k]) = (x.shape(), w.shape()) else {
            let message = format!("an input {:?} and a weight {:?}", x.shape(), w.shape());
            return Err(OpError::shape(format!("{message}; they must be [N, C, L] and [C, 1, k]")));
        };
        if channels != c || k == 0 {
            return Err(OpError::shape(format!("a weight {:?} for {c} channels", w.shape())));
        }
        let shape = [n, c, k - 1];
        let past = match inputs.opt(3) {
            Some(past) if past.shape() == shape => past.clone(),
            Some(past) => {
                return Err(OpError::shape(format!("a past state {:?}; {shape:?} is needed", past.shape())));
            }
            None => narrow(x.dtype(), &shape, ctx.memory.filled::<f32>(&shape, 0.0)?)?,
        };
        let all = concat(ctx, &[&past, x], 2)?;
        let taps = widen(w)?;
        let bias = inputs.opt(2).map(widen).transpose()?;
        if let Some(b) = bias.as_ref().filter(|b| b.len() != c) {
            return Err(OpError::shape(format!("{} biases for {c} channels", b.len())));
        }
        let mut out = ctx.memory.filled::<f32>(x.shape(), 0.0)?;
        let wide = widen(&all)?;
        if length > 0 {
            for (i, (y, x)) in out.chunks_exact_mut(length).zip(wide.chunks_exact(length + k - 1)).enumerate()
            {
                let taps = &taps[i % c * k..][..k];
                for (t, y) in y.iter_mut().enumerate() {
                    *y = taps.iter().zip(&x[t..]).fold(0.0, |acc, (&w, &x)| isobit_numerics::fma(w, x, acc));
                }
                if let Some(bias) = &bias {
                    y.iter_mut().for_each(|y| *y += bias[i % c]);
                }
            }
        }
        if self.silu {
            math::unary_in_place(ctx.exec, Unary::Silu, &mut out);
        }
        let state = part(ctx, &all, &shape, &strides(all.shape()), length as isize)?;
        Ok(vec![narrow(x.dtype(), x.shape(), out)?, state])
    }
}
