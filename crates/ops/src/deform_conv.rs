//! DeformConv: a convolution whose taps are moved by an operand.

use isobit_tensor::Tensor;

use crate::axes::{bounded, fact, known, settled, volume};
use crate::conv::Conv;
use crate::real::{Real, read, real, write};
use crate::window::Geometry;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("DeformConv", 22, deform_conv)];

/// A tap lies at output * stride - padding + tap * dilation + offset. What it reads is interpolated linearly, one axis after
/// the other from the last to the first, chains from +0 over the two neighbours; outside is +0; times the mask. A result is a
/// chain over (channel, tap), ascending, then + bias.
struct DeformConv {
    conv: Conv,
    offset_groups: usize,
}

fn deform_conv(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let groups = ctx.int("offset_group", 1)?;
    let offset_groups = usize::try_from(groups).ok().filter(|&g| (1..1 << 31).contains(&g));
    let offset_groups = offset_groups
        .ok_or_else(|| OpError::attribute(format!("offset_group is {groups}; give 1 or more")))?;
    ctx.one(DeformConv { conv: Conv::new(ctx)?, offset_groups })
}

/// The extents of one run.
struct Sizes<'a> {
    input: &'a [usize],
    output: Vec<usize>,
    g: Geometry,
    /// Channels of a group, channels that share offsets.
    channels: usize,
    sharing: usize,
}

impl Sizes<'_> {
    fn taps(&self) -> usize {
        self.g.kernel.iter().product()
    }

    fn points(&self) -> usize {
        self.output.iter().product()
    }

    /// The matrix of a group's channels from `first` on for one image: rows over (channel, tap), one column a result.
    fn columns<T: Real>(&self, x: &[T], first: usize, offset: &[T], mask: Option<&[T]>) -> Vec<T> {
        let (plane, taps, points, rank) =
            (self.input.iter().product::<usize>(), self.taps(), self.points(), self.input.len());
        let mut out = Vec::with_capacity(self.channels * taps * points);
        for c in first..first + self.channels {
            let shared = c / self.sharing;
            for tap in 0..taps {
                let row = shared * taps + tap;
                for p in 0..points {
                    let at = self.position(tap, p, |axis| offset[(row * rank + axis) * points + p]);
                    let value = interpolate(&x[c * plane..(c + 1) * plane], &at, self.input);
                    out.push(mask.map_or(value, |m| value * m[row * points + p]));
                }
            }
        }
        out
    }

    fn position<T: Real>(&self, mut tap: usize, mut p: usize, offset: impl Fn(usize) -> T) -> Vec<T> {
        let mut at = vec![T::ZERO; self.input.len()];
        for d in (0..self.input.len()).rev() {
            let (k, o) = (tap % self.g.kernel[d], p % self.output[d]);
            (tap, p) = (tap / self.g.kernel[d], p / self.output[d]);
            let base = (o * self.g.strides[d] + k * self.g.dilations[d]) as f64 - self.g.before[d] as f64;
            at[d] = T::of(base) + offset(d);
        }
        at
    }
}

fn interpolate<T: Real>(x: &[T], at: &[T], dims: &[usize]) -> T {
    let ([at, rest @ ..], [d, inner @ ..]) = (at, dims) else { return x[0] };
    let size: usize = inner.iter().product();
    let low = at.down();
    let part = *at - low;
    let first = low.whole();
    let mut acc = T::ZERO;
    for (i, w) in [(first, T::ONE - part), (first.saturating_add(1), part)] {
        let inside = usize::try_from(i).ok().filter(|i| i < d);
        let value = inside.map_or(T::ZERO, |i| interpolate(&x[i * size..(i + 1) * size], rest, inner));
        acc = w.fma(value, acc);
    }
    acc
}

impl DeformConv {
    fn sizes<'a>(&self, x: &'a [usize], w: &[usize]) -> Result<Sizes<'a>, OpError> {
        let g = self.conv.geometry(&known(x), &known(w))?;
        let g = g.ok_or_else(|| OpError::shape("unknown extents"))?;
        let output = settled(g.output.clone())?;
        if !x[1].is_multiple_of(self.offset_groups) {
            let n = self.offset_groups;
            return Err(OpError::shape(format!("{} channels do not divide into {n} offset groups", x[1])));
        }
        let sharing = (x[1] / self.offset_groups).max(1);
        Ok(Sizes { input: &x[2..], output, g, channels: w[1], sharing })
    }

    fn run_in<T: Real>(&self, ctx: &RunCtx<'_>, inputs: &Inputs) -> Result<Tensor, OpError> {
        let (x, w, offset) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        bounded([x, w, offset])?;
        let s = self.sizes(x.shape(), w.shape())?;
        let (n, filters, taps, points) = (x.shape()[0], w.shape()[0], s.taps(), s.points());
        let fits = |t: &Tensor, rows: usize| match t.shape() == [&[n, rows], &s.output[..]].concat() {
            true => Ok(()),
            false => {
                Err(OpError::shape(format!("{:?} where [{n}, {rows}, {:?}] is needed", t.shape(), s.output)))
            }
        };
        let rows = self.offset_groups.saturating_mul(taps);
        fits(offset, rows.saturating_mul(s.input.len()))?;
        inputs.opt(4).map(|m| fits(m, rows)).transpose()?;
        let shape = [&[n, filters], &s.output[..]].concat();
        let mut out = ctx.memory.filled::<T>(&shape, T::ZERO)?;
        ctx.memory.check::<T>(&[s.channels.saturating_mul(taps), points])?;
        let bias = inputs.opt(3).map(|b| read::<T>(ctx, b)).transpose()?;
        if bias.as_ref().is_some_and(|b| b.len() != filters) {
            return Err(OpError::shape(format!("a bias that is not of {filters} numbers")));
        }
        let mask = inputs.opt(4).map(|m| read::<T>(ctx, m)).transpose()?;
        let (xs, ws, offsets) = (read::<T>(ctx, x)?, read::<T>(ctx, w)?, read::<T>(ctx, offset)?);
        let image = xs.len().checked_div(n).unwrap_or(0);
        let (each, k) = (filters / self.conv.groups, s.channels * taps);
        for (i, out) in out.chunks_exact_mut((filters * points).max(1)).enumerate() {
            let offset = &offsets[i * rows * s.input.len() * points..];
            let mask = mask.as_ref().map(|m| &m[i * rows * points..]);
            for (g, out) in out.chunks_exact_mut((each * points).max(1)).enumerate() {
                let b = s.columns(&xs[i * image..(i + 1) * image], g * s.channels, offset, mask);
                T::product(ctx.exec, each, points, k, &ws[g * each * k..(g + 1) * each * k], &b, out);
            }
            if let Some(bias) = &bias {
                out.iter_mut().enumerate().for_each(|(j, o)| *o = *o + bias[j / points]);
            }
        }
        write(ctx, x.dtype(), &shape, out)
    }
}

impl Op for DeformConv {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, w) = (fact(inputs, 0), fact(inputs, 1));
        let (Some(xs), Some(ws)) = (&x.shape, &w.shape) else { return Ok(vec![Fact::typed(x.dtype)]) };
        let shape = self.conv.geometry(xs, ws)?.map(|g| [&[xs[0], ws[0]], &g.output[..]].concat());
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let taps = fact(inputs, 1).known_shape().map_or(0, |w| volume(w.get(1..).unwrap_or(&[])));
        let reads = 2u64.saturating_pow(fact(inputs, 0).rank().unwrap_or(4).min(32) as u32);
        let n = outputs.first().map_or(0, |f| f.numel().unwrap_or(0) as u64);
        n.saturating_mul(taps).saturating_mul(2).saturating_add(n.saturating_mul(taps.saturating_mul(reads)))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![real!(inputs.get(0)?.dtype(), T => self.run_in::<T>(ctx, &inputs))?])
    }
}
