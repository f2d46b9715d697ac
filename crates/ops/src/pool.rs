//! MaxPool, AveragePool, LpPool and their global forms.

use isobit_kernels::blocked::{self, Blocks};
use isobit_kernels::pool::{Pool2d, average_pool, max_pool, max_pool_indices};
use isobit_kernels::reduce::{Reduction, reduce};
use isobit_numerics as num;
use isobit_tensor::{DType, Tensor};

use crate::arith::{floats, narrow};
use crate::axes::{bounded, fact, known, settled, volume};
use crate::blocked::{Blocked, Blockwise, Role, Value, Wanted, run_plain};
use crate::entries::images_alone;
use crate::number::Number;
use crate::quantize::{as_floats, from_floats};
use crate::window::{Geometry, Window, two};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx, Tail};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("MaxPool", 22, |ctx| {
        pool(ctx, Kind::Max { indices: ctx.outputs() > 1, columns_first: ctx.flag("storage_order", false)? })
    }),
    OpDef::onnx("AveragePool", 22, |ctx| {
        pool(ctx, Kind::Average { count_padding: ctx.flag("count_include_pad", false)? })
    }),
    OpDef::onnx("LpPool", 22, |ctx| pool(ctx, Kind::Lp { p: power(ctx)? })),
    OpDef::onnx("GlobalAveragePool", 22, |ctx| ctx.one(Global::Reduce(Reduction::Mean))),
    OpDef::onnx("GlobalMaxPool", 22, |ctx| ctx.one(Global::Reduce(Reduction::Max))),
    OpDef::onnx("GlobalLpPool", 22, |ctx| ctx.one(Global::Lp(power(ctx)?))),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Max { indices: bool, columns_first: bool },
    Average { count_padding: bool },
    Lp { p: i64 },
}

fn power(ctx: &BuildCtx<'_>) -> Result<i64, OpError> {
    let p = ctx.int("p", 2)?;
    if p < 1 { Err(OpError::attribute(format!("p is {p}; give 1 or more"))) } else { Ok(p) }
}

fn pool(ctx: &BuildCtx<'_>, kind: Kind) -> Result<Box<dyn Op>, OpError> {
    let most = if matches!(kind, Kind::Max { .. }) { 2 } else { 1 };
    ctx.at_most(most, Pool { window: Window::new(ctx)?, kind })
}

/// Max: the largest element of each window by the profile's rule, padding left out; none gives -infinity (the smallest
/// integer); indices count in the whole tensor, the first of equal ones. Average: the 32-lane sum over the window in
/// row-major order, divided. Lp: see [`lp`].
struct Pool {
    window: Window,
    kind: Kind,
}

impl Pool {
    fn geometry(&self, x: &[Option<usize>]) -> Result<Geometry, OpError> {
        if x.len() < 3 {
            return Err(OpError::shape(format!("an input of rank {}; it must be 3 or more", x.len())));
        }
        self.window.over(&x[2..], None)
    }

    fn check(&self, t: Option<DType>) -> Result<(), OpError> {
        let small = matches!(self.kind, Kind::Max { .. });
        match t.filter(|t| !(real(*t) || small && matches!(t, DType::I8 | DType::U8))) {
            Some(t) => Err(OpError::unsupported_type(t)),
            None => Ok(()),
        }
    }
}

fn real(t: DType) -> bool {
    matches!(t, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
}

impl Op for Pool {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        self.check(x.dtype)?;
        let shape = match &x.shape {
            None => None,
            Some(xs) => {
                let output = self.geometry(xs)?.output;
                Some(xs[..2].iter().copied().chain(output).collect())
            }
        };
        let mut out = vec![Fact::new(x.dtype, shape.clone())];
        if matches!(self.kind, Kind::Max { indices: true, .. }) {
            out.push(Fact::new(Some(DType::I64), shape));
        }
        Ok(out)
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let geometry = fact(inputs, 0).shape.as_ref().and_then(|s| self.geometry(s).ok());
        let taps = geometry.map_or(0, |g| volume(&g.kernel));
        let weight = if matches!(self.kind, Kind::Lp { p: 3.. }) { 8 } else { 1 };
        let n = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
        n.saturating_mul(taps).saturating_mul(weight)
    }

    fn blockwise(&self) -> Option<&dyn Blockwise> {
        let largest = matches!(self.kind, Kind::Max { indices: false, columns_first: false });
        largest.then_some(self as &dyn Blockwise)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        // Indices count through the whole batch.
        images_alone(batch).filter(|_| !matches!(self.kind, Kind::Max { indices: true, .. }))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        self.check(Some(x.dtype()))?;
        bounded([x])?;
        let g = self.geometry(&known(x.shape()))?;
        let output = settled(g.output.clone())?;
        let mut shape = x.shape()[..2].to_vec();
        shape.extend(&output);
        let w = Windows { g: &g, input: &x.shape()[2..], output: &output };
        match (self.kind, x.dtype()) {
            (Kind::Lp { p }, DType::F64) => {
                let y = w.reduce(ctx, x.as_slice()?, &shape, |x, _| lp64(p, x))?;
                Ok(vec![Tensor::new(&shape, y)?])
            }
            (Kind::Lp { p }, t) => {
                let y = w.reduce(ctx, &floats(x)?, &shape, |x, _| lp(p, x))?;
                Ok(vec![narrow(t, &shape, y)?])
            }
            (Kind::Average { count_padding }, DType::F64) => {
                let mean = |x: &[f64], padded: usize| {
                    let n = if count_padding { padded } else { x.len() };
                    num::sum64(x.iter().copied()) / n as f64
                };
                Ok(vec![Tensor::new(&shape, w.reduce(ctx, x.as_slice()?, &shape, mean)?)?])
            }
            (Kind::Average { count_padding }, t) if x.rank() > 4 => {
                let mean = |x: &[f32], padded: usize| {
                    let n = if count_padding { padded } else { x.len() };
                    num::sum(x.iter().copied()) / n as f32
                };
                Ok(vec![narrow(t, &shape, w.reduce(ctx, &floats(x)?, &shape, mean)?)?])
            }
            (Kind::Average { .. }, _) => self.planes(ctx, x, &g, &shape),
            (Kind::Max { indices, columns_first }, t) => {
                let largest = Largest { indices, columns_first };
                match t {
                    DType::F64 => largest.run(ctx, &w, x.as_slice()?, f64::NEG_INFINITY, &shape),
                    // Every byte is a number in f32, and a window without any, being -infinity, goes to the smallest.
                    DType::I8 | DType::U8 if x.rank() <= 4 && !columns_first => {
                        let floats = as_floats(ctx, x)?;
                        let mut out = self.planes(ctx, &floats, &g, &shape)?;
                        out[0] = from_floats(ctx, &out[0], t)?;
                        Ok(out)
                    }
                    DType::I8 => largest.run(ctx, &w, x.as_slice()?, i8::MIN, &shape),
                    DType::U8 => largest.run(ctx, &w, x.as_slice()?, u8::MIN, &shape),
                    t if x.rank() > 4 || columns_first => {
                        let mut out = largest.run(ctx, &w, &floats(x)?, f32::NEG_INFINITY, &shape)?;
                        let y = std::mem::take(&mut out).into_iter().enumerate().map(|(i, y)| match i {
                            0 => narrow(t, &shape, y.into_vec()?),
                            _ => Ok(y),
                        });
                        y.collect()
                    }
                    _ => self.planes(ctx, x, &g, &shape),
                }
            }
        }
    }
}

/// The kernel's extents, of one or two dimensions.
fn extents(x: &[usize], g: &Geometry, shape: &[usize]) -> Result<Pool2d, OpError> {
    Ok(Pool2d {
        input: two(&x[2..], 1)?,
        kernel: two(&g.kernel, 1)?,
        output: two(&shape[2..], 1)?,
        strides: two(&g.strides, 1)?,
        dilations: two(&g.dilations, 1)?,
        pads: two(&g.before, 0)?,
        pads_after: two(&g.after, 0)?,
    })
}

impl Blockwise for Pool {
    fn role(&self) -> Role {
        Role::Keeps { operands: 1 }
    }

    fn run_blocked(
        &self,
        ctx: &RunCtx<'_>,
        operands: Vec<Option<Value>>,
        tail: &[Tail],
        to: Option<Wanted>,
    ) -> Result<(Value, usize), OpError> {
        if let ([Some(Value::Blocked(x))], Some(border)) = (&operands[..], to.map(|to| to.border)) {
            let g = self.geometry(&known(&x.shape()))?;
            let output = settled(g.output.clone())?;
            let [batch, channels, ..] = x.shape();
            let p = extents(&x.shape(), &g, &[batch, channels, output[0], output[1]])?;
            let layout = Blocks { batch, channels, size: p.output, border };
            let y = Blocked::make(ctx.memory, layout, |y| {
                blocked::max_pool(ctx.exec, &p, x.layout(), x.elements(), &layout, y);
            })?;
            if let Some(y) = y {
                return Ok((Value::Blocked(y), 0));
            }
        }
        run_plain(self, ctx, operands, tail)
    }
}

impl Pool {
    /// One or two dimensions in f32: the kernels.
    fn planes(
        &self,
        ctx: &RunCtx<'_>,
        x: &Tensor,
        g: &Geometry,
        shape: &[usize],
    ) -> Result<Vec<Tensor>, OpError> {
        let p = extents(x.shape(), g, shape)?;
        let data = floats(x)?;
        let mut out = ctx.memory.alloc::<f32>(shape)?;
        let mut at = None;
        match self.kind {
            Kind::Average { count_padding } => average_pool(ctx.exec, &p, count_padding, &data, &mut out),
            _ => max_pool(ctx.exec, &p, &data, &mut out),
        }
        if matches!(self.kind, Kind::Max { indices: true, .. }) {
            let mut positions = ctx.memory.alloc::<i64>(shape)?;
            max_pool_indices(&p, &data, &mut positions);
            // Positions count through the planes before.
            let (plane, pixels) = (p.input[0] * p.input[1], p.output[0] * p.output[1]);
            for (i, positions) in positions.chunks_exact_mut(pixels.max(1)).enumerate() {
                positions.iter_mut().for_each(|a| *a += (i * plane) as i64);
            }
            at = Some(Tensor::new(shape, positions)?);
        }
        Ok([Some(narrow(x.dtype(), shape, out)?), at].into_iter().flatten().collect())
    }
}

/// Windows over any number of spatial dimensions.
struct Windows<'a> {
    g: &'a Geometry,
    input: &'a [usize],
    output: &'a [usize],
}

impl Windows<'_> {
    /// Calls `f` with each output position, the input positions of the window inside the image in row-major order, and
    /// the number of taps inside the image or its padding.
    fn each(&self, mut f: impl FnMut(usize, &[usize], usize)) {
        let pixels: usize = self.output.iter().product();
        let mut at = Vec::new();
        for o in 0..pixels {
            at.clear();
            at.push(0);
            let (mut padded, mut below) = (1, pixels);
            let mut rest = o;
            for d in 0..self.input.len() {
                below /= self.output[d];
                let first = (rest / below) * self.g.strides[d];
                rest %= below;
                let taps = (0..self.g.kernel[d]).map(|k| first + k * self.g.dilations[d]);
                let (before, extent) = (self.g.before[d], self.input[d]);
                let end = extent + before + self.g.after[d];
                padded *= taps.clone().filter(|&i| i < end).count();
                let inside = taps.filter_map(|i| i.checked_sub(before)).filter(|&i| i < extent);
                at = at.iter().flat_map(|&at| inside.clone().map(move |i| at * extent + i)).collect();
            }
            f(o, &at, padded);
        }
    }

    /// `f` of the elements in each window of each plane.
    fn reduce<T: Number>(
        &self,
        ctx: &RunCtx<'_>,
        x: &[T],
        shape: &[usize],
        f: impl Fn(&[T], usize) -> T,
    ) -> Result<Vec<T>, OpError> {
        let mut y = ctx.memory.alloc::<T>(shape)?;
        if y.is_empty() {
            return Ok(y);
        }
        let (plane, pixels) = (self.input.iter().product::<usize>(), self.output.iter().product::<usize>());
        let mut elements = Vec::new();
        self.each(|o, at, padded| {
            for i in 0..y.len() / pixels {
                elements.clear();
                elements.extend(at.iter().map(|&at| x[i * plane + at]));
                y[i * pixels + o] = f(&elements, padded);
            }
        });
        Ok(y)
    }
}

/// The largest element, and where it is.
struct Largest {
    indices: bool,
    columns_first: bool,
}

impl Largest {
    fn run<T: Number>(
        &self,
        ctx: &RunCtx<'_>,
        w: &Windows<'_>,
        x: &[T],
        lowest: T,
        shape: &[usize],
    ) -> Result<Vec<Tensor>, OpError> {
        let y = w.reduce(ctx, x, shape, |x, _| x.iter().fold(lowest, |a, &b| a.larger(b)))?;
        let mut out = vec![Tensor::new(shape, y)?];
        if self.indices {
            let mut positions = ctx.memory.alloc::<i64>(shape)?;
            if !positions.is_empty() {
                let (plane, pixels) = (w.input.iter().product::<usize>(), w.output.iter().product::<usize>());
                w.each(|o, at, _| {
                    for i in 0..positions.len() / pixels {
                        let x = &x[i * plane..][..plane];
                        let best = at.iter().copied().reduce(|best, at| {
                            let larger = x[at] > x[best] || x[at].nan() && !x[best].nan();
                            if larger { at } else { best }
                        });
                        let at =
                            best.map_or(0, |at| if self.columns_first { turned(at, w.input) } else { at });
                        positions[i * pixels + o] = (i * plane + at) as i64;
                    }
                });
            }
            out.push(Tensor::new(shape, positions)?);
        }
        Ok(out)
    }
}

/// The column-major position of the element at row-major position `at`.
fn turned(mut at: usize, extents: &[usize]) -> usize {
    let mut position = 0;
    for &extent in extents.iter().rev() {
        position = position * extent + at % extent;
        at /= extent;
    }
    position
}

/// The p-norm. p = 1: the 32-lane sum of |x|; p = 2: the square root of the 32-lane sum of squares; else
/// pow(sum of pow(|x|, p), 1 / p), each rounded.
fn lp(p: i64, x: &[f32]) -> f32 {
    match p {
        1 => num::sum_abs(x.iter().copied()),
        2 => num::sum_squares(x.iter().copied()).sqrt(),
        p => {
            let p = p as f32;
            num::pow(num::sum(x.iter().map(|x| num::pow(x.abs(), p))), 1.0 / p)
        }
    }
}

/// As [`lp`], in f64.
fn lp64(p: i64, x: &[f64]) -> f64 {
    match p {
        1 => num::sum_abs64(x.iter().copied()),
        2 => num::sum_squares64(x.iter().copied()).sqrt(),
        p => {
            let p = p as f64;
            num::pow64(num::sum64(x.iter().map(|x| num::pow64(x.abs(), p))), 1.0 / p)
        }
    }
}

impl Blockwise for Global {
    fn role(&self) -> Role {
        Role::Ends
    }

    fn run_blocked(
        &self,
        ctx: &RunCtx<'_>,
        operands: Vec<Option<Value>>,
        tail: &[Tail],
        _: Option<Wanted>,
    ) -> Result<(Value, usize), OpError> {
        let [Some(Value::Blocked(x))] = &operands[..] else { return run_plain(self, ctx, operands, tail) };
        let [batch, channels, ..] = x.shape();
        Ok((blocked_mean(ctx, x, &[batch, channels, 1, 1])?.into(), 0))
    }
}

/// The mean of each channel of each image, as a tensor of `shape`.
pub(crate) fn blocked_mean(ctx: &RunCtx<'_>, x: &Blocked, shape: &[usize]) -> Result<Tensor, OpError> {
    let mut out = ctx.memory.alloc::<f32>(shape)?;
    blocked::global_mean(ctx.exec, x.layout(), x.elements(), &mut out);
    Ok(Tensor::new(shape, out)?)
}

/// The reduction over all spatial dimensions, which stay with extent 1.
enum Global {
    Reduce(Reduction),
    Lp(i64),
}

impl Op for Global {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|&t| !real(t)) {
            return Err(OpError::unsupported_type(t));
        }
        let shape = match &x.shape {
            Some(s) if s.len() < 2 => {
                return Err(OpError::shape(format!("an input of rank {}; it must be 2 or more", s.len())));
            }
            Some(s) => Some(s.iter().enumerate().map(|(i, &d)| if i < 2 { d } else { Some(1) }).collect()),
            None => None,
        };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let weight = if matches!(self, Global::Lp(3..)) { 8 } else { 1 };
        (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(weight)
    }

    fn blockwise(&self) -> Option<&dyn Blockwise> {
        matches!(self, Global::Reduce(Reduction::Mean)).then_some(self as &dyn Blockwise)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        images_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        bounded([x])?;
        if x.rank() < 2 {
            return Err(OpError::shape(format!("an input of rank {}; it must be 2 or more", x.rank())));
        }
        let shape: Vec<usize> =
            x.shape().iter().enumerate().map(|(i, &d)| if i < 2 { d } else { 1 }).collect();
        let n: usize = x.shape()[2..].iter().product();
        if x.dtype() == DType::F64 {
            let x: &[f64] = x.as_slice()?;
            let mut out = ctx.memory.alloc::<f64>(&shape)?;
            for (i, y) in out.iter_mut().enumerate() {
                let x = &x[i * n..][..n];
                *y = match self {
                    Global::Lp(p) => lp64(*p, x),
                    Global::Reduce(Reduction::Max) => x.iter().copied().fold(f64::NEG_INFINITY, num::max64),
                    Global::Reduce(_) => num::sum64(x.iter().copied()) / n as f64,
                };
            }
            return Ok(vec![Tensor::new(&shape, out)?]);
        }
        let data = floats(x)?;
        let mut out = ctx.memory.alloc::<f32>(&shape)?;
        match self {
            Global::Reduce(r) => reduce(ctx.exec, *r, &data, n, 1, &mut out),
            Global::Lp(p) => {
                for (i, y) in out.iter_mut().enumerate() {
                    *y = lp(*p, &data[i * n..][..n]);
                }
            }
        }
        Ok(vec![narrow(x.dtype(), &shape, out)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_counted_down_the_columns() {
        // Row-major 2 x 3: element (1, 2) is 5; column-major it is 1 + 2 * 2.
        assert_eq!(turned(5, &[2, 3]), 5);
        assert_eq!(turned(2, &[2, 3]), 4);
        assert_eq!(turned(3, &[2, 3]), 1);
    }
}
