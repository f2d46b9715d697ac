//! Elements by their value: TopK, ArgMax, ArgMin, NonZero, Unique; CumSum and CumProd.
//!
//! A NaN counts as larger than every number in TopK and Unique; in ArgMax and ArgMin the first NaN is
//! found (the last with `select_last_index`). -0 equals +0. Ties go to the lower index.

use std::cmp::Ordering;

use isobit_tensor::{Complex, DType, Element, Tensor};

use crate::axes::{axis, fact, int, known_ints};
use crate::fold::fold;
use crate::gather::rows;
use crate::number::Number;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("TopK", 11, top_k),
    OpDef::onnx("ArgMax", 13, |ctx| arg(ctx, true)),
    OpDef::onnx("ArgMin", 13, |ctx| arg(ctx, false)),
    OpDef::onnx("NonZero", 13, |ctx| ctx.one(NonZero)),
    OpDef::onnx("CumSum", 14, |ctx| {
        ctx.one(Cumulative {
            product: false,
            exclusive: ctx.flag("exclusive", false)?,
            reverse: ctx.flag("reverse", false)?,
        })
    }),
    OpDef::onnx("CumProd", 26, |ctx| {
        ctx.one(Cumulative {
            product: true,
            exclusive: ctx.flag("exclusive", false)?,
            reverse: ctx.flag("reverse", false)?,
        })
    }),
    OpDef::onnx("Unique", 11, unique),
];

/// The order of two numbers, a NaN being larger than all others and equal to itself.
pub(crate) fn order<T: Number>(a: T, b: T) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.nan().cmp(&b.nan()))
}

/// By real, then by imaginary part.
fn order_complex<T: Number>(a: &Complex<T>, b: &Complex<T>) -> Ordering {
    order(a.re, b.re).then(order(a.im, b.im))
}

/// A shape as (outer, extent, inner) around axis `a`.
fn around(shape: &[usize], a: usize) -> (usize, usize, usize) {
    (shape[..a].iter().product(), shape[a], shape[a + 1..].iter().product())
}

struct TopK {
    axis: i64,
    largest: bool,
}

fn top_k(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    if ctx.outputs() != 2 {
        return Err(OpError::input(format!("the node declares {} results; TopK has 2", ctx.outputs())));
    }
    // Unsorted results may come in any order, so also in the sorted one.
    Ok(Box::new(TopK { axis: ctx.int("axis", -1)?, largest: ctx.flag("largest", true)? }))
}

impl Op for TopK {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let mut shape = data.shape.clone();
            if let Some(shape) = &mut shape {
                let k = known_ints(inputs, 1)?.and_then(|k| usize::try_from(*k.first()?).ok());
                let a = axis(self.axis, shape.len())?;
                shape[a] = k;
            }
            Ok(vec![Fact::new(data.dtype, shape.clone()), Fact::new(Some(DType::I64), shape)])
        })
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let data = fact(inputs, 0).numel().unwrap_or(0) as u64;
        data.saturating_mul(8)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let a = axis(self.axis, data.rank())?;
        let (outer, n, inner) = around(data.shape(), a);
        let k = int(inputs.get(1)?)?;
        let k = usize::try_from(k)
            .ok()
            .filter(|&k| k <= n)
            .ok_or_else(|| OpError::index(format!("k is {k}; accepted: 0 to {n}, the extent of axis {a}")))?;
        let mut shape = data.shape().to_vec();
        shape[a] = k;
        typed!(numbers data.dtype(), T => {
            let src = data.as_slice::<T>()?;
            let mut values = ctx.memory.alloc::<T>(&shape)?;
            let mut indices = ctx.memory.alloc::<i64>(&shape)?;
            let mut ranked: Vec<usize> = Vec::with_capacity(n);
            for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))).filter(|_| k > 0) {
                let at = |j: usize| src[(o * n + j) * inner + i];
                let by = |&x: &usize, &y: &usize| {
                    let ord = order(at(x), at(y));
                    (if self.largest { ord.reverse() } else { ord }).then(x.cmp(&y))
                };
                ranked.clear();
                ranked.extend(0..n);
                if k < n {
                    ranked.select_nth_unstable_by(k - 1, by);
                }
                ranked[..k].sort_unstable_by(by);
                for (rank, &j) in ranked[..k].iter().enumerate() {
                    values[(o * k + rank) * inner + i] = at(j);
                    indices[(o * k + rank) * inner + i] = j as i64;
                }
            }
            Ok(vec![Tensor::new(&shape, values)?, Tensor::new(&shape, indices)?])
        })
    }
}

struct Arg {
    axis: i64,
    keep: bool,
    last: bool,
    largest: bool,
}

fn arg(ctx: &BuildCtx<'_>, largest: bool) -> Result<Box<dyn Op>, OpError> {
    let (keep, last) = (ctx.flag("keepdims", true)?, ctx.flag("select_last_index", false)?);
    ctx.one(Arg { axis: ctx.int("axis", 0)?, keep, last, largest })
}

impl Arg {
    fn shape<T: Copy>(&self, dims: &[T], one: T) -> Result<Vec<T>, OpError> {
        let a = axis(self.axis, dims.len())?;
        let kept: &[T] = if self.keep { &[one] } else { &[] };
        Ok([&dims[..a], kept, &dims[a + 1..]].concat())
    }
}

impl Op for Arg {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let dims = fact(inputs, 0).shape.as_ref();
            let shape = dims.map(|dims| self.shape(dims, Some(1))).transpose()?;
            Ok(vec![Fact::new(Some(DType::I64), shape)])
        })
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        fact(inputs, 0).numel().unwrap_or(0) as u64
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let shape = self.shape(data.shape(), 1)?;
        let (outer, n, inner) = around(data.shape(), axis(self.axis, data.rank())?);
        let mut out = ctx.memory.alloc::<i64>(&shape)?;
        if n == 0 && !out.is_empty() {
            return Err(OpError::shape(format!(
                "an axis of extent 0 in {:?} has no such index",
                data.shape()
            )));
        }
        typed!(numbers data.dtype(), T => {
            let src = data.as_slice::<T>()?;
            for (k, best) in out.iter_mut().enumerate().take(outer * inner) {
                let at = |j: usize| src[(k / inner * n + j) * inner + k % inner];
                let mut found = 0;
                for j in 1..n {
                    let (x, y) = (at(found), at(j));
                    let ord = match (x.nan(), y.nan()) {
                        (false, false) => order(y, x),
                        (x, y) => y.cmp(&x),
                    };
                    let better = if self.largest || x.nan() || y.nan() { ord } else { ord.reverse() };
                    if better == Ordering::Greater || self.last && better == Ordering::Equal {
                        found = j;
                    }
                }
                *best = found as i64;
            }
            Ok(vec![Tensor::new(&shape, out)?])
        })
    }
}

struct NonZero;

impl Op for NonZero {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let shape = vec![fact(inputs, 0).rank(), None];
            Ok(vec![Fact::new(Some(DType::I64), Some(shape))])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        fn found<T: Element>(data: &Tensor) -> Result<Vec<usize>, OpError> {
            let zero = T::default();
            Ok(data
                .as_slice::<T>()?
                .iter()
                .enumerate()
                .filter(|(_, v)| **v != zero)
                .map(|(i, _)| i)
                .collect())
        }
        let found = typed!(data.dtype(), T => found::<T>(data))?;
        let shape = [data.rank(), found.len()];
        let mut out = ctx.memory.alloc::<i64>(&shape)?;
        let mut step = 1;
        for d in (0..data.rank()).rev() {
            let n = data.shape()[d];
            for (o, at) in out[d * found.len()..].iter_mut().zip(&found) {
                *o = (at / step % n) as i64;
            }
            step *= n.max(1);
        }
        Ok(vec![Tensor::new(&shape, out)?])
    }
}

/// Sums and products take one element after the other along the axis, from its front (its back with `reverse`).
struct Cumulative {
    product: bool,
    exclusive: bool,
    reverse: bool,
}

impl Op for Cumulative {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            Ok(vec![Fact::new(data.dtype, data.shape.clone())])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let (outer, n, inner) = around(data.shape(), axis(int(inputs.get(1)?)?, data.rank())?);
        typed!(numbers data.dtype(), T => {
            let src = data.as_slice::<T>()?;
            let mut out = ctx.memory.alloc::<T>(data.shape())?;
            for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
                let mut sum = if self.product { T::ONE } else { T::ZERO };
                for j in 0..n {
                    let j = if self.reverse { n - 1 - j } else { j };
                    let at = (o * n + j) * inner + i;
                    let next = if self.product { sum.times(src[at]) } else { sum.plus(src[at]) };
                    out[at] = if self.exclusive { sum } else { next };
                    sum = next;
                }
            }
            Ok(vec![Tensor::new(data.shape(), out)?])
        })
    }
}

struct Unique {
    axis: Option<i64>,
    sorted: bool,
    outputs: usize,
}

fn unique(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let outputs = ctx.outputs();
    if !(1..=4).contains(&outputs) {
        return Err(OpError::input(format!("the node declares {outputs} results; Unique has 1 to 4")));
    }
    Ok(Box::new(Unique { axis: ctx.opt_int("axis")?, sorted: ctx.flag("sorted", true)?, outputs }))
}

impl Op for Unique {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let shape = match (self.axis, &data.shape) {
                (None, _) => Some(vec![None]),
                (Some(a), Some(dims)) => {
                    let mut shape = dims.clone();
                    shape[axis(a, dims.len())?] = None;
                    Some(shape)
                }
                _ => None,
            };
            let mut facts = vec![Fact::new(data.dtype, shape)];
            facts.resize(self.outputs, Fact::new(Some(DType::I64), Some(vec![None])));
            Ok(facts)
        })
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let data = fact(inputs, 0).numel().unwrap_or(0) as u64;
        data.saturating_mul(8)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let mut data = inputs.take(0)?;
        let a = match self.axis {
            Some(a) => axis(a, data.rank())?,
            None => {
                let n = data.len();
                data = data.reshape(&[n])?;
                0
            }
        };
        let groups = match data.dtype() {
            DType::Bool => Groups::of::<bool>(&data, a, Ord::cmp)?,
            DType::String => Groups::of::<String>(&data, a, Ord::cmp)?,
            DType::Complex64 => Groups::of::<Complex<f32>>(&data, a, order_complex)?,
            DType::Complex128 => Groups::of::<Complex<f64>>(&data, a, order_complex)?,
            dtype => typed!(numbers dtype, T => Groups::of::<T>(&data, a, |x, y| order(*x, *y)))?,
        };
        let Groups { first, inverse, count } = groups.sorted(self.sorted);
        let mut shape = data.shape().to_vec();
        shape[a] = first.len();
        let values = typed!(data.dtype(), T => rows::<T>(ctx, &data, a, &first, &shape))?;
        let numbers = |v: Vec<usize>| Tensor::vector(v.into_iter().map(|v| v as i64).collect());
        let mut out = vec![values, numbers(first), numbers(inverse), numbers(count)];
        out.truncate(self.outputs);
        Ok(out)
    }
}

/// Slices along an axis, equal ones together.
struct Groups {
    /// For each group, its first slice.
    first: Vec<usize>,
    /// For each slice, its group.
    inverse: Vec<usize>,
    /// For each group, how many slices it has.
    count: Vec<usize>,
}

impl Groups {
    /// Groups in ascending order.
    fn of<T: Element>(data: &Tensor, a: usize, cmp: impl Fn(&T, &T) -> Ordering) -> Result<Self, OpError> {
        let (outer, n, inner) = around(data.shape(), a);
        let src = data.as_slice::<T>()?;
        let slice =
            |j: usize| (0..outer).flat_map(move |o| src[(o * n + j) * inner..(o * n + j + 1) * inner].iter());
        let by = |x: usize, y: usize| {
            let unequal = slice(x).zip(slice(y)).map(|(x, y)| cmp(x, y)).find(|o| o.is_ne());
            unequal.unwrap_or(Ordering::Equal)
        };
        let mut ranked: Vec<usize> = (0..n).collect();
        ranked.sort_by(|&x, &y| by(x, y));
        let mut groups = Self { first: Vec::new(), inverse: vec![0; n], count: Vec::new() };
        for j in ranked {
            if groups.first.last().is_none_or(|&f| by(f, j).is_ne()) {
                groups.first.push(j);
                groups.count.push(0);
            }
            let group = groups.first.len() - 1;
            groups.inverse[j] = group;
            groups.count[group] += 1;
        }
        Ok(groups)
    }

    /// These groups, or with `ascending` false the same in order of first appearance.
    fn sorted(self, ascending: bool) -> Self {
        if ascending {
            return self;
        }
        let mut ranked: Vec<usize> = (0..self.first.len()).collect();
        ranked.sort_by_key(|&g| self.first[g]);
        let mut place = vec![0; ranked.len()];
        for (new, &old) in ranked.iter().enumerate() {
            place[old] = new;
        }
        Self {
            first: ranked.iter().map(|&g| self.first[g]).collect(),
            inverse: self.inverse.iter().map(|&g| place[g]).collect(),
            count: ranked.iter().map(|&g| self.count[g]).collect(),
        }
    }
}
