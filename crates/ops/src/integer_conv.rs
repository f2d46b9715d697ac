//! ConvInteger and QLinearConv: exact sums of products in i32, which wraps.

use isobit_kernels::integer::{Bytes, PackedFilters, Requantize, Results, conv};
use isobit_tensor::{DType, Tensor};

use crate::axes::{bounded, fact, known, settled, volume};
use crate::cast::convert;
use crate::conv::{Conv, HELD};
use crate::quantize::{bytes, less_zeros, number, of_bytes, saturate};
use crate::taps::{Axis, Taps};
use crate::window::Geometry;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, Packs, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("ConvInteger", 10, |ctx| build(ctx, false)),
    OpDef::onnx("QLinearConv", 10, |ctx| build(ctx, true)),
];

/// Both operands less their zero points, so that padding is 0. QLinearConv then adds the bias and gives
/// saturate(round(sum * (x_scale * w_scale / y_scale)) + y_zero_point), the factor and the product rounded in f32.
struct IntegerConv {
    conv: Conv,
    requantize: bool,
    /// The weights less their zero points, packed, where both are constant.
    filters: Option<Filters>,
}

/// Weights and their extents.
struct Filters {
    shape: Vec<usize>,
    packed: PackedFilters,
}

fn build(ctx: &BuildCtx<'_>, requantize: bool) -> Result<Box<dyn Op>, OpError> {
    let mut op = IntegerConv { conv: Conv::new(ctx)?, requantize, filters: None };
    let [at, _, zero] = op.positions();
    let zero_known = !ctx.has_input(zero) || ctx.constant(zero).is_some();
    if let Some(w) = ctx.constant(at).filter(|w| w.rank() > 2 && zero_known) {
        op.filters = Some(Filters::new(ctx.packs, op.conv.groups, w, ctx.constant(zero))?);
        w.release();
    }
    ctx.one(op)
}

/// The bytes of an operand and of its zero points: one, or one for each of `lines` parts.
fn small<'a>(t: &'a Tensor, zero: Option<&'a Tensor>, lines: usize) -> Result<Bytes<'a>, OpError> {
    less_zeros(t, zero, lines, lines)?.ok_or_else(|| OpError::unsupported_type(t.dtype()))
}

impl Filters {
    fn new(packs: &dyn Packs, groups: usize, w: &Tensor, zero: Option<&Tensor>) -> Result<Self, OpError> {
        bounded([w])?;
        Ok(Self { shape: w.shape().to_vec(), packed: packs.filters_of_bytes(groups, w, zero)? })
    }
}

impl IntegerConv {
    /// Positions of the weights and of the two zero points.
    fn positions(&self) -> [usize; 3] {
        if self.requantize { [3, 2, 5] } else { [1, 2, 3] }
    }

    /// The sums by way of matrices of windows: any number of dimensions.
    fn sums(
        &self,
        ctx: &RunCtx<'_>,
        (x, w): (&Tensor, &Filters),
        g: &Geometry,
        shape: &[usize],
        zero: i16,
    ) -> Result<Vec<i32>, OpError> {
        let output = &shape[2..];
        let axes =
            (0..output.len()).map(|d| vec![Axis::forward(g, d, x.shape()[2 + d], output[d])]).collect();
        let taps = Taps {
            groups: self.conv.groups,
            channels: w.shape[1],
            filters: shape[1] / self.conv.groups,
            input: &x.shape()[2..],
            kernel: &g.kernel,
            output,
            filters_first: true,
        };
        let (values, signed) = bytes(x).ok_or_else(|| OpError::unsupported_type(x.dtype()))?;
        let less: Vec<i32> = values.iter().map(|&v| i32::from(number(v, signed) - zero)).collect();
        taps.run_ints(ctx, axes, &less, &w.packed.numbers(), shape)
    }

    /// What QLinearConv does with the sums.
    fn requantization(&self, ctx: &RunCtx<'_>, inputs: &Inputs, filters: usize) -> Result<Scaling, OpError> {
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
        let zero = inputs.get(7)?;
        let (zeros, signed) = bytes(zero).ok_or_else(|| OpError::unsupported_type(zero.dtype()))?;
        let &[byte] = zeros else {
            return Err(OpError::shape("the zero point of the result must be one number"));
        };
        let factors = w_scale.iter().map(|w| x_scale * w / y_scale).collect();
        Ok(Scaling { factors, zero: number(byte, signed).into(), signed })
    }
}

/// See [`Requantize`].
struct Scaling {
    factors: Vec<f32>,
    zero: i32,
    signed: bool,
}

impl Scaling {
    fn apply(
        &self,
        ctx: &RunCtx<'_>,
        shape: &[usize],
        bias: Option<&[i32]>,
        sums: &[i32],
    ) -> Result<Tensor, OpError> {
        let to = if self.signed { DType::I8 } else { DType::U8 };
        let (filters, plane) = (shape[1], shape[2..].iter().product::<usize>().max(1));
        let mut out = ctx.memory.alloc::<u8>(shape)?;
        for (i, (o, s)) in out.iter_mut().zip(sums).enumerate() {
            let filter = i / plane % filters;
            let sum = s.wrapping_add(bias.map_or(0, |bias| bias[filter]));
            let factor = self.factors[filter % self.factors.len()];
            *o = saturate(sum as f32 * factor, self.zero.into(), to)? as u8;
        }
        of_bytes(shape, out, self.signed)
    }
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

    fn taken(&self) -> &[usize] {
        match (&self.filters, self.requantize) {
            (None, _) => &[],
            (Some(_), false) => &[1],
            (Some(_), true) => &[3],
        }
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let [at, zero_x, zero_w] = self.positions();
        let x = inputs.get(0)?;
        bounded([x])?;
        let made;
        let w = match &self.filters {
            Some(w) => w,
            None => {
                made = Filters::new(&ctx.exec, self.conv.groups, inputs.get(at)?, inputs.opt(zero_w))?;
                &made
            }
        };
        let g = self.conv.geometry(&known(x.shape()), &known(&w.shape))?;
        let g = g.ok_or_else(|| OpError::shape("unknown extents"))?;
        let filters = w.shape[0];
        let shape = [&[x.shape()[0], filters], &settled(g.output.clone())?[..]].concat();
        let left = small(x, inputs.opt(zero_x), 1)?;
        let bias = match inputs.opt(8).filter(|_| self.requantize).map(Tensor::as_slice::<i32>).transpose()? {
            Some(bias) if bias.len() != filters => {
                return Err(OpError::shape(format!("a bias of {} for {filters} filters", bias.len())));
            }
            bias => bias,
        };
        // One or two dimensions: the kernel, unless the padding is out of all proportion.
        let planes = match shape.len() <= 4 {
            true => Some(self.conv.extents(ctx, x.shape(), &g, &shape)?),
            false => None,
        };
        let planes = planes.filter(|c| c.held() <= HELD.max(4 * x.len()));
        let scaling = match self.requantize {
            true => Some(self.requantization(ctx, &inputs, filters)?),
            false => None,
        };
        let Some(c) = planes else {
            let zero = number(left.zeros[0], left.signed);
            let sums = self.sums(ctx, (x, w), &g, &shape, zero)?;
            let Some(scaling) = scaling else { return Ok(vec![Tensor::new(&shape, sums)?]) };
            return Ok(vec![scaling.apply(ctx, &shape, bias, &sums)?]);
        };
        let Some(Scaling { factors, zero, signed }) = scaling else {
            let mut out = ctx.memory.alloc::<i32>(&shape)?;
            conv(ctx.exec, &c, left, &w.packed, None, Results::Sums(&mut out));
            return Ok(vec![Tensor::new(&shape, out)?]);
        };
        let mut out = ctx.memory.alloc::<u8>(&shape)?;
        let requantize = Requantize { factors: &factors, zero, signed };
        conv(ctx.exec, &c, left, &w.packed, bias, Results::Bytes(&mut out, requantize));
        Ok(vec![of_bytes(&shape, out, signed)?])
    }
}
