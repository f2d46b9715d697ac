//! MatMulInteger and QLinearMatMul: exact sums of products in i32, which wraps.

use isobit_kernels::integer::{Bytes, PackedBytes, Requantize, product, requantize};
use isobit_tensor::{DType, Tensor};

use crate::axes::fact;
use crate::broadcast::{Walk, broadcast, broadcast_dims, strides};
use crate::cast::{convert, convert_with};
use crate::fold::fold;
use crate::matmul;
use crate::narrow::Rounding;
use crate::product::Product as _;
use crate::quantize::{bytes, counted, less_zeros, number, of_bytes, saturate, wide};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("MatMulInteger", 10, |ctx| build(ctx, false)),
    OpDef::onnx("QLinearMatMul", 21, |ctx| build(ctx, true)),
];

struct Product {
    requantize: bool,
    /// The right side with its zero points, packed, where both are constant.
    packed: Option<PackedBytes>,
}

fn build(ctx: &BuildCtx<'_>, requantize: bool) -> Result<Box<dyn Op>, OpError> {
    let mut op = Product { requantize, packed: None };
    let [[_, b], [_, zero]] = [op.positions(), op.zeros()];
    let zero_known = !ctx.has_input(zero) || ctx.constant(zero).is_some();
    if let Some(b) = ctx.constant(b).filter(|b| b.rank() == 2 && zero_known && bytes(b).is_some()) {
        op.packed = Some(ctx.packs.right_of_bytes(b, ctx.constant(zero))?);
        b.release();
    }
    ctx.one(op)
}

/// An operand of 8-bit integers with its zero points: one, or one for each of `lines` rows or columns, in each matrix alike or apart.
fn small<'a>(t: &'a Tensor, zero: Option<&'a Tensor>, lines: usize) -> Result<Option<Bytes<'a>>, OpError> {
    let batch = t.shape().split_last_chunk::<2>().map_or(&[][..], |(batch, _)| batch);
    less_zeros(t, zero, lines, batch.iter().fold(lines, |n, &d| n.saturating_mul(d)))
}

/// As [`small`], of integers of any type: their values less the zero points, of rows (left) or columns (right).
fn wide_less(
    ctx: &RunCtx<'_>,
    t: &Tensor,
    zero: Option<&Tensor>,
    extents: (usize, usize),
    per: Per,
) -> Result<Vec<i32>, OpError> {
    let zeros = zero.map(|z| wide(ctx, z)).transpose()?.unwrap_or_else(|| vec![0]);
    let zeros = Spread::new(zeros, per, extents, t.len())?;
    Ok(wide(ctx, t)?.into_iter().enumerate().map(|(i, v)| v.wrapping_sub(zeros.at(i)) as i32).collect())
}

impl Product {
    /// Positions of A and B.
    fn positions(&self) -> [usize; 2] {
        if self.requantize { [0, 3] } else { [0, 1] }
    }

    /// Positions of the zero points of A and B.
    fn zeros(&self) -> [usize; 2] {
        if self.requantize { [2, 5] } else { [2, 3] }
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
        counted(values.len(), own, all)?;
        Ok(Self { values, per, rows, columns })
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

    fn taken(&self) -> &[usize] {
        match (&self.packed, self.requantize) {
            (None, _) => &[],
            (Some(_), false) => &[1],
            (Some(_), true) => &[3],
        }
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let [i, j] = self.positions();
        let a = inputs.get(i)?;
        if self.requantize && FLOATS.contains(&a.dtype()) {
            return self.floats(ctx, &inputs);
        }
        let [zero_a, zero_b] = self.zeros().map(|i| inputs.opt(i));
        let (batch_a, m, k) = matrix(a.shape(), true)?;
        let left = small(a, zero_a, m)?;
        let shape_b = self.packed.as_ref().map(|b| b.extents().to_vec());
        let shape_b = shape_b.map_or_else(|| inputs.get(j).map(|b| b.shape().to_vec()), Ok)?;
        let (batch_b, k_b, n) = matrix(&shape_b, false)?;
        if k != k_b {
            return Err(OpError::shape(format!("the inner extents of {:?} and {shape_b:?}", a.shape())));
        }
        let batch = broadcast(&[batch_a, batch_b])?;
        let full = [&batch[..], &[m, n]].concat();
        let mut out = ctx.memory.alloc::<i32>(&full)?;
        let ranks = (a.rank(), shape_b.len());
        if let Some(packed) = &self.packed {
            // One right side for all: the batches are more rows of one product.
            let left = left.ok_or_else(|| OpError::unsupported_type(a.dtype()))?;
            if !out.is_empty() {
                product(ctx.exec, out.len() / n, left, packed, &mut out);
            }
            return self.finish(ctx, &inputs, (&batch, m, n), ranks, out);
        }
        let b = inputs.get(j)?;
        let right = small(b, zero_b, n)?;
        if let (Some(left), Some(right)) = (left, right) {
            each_product(&batch, (batch_a, batch_b), &mut out, m * n, |p, q, c| {
                let right = PackedBytes::new(ctx.exec, k, n, of_matrix(right, k * n, n, q));
                product(ctx.exec, m, of_matrix(left, m * k, m, p), &right, c);
            });
        } else {
            let x = wide_less(ctx, a, zero_a, (m, k), Per::Row)?;
            let y = wide_less(ctx, b, zero_b, (k, n), Per::Column)?;
            each_product(&batch, (batch_a, batch_b), &mut out, m * n, |p, q, c| {
                let (x, y) = (&x[p * m * k..][..m * k], &y[q * k * n..][..k * n]);
                i32::product(ctx.exec, m, n, k, x, y, c);
            });
        }
        self.finish(ctx, &inputs, (&batch, m, n), ranks, out)
    }
}

/// Calls `f(p, q, c)` for each matrix of the result, of `len` elements, and the matrices of both sides that it is the product of.
fn each_product(
    batch: &[usize],
    (left, right): (&[usize], &[usize]),
    out: &mut [i32],
    len: usize,
    mut f: impl FnMut(usize, usize, &mut [i32]),
) {
    // Batch strides count matrices.
    let spread = |own: &[usize]| -> Vec<isize> {
        let pad = vec![0; batch.len() - own.len()];
        let own = strides(own).into_iter().zip(own).map(|(s, &d)| if d == 1 { 0 } else { s });
        pad.into_iter().chain(own).collect()
    };
    let walk = Walk::new(batch, [&spread(left), &spread(right)], [0, 0]);
    let (run, [by_left, by_right]) = (walk.run_len(), walk.run_strides());
    let mut products = out.chunks_exact_mut(len.max(1));
    walk.for_each(|[left, right]| {
        for r in 0..run as isize {
            let Some(c) = products.next() else { return };
            f(left.wrapping_add_signed(by_left * r), right.wrapping_add_signed(by_right * r), c);
        }
    });
}

/// One matrix, of `len` elements and so many lines with a zero point each, of several.
fn of_matrix(all: Bytes<'_>, len: usize, lines: usize, matrix: usize) -> Bytes<'_> {
    let zeros = if all.zeros.len() > lines { &all.zeros[matrix * lines..][..lines] } else { all.zeros };
    Bytes { values: &all.values[matrix * len..][..len], zeros, ..all }
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

/// The result in 8 bits from the sums, where A and Y have one scale each, Y one zero point and B scales for all or for columns.
fn by_columns(
    ctx: &RunCtx<'_>,
    inputs: &Inputs,
    n: usize,
    shape: &[usize],
    sums: &[i32],
) -> Result<Option<Tensor>, OpError> {
    let (a, b, y) = (single(ctx, inputs, 1)?, single(ctx, inputs, 4)?, single(ctx, inputs, 6)?);
    let zero = bytes(inputs.get(7)?);
    let (&[a], &[y], Some((&[zero], signed))) = (&a[..], &y[..], zero) else { return Ok(None) };
    if b.len() != 1 && b.len() != n {
        return Ok(None);
    }
    let factors: Vec<f32> = b.iter().map(|b| a * b / y).collect();
    let mut out = ctx.memory.alloc::<u8>(shape)?;
    let how = Requantize { factors: &factors, zero: number(zero, signed).into(), signed };
    requantize(ctx.exec, n, sums, how, &mut out);
    Ok(Some(of_bytes(shape, out, signed)?))
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
        if let Some(y) = by_columns(ctx, inputs, n, &shape, &out)? {
            return Ok(vec![y]);
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
