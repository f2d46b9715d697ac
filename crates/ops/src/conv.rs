//! Conv: one chain an output element over (input channel, kernel row, kernel column); padded taps count as +0; a bias is
//! added after the chain.

use isobit_kernels::conv::{Conv2d, conv2d};
use isobit_kernels::gemm::{Bias, Epilogue};
use isobit_tensor::{DType, Tensor};

use crate::arith::{narrow, widen};
use crate::axes::fact;
use crate::window::{Geometry, Window, plane};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Conv", 22, conv)];

fn conv(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let group = ctx.int("group", 1)?;
    let groups = usize::try_from(group).ok().filter(|&g| g > 0);
    let groups = groups.ok_or_else(|| OpError::attribute(format!("group is {group}; give 1 or more")))?;
    Ok(Box::new(Conv { window: Window::new(ctx)?, groups }))
}

/// 1-D and 2-D convolution of f32 (f16 and bf16 through f32).
struct Conv {
    window: Window,
    groups: usize,
}

impl Conv {
    /// The geometry, from extents that may be unknown.
    fn geometry(&self, x: &[Option<usize>], w: &[Option<usize>]) -> Result<Option<Geometry>, OpError> {
        if x.len() != w.len() || !(3..=4).contains(&x.len()) {
            return Err(OpError::shape(format!(
                "an input of rank {} and weights of rank {}; both must be 3 (1-D) or 4 (2-D)",
                x.len(),
                w.len()
            )));
        }
        if let (Some(c), Some(gc)) = (x[1], w[1]) {
            if gc.checked_mul(self.groups) != Some(c) {
                return Err(OpError::shape(format!(
                    "{c} input channels, but weights for {} groups of {gc}",
                    self.groups
                )));
            }
        }
        if let Some(m) = w[0].filter(|m| m % self.groups != 0) {
            return Err(OpError::shape(format!("{m} filters do not divide into {} groups", self.groups)));
        }
        let kernel: Option<Vec<usize>> = w[2..].iter().copied().collect();
        kernel.map(|kernel| self.window.over(&x[2..], Some(&kernel))).transpose()
    }
}

impl Op for Conv {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (fact(inputs, 0), fact(inputs, 1));
        let dtype = x.dtype.or(w.dtype);
        if let Some(t) = dtype.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
            return Err(OpError::unsupported_type(t));
        }
        let (Some(xs), Some(ws)) = (&x.shape, &w.shape) else { return Ok(vec![Fact::typed(dtype)]) };
        let shape = self.geometry(xs, ws)?.map(|g| {
            let mut shape = vec![xs[0], ws[0]];
            shape.extend(g.output);
            shape
        });
        Ok(vec![Fact::new(dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let taps = fact(inputs, 1).known_shape().map_or(0, |w| w[1..].iter().product::<usize>());
        outputs.iter().map(|f| (f.numel().unwrap_or(0) as u64).saturating_mul(taps as u64)).sum()
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, w, b) = (inputs.get(0)?, inputs.get(1)?, inputs.opt(2));
        let known = |t: &Tensor| t.shape().iter().map(|&d| Some(d)).collect::<Vec<_>>();
        let g = self.geometry(&known(x), &known(w))?.ok_or_else(|| OpError::shape("unknown extents"))?;
        let output = g.settled();
        let mut shape = vec![x.shape()[0], w.shape()[0]];
        shape.extend(&output);
        let two = |list: &[usize], fill| {
            plane(list, fill).ok_or_else(|| OpError::shape("more than two spatial dimensions"))
        };
        let c = Conv2d {
            batch: x.shape()[0],
            channels: x.shape()[1],
            filters: w.shape()[0],
            groups: self.groups,
            input: two(&x.shape()[2..], 1)?,
            kernel: two(&g.kernel, 1)?,
            output: two(&output, 1)?,
            strides: two(&g.strides, 1)?,
            dilations: two(&g.dilations, 1)?,
            pads: two(&g.before, 0)?,
        };
        let bias = b.map(widen).transpose()?;
        if let Some(b) = bias.as_ref().filter(|b| b.len() != c.filters) {
            return Err(OpError::shape(format!("a bias of {} for {} filters", b.len(), c.filters)));
        }
        let epilogue =
            Epilogue { bias: bias.as_deref().map_or(Bias::None, Bias::Rows), ..Epilogue::default() };
        let mut out = ctx.memory.alloc::<f32>(&shape)?;
        if x.dtype() == DType::F32 {
            conv2d(ctx.exec, &c, x.as_slice()?, w.as_slice()?, &epilogue, &mut out);
        } else {
            conv2d(ctx.exec, &c, &widen(x)?, &widen(w)?, &epilogue, &mut out);
        }
        Ok(vec![narrow(x.dtype(), &shape, out)?])
    }
}
