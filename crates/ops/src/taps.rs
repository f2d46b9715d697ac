//! Convolutions through explicit matrices of windows: any number of spatial dimensions, forward and transposed, f32,
//! f64 and i32. One- and two-dimensional forward convolutions in f32 have a kernel of their own.

use isobit_tensor::{DType, Tensor};

use crate::arith::{floats, narrow};
use crate::product::Product;
use crate::window::Geometry;
use crate::{OpError, RunCtx};

/// In one dimension: some output positions, the taps that each of them has, and the input position that these meet.
pub(crate) struct Axis {
    outputs: Vec<usize>,
    taps: Vec<usize>,
    /// Input position for each tap and output, [`OUTSIDE`] in the padding.
    meets: Vec<usize>,
}

const OUTSIDE: usize = usize::MAX;

impl Axis {
    fn new(outputs: Vec<usize>, taps: Vec<usize>, input: usize, at: impl Fn(usize, usize) -> i64) -> Self {
        let meets = taps
            .iter()
            .flat_map(|&r| outputs.iter().map(move |&o| (r, o)))
            .map(|(r, o)| usize::try_from(at(r, o)).ok().filter(|&i| i < input).unwrap_or(OUTSIDE))
            .collect();
        Self { outputs, taps, meets }
    }

    /// Every output has every tap.
    pub(crate) fn forward(g: &Geometry, d: usize, input: usize, output: usize) -> Self {
        let (stride, dilation, before) = (g.strides[d] as i64, g.dilations[d] as i64, g.before[d] as i64);
        let at = |r: usize, o: usize| o as i64 * stride + r as i64 * dilation - before;
        Self::new((0..output).collect(), (0..g.kernel[d]).collect(), input, at)
    }

    /// Outputs that are a stride apart have the same taps.
    pub(crate) fn transposed(g: &Geometry, d: usize, input: usize, output: usize) -> Vec<Self> {
        let (stride, dilation, before) = (g.strides[d], g.dilations[d] as i64, g.before[d] as i64);
        let from = |r: usize, o: usize| o as i64 + before - r as i64 * dilation;
        (0..stride.min(output))
            .map(|phase| {
                let taps = (0..g.kernel[d]).filter(|&r| from(r, phase) % stride as i64 == 0).collect();
                let outputs = (phase..output).step_by(stride).collect();
                Self::new(outputs, taps, input, |r, o| from(r, o).div_euclid(stride as i64))
            })
            .collect()
    }
}

/// Extents of a convolution; channels and filters are those of one group.
pub(crate) struct Taps<'a> {
    pub(crate) groups: usize,
    pub(crate) channels: usize,
    pub(crate) filters: usize,
    pub(crate) input: &'a [usize],
    pub(crate) kernel: &'a [usize],
    pub(crate) output: &'a [usize],
    /// Weights lie as `[filters, channels, ...]`, else as `[channels, filters, ...]`.
    pub(crate) filters_first: bool,
}

/// Elements of a window matrix that is made at a time.
const BLOCK: usize = 1 << 20;

impl Taps<'_> {
    /// The convolution into a result of `shape`; for each dimension, `axes` part its positions.
    pub(crate) fn run(
        &self,
        ctx: &RunCtx<'_>,
        axes: Vec<Vec<Axis>>,
        (x, w, b): (&Tensor, &Tensor, Option<&Tensor>),
        shape: &[usize],
    ) -> Result<Tensor, OpError> {
        if x.dtype() == DType::F64 {
            let b = b.map(|b| b.as_slice()).transpose()?;
            let out = self.typed::<f64>(ctx, &axes, x.as_slice()?, w.as_slice()?, b, shape)?;
            return Ok(Tensor::new(shape, out)?);
        }
        let b = b.map(floats).transpose()?;
        let out = self.typed::<f32>(ctx, &axes, &floats(x)?, &floats(w)?, b.as_deref(), shape)?;
        narrow(x.dtype(), shape, out)
    }

    /// As [`Taps::run`] on integers, which wrap.
    pub(crate) fn run_ints(
        &self,
        ctx: &RunCtx<'_>,
        axes: Vec<Vec<Axis>>,
        x: &[i32],
        w: &[i32],
        shape: &[usize],
    ) -> Result<Vec<i32>, OpError> {
        self.typed::<i32>(ctx, &axes, x, w, None, shape)
    }

    fn typed<T: Product + std::ops::AddAssign>(
        &self,
        ctx: &RunCtx<'_>,
        axes: &[Vec<Axis>],
        x: &[T],
        w: &[T],
        bias: Option<&[T]>,
        shape: &[usize],
    ) -> Result<Vec<T>, OpError> {
        let mut y = ctx.memory.alloc::<T>(shape)?;
        if y.is_empty() {
            return Ok(y);
        }
        let (pixels, plane) = (self.output.iter().product(), self.input.iter().product::<usize>());
        let count: usize = axes.iter().map(Vec::len).product();
        for mut i in 0..count {
            let mut phase = Vec::with_capacity(axes.len());
            for axis in axes {
                phase.push(&axis[i % axis.len()]);
                i /= axis.len();
            }
            let phase = &phase[..];
            let taps = self.list(phase, |axis| &axis.taps, self.kernel);
            let k = self.channels * taps.len();
            let outputs = self.list(phase, |axis| &axis.outputs, self.output);
            let columns = (BLOCK / k.max(1)).max(16);
            let mut a = ctx.memory.alloc::<T>(&[self.filters, k])?;
            for g in 0..self.groups {
                self.weights(w, g, &taps, &mut a);
                for start in (0..outputs.len()).step_by(columns) {
                    let places = &outputs[start..outputs.len().min(start + columns)];
                    let mut windows = ctx.memory.alloc::<T>(&[k, places.len()])?;
                    let mut c = ctx.memory.alloc::<T>(&[self.filters, places.len()])?;
                    for n in 0..shape[0] {
                        let x = &x[(n * self.groups + g) * self.channels * plane..][..self.channels * plane];
                        self.windows(phase, start, x, plane, places.len(), &mut windows);
                        T::product(ctx.exec, self.filters, places.len(), k, &a, &windows, &mut c);
                        let first = (n * self.groups + g) * self.filters;
                        for (m, row) in c.chunks_exact(places.len()).enumerate() {
                            let y = &mut y[(first + m) * pixels..][..pixels];
                            let bias = bias.map(|b| b[g * self.filters + m]);
                            for (&at, &value) in places.iter().zip(row) {
                                y[at] = value;
                                if let Some(bias) = bias {
                                    y[at] += bias;
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(y)
    }

    /// Row-major positions, in `extents`, of the product of one list of each axis.
    fn list(
        &self,
        phase: &[&Axis],
        of: impl for<'a> Fn(&'a Axis) -> &'a Vec<usize>,
        extents: &[usize],
    ) -> Vec<usize> {
        let mut out = vec![0];
        for (axis, &extent) in phase.iter().zip(extents) {
            let own = of(axis);
            out = out.iter().flat_map(|&at| own.iter().map(move |&i| at * extent + i)).collect();
        }
        out
    }

    /// The weights of group `g`, one filter a row, over (channel, tap).
    fn weights<T: Product + std::ops::AddAssign>(&self, w: &[T], g: usize, taps: &[usize], a: &mut [T]) {
        let all: usize = self.kernel.iter().product();
        let k = self.channels * taps.len();
        for (m, row) in a.chunks_exact_mut(k.max(1)).enumerate() {
            for (c, row) in row.chunks_exact_mut(taps.len().max(1)).enumerate() {
                let at = match self.filters_first {
                    true => (g * self.filters + m) * self.channels + c,
                    false => (g * self.channels + c) * self.filters + m,
                };
                for (a, &tap) in row.iter_mut().zip(taps) {
                    *a = w[at * all + tap];
                }
            }
        }
    }

    /// Rows over (channel, tap), columns `start..start + columns` of the phase's outputs.
    fn windows<T: Product + std::ops::AddAssign>(
        &self,
        phase: &[&Axis],
        start: usize,
        x: &[T],
        plane: usize,
        columns: usize,
        out: &mut [T],
    ) {
        let taps: usize = phase.iter().map(|axis| axis.taps.len()).product();
        let mut from = vec![0; columns];
        for tap in 0..taps {
            for (j, from) in from.iter_mut().enumerate() {
                let (mut tap, mut output) = (tap, start + j);
                let (mut at, mut step) = (0, 1);
                for (axis, &extent) in phase.iter().zip(self.input).rev() {
                    let r = tap % axis.taps.len();
                    let o = output % axis.outputs.len();
                    (tap, output) = (tap / axis.taps.len(), output / axis.outputs.len());
                    match axis.meets[r * axis.outputs.len() + o] {
                        OUTSIDE => at = OUTSIDE,
                        i if at != OUTSIDE => at += i * step,
                        _ => {}
                    }
                    step *= extent;
                }
                *from = at;
            }
            for c in 0..self.channels {
                let x = &x[c * plane..(c + 1) * plane];
                let row = &mut out[(c * taps + tap) * columns..][..columns];
                for (o, &at) in row.iter_mut().zip(&from) {
                    *o = if at == OUTSIDE { T::default() } else { x[at] };
                }
            }
        }
    }
}
