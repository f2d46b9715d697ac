//! ConvInteger and QLinearConv: exact sums of products in i32, which wraps.

use isobit_tensor::{DType, Tensor};

use crate::axes::{bounded, fact, known, settled, volume};
use crate::cast::convert;
use crate::conv::Conv;
use crate::quantize::{saturate, wide};
use crate::taps::{Axis, Taps};
use crate::{Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("ConvInteger", 10, |ctx| ctx.one(IntegerConv { conv: Conv::new(ctx)?, requantize: false })),
    OpDef::onnx("QLinearConv", 10, |ctx| ctx.one(IntegerConv { conv: Conv::new(ctx)?, requantize: true })),
];

/// Both operands less their zero points, so that padding is 0. QLinearConv then adds the bias and gives
/// saturate(round(sum * (x_scale * w_scale / y_scale)) + y_zero_point), the factor and the product rounded in f32.
struct IntegerConv {
    conv: Conv,
    requantize: bool,
}

impl IntegerConv {
    /// Positions of the weights and of the two zero points.
    fn positions(&self) -> [usize; 3] {
        if self.requantize { [3, 2, 5] } else { [1, 2, 3] }
    }

    fn sums(&self, ctx: &RunCtx<'_>, inputs: &Inputs) -> Result<(Vec<usize>, Vec<i32>), OpError> {
        let [at, zero_x, zero_w] = self.positions();
        let (x, w) = (inputs.get(0)?, inputs.get(at)?);
        bounded([x, w])?;
        let g = self.conv.geometry(&known(x.shape()), &known(w.shape()))?;
        let g = g.ok_or_else(|| OpError::shape("unknown extents"))?;
        let output = settled(g.output.clone())?;
        let filters = w.shape()[0];
        let shape = [&[x.shape()[0], filters], &output[..]].concat();
        let axes =
            (0..output.len()).map(|d| vec![Axis::forward(&g, d, x.shape()[2 + d], output[d])]).collect();
        let taps = Taps {
            groups: self.conv.groups,
            channels: w.shape()[1],
            filters: filters / self.conv.groups,
            input: &x.shape()[2..],
            kernel: &g.kernel,
            output: &output,
            filters_first: true,
        };
        let x = centred(ctx, x, inputs.opt(zero_x), 1)?;
        let w = centred(ctx, w, inputs.opt(zero_w), filters)?;
        let sums = taps.run_ints(ctx, axes, &x, &w, &shape)?;
        Ok((shape, sums))
    }
}

/// The integers of a tensor less the zero point: one, or one for each of `rows` equal parts.
fn centred(ctx: &RunCtx<'_>, t: &Tensor, zero: Option<&Tensor>, rows: usize) -> Result<Vec<i32>, OpError> {
    if let Some(z) = zero.filter(|z| z.dtype() != t.dtype()) {
        return Err(OpError::input(format!("a zero point of type {} for {}", z.dtype(), t.dtype())));
    }
    let zeros = zero.map(|z| wide(ctx, z)).transpose()?.unwrap_or_else(|| vec![0]);
    if zeros.len() != 1 && zeros.len() != rows {
        return Err(OpError::shape(format!("{} zero points; expected 1 or {rows}", zeros.len())));
    }
    let part = (t.len() / zeros.len()).max(1);
    let centred = |(i, v): (usize, i64)| v.wrapping_sub(zeros[i / part % zeros.len()]) as i32;
    Ok(wide(ctx, t)?.into_iter().enumerate().map(centred).collect())
}

impl Op for IntegerConv {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (fact(inputs, 0), fact(inputs, self.positions()[0]));
        if let Some(t) =
            [x.dtype, w.dtype].into_iter().flatten().find(|t| !matches!(t, DType::I8 | DType::U8))
        {
            return Err(OpError::unsupported_type(t));
        }
        let dtype = if self.requantize { fact(inputs, 7).dtype } else { Some(DType::I32) };
        let (Some(xs), Some(ws)) = (&x.shape, &w.shape) else { return Ok(vec![Fact::typed(dtype)]) };
        let shape = self.conv.geometry(xs, ws)?.map(|g| [&[xs[0], ws[0]], &g.output[..]].concat());
        Ok(vec![Fact::new(dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let w = fact(inputs, self.positions()[0]).known_shape();
        let taps = w.map_or(0, |w| volume(w.get(1..).unwrap_or(&[])));
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(taps))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (shape, mut sums) = self.sums(ctx, &inputs)?;
        if !self.requantize {
            return Ok(vec![Tensor::new(&shape, sums)?]);
        }
        let (filters, plane) = (shape[1], shape[2..].iter().product::<usize>().max(1));
        let floats = |i: usize| -> Result<Vec<f32>, OpError> {
            Ok(convert(ctx, inputs.get(i)?.clone(), DType::F32)?.into_vec()?)
        };
        let (x_scale, w_scale, y_scale) = (floats(1)?, floats(4)?, floats(6)?);
        let (&[x_scale], &[y_scale]) = (&x_scale[..], &y_scale[..]) else {
            return Err(OpError::shape("the scales of input and result must be one number each"));
        };
        if w_scale.len() != 1 && w_scale.len() != filters {
            return Err(OpError::shape(format!("{} weight scales for {filters} filters", w_scale.len())));
        }
        let factors: Vec<f32> = w_scale.iter().map(|w| x_scale * w / y_scale).collect();
        if let Some(bias) = inputs.opt(8) {
            let bias = bias.as_slice::<i32>()?;
            if bias.len() != filters {
                return Err(OpError::shape(format!("a bias of {} for {filters} filters", bias.len())));
            }
            sums.iter_mut().enumerate().for_each(|(i, s)| *s = s.wrapping_add(bias[i / plane % filters]));
        }
        let to = inputs.get(7)?.dtype();
        let &[zero] = wide(ctx, inputs.get(7)?)?.as_slice() else {
            return Err(OpError::shape("the zero point of the result must be one number"));
        };
        let mut out = ctx.memory.alloc::<i64>(&shape)?;
        for (i, (o, s)) in out.iter_mut().zip(sums).enumerate() {
            *o = saturate(s as f32 * factors[i / plane % filters.min(factors.len())], zero, to)?;
        }
        Ok(vec![convert(ctx, Tensor::new(&shape, out)?, to)?])
    }
}
