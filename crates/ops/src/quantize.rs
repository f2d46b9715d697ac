//! Linear quantisation: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear.

use isobit_kernels::integer::{self, Bytes};
use isobit_kernels::reduce::{Reduction, reduce};
use isobit_tensor::{DType, Tensor, bf16, f16};

use crate::axes::{axis, fact};
use crate::cast::{convert, convert_with};
use crate::fold::fold;
use crate::narrow::{Rounding, small_range};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("QuantizeLinear", 23, |ctx| linear(ctx, true)),
    OpDef::onnx("DequantizeLinear", 23, |ctx| linear(ctx, false)),
    OpDef::onnx("DynamicQuantizeLinear", 11, dynamic),
];

/// The range of an integer type that numbers are quantised to.
fn range(to: DType) -> Result<(i64, i64), OpError> {
    match to {
        DType::U8 => Ok((0, 255)),
        DType::I8 => Ok((-128, 127)),
        DType::U16 => Ok((0, 65_535)),
        DType::I16 => Ok((-32_768, 32_767)),
        other => small_range(other).ok_or_else(|| OpError::unsupported_type(other)),
    }
}

/// Rounds to nearest even, adds the zero point, saturates to the range of `to`; NaN counts as 0.
pub(crate) fn saturate(x: f32, zero: i64, to: DType) -> Result<i64, OpError> {
    let (low, high) = range(to)?;
    Ok((x.round_ties_even() as i64).saturating_add(zero).clamp(low, high))
}

/// The integers of a quantised tensor.
pub(crate) fn wide(ctx: &RunCtx<'_>, t: &Tensor) -> Result<Vec<i64>, OpError> {
    if !t.dtype().is_int() {
        return Err(OpError::input(format!("a {} tensor where integers are quantised", t.dtype())));
    }
    Ok(convert(ctx, t.clone(), DType::I64)?.into_vec()?)
}

/// The bytes of a tensor of 8-bit integers, and whether they are signed.
pub(crate) fn bytes(t: &Tensor) -> Option<(&[u8], bool)> {
    match t.dtype() {
        DType::U8 => Some((t.as_slice().ok()?, false)),
        DType::I8 => Some((bytemuck::cast_slice(t.as_slice::<i8>().ok()?), true)),
        _ => None,
    }
}

/// The bytes of a tensor of 8-bit integers with its zero points: one, or one for each of its `lines`, in each part alike or for `all` of
/// them.
pub(crate) fn less_zeros<'a>(
    t: &'a Tensor,
    zero: Option<&'a Tensor>,
    lines: usize,
    all: usize,
) -> Result<Option<Bytes<'a>>, OpError> {
    let Some((values, signed)) = bytes(t) else { return Ok(None) };
    let Some(zero) = zero else { return Ok(Some(Bytes { values, signed, zeros: &[0] })) };
    let Some((zeros, _)) = bytes(zero).filter(|_| zero.dtype() == t.dtype()) else {
        return Err(OpError::input(format!("a zero point of type {} for {}", zero.dtype(), t.dtype())));
    };
    counted(zeros.len(), lines, all)?;
    Ok(Some(Bytes { values, signed, zeros: if zeros.is_empty() { &[0] } else { zeros } }))
}

/// Refuses a number of scales or zero points that is neither 1 nor that of all lines of a part nor of all.
pub(crate) fn counted(n: usize, own: usize, all: usize) -> Result<(), OpError> {
    match n == 1 || n == own || n == all {
        true => Ok(()),
        false => Err(OpError::shape(format!("{n} scales or zero points; expected 1, {own} or {all}"))),
    }
}

/// The number that a byte of such a tensor is.
pub(crate) fn number(byte: u8, signed: bool) -> i16 {
    if signed { i16::from(byte as i8) } else { i16::from(byte) }
}

/// A tensor of 8-bit integers from their bytes.
pub(crate) fn of_bytes(shape: &[usize], bytes: Vec<u8>, signed: bool) -> Result<Tensor, OpError> {
    Ok(if signed {
        Tensor::new(shape, bytemuck::cast_vec::<u8, i8>(bytes))?
    } else {
        Tensor::new(shape, bytes)?
    })
}

/// A tensor of 8-bit integers in f32.
pub(crate) fn as_floats(ctx: &RunCtx<'_>, t: &Tensor) -> Result<Tensor, OpError> {
    let (x, signed) = bytes(t).ok_or_else(|| OpError::unsupported_type(t.dtype()))?;
    let mut out = ctx.memory.alloc::<f32>(t.shape())?;
    integer::dequantize(ctx.exec, x, signed, 1.0, 0, &mut out);
    Ok(Tensor::new(t.shape(), out)?)
}

/// Integers in f32, and infinities, as 8-bit integers.
pub(crate) fn from_floats(ctx: &RunCtx<'_>, t: &Tensor, to: DType) -> Result<Tensor, OpError> {
    let signed = to == DType::I8;
    let mut out = ctx.memory.alloc::<u8>(t.shape())?;
    integer::quantize(ctx.exec, t.as_slice::<f32>()?, 1.0, 0, signed, &mut out);
    of_bytes(t.shape(), out, signed)
}

struct Linear {
    quantize: bool,
    axis: i64,
    block: usize,
    dtype: Option<DType>,
    /// In which type the division is rounded; that of the scale where it is not given.
    precision: Option<DType>,
    rounding: Rounding,
}

fn linear(ctx: &BuildCtx<'_>, quantize: bool) -> Result<Box<dyn Op>, OpError> {
    let block = ctx.int("block_size", 0)?;
    let block = usize::try_from(block)
        .map_err(|_| OpError::attribute(format!("block_size is {block}; it must not be negative")))?;
    let dtype = |name| match ctx.int(name, 0)? {
        0 => Ok(None),
        code => i32::try_from(code)
            .ok()
            .and_then(DType::from_onnx)
            .map(Some)
            .ok_or_else(|| OpError::attribute(format!("{name} is {code}, which is no element type"))),
    };
    let saturate = ctx.flag("saturate", true)?;
    ctx.one(Linear {
        quantize,
        axis: ctx.int("axis", 1)?,
        block,
        dtype: dtype("output_dtype")?,
        precision: dtype("precision")?,
        rounding: Rounding { saturate, ..Rounding::default() },
    })
}

impl Linear {
    fn output(&self, scale: Option<DType>, zero: Option<DType>) -> Option<DType> {
        match self.quantize {
            true => zero.or(self.dtype).or(Some(DType::U8)),
            false => self.dtype.or(scale),
        }
    }

    /// Elements that follow one another and have the same scale, of one for all or one along the axis: their number, and
    /// how many scales there are.
    fn runs(&self, shape: &[usize], scales: &[usize]) -> Option<(usize, usize)> {
        let count: usize = scales.iter().product();
        if self.block > 0 || shape.is_empty() && count != 1 {
            return None;
        }
        if count == 1 {
            return Some((shape.iter().product::<usize>().max(1), 1));
        }
        let a = axis(self.axis, shape.len()).ok()?;
        (scales == [shape[a]]).then(|| (shape[a + 1..].iter().product::<usize>().max(1), shape[a]))
    }

    /// 8 bits and f32, by runs: the usual case.
    fn fast(
        &self,
        ctx: &RunCtx<'_>,
        x: &Tensor,
        (scales, zeros): (&Tensor, Option<&Tensor>),
        to: DType,
    ) -> Result<Option<Tensor>, OpError> {
        let signed = match if self.quantize { to } else { x.dtype() } {
            DType::U8 => false,
            DType::I8 => true,
            _ => return Ok(None),
        };
        let float = if self.quantize { x.dtype() } else { to };
        let plain = matches!(self.precision, None | Some(DType::F32));
        if float != DType::F32 || scales.dtype() != DType::F32 || !plain {
            return Ok(None);
        }
        let Some((run, n)) = self.runs(x.shape(), scales.shape()) else { return Ok(None) };
        let scale = scales.as_slice::<f32>()?;
        let zero = match zeros.map(|z| (z.len(), bytes(z))) {
            None => vec![0; n],
            Some((len, Some((bytes, s)))) if len == n => {
                bytes.iter().map(|&b| i32::from(number(b, s))).collect()
            }
            Some(_) => return Ok(None),
        };
        let of = |i: usize| (scale[i % n], zero[i % n]);
        if self.quantize {
            let mut out = ctx.memory.alloc::<u8>(x.shape())?;
            for (i, (x, y)) in x.as_slice::<f32>()?.chunks(run).zip(out.chunks_mut(run)).enumerate() {
                integer::quantize(ctx.exec, x, of(i).0, of(i).1, signed, y);
            }
            return of_bytes(x.shape(), out, signed).map(Some);
        }
        let Some((bytes, _)) = bytes(x) else { return Ok(None) };
        let mut out = ctx.memory.alloc::<f32>(x.shape())?;
        for (i, (x, y)) in bytes.chunks(run).zip(out.chunks_mut(run)).enumerate() {
            integer::dequantize(ctx.exec, x, signed, of(i).0, of(i).1, y);
        }
        Ok(Some(Tensor::new(x.shape(), out)?))
    }

    /// For each element of `shape`, which scale is its: one for all, one along the axis, or one a block.
    fn which(&self, shape: &[usize], scales: &[usize]) -> Result<impl Fn(usize) -> usize + use<>, OpError> {
        let count: usize = scales.iter().product();
        if count == 1 && (self.block == 0 || scales.len() < shape.len()) {
            return Ok(index(0, 1, 1, 1, 1));
        }
        let a = axis(self.axis, shape.len())?;
        let (n, inner) = (shape[a], shape[a + 1..].iter().product());
        if self.block == 0 && scales == [n] {
            return Ok(index(1, n, inner, 1, n));
        }
        let mut blocks = shape.to_vec();
        blocks[a] = n.div_ceil(self.block.max(1));
        if self.block > 0 && scales == blocks {
            return Ok(index(2, n, inner, self.block, blocks[a]));
        }
        Err(OpError::shape(format!(
            "scales of shape {scales:?} for {shape:?} along axis {a} in blocks of {}",
            self.block
        )))
    }
}

/// The scale of an element: `rank` 0 for one in all, 1 for one along the axis, 2 for blocks.
fn index(rank: u8, n: usize, inner: usize, block: usize, blocks: usize) -> impl Fn(usize) -> usize + use<> {
    move |at| match rank {
        0 => 0,
        1 => at / inner % n,
        _ => (at / inner / n * blocks + at / inner % n / block) * inner + at % inner,
    }
}

impl Op for Linear {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let dtype = self.output(fact(inputs, 1).dtype, fact(inputs, 2).dtype);
            Ok(vec![Fact::new(dtype, fact(inputs, 0).shape.clone())])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, scale, zero) = (inputs.get(0)?, inputs.get(1)?, inputs.opt(2));
        let to = self.output(Some(scale.dtype()), zero.map(Tensor::dtype)).unwrap_or(scale.dtype());
        let which = self.which(x.shape(), scale.shape())?;
        if let Some(done) = self.fast(ctx, x, (scale, zero), to)? {
            return Ok(vec![done]);
        }
        let scales = convert(ctx, scale.clone(), DType::F32)?.into_vec::<f32>()?;
        if let Some(z) = zero.filter(|z| z.len() != scales.len()) {
            return Err(OpError::shape(format!("{} zero points for {} scales", z.len(), scales.len())));
        }
        if !self.quantize {
            return Ok(vec![self.dequantize(ctx, x, zero, &scales, which, to)?]);
        }
        let round = match self.precision.unwrap_or(scale.dtype()) {
            DType::F16 => |q: f32| f16::from_f32(q).to_f32(),
            DType::BF16 => |q: f32| bf16::from_f32(q).to_f32(),
            _ => |q: f32| q,
        };
        let x = convert(ctx, x.clone(), DType::F32)?;
        let quotients = x.as_slice::<f32>()?.iter().enumerate().map(|(i, x)| {
            let s = which(i);
            (s, round(x / scales[s]))
        });
        if to.is_float() {
            let zeros = floats(ctx, zero, scales.len())?;
            let mut out = ctx.memory.alloc::<f32>(x.shape())?;
            out.iter_mut().zip(quotients).for_each(|(o, (s, q))| *o = q + zeros[s]);
            return Ok(vec![convert_with(ctx, Tensor::new(x.shape(), out)?, to, self.rounding)?]);
        }
        let zeros = zero.map_or_else(|| Ok(vec![0; scales.len()]), |z| wide(ctx, z))?;
        let (low, high) = range(to)?;
        let mut out = ctx.memory.alloc::<i64>(x.shape())?;
        for (o, (s, q)) in out.iter_mut().zip(quotients) {
            *o = (q.round_ties_even() as i64).saturating_add(zeros[s]).clamp(low, high);
        }
        Ok(vec![convert(ctx, Tensor::new(x.shape(), out)?, to)?])
    }
}

/// Zero points of a small float type; 0 where there are none.
fn floats(ctx: &RunCtx<'_>, zero: Option<&Tensor>, count: usize) -> Result<Vec<f32>, OpError> {
    match zero {
        Some(z) => Ok(convert(ctx, z.clone(), DType::F32)?.into_vec()?),
        None => Ok(vec![0.0; count]),
    }
}

impl Linear {
    fn dequantize(
        &self,
        ctx: &RunCtx<'_>,
        x: &Tensor,
        zero: Option<&Tensor>,
        scales: &[f32],
        which: impl Fn(usize) -> usize,
        to: DType,
    ) -> Result<Tensor, OpError> {
        let mut out = ctx.memory.alloc::<f32>(x.shape())?;
        if x.dtype().is_float() {
            let zeros = floats(ctx, zero, scales.len())?;
            let q = convert(ctx, x.clone(), DType::F32)?;
            for (i, (o, q)) in out.iter_mut().zip(q.as_slice::<f32>()?).enumerate() {
                let s = which(i);
                *o = (q - zeros[s]) * scales[s];
            }
        } else {
            let zeros = zero.map_or_else(|| Ok(vec![0; scales.len()]), |z| wide(ctx, z))?;
            for (i, (o, q)) in out.iter_mut().zip(wide(ctx, x)?).enumerate() {
                let s = which(i);
                *o = q.wrapping_sub(zeros[s]) as f32 * scales[s];
            }
        }
        convert(ctx, Tensor::new(x.shape(), out)?, to)
    }
}

/// The range of the operand, 0 included, over 255 steps.
struct Dynamic;

fn dynamic(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    match ctx.outputs() {
        3 => Ok(Box::new(Dynamic)),
        n => Err(OpError::input(format!("the node declares {n} results; DynamicQuantizeLinear has 3"))),
    }
}

impl Op for Dynamic {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let shape = fact(inputs, 0).shape.clone();
        Ok(vec![Fact::new(Some(DType::U8), shape), Fact::fixed(DType::F32, &[]), Fact::fixed(DType::U8, &[])])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.slice::<f32>(0)?;
        let bound = |r| {
            let mut bound = [0.0];
            reduce(ctx.exec, r, x, x.len(), 1, &mut bound);
            bound[0]
        };
        let high = isobit_numerics::max(0.0, bound(Reduction::Max));
        let low = isobit_numerics::min(0.0, bound(Reduction::Min));
        // A constant 0 has no range; any scale does.
        let scale = if high == low { 1.0 } else { (high - low) / 255.0 };
        let zero = saturate(-low / scale, 0, DType::U8)?;
        let shape = inputs.get(0)?.shape();
        let mut out = ctx.memory.alloc::<u8>(shape)?;
        integer::quantize(ctx.exec, x, scale, zero as i32, false, &mut out);
        Ok(vec![Tensor::new(shape, out)?, Tensor::scalar(scale), Tensor::scalar(zero as u8)])
    }
}
