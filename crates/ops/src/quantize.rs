//! Linear quantisation: QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, MatMulInteger,
//! QLinearMatMul. Integer products accumulate in i32, which wraps.

use isobit_kernels::integer::{self, PackedInts};
use isobit_kernels::reduce::{Reduction, reduce};
use isobit_tensor::{DType, Tensor, bf16, f16};

use crate::axes::{axis, fact};
use crate::broadcast::{Walk, broadcast, broadcast_dims, strides};
use crate::cast::{convert, convert_with};
use crate::fold::fold;
use crate::matmul;
use crate::narrow::{Rounding, small_range};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("QuantizeLinear", 23, |ctx| linear(ctx, true)),
    OpDef::onnx("DequantizeLinear", 23, |ctx| linear(ctx, false)),
    OpDef::onnx("DynamicQuantizeLinear", 11, dynamic),
    OpDef::onnx("MatMulInteger", 10, |ctx| product(ctx, false)),
    OpDef::onnx("QLinearMatMul", 21, |ctx| product(ctx, true)),
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
fn bytes(t: &Tensor) -> Option<(&[u8], bool)> {
    match t.dtype() {
        DType::U8 => Some((t.as_slice().ok()?, false)),
        DType::I8 => Some((bytemuck::cast_slice(t.as_slice::<i8>().ok()?), true)),
        _ => None,
    }
}

/// The number that a byte of such a tensor is.
fn number(byte: u8, signed: bool) -> i16 {
    if signed { i16::from(byte as i8) } else { i16::from(byte) }
}

/// A tensor of 8-bit integers from their bytes.
fn of_bytes(shape: &[usize], bytes: Vec<u8>, signed: bool) -> Result<Tensor, OpError> {
    Ok(if signed {
        Tensor::new(shape, bytemuck::cast_vec::<u8, i8>(bytes))?
    } else {
        Tensor::new(shape, bytes)?
    })
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

struct Product {
    requantize: bool,
    /// The right side less its zero point, packed, where both are constant.
    packed: Option<PackedInts>,
}

fn product(ctx: &BuildCtx<'_>, requantize: bool) -> Result<Box<dyn Op>, OpError> {
    let (b, zero) = if requantize { (3, 5) } else { (1, 3) };
    let zero_known = !ctx.has_input(zero) || ctx.constant(zero).is_some();
    let packed = ctx.constant(b).filter(|b| b.rank() == 2 && zero_known).and_then(|b| {
        let (k, n) = (b.shape()[0], b.shape()[1]);
        let (values, signed) = bytes(b)?;
        let zeros = match ctx.constant(zero) {
            None => vec![0],
            Some(z) => bytes(z).map(|(z, s)| z.iter().map(|&z| number(z, s)).collect::<Vec<_>>())?,
        };
        let right = zeros.len() == 1 || zeros.len() == n;
        let less = |(i, &v): (usize, &u8)| number(v, signed) - zeros[i % n % zeros.len()];
        right.then(|| PackedInts::new(k, n, &values.iter().enumerate().map(less).collect::<Vec<_>>()))
    });
    ctx.one(Product { requantize, packed })
}

/// As i16, where they all fit (all but the least).
pub(crate) fn narrow(values: &[i32]) -> Option<Vec<i16>> {
    let fits = values.iter().all(|v| (-32_767..=32_767).contains(v));
    fits.then(|| values.iter().map(|&v| v as i16).collect())
}

/// The integers of a tensor less its one zero point, where both have 8 bits.
fn centred_small(ctx: &RunCtx<'_>, t: &Tensor, zero: Option<&Tensor>) -> Result<Option<Vec<i16>>, OpError> {
    let Some((values, signed)) = bytes(t) else { return Ok(None) };
    let zero = match zero.map(bytes) {
        None => 0,
        Some(Some((&[z], signed))) => number(z, signed),
        Some(_) => return Ok(None),
    };
    let mut out = ctx.memory.alloc::<i16>(&[t.len()])?;
    integer::centre(ctx.exec, values, signed, zero, &mut out);
    Ok(Some(out))
}

impl Product {
    /// Positions of A, its scale and zero point, B, its scale and zero point.
    fn positions(&self) -> [usize; 2] {
        if self.requantize { [0, 3] } else { [0, 1] }
    }

    fn output(&self, zero: Option<DType>) -> Option<DType> {
        if self.requantize { zero } else { Some(DType::I32) }
    }
}

/// The batch dimensions and the matrix of `shape`; a vector is a row (left) or a column (right).
fn matrix(shape: &[usize], left: bool) -> Result<(&[usize], usize, usize), OpError> {
    match shape {
        [] => Err(OpError::shape("a scalar has no matrix product")),
        [n] if left => Ok((&[], 1, *n)),
        [n] => Ok((&[], *n, 1)),
        [batch @ .., m, n] => Ok((batch, *m, *n)),
    }
}

/// `values` less their zero points, of rows (left) or columns (right).
fn centred(
    ctx: &RunCtx<'_>,
    t: &Tensor,
    zero: Option<&Tensor>,
    (rows, columns): (usize, usize),
    left: bool,
) -> Result<Vec<i32>, OpError> {
    let zeros = zero.map(|z| wide(ctx, z)).transpose()?.unwrap_or_else(|| vec![0]);
    let per = if left { Per::Row } else { Per::Column };
    let zeros = Spread::new(zeros, per, (rows, columns), t.len())?;
    Ok(wide(ctx, t)?.into_iter().enumerate().map(|(i, v)| v.wrapping_sub(zeros.at(i)) as i32).collect())
}

/// What a scale or zero point is given for, among matrices of so many rows and columns.
#[derive(Debug, Clone, Copy)]
enum Per {
    Row,
    Column,
}

/// A number for all elements, or one for each row or each column, in each matrix alike or apart.
struct Spread<T> {
    values: Vec<T>,
    per: Per,
    rows: usize,
    columns: usize,
}

impl<T: Copy> Spread<T> {
    /// For `len` elements of matrices of these extents.
    fn new(values: Vec<T>, per: Per, (rows, columns): (usize, usize), len: usize) -> Result<Self, OpError> {
        let own = if matches!(per, Per::Row) { rows } else { columns };
        let all = len / (rows * columns).max(1) * own;
        match values.len() {
            n if n == 1 || n == own || n == all => Ok(Self { values, per, rows, columns }),
            n => Err(OpError::shape(format!("{n} scales or zero points; expected 1, {own} or {all}"))),
        }
    }

    /// That of an element, counted over all matrices.
    fn at(&self, i: usize) -> T {
        let line = match self.per {
            Per::Row => i / self.columns.max(1),
            Per::Column => i / (self.rows * self.columns).max(1) * self.columns + i % self.columns.max(1),
        };
        self.values[line % self.values.len()]
    }
}

impl Op for Product {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let [a, b] = self.positions().map(|i| fact(inputs, i));
            let dtype = self.output(fact(inputs, 7).dtype);
            let shape = match (a.shape.as_deref(), b.shape.as_deref()) {
                (Some([batch_a @ .., m, _]), Some([batch_b @ .., _, n])) => {
                    Some([broadcast_dims(&[batch_a, batch_b])?, vec![*m, *n]].concat())
                }
                (Some([_]), Some([batch @ .., _, n])) => Some([batch, &[*n]].concat()),
                (Some([batch @ .., m, _]), Some([_])) => Some([batch, &[*m]].concat()),
                (Some([_]), Some([_])) => Some(Vec::new()),
                _ => None,
            };
            Ok(vec![Fact::new(dtype, shape)])
        })
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let k = fact(inputs, 0).shape.as_ref().and_then(|s| s.last().copied().flatten()).unwrap_or(1);
        let elements = outputs.iter().filter_map(Fact::numel).fold(0, usize::saturating_add);
        (elements as u64).saturating_mul(k as u64)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let [i, j] = self.positions();
        let (a, b) = (inputs.get(i)?, inputs.get(j)?);
        if self.requantize && FLOATS.contains(&a.dtype()) {
            return self.floats(ctx, &inputs);
        }
        let [zero_a, zero_b] = if self.requantize { [2, 5] } else { [2, 3] }.map(|i| inputs.opt(i));
        let (batch_a, m, k) = matrix(a.shape(), true)?;
        let (batch_b, k_b, n) = matrix(b.shape(), false)?;
        if k != k_b {
            return Err(OpError::shape(format!("the inner extents of {:?} and {:?}", a.shape(), b.shape())));
        }
        let batch = broadcast(&[batch_a, batch_b])?;
        let full = [&batch[..], &[m, n]].concat();
        let mut out = ctx.memory.filled::<i32>(&full, 0)?;
        let small = match centred_small(ctx, a, zero_a)? {
            None => narrow(&centred(ctx, a, zero_a, (m, k), true)?),
            small => small,
        };
        if let (Some(x), Some(packed)) = (&small, &self.packed) {
            // One right side for all: the batches are more rows of one product.
            integer::gemm(ctx.exec, batch.iter().product::<usize>() * m, x, packed, &mut out);
            return self.finish(ctx, &inputs, (&batch, m, n), (a.rank(), b.rank()), out);
        }
        let y = centred(ctx, b, zero_b, (k, n), false)?;
        let both = small.zip(narrow(&y));
        let x = if both.is_some() { Vec::new() } else { centred(ctx, a, zero_a, (m, k), true)? };
        // Batch strides count matrices.
        let spread = |own: &[usize]| -> Vec<isize> {
            let pad = vec![0; batch.len() - own.len()];
            let own = strides(own).into_iter().zip(own).map(|(s, &d)| if d == 1 { 0 } else { s });
            pad.into_iter().chain(own).collect()
        };
        let (step_a, step_b) = (spread(batch_a), spread(batch_b));
        let walk = Walk::new(&batch, [&step_a, &step_b], [0, 0]);
        let (run, [by_a, by_b]) = (walk.run_len(), walk.run_strides());
        let mut products = out.chunks_exact_mut((m * n).max(1));
        walk.for_each(|[at_a, at_b]| {
            for r in 0..run as isize {
                let Some(c) = products.next() else { return };
                let (p, q) = (at_a.wrapping_add_signed(by_a * r), at_b.wrapping_add_signed(by_b * r));
                if let Some((x, y)) = &both {
                    let packed = PackedInts::new(k, n, &y[q * k * n..(q + 1) * k * n]);
                    integer::gemm(ctx.exec, m, &x[p * m * k..(p + 1) * m * k], &packed, c);
                    continue;
                }
                let (x, y) = (&x[p * m * k..(p + 1) * m * k], &y[q * k * n..(q + 1) * k * n]);
                for (row, c) in c.chunks_exact_mut(n.max(1)).enumerate() {
                    for (l, y) in y.chunks_exact(n.max(1)).enumerate() {
                        let x = x[row * k + l];
                        c.iter_mut().zip(y).for_each(|(c, &y)| *c = c.wrapping_add(x.wrapping_mul(y)));
                    }
                }
            }
        });
        self.finish(ctx, &inputs, (&batch, m, n), (a.rank(), b.rank()), out)
    }
}

/// An operand in f32.
fn single(ctx: &RunCtx<'_>, inputs: &Inputs, i: usize) -> Result<Vec<f32>, OpError> {
    Ok(convert(ctx, inputs.get(i)?.clone(), DType::F32)?.into_vec()?)
}

/// What each sum of QLinearMatMul is multiplied by: a_scale * b_scale / y_scale, those of A and Y being of rows.
fn factors(
    ctx: &RunCtx<'_>,
    inputs: &Inputs,
    extents: (usize, usize),
    len: usize,
) -> Result<impl Fn(usize) -> f32, OpError> {
    let spread = |i: usize, per: Per| Spread::new(single(ctx, inputs, i)?, per, extents, len);
    let (a, b, y) = (spread(1, Per::Row)?, spread(4, Per::Column)?, spread(6, Per::Row)?);
    Ok(move |i| a.at(i) * b.at(i) / y.at(i))
}

/// The small floats that QLinearMatMul takes.
const FLOATS: [DType; 4] = [DType::F8E4M3FN, DType::F8E4M3FNUZ, DType::F8E5M2, DType::F8E5M2FNUZ];

impl Product {
    /// QLinearMatMul of small floats, in f32: the chains of (a - a_zero) and (b - b_zero), times the factor, plus y_zero, every
    /// step rounded, then rounded and saturated to the result's type.
    fn floats(&self, ctx: &RunCtx<'_>, inputs: &Inputs) -> Result<Vec<Tensor>, OpError> {
        let less = |i: usize, zero: usize, left: bool| -> Result<Tensor, OpError> {
            let t = inputs.get(i)?;
            let (_, rows, columns) = matrix(t.shape(), left)?;
            let per = if left { Per::Row } else { Per::Column };
            let zeros = Spread::new(single(ctx, inputs, zero)?, per, (rows, columns), t.len())?;
            let mut x = single(ctx, inputs, i)?;
            x.iter_mut().enumerate().for_each(|(i, x)| *x -= zeros.at(i));
            Ok(Tensor::new(t.shape(), x)?)
        };
        let to = inputs.get(7)?.dtype();
        if !FLOATS.contains(&to) {
            return Err(OpError::unsupported_type(to));
        }
        let (a, b) = (less(0, 2, true)?, less(3, 5, false)?);
        let extents = (matrix(a.shape(), true)?.1, matrix(b.shape(), false)?.2);
        let y = matmul::product(ctx, a, b)?;
        let shape = y.shape().to_vec();
        let mut y = y.into_vec::<f32>()?;
        let factor = factors(ctx, inputs, extents, y.len())?;
        let zeros = Spread::new(single(ctx, inputs, 7)?, Per::Row, extents, y.len())?;
        y.iter_mut().enumerate().for_each(|(i, y)| *y = *y * factor(i) + zeros.at(i));
        Ok(vec![convert_with(ctx, Tensor::new(&shape, y)?, to, Rounding::default())?])
    }

    /// The result from the sums.
    fn finish(
        &self,
        ctx: &RunCtx<'_>,
        inputs: &Inputs,
        (batch, m, n): (&[usize], usize, usize),
        ranks: (usize, usize),
        out: Vec<i32>,
    ) -> Result<Vec<Tensor>, OpError> {
        let mut shape = batch.to_vec();
        shape.extend((ranks.0 > 1).then_some(m));
        shape.extend((ranks.1 > 1).then_some(n));
        if !self.requantize {
            return Ok(vec![Tensor::new(&shape, out)?]);
        }
        let factor = factors(ctx, inputs, (m, n), out.len())?;
        let to = inputs.get(7)?.dtype();
        let zeros = Spread::new(wide(ctx, inputs.get(7)?)?, Per::Row, (m, n), out.len())?;
        let mut quantised = ctx.memory.alloc::<i64>(&shape)?;
        for (i, (o, c)) in quantised.iter_mut().zip(out).enumerate() {
            *o = saturate(c as f32 * factor(i), zeros.at(i), to)?;
        }
        Ok(vec![convert(ctx, Tensor::new(&shape, quantised)?, to)?])
    }
}
