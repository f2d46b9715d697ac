//! MatMul and Gemm: one chain an output element, k ascending.

use isobit_graph::Node;
use isobit_kernels::double::{self, Panels};
use isobit_kernels::elementwise::Binary;
use isobit_kernels::gemm::{Bias, Epilogue, PackedB, View, gemm, gemm_batch, gemm_packed};
use isobit_tensor::{DType, Tensor};

use crate::arith::{arith, floats, narrow, widen};
use crate::axes::fact;
use crate::broadcast::{broadcast, broadcast_dims, broadcast_strides};
use crate::cast::convert;
use crate::entries::of_broadcast;
use crate::tail::{Tail, absorb};
use crate::transpose::transpose;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] =
    &[OpDef::onnx("MatMul", 13, matmul), OpDef::onnx("Gemm", 13, build_gemm)];

/// Products of matrices over broadcast leading dimensions; a vector is a row (left) or a column (right).
struct MatMul {
    /// The right side, packed, where it is one constant matrix.
    packed: Option<PackedB>,
}

/// Whether the operator packs its operand 1 where that is a constant matrix of f32, and so can take the transpose of one that
/// nobody has transposed ([`BuildCtx::turned`]).
pub fn takes_turned(node: &Node) -> bool {
    node.domain.is_empty() && matches!(node.op.as_str(), "MatMul" | "Gemm")
}

/// The right side, or with `turn` its transpose, packed, where it is one constant matrix.
fn packed(ctx: &BuildCtx<'_>, turn: bool) -> Result<Option<PackedB>, OpError> {
    let matrix = |b: &&Tensor| b.dtype() == DType::F32 && b.rank() == 2;
    let (turned, plain) = (ctx.turned.filter(matrix), ctx.constant(1).filter(matrix));
    let packed =
        turned.map(|b| ctx.packs.right(b, !turn)).or_else(|| plain.map(|b| ctx.packs.right(b, turn)));
    packed.transpose()
}

fn matmul(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(MatMul { packed: packed(ctx, false)? })
}

/// The matrix product of two operands, over broadcast leading dimensions.
pub(crate) fn product(ctx: &RunCtx<'_>, a: Tensor, b: Tensor) -> Result<Tensor, OpError> {
    let mut out = MatMul { packed: None }.run(ctx, Inputs::new(vec![Some(a), Some(b)]))?;
    out.pop().ok_or_else(|| OpError::input("no result"))
}

/// What a run must know of a right side that it may not be given, because it was packed.
struct Constant {
    dtype: DType,
    shape: Vec<usize>,
}

impl Constant {
    fn of(operand: Option<&Tensor>, packed: Option<[usize; 2]>) -> Result<Self, OpError> {
        match (operand, packed) {
            (Some(t), _) => Ok(Self { dtype: t.dtype(), shape: t.shape().to_vec() }),
            (None, Some(shape)) => Ok(Self { dtype: DType::F32, shape: shape.to_vec() }),
            (None, None) => Err(OpError::input("input 1 is missing")),
        }
    }
}

/// The extents of a product.
struct Product<D> {
    batch: Vec<D>,
    m: D,
    k: D,
    n: D,
    /// Whether the operand was a vector.
    vector: (bool, bool),
}

/// Both operands as matrices, and which of them were vectors.
type Operands<D> = (Vec<D>, Vec<D>, (bool, bool));

fn split_operands<D: Copy + From<u8>>(a: &[D], b: &[D]) -> Result<Operands<D>, OpError> {
    if a.is_empty() || b.is_empty() {
        return Err(OpError::shape("a scalar operand; MatMul takes tensors of rank 1 or more"));
    }
    let vector = (a.len() == 1, b.len() == 1);
    let one = D::from(1);
    let a = if vector.0 { vec![one, a[0]] } else { a.to_vec() };
    let b = if vector.1 { vec![b[0], one] } else { b.to_vec() };
    Ok((a, b, vector))
}

impl<D: Copy> Product<D> {
    fn shape(&self) -> Vec<D> {
        let mut shape = self.batch.clone();
        if !self.vector.0 {
            shape.push(self.m);
        }
        if !self.vector.1 {
            shape.push(self.n);
        }
        shape
    }
}

fn mismatch(a: &dyn std::fmt::Debug, b: &dyn std::fmt::Debug) -> OpError {
    OpError::shape(format!("shapes {a:?} and {b:?} do not multiply; the inner extents must be equal"))
}

/// An extent that may be unknown, so that 1 can be made of either kind.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Extent(Option<usize>);

impl From<u8> for Extent {
    fn from(n: u8) -> Self {
        Extent(Some(n.into()))
    }
}

impl Op for MatMul {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (fact(inputs, 0), fact(inputs, 1));
        let dtype = a.dtype.or(b.dtype);
        if let Some(t) = dtype.filter(|t| !multiplies(*t)) {
            return Err(OpError::unsupported_type(t));
        }
        let (Some(ashape), Some(bshape)) = (&a.shape, &b.shape) else { return Ok(vec![Fact::typed(dtype)]) };
        let extents = |s: &[Option<usize>]| s.iter().map(|&d| Extent(d)).collect::<Vec<_>>();
        let (a, b, vector) = split_operands(&extents(ashape), &extents(bshape))?;
        let ((ab, am), (bb, bm)) = (a.split_at(a.len() - 2), b.split_at(b.len() - 2));
        if let (Some(p), Some(q)) = (am[1].0, bm[0].0)
            && p != q
        {
            return Err(mismatch(ashape, bshape));
        }
        let plain = |s: &[Extent]| s.iter().map(|e| e.0).collect::<Vec<_>>();
        let batch = broadcast_dims(&[&plain(ab), &plain(bb)])?;
        let product = Product { batch, m: am[0].0, k: am[1].0, n: bm[1].0, vector };
        Ok(vec![Fact::new(dtype, Some(product.shape()))])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let k = fact(inputs, 0).shape.as_ref().and_then(|s| s.last().copied().flatten()).unwrap_or(0);
        outputs.iter().map(|f| (f.numel().unwrap_or(0) as u64).saturating_mul(k as u64)).sum()
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let rank = |i| fact(operands, i).rank();
        let (a, b) = (rank(0)?, rank(1)?);
        // Rows of the left side, or matrices; of vectors nothing.
        match *batch {
            [Some(axis), None] if a > 1 && b == 2 => Some(axis).filter(|&axis| axis + 1 < a),
            [_, _] if a > 2 && b > 2 => of_broadcast(operands, batch).filter(|&axis| axis + 2 < a.max(b)),
            _ => None,
        }
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(self.run_tail(ctx, inputs, &[])?.0)
    }

    fn takes_tail(&self) -> bool {
        self.packed.is_some()
    }

    fn taken(&self) -> &[usize] {
        if self.packed.is_some() { &[1] } else { &[] }
    }

    fn run_tail(
        &self,
        ctx: &RunCtx<'_>,
        inputs: Inputs,
        tail: &[Tail],
    ) -> Result<(Vec<Tensor>, usize), OpError> {
        let (a, b) = (inputs.get(0)?, inputs.opt(1));
        let right = Constant::of(b, self.packed.as_ref().map(|p| [p.k(), p.n()]))?;
        if a.dtype() != right.dtype {
            return Err(OpError::input(format!("operands of types {} and {}", a.dtype(), right.dtype)));
        }
        let own: Vec<Extent> = right.shape.iter().map(|&d| Extent(Some(d))).collect();
        let (ashape, bshape, vector) = split_operands(&extents(a), &own)?;
        let ((ab, am), (bb, bm)) = (ashape.split_at(ashape.len() - 2), bshape.split_at(bshape.len() - 2));
        let (ab, am, bb, bm) = (sizes(ab), sizes(am), sizes(bb), sizes(bm));
        if am[1] != bm[0] {
            return Err(mismatch(&a.shape(), &right.shape));
        }
        let batch = broadcast(&[&ab, &bb])?.to_vec();
        let p = Product { batch, m: am[0], k: am[1], n: bm[1], vector };
        let shape = p.shape();
        let out = match a.dtype() {
            DType::F32 | DType::F16 | DType::BF16 => {
                let (a32, b32) = (floats(a)?, b.map(floats).transpose()?.unwrap_or_default());
                // A vector's result has no columns of its own.
                let tail = if a.dtype() == DType::F32 && !p.vector.1 { tail } else { &[] };
                let (out, done) = self.run_f32(ctx, &p, (&a32, &ab), (&b32, &bb), &shape, tail)?;
                return Ok((vec![narrow(a.dtype(), &shape, out)?], done));
            }
            DType::F64 => {
                let (x, y) = (a.as_slice()?, inputs.get(1)?.as_slice()?);
                Tensor::new(&shape, run_f64(ctx, &p, (x, &ab), (y, &bb), &shape)?)?
            }
            _ => integers(ctx, &p, a, inputs.get(1)?, (&ab, &bb), &shape)?,
        };
        Ok((vec![out], 0))
    }
}

/// The types that products are written for.
pub(crate) fn multiplies(t: DType) -> bool {
    matches!(
        t,
        DType::F32
            | DType::F16
            | DType::BF16
            | DType::F64
            | DType::I32
            | DType::I64
            | DType::U32
            | DType::U64
    )
}

fn extents(t: &Tensor) -> Vec<Extent> {
    t.shape().iter().map(|&d| Extent(Some(d))).collect()
}

fn sizes(e: &[Extent]) -> Vec<usize> {
    e.iter().map(|e| e.0.unwrap_or(0)).collect()
}

fn integers(
    ctx: &RunCtx<'_>,
    p: &Product<usize>,
    a: &Tensor,
    b: &Tensor,
    batches: (&[usize], &[usize]),
    shape: &[usize],
) -> Result<Tensor, OpError> {
    if !multiplies(a.dtype()) {
        return Err(OpError::unsupported_type(a.dtype()));
    }
    typed!(ints a.dtype(), T => {
        let (x, y) = (a.as_slice::<T>()?, b.as_slice::<T>()?);
        let out = each(ctx, p, batches, shape, |at, bt, i, j| {
            (0..p.k).fold(0, |acc: T, q| acc.wrapping_add(x[at + i * p.k + q].wrapping_mul(y[bt + q * p.n + j])))
        })?;
        Ok(Tensor::new(shape, out)?)
    })
}

/// Offsets of the matrices of each operand, batch by batch.
fn batches(p: &Product<usize>, (ab, bb): (&[usize], &[usize])) -> Vec<(usize, usize)> {
    let (sa, sb) = (broadcast_strides(ab, &p.batch), broadcast_strides(bb, &p.batch));
    let count: usize = p.batch.iter().product();
    (0..count)
        .map(|mut flat| {
            let (mut at, mut bt) = (0, 0);
            for d in (0..p.batch.len()).rev() {
                let i = flat % p.batch[d];
                flat /= p.batch[d];
                at += i * sa[d] as usize;
                bt += i * sb[d] as usize;
            }
            (at * p.m * p.k, bt * p.k * p.n)
        })
        .collect()
}

/// Element by element: the types without a kernel.
fn each<T: isobit_tensor::Element>(
    ctx: &RunCtx<'_>,
    p: &Product<usize>,
    operands: (&[usize], &[usize]),
    shape: &[usize],
    f: impl Fn(usize, usize, usize, usize) -> T,
) -> Result<Vec<T>, OpError> {
    let mut out = ctx.memory.alloc::<T>(shape)?;
    if out.is_empty() {
        return Ok(out);
    }
    for (c, (at, bt)) in out.chunks_exact_mut(p.m * p.n).zip(batches(p, operands)) {
        for (i, row) in c.chunks_exact_mut(p.n).enumerate() {
            for (j, c) in row.iter_mut().enumerate() {
                *c = f(at, bt, i, j);
            }
        }
    }
    Ok(out)
}

fn run_f64(
    ctx: &RunCtx<'_>,
    p: &Product<usize>,
    (a, ab): (&[f64], &[usize]),
    (b, bb): (&[f64], &[usize]),
    shape: &[usize],
) -> Result<Vec<f64>, OpError> {
    let mut out = ctx.memory.alloc::<f64>(shape)?;
    if out.is_empty() {
        return Ok(out);
    }
    let pack = |at: usize| Panels::new(p.k, p.n, View::row_major(&b[at..], p.n));
    // One right side for all: the batches of the left side are more rows of one product.
    if bb.iter().all(|&d| d == 1) {
        double::product(ctx.exec, out.len() / p.n, View::row_major(a, p.k), &pack(0), &mut out, p.n);
        return Ok(out);
    }
    for (c, (at, bt)) in out.chunks_exact_mut(p.m * p.n).zip(batches(p, (ab, bb))) {
        double::product(ctx.exec, p.m, View::row_major(&a[at..], p.k), &pack(bt), c, p.n);
    }
    Ok(out)
}

impl MatMul {
    fn run_f32(
        &self,
        ctx: &RunCtx<'_>,
        p: &Product<usize>,
        (a, ab): (&[f32], &[usize]),
        (b, bb): (&[f32], &[usize]),
        shape: &[usize],
        tail: &[Tail],
    ) -> Result<(Vec<f32>, usize), OpError> {
        let mut out = ctx.memory.alloc::<f32>(shape)?;
        if out.is_empty() {
            return Ok((out, 0));
        }
        // One right side for all: the batches of the left side are more rows of one product.
        if bb.iter().all(|&d| d == 1) {
            let rows = out.len() / p.n;
            let view = View::row_major(a, p.k);
            let (e, done) = absorb(Epilogue::default(), shape, true, tail);
            match &self.packed {
                Some(packed) => gemm_packed(ctx.exec, rows, view, packed, &mut out, p.n, &e),
                None => gemm(ctx.exec, rows, p.n, p.k, view, View::row_major(b, p.n), &mut out, p.n, &e),
            }
            return Ok((out, done));
        }
        gemm_batch(ctx.exec, [p.m, p.n, p.k], a, b, &batches(p, (ab, bb)), &mut out);
        Ok((out, 0))
    }
}

/// alpha A B + beta C: the chain of A B; times alpha unless alpha is 1; plus (beta C, the product rounded, unless beta
/// is 1); every step rounded. Integers wrap; with an alpha or beta they go on in f64,
/// and the sum is cut toward zero.
struct Gemm {
    alpha: f32,
    beta: f32,
    trans_a: bool,
    trans_b: bool,
    packed: Option<PackedB>,
}

fn build_gemm(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let trans_b = ctx.flag("transB", false)?;
    ctx.one(Gemm {
        alpha: ctx.float("alpha", 1.0)?,
        beta: ctx.float("beta", 1.0)?,
        trans_a: ctx.flag("transA", false)?,
        trans_b,
        packed: packed(ctx, trans_b)?,
    })
}

impl Gemm {
    /// (m, k, n) from the operands' shapes.
    fn extents<D: Copy>(&self, a: &[D], b: &[D]) -> Result<(D, D, D, D), OpError> {
        let (&[a0, a1], &[b0, b1]) = (a, b) else {
            return Err(OpError::shape(format!(
                "operands of rank {} and {}; Gemm takes matrices",
                a.len(),
                b.len()
            )));
        };
        let (m, k) = if self.trans_a { (a1, a0) } else { (a0, a1) };
        let (kb, n) = if self.trans_b { (b1, b0) } else { (b0, b1) };
        Ok((m, k, kb, n))
    }
}

impl Gemm {
    /// In f64 and in integers.
    fn plain(&self, ctx: &RunCtx<'_>, a: &Tensor, b: &Tensor, c: Option<Tensor>) -> Result<Tensor, OpError> {
        let turned = |t: &Tensor, turn: bool| match turn {
            true => transpose(ctx, t.clone(), &[1, 0]),
            false => Ok(t.clone()),
        };
        let dtype = a.dtype();
        let scales = self.alpha != 1.0 || c.is_some() && self.beta != 1.0;
        let scaled = |t: Tensor, by: f32| {
            let t = if scales { convert(ctx, t, DType::F64)? } else { t };
            match by {
                1.0 => Ok(t),
                by => arith(ctx, Binary::Mul, t, Tensor::scalar(f64::from(by))),
            }
        };
        let y = scaled(product(ctx, turned(a, self.trans_a)?, turned(b, self.trans_b)?)?, self.alpha)?;
        let y = match c {
            Some(c) => arith(ctx, Binary::Add, y, scaled(c, self.beta)?)?,
            None => y,
        };
        convert(ctx, y, dtype)
    }
}

impl Op for Gemm {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (fact(inputs, 0), fact(inputs, 1));
        let dtype = a.dtype.or(b.dtype);
        if let Some(t) = dtype.filter(|t| !multiplies(*t)) {
            return Err(OpError::unsupported_type(t));
        }
        let (Some(ashape), Some(bshape)) = (&a.shape, &b.shape) else { return Ok(vec![Fact::typed(dtype)]) };
        let (m, k, kb, n) = self.extents(ashape, bshape)?;
        if let (Some(p), Some(q)) = (k, kb)
            && p != q
        {
            return Err(mismatch(ashape, bshape));
        }
        Ok(vec![Fact::new(dtype, Some(vec![m, n]))])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let shape = fact(inputs, 0).known_shape();
        let k = shape.and_then(|s| s.get(usize::from(!self.trans_a)).copied()).unwrap_or(0);
        outputs.iter().map(|f| (f.numel().unwrap_or(0) as u64).saturating_mul(k as u64 + 1)).sum()
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let &[Some(0), None, ref c @ ..] = batch else { return None };
        // C has rows too, or one for all.
        let rows = fact(operands, 2).known_shape().filter(|c| c.len() == 2 && c[0] != 1);
        (!self.trans_a && c.first().copied().flatten() == rows.map(|_| 0)).then_some(0)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(self.run_tail(ctx, inputs, &[])?.0)
    }

    fn takes_tail(&self) -> bool {
        true
    }

    fn taken(&self) -> &[usize] {
        if self.packed.is_some() { &[1] } else { &[] }
    }

    fn run_tail(
        &self,
        ctx: &RunCtx<'_>,
        mut inputs: Inputs,
        tail: &[Tail],
    ) -> Result<(Vec<Tensor>, usize), OpError> {
        let c = inputs.take_opt(2);
        let (a, b) = (inputs.get(0)?, inputs.opt(1));
        let packed = self.packed.as_ref().map(|p| if self.trans_b { [p.n(), p.k()] } else { [p.k(), p.n()] });
        let right = Constant::of(b, packed)?;
        let (m, k, kb, n) = self.extents(a.shape(), &right.shape)?;
        if k != kb {
            return Err(mismatch(&a.shape(), &right.shape));
        }
        let dtype = a.dtype();
        let others = [Some(right.dtype), c.as_ref().map(Tensor::dtype)];
        if let Some(t) = others.into_iter().flatten().find(|t| *t != dtype) {
            return Err(OpError::input(format!("operands of types {dtype} and {t}")));
        }
        if let Some(c) = &c
            && broadcast(&[c.shape(), &[m, n]])?[..] != [m, n]
        {
            let own = c.shape();
            return Err(OpError::shape(format!("C of shape {own:?} does not broadcast to [{m}, {n}]")));
        }
        if dtype == DType::F64 || dtype.is_int() {
            return Ok((vec![self.plain(ctx, a, inputs.get(1)?, c)?], 0));
        }
        let (av, bv) = (floats(a)?, b.map(floats).transpose()?.unwrap_or_default());
        let (av, bv) = (&av[..], &bv[..]);
        let av = if self.trans_a { View::transposed(av, m) } else { View::row_major(av, k) };
        // The usual bias, one row: added in the product's own pass.
        let row = match &c {
            Some(c) if dtype == DType::F32 && self.alpha == 1.0 && self.beta == 1.0 => {
                let fits = c.len() == n && c.shape().last() == Some(&n) && c.rank() <= 2;
                fits.then(|| c.as_slice::<f32>()).transpose()?
            }
            _ => None,
        };
        let epilogue = Epilogue { bias: row.map_or(Bias::None, Bias::Columns), ..Epilogue::default() };
        // Nothing may come between the product and its tail.
        let alone = dtype == DType::F32 && self.alpha == 1.0 && c.is_none() == row.is_none();
        let (epilogue, tail_done) = absorb(epilogue, &[m, n], true, if alone { tail } else { &[] });
        let mut out = ctx.memory.alloc::<f32>(&[m, n])?;
        match &self.packed {
            Some(packed) => gemm_packed(ctx.exec, m, av, packed, &mut out, n, &epilogue),
            None => {
                let bv = if self.trans_b { View::transposed(bv, k) } else { View::row_major(bv, n) };
                gemm(ctx.exec, m, n, k, av, bv, &mut out, n, &epilogue);
            }
        }
        if self.alpha != 1.0 {
            out.iter_mut().for_each(|x| *x *= self.alpha);
        }
        let done = row.is_some();
        let mut out = Tensor::new(&[m, n], out)?;
        if let (Some(c), false) = (c, done) {
            let mut scaled = widen(&c)?;
            if self.beta != 1.0 {
                scaled.iter_mut().for_each(|x| *x *= self.beta);
            }
            let c = Tensor::new(c.shape(), scaled)?;
            out = arith(ctx, Binary::Add, out, c)?;
        }
        Ok((vec![narrow(dtype, &[m, n], out.into_vec()?)?], tail_done))
    }
}
