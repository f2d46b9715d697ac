//! Conv and ConvTranspose: one chain an output element over (input channel, kernel coordinates), ascending; a bias is
//! added after the chain.

use isobit_kernels::blocked::{self, Blocks, Source, Weights};
use isobit_kernels::conv::{Conv2d, Filters, conv2d};
use isobit_kernels::gemm::{Bias, Epilogue};
use isobit_tensor::{DType, Datum, Tensor};

use crate::arith::{floats, narrow};
use crate::axes::{bounded, fact, known, settled, volume};
use crate::blocked::{Blocked, Blockwise, Gated, Role, Value, Wanted, run_plain};
use crate::entries::images_alone;
use crate::tail::{Tail, absorb, absorb_blocked};
use crate::taps::{Axis, Taps};
use crate::window::{Geometry, Window, two};
use crate::{BuildCtx, Fact, Form, Inputs, Op, OpDef, OpError, Packs, RunCtx};

pub(crate) static FAMILY: &[OpDef] =
    &[OpDef::onnx("Conv", 22, conv), OpDef::onnx("ConvTranspose", 22, transposed)];

fn groups(ctx: &BuildCtx<'_>) -> Result<usize, OpError> {
    let group = ctx.int("group", 1)?;
    let groups = usize::try_from(group).ok().filter(|&g| g > 0);
    groups.ok_or_else(|| OpError::attribute(format!("group is {group}; give 1 or more")))
}

fn conv(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Conv::new(ctx)?)
}

fn check(x: &Fact, w: &Fact) -> Result<Option<DType>, OpError> {
    let dtype = x.dtype.or(w.dtype);
    match dtype.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16 | DType::F64)) {
        Some(t) => Err(OpError::unsupported_type(t)),
        None => Ok(dtype),
    }
}

/// Operands of one type, a bias of one number a filter, and no extents beyond index arithmetic.
fn operands(inputs: &Inputs, filters: usize) -> Result<(&Tensor, &Tensor, Option<&Tensor>), OpError> {
    let (x, w, b) = (inputs.get(0)?, inputs.get(1)?, inputs.opt(2));
    bounded([x, w])?;
    for t in [Some(w), b].into_iter().flatten() {
        if t.dtype() != x.dtype() {
            return Err(OpError::input(format!("operands of types {} and {}", x.dtype(), t.dtype())));
        }
    }
    if let Some(b) = b.filter(|b| b.len() != filters) {
        return Err(OpError::shape(format!("a bias of {} for {filters} filters", b.len())));
    }
    Ok((x, w, b))
}

/// Elements that the kernel may hold besides its operands, whatever their size (64 MiB).
pub(crate) const HELD: usize = 1 << 24;

/// Conv in any number of spatial dimensions. Taps in the padding take part as +0.
pub(crate) struct Conv {
    window: Window,
    pub(crate) groups: usize,
    /// Where the weights are constant: their packed form.
    filters: Option<Filters>,
    /// Where it can be computed in blocks of channels: how far windows reach beyond the image, as far as attributes say.
    border: Option<usize>,
    /// Whether its windows are single pixels, of all channels.
    pixels: bool,
}

/// Furthest that windows may reach beyond an image in blocks.
const FURTHEST: usize = 8;
/// Fewer filters than this leave most of a block empty.
const FEWEST: usize = 12;

impl Conv {
    /// The window and groups in the attributes.
    pub(crate) fn new(ctx: &BuildCtx<'_>) -> Result<Self, OpError> {
        let filters = ctx.constant(1).map(|_| Filters::default());
        let (window, groups) = (Window::new(ctx)?, groups(ctx)?);
        let in_blocks = blocked::is_for(ctx.set())
            && ctx.constant(1).is_some_and(|w| {
                let fits = match *w.shape() {
                    [m, gc, _, _] => m.is_multiple_of(groups) && blocked::fits(groups, gc, m / groups),
                    _ => false,
                };
                fits && w.dtype() == DType::F32 && w.shape()[0] >= FEWEST
            });
        let border = ctx.constant(1).filter(|_| in_blocks).map(|w| window.reach(&w.shape()[2..]));
        let border = border.filter(|&b| b <= FURTHEST);
        let pixels = groups == 1
            && border == Some(0)
            && ctx.constant(1).is_some_and(|w| w.shape()[2..] == [1, 1])
            && window.is_dense();
        Ok(Self { window, groups, filters, border, pixels })
    }

    /// The geometry, from extents that may be unknown.
    pub(crate) fn geometry(
        &self,
        x: &[Option<usize>],
        w: &[Option<usize>],
    ) -> Result<Option<Geometry>, OpError> {
        if x.len() != w.len() || x.len() < 3 {
            return Err(OpError::shape(format!(
                "an input of rank {} and weights of rank {}; both must be the same, 3 or more",
                x.len(),
                w.len()
            )));
        }
        if let (Some(c), Some(gc)) = (x[1], w[1])
            && gc.checked_mul(self.groups) != Some(c)
        {
            return Err(OpError::shape(format!(
                "{c} input channels, but weights for {} groups of {gc}",
                self.groups
            )));
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
        let dtype = check(x, w)?;
        let (Some(xs), Some(ws)) = (&x.shape, &w.shape) else { return Ok(vec![Fact::typed(dtype)]) };
        let shape = self.geometry(xs, ws)?.map(|g| {
            let mut shape = vec![xs[0], ws[0]];
            shape.extend(g.output);
            shape
        });
        Ok(vec![Fact::new(dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let taps = fact(inputs, 1).known_shape().map_or(0, |w| volume(w.get(1..).unwrap_or(&[])));
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(taps))
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        images_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(self.run_tail(ctx, inputs, &[])?.0)
    }

    fn takes_tail(&self) -> bool {
        true
    }

    fn blockwise(&self) -> Option<&dyn Blockwise> {
        self.border.map(|_| self as &dyn Blockwise)
    }

    fn run_tail(
        &self,
        ctx: &RunCtx<'_>,
        inputs: Inputs,
        tail: &[Tail],
    ) -> Result<(Vec<Tensor>, usize), OpError> {
        let filters = inputs.get(1)?.shape().first().copied().unwrap_or(0);
        let (x, w, b) = operands(&inputs, filters)?;
        let g = self.geometry(&known(x.shape()), &known(w.shape()))?;
        let g = g.ok_or_else(|| OpError::shape("unknown extents"))?;
        let output = settled(g.output.clone())?;
        let mut shape = vec![x.shape()[0], filters];
        shape.extend(&output);
        if x.rank() <= 4
            && x.dtype() != DType::F64
            && let Some((y, done)) = self.planes(ctx, (x, w, b), &g, &shape, tail)?
        {
            return Ok((vec![y], done));
        }
        let axes =
            (0..output.len()).map(|d| vec![Axis::forward(&g, d, x.shape()[2 + d], output[d])]).collect();
        let taps = Taps {
            groups: self.groups,
            channels: w.shape()[1],
            filters: filters / self.groups,
            input: &x.shape()[2..],
            kernel: &g.kernel,
            output: &output,
            filters_first: true,
        };
        Ok((vec![taps.run(ctx, axes, (x, w, b), &shape)?], 0))
    }
}

impl Conv {
    /// The kernel's extents, of one or two dimensions.
    pub(crate) fn extents(
        &self,
        ctx: &RunCtx<'_>,
        x: &[usize],
        g: &Geometry,
        shape: &[usize],
    ) -> Result<Conv2d, OpError> {
        let output = two(&shape[2..], 1)?;
        let mut c = Conv2d {
            batch: x[0],
            channels: x[1],
            filters: shape[1],
            groups: self.groups,
            input: two(&x[2..], 1)?,
            kernel: two(&g.kernel, 1)?,
            output,
            strides: two(&g.strides, 1)?,
            dilations: two(&g.dilations, 1)?,
            pads: two(&g.before, 0)?,
        };
        // A single window is never stepped from: its stride, of any size, has no say.
        for (stride, _) in c.strides.iter_mut().zip(output).filter(|(_, n)| *n == 1) {
            *stride = 1;
        }
        // A kernel may keep a padded image.
        let after = two(&g.after, 0)?;
        let padded = [0, 1].map(|d| c.input[d].saturating_add(c.pads[d]).saturating_add(after[d]));
        ctx.memory.check::<f32>(&padded)?;
        Ok(c)
    }

    /// One or two dimensions in f32: the kernel, unless the padding is out of all proportion.
    fn planes(
        &self,
        ctx: &RunCtx<'_>,
        (x, w, b): (&Tensor, &Tensor, Option<&Tensor>),
        g: &Geometry,
        shape: &[usize],
        tail: &[Tail],
    ) -> Result<Option<(Tensor, usize)>, OpError> {
        let c = self.extents(ctx, x.shape(), g, shape)?;
        if c.held() > HELD.max(4 * x.len()) {
            return Ok(None);
        }
        let bias = b.map(floats).transpose()?;
        let epilogue =
            Epilogue { bias: bias.as_deref().map_or(Bias::None, Bias::Rows), ..Epilogue::default() };
        let tail = if x.dtype() == DType::F32 { tail } else { &[] };
        let (epilogue, done) = absorb(epilogue, shape, false, tail);
        let mut out = ctx.memory.alloc::<f32>(shape)?;
        conv2d(ctx.exec, &c, &floats(x)?, &floats(w)?, self.filters.as_ref(), &epilogue, &mut out);
        Ok(Some((narrow(x.dtype(), shape, out)?, done)))
    }
}

impl Blockwise for Conv {
    fn role(&self) -> Role {
        Role::Makes { border: self.border.unwrap_or(0) }
    }

    fn takes_gates(&self) -> bool {
        self.pixels
    }

    fn prepare(&self, constants: &[Option<Tensor>], packs: &dyn Packs) -> Result<(), OpError> {
        let (Some(filters), Some(Some(w))) = (&self.filters, constants.get(1)) else { return Ok(()) };
        if let &[m, channels, height, width] = w.shape() {
            let weights = Weights { groups: self.groups, filters: m, channels, kernel: [height, width] };
            filters.give_blocks(&weights, packs.panels(&Form::Filters(weights), w)?);
        }
        Ok(())
    }

    fn run_blocked(
        &self,
        ctx: &RunCtx<'_>,
        operands: Vec<Option<Value>>,
        tail: &[Tail],
        to: Option<Wanted>,
    ) -> Result<(Value, usize), OpError> {
        let given = |i: usize| operands.get(i).and_then(Option::as_ref);
        let tensor = |i: usize| given(i).and_then(Value::as_tensor);
        let shape = match given(0) {
            Some(Value::Blocked(images) | Value::Gated(Gated { images, .. })) => images.shape().to_vec(),
            Some(Value::Datum(Datum::Tensor(t))) if to.is_some() && t.dtype() == DType::F32 => {
                t.shape().to_vec()
            }
            _ => return run_plain(self, ctx, operands, tail),
        };
        let (Some(x), Some(w)) = (given(0), tensor(1)) else { return run_plain(self, ctx, operands, tail) };
        match self.in_blocks(ctx, (x, &shape, w, given(2)), tail, to)? {
            Some(result) => Ok(result),
            None => run_plain(self, ctx, operands, tail),
        }
    }
}

impl Conv {
    /// The result in blocks, or turned into planes where nobody wants those. `None` where the extents do not suit them.
    fn in_blocks(
        &self,
        ctx: &RunCtx<'_>,
        (x, x_shape, w, b): (&Value, &[usize], &Tensor, Option<&Value>),
        tail: &[Tail],
        to: Option<Wanted>,
    ) -> Result<Option<(Value, usize)>, OpError> {
        let filters = w.shape().first().copied().unwrap_or(0);
        let bias = match b.map(Value::as_tensor) {
            None => None,
            Some(Some(b)) if b.dtype() == DType::F32 && b.len() == filters => Some(b.as_slice::<f32>()?),
            _ => return Ok(None),
        };
        let Some(packed) = self.filters.as_ref().filter(|_| x_shape.len() == 4) else { return Ok(None) };
        let Some(g) = self.geometry(&known(x_shape), &known(w.shape()))? else { return Ok(None) };
        let output = settled(g.output.clone())?;
        let shape = [x_shape[0], filters, output[0], output[1]];
        let c = self.extents(ctx, x_shape, &g, &shape)?;
        let pixels = output[0].saturating_mul(output[1]);
        let held = blocked::held(&c) > HELD.max(4 * x_shape.iter().product::<usize>());
        if x_shape.contains(&0) || pixels < 2 || blocked::reach(&c) > FURTHEST || held {
            return Ok(None);
        }
        let epilogue = blocked::Epilogue { bias, ..blocked::Epilogue::default() };
        let (epilogue, done) = absorb_blocked(epilogue, &shape, tail);
        let source = match x {
            Value::Blocked(x) => Source::Blocked(*x.layout(), x.elements()),
            Value::Gated(Gated { images, gate }) if blocked::takes_gates(&c) => {
                Source::Gated(*images.layout(), images.elements(), gate.as_slice()?)
            }
            Value::Datum(Datum::Tensor(t)) => Source::Planes(t.as_slice()?),
            _ => return Ok(None),
        };
        let w = packed.blocks(ctx.exec, &Weights::of(&c), w.as_slice()?);
        let layout = Blocks {
            batch: c.batch,
            channels: filters,
            size: c.output,
            border: to.map_or(0, |to| to.border),
        };
        let y = Blocked::make(ctx.memory, layout, |y| {
            blocked::conv2d(ctx.exec, &c, source, w, &epilogue, &layout, y);
        })?;
        Ok(match y {
            Some(y) if to.is_none() => Some((y.planes(ctx)?.into(), done)),
            y => y.map(|y| (Value::Blocked(y), done)),
        })
    }
}

fn transposed(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let sizes = |name: &str| match ctx.opt_ints(name)? {
        None => Ok(None),
        Some(values) => {
            let sizes = values.iter().map(|&v| usize::try_from(v).ok()).collect::<Option<Vec<_>>>();
            sizes.map(Some).ok_or_else(|| OpError::attribute(format!("{name} {values:?}; none negative")))
        }
    };
    ctx.one(Transposed {
        window: Window::new(ctx)?,
        groups: groups(ctx)?,
        output_padding: sizes("output_padding")?,
        output_shape: sizes("output_shape")?,
    })
}

/// ConvTranspose in any number of spatial dimensions. In each dimension tap r of output o meets input
/// (o + padding - r * dilation) / stride. Where that is no integer the tap is left out of the chain; where it lies
/// outside of the input the tap takes part as +0.
struct Transposed {
    window: Window,
    groups: usize,
    output_padding: Option<Vec<usize>>,
    output_shape: Option<Vec<usize>>,
}

impl Transposed {
    fn geometry(&self, x: &[Option<usize>], w: &[Option<usize>]) -> Result<Option<Geometry>, OpError> {
        if x.len() != w.len() || x.len() < 3 {
            return Err(OpError::shape(format!(
                "an input of rank {} and weights of rank {}; both must be the same, 3 or more",
                x.len(),
                w.len()
            )));
        }
        if let (Some(c), Some(wc)) = (x[1], w[0])
            && (c != wc || c % self.groups != 0)
        {
            return Err(OpError::shape(format!(
                "{c} input channels in {} groups, but weights for {wc}",
                self.groups
            )));
        }
        let kernel: Option<Vec<usize>> = w[2..].iter().copied().collect();
        let (padding, shape) = (self.output_padding.as_deref(), self.output_shape.as_deref());
        // The standard's own shapes are spatial; some exporters write all extents.
        let shape = shape.map(|s| if s.len() == x.len() { &s[2..] } else { s });
        kernel.map(|kernel| self.window.transposed(&x[2..], &kernel, padding, shape)).transpose()
    }
}

impl Op for Transposed {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (fact(inputs, 0), fact(inputs, 1));
        let dtype = check(x, w)?;
        let (Some(xs), Some(ws)) = (&x.shape, &w.shape) else { return Ok(vec![Fact::typed(dtype)]) };
        let shape = self.geometry(xs, ws)?.map(|g| {
            let mut shape = vec![xs[0], ws[1].and_then(|m| m.checked_mul(self.groups))];
            shape.extend(g.output);
            shape
        });
        Ok(vec![Fact::new(dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let taps = fact(inputs, 1).known_shape().map_or(0, |w| volume(w.get(1..).unwrap_or(&[])));
        let written = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
        (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(taps).saturating_add(written)
    }

    fn batch_axis(&self, _: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        images_alone(batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let own = inputs.get(1)?.shape().get(1).copied().unwrap_or(0);
        let filters = own.checked_mul(self.groups).ok_or_else(|| OpError::shape("too many filters"))?;
        let (x, w, b) = operands(&inputs, filters)?;
        let g = self.geometry(&known(x.shape()), &known(w.shape()))?;
        let g = g.ok_or_else(|| OpError::shape("unknown extents"))?;
        let output = settled(g.output.clone())?;
        let mut shape = vec![x.shape()[0], filters];
        shape.extend(&output);
        // The result is as large as it says before any list of its positions is made.
        ctx.memory.check::<f64>(&shape)?;
        let axes = (0..output.len()).map(|d| Axis::transposed(&g, d, x.shape()[2 + d], output[d])).collect();
        let taps = Taps {
            groups: self.groups,
            channels: x.shape()[1] / self.groups,
            filters: own,
            input: &x.shape()[2..],
            kernel: &g.kernel,
            output: &output,
            filters_first: false,
        };
        Ok(vec![taps.run(ctx, axes, (x, w, b), &shape)?])
    }
}

#[cfg(test)]
mod tests {
    use isobit_graph::{Attr, Node, ValueId};
    use isobit_kernels::{Exec, KernelSet, Serial};

    use super::*;
    use crate::Memory;

    /// Taps so far apart that planes with their padding would hold 50 million elements for an image of two.
    #[test]
    fn far_padding_is_not_held() {
        let ints = |v: &[i64]| Attr::Ints(v.to_vec());
        let attrs =
            [("dilations".to_owned(), ints(&[5000, 5000])), ("pads".to_owned(), ints(&[5000, 5000, 0, 0]))];
        let node = Node {
            op: "Conv".into(),
            inputs: vec![Some(ValueId(0)), Some(ValueId(1))],
            outputs: vec![Some(ValueId(2))],
            attrs: attrs.into_iter().collect(),
            ..Node::default()
        };
        let x = Tensor::new(&[1, 2, 1, 1], vec![2.0f32, 3.0]).unwrap();
        let w = Tensor::new(&[1, 2, 2, 2], vec![1.0f32, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0, 7.0]).unwrap();
        for set in KernelSet::available() {
            let constants = [None, Some(w.clone())];
            let op = conv(&BuildCtx {
                node: &node,
                constants: &constants,
                turned: None,
                packs: &Exec::new(set, &Serial),
            })
            .unwrap();
            let memory = Memory::new(1 << 30);
            let ctx = RunCtx { exec: Exec::new(set, &Serial), memory: &memory, seed: 0, step: 0 };
            let inputs = Inputs::new(vec![Some(x.clone()), Some(w.clone())]);
            let (y, done) = op.run_tail(&ctx, inputs, &[Tail::Add(Tensor::scalar(1.0f32).into())]).unwrap();
            assert_eq!(
                (y[0].shape(), y[0].as_slice::<f32>().unwrap(), done),
                (&[1, 1, 1, 1][..], &[31.0][..], 0)
            );
        }
        let c = Conv2d {
            batch: 1,
            channels: 2,
            filters: 1,
            groups: 1,
            input: [1, 1],
            kernel: [2, 2],
            output: [1, 1],
            strides: [1, 1],
            dilations: [5000, 5000],
            pads: [5000, 5000],
        };
        assert_eq!(c.held(), 2 * 5001 * 5001);
    }
}
