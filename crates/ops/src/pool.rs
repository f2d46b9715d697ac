//! MaxPool, AveragePool and their global forms.

use isobit_kernels::pool::{Pool2d, average_pool, max_pool, max_pool_indices};
use isobit_kernels::reduce::{Reduction, reduce};
use isobit_tensor::{DType, Tensor};

use crate::arith::{narrow, widen};
use crate::axes::fact;
use crate::window::{Geometry, Window, plane};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("MaxPool", 22, |ctx| pool(ctx, Kind::Max { indices: ctx.outputs() > 1 })),
    OpDef::onnx("AveragePool", 22, |ctx| {
        pool(ctx, Kind::Average { count_padding: ctx.flag("count_include_pad", false)? })
    }),
    OpDef::onnx("GlobalAveragePool", 22, |_| Ok(Box::new(Global(Reduction::Mean)))),
    OpDef::onnx("GlobalMaxPool", 22, |_| Ok(Box::new(Global(Reduction::Max)))),
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Max { indices: bool },
    Average { count_padding: bool },
}

fn pool(ctx: &BuildCtx<'_>, kind: Kind) -> Result<Box<dyn Op>, OpError> {
    if ctx.int("storage_order", 0)? != 0 {
        return Err(OpError::unsupported("storage_order 1 (column-major indices) is not supported"));
    }
    Ok(Box::new(Pool { window: Window::new(ctx)?, kind }))
}

/// Max: the largest element of each window by the profile's rule, padding left out; indices count in the whole
/// tensor, the first of equal ones. Average: the 32-lane sum over the window in row-major order, divided.
struct Pool {
    window: Window,
    kind: Kind,
}

fn floats(t: Option<DType>) -> Result<(), OpError> {
    match t.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
        Some(t) => Err(OpError::unsupported_type(t)),
        None => Ok(()),
    }
}

impl Pool {
    fn geometry(&self, x: &[Option<usize>]) -> Result<Geometry, OpError> {
        if !(3..=4).contains(&x.len()) {
            return Err(OpError::unsupported(format!(
                "an input of rank {}; it must be 3 (1-D) or 4 (2-D)",
                x.len()
            )));
        }
        self.window.over(&x[2..], None)
    }
}

impl Op for Pool {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        floats(x.dtype)?;
        let shape = match &x.shape {
            None => None,
            Some(xs) => {
                let mut shape = xs[..2.min(xs.len())].to_vec();
                shape.extend(self.geometry(xs)?.output);
                Some(shape)
            }
        };
        let mut out = vec![Fact::new(x.dtype, shape.clone())];
        if self.kind == (Kind::Max { indices: true }) {
            out.push(Fact::new(Some(DType::I64), shape));
        }
        Ok(out)
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let geometry = fact(inputs, 0).shape.as_ref().and_then(|s| self.geometry(s).ok());
        let taps = geometry.map_or(0, |g| g.kernel.iter().product::<usize>()) as u64;
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(taps))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        floats(Some(x.dtype()))?;
        let g = self.geometry(&x.shape().iter().map(|&d| Some(d)).collect::<Vec<_>>())?;
        let output = g.settled();
        let mut shape = x.shape()[..2].to_vec();
        shape.extend(&output);
        let two = |list: &[usize], fill| {
            plane(list, fill).ok_or_else(|| OpError::shape("more than two spatial dimensions"))
        };
        let p = Pool2d {
            input: two(&x.shape()[2..], 1)?,
            kernel: two(&g.kernel, 1)?,
            output: two(&output, 1)?,
            strides: two(&g.strides, 1)?,
            dilations: two(&g.dilations, 1)?,
            pads: two(&g.before, 0)?,
            pads_after: two(&g.after, 0)?,
        };
        let data = widen(x)?;
        let mut out = ctx.memory.alloc::<f32>(&shape)?;
        let mut results = Vec::new();
        match self.kind {
            Kind::Max { indices } => {
                max_pool(ctx.exec, &p, &data, &mut out);
                if indices {
                    let mut at = ctx.memory.alloc::<i64>(&shape)?;
                    max_pool_indices(&p, &data, &mut at);
                    // Positions count through the planes before.
                    let (plane, pixels) = (p.input[0] * p.input[1], p.output[0] * p.output[1]);
                    for (i, at) in at.chunks_exact_mut(pixels.max(1)).enumerate() {
                        at.iter_mut().for_each(|a| *a += (i * plane) as i64);
                    }
                    results.push(Tensor::new(&shape, at)?);
                }
            }
            Kind::Average { count_padding } => average_pool(ctx.exec, &p, count_padding, &data, &mut out),
        }
        results.insert(0, narrow(x.dtype(), &shape, out)?);
        Ok(results)
    }
}

/// The reduction over all spatial dimensions, which stay with extent 1.
struct Global(Reduction);

impl Op for Global {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        floats(x.dtype)?;
        let shape = match &x.shape {
            Some(s) if s.len() < 3 => {
                return Err(OpError::shape(format!("an input of rank {}; it must be 3 or more", s.len())));
            }
            Some(s) => Some(s.iter().enumerate().map(|(i, &d)| if i < 2 { d } else { Some(1) }).collect()),
            None => None,
        };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        fact(inputs, 0).numel().unwrap_or(0) as u64
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        if x.rank() < 3 {
            return Err(OpError::shape(format!("an input of rank {}; it must be 3 or more", x.rank())));
        }
        let shape: Vec<usize> =
            x.shape().iter().enumerate().map(|(i, &d)| if i < 2 { d } else { 1 }).collect();
        let n: usize = x.shape()[2..].iter().product();
        let mut out = ctx.memory.alloc::<f32>(&shape)?;
        reduce(ctx.exec, self.0, &widen(x)?, n, 1, &mut out);
        Ok(vec![narrow(x.dtype(), &shape, out)?])
    }
}
