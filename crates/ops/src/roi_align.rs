//! RoiAlign: regions of interest brought to one size.

use isobit_tensor::Tensor;

use crate::axes::{bounded, fact, ints};
use crate::number::Number;
use crate::real::{Real, read, real, write};
use crate::{BuildCtx, Code, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("RoiAlign", 22, roi_align)];

/// Each bin takes samples at the middles of a grid, row by row. A sample is ((w1 a + w2 b) + w3 c) + w4 d of the four
/// pixels around it, or for the maximum the largest of the four products; outside by more than a pixel it is 0. The mean is the sum
/// of samples, ascending from +0, over their number.
struct RoiAlign {
    half_pixel: bool,
    max: bool,
    height: usize,
    width: usize,
    /// Samples along each side of a bin; 0: as many as the bin has pixels.
    ratio: usize,
    scale: f32,
}

/// Most samples along one side of a bin.
const MOST: usize = 1 << 16;

fn roi_align(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let size = |name: &str, default: i64| {
        let n = ctx.int(name, default)?;
        let n = usize::try_from(n).ok().filter(|&n| n <= MOST);
        n.ok_or_else(|| OpError::attribute(format!("{name}; accepted: 0 to {MOST}")))
    };
    ctx.one(RoiAlign {
        half_pixel: ctx.choice(
            "coordinate_transformation_mode",
            &[("half_pixel", true), ("output_half_pixel", false)],
        )?,
        max: ctx.choice("mode", &[("avg", false), ("max", true)])?,
        height: size("output_height", 1)?,
        width: size("output_width", 1)?,
        ratio: size("sampling_ratio", 0)?,
        scale: ctx.float("spatial_scale", 1.0)?,
    })
}

/// The pixels around a sample and their weights.
type Sample<T> = [(usize, T); 4];

/// The samples of all bins, none where one lies outside, and how many a bin has.
type Samples<T> = (Vec<Option<Sample<T>>>, usize);

impl RoiAlign {
    /// Along one side: where the region starts, the size of a bin, samples of a bin.
    fn side<T: Real>(
        &self,
        [from, to]: [T; 2],
        bins: usize,
        extent: usize,
    ) -> Result<(T, T, usize), OpError> {
        let (scale, offset) = (T::of(self.scale.into()), T::of(if self.half_pixel { 0.5 } else { 0.0 }));
        let start = from * scale - offset;
        let mut size = to * scale - offset - start;
        if !self.half_pixel {
            size = size.larger(T::ONE);
        }
        let bin = size / T::of(bins as f64);
        let samples = match self.ratio {
            0 => (-(-bin).down()).whole(),
            n => n as i64,
        };
        // Work must not depend on what the regions are.
        if samples > self.most(bins, extent) as i64 {
            let message = format!("a region of {samples} samples a bin in an image of {extent}");
            return Err(OpError::new(Code::LimitExceeded, format!("{message}; give a sampling_ratio")));
        }
        Ok((start, bin, samples.max(0) as usize))
    }

    fn most(&self, bins: usize, extent: usize) -> usize {
        if self.ratio > 0 { self.ratio } else { 2 * extent.div_ceil(bins.max(1)) + 2 }
    }

    fn samples<T: Real>(&self, roi: &[T], (h, w): (usize, usize)) -> Result<Samples<T>, OpError> {
        let (x, bin_x, nx) = self.side([roi[0], roi[2]], self.width, w)?;
        let (y, bin_y, ny) = self.side([roi[1], roi[3]], self.height, h)?;
        let at = |start: T, bin: T, p: usize, i: usize, n: usize| {
            start + T::of(p as f64) * bin + T::of(i as f64 + 0.5) * bin / T::of(n as f64)
        };
        let mut out = Vec::new();
        for py in 0..self.height {
            for px in 0..self.width {
                for iy in 0..ny {
                    let y = axis(at(y, bin_y, py, iy, ny), h);
                    for ix in 0..nx {
                        let x = axis(at(x, bin_x, px, ix, nx), w);
                        out.push(y.zip(x).map(|(y, x)| cross(y, x, w)));
                    }
                }
            }
        }
        Ok((out, nx * ny))
    }

    fn reduce<T: Real>(&self, image: &[T], samples: &[Option<Sample<T>>]) -> T {
        let products = |s: &Option<Sample<T>>| s.map_or([T::ZERO; 4], |s| s.map(|(i, w)| w * image[i]));
        if self.max {
            let largest = |[a, b, c, d]: [T; 4]| a.larger(b).larger(c).larger(d);
            return samples.iter().map(|s| largest(products(s))).reduce(Number::larger).unwrap_or(T::ZERO);
        }
        let total = samples.iter().fold(T::ZERO, |acc, s| {
            let [a, b, c, d] = products(s);
            acc + (a + b + c + d)
        });
        total / T::of(samples.len().max(1) as f64)
    }

    fn run_in<T: Real>(
        &self,
        ctx: &RunCtx<'_>,
        inputs: &Inputs,
        shape: &[usize; 4],
    ) -> Result<Tensor, OpError> {
        let (x, rois) = (inputs.get(0)?, inputs.get(1)?);
        let batches = ints(inputs.get(2)?)?;
        let (h, w) = (x.shape()[2], x.shape()[3]);
        let mut out = ctx.memory.filled::<T>(shape, T::ZERO)?;
        let (data, rois) = (read::<T>(ctx, x)?, read::<T>(ctx, rois)?);
        let bins = self.height * self.width;
        if out.is_empty() {
            return write(ctx, x.dtype(), shape, out);
        }
        for (r, out) in out.chunks_exact_mut(shape[1] * bins).enumerate() {
            let batch = crate::axes::index(batches[r], x.shape()[0])?;
            let (samples, each) = self.samples(&rois[4 * r..4 * r + 4], (h, w))?;
            for (c, out) in out.chunks_exact_mut(bins).enumerate() {
                let image = &data[(batch * shape[1] + c) * h * w..][..h * w];
                for (bin, o) in out.iter_mut().enumerate() {
                    *o = self.reduce(image, &samples[bin * each..(bin + 1) * each]);
                }
            }
        }
        write(ctx, x.dtype(), shape, out)
    }
}

/// The two pixels around a coordinate and their weights; none where it is more than a pixel outside.
fn axis<T: Real>(at: T, extent: usize) -> Option<[(usize, T); 2]> {
    let inside = at >= T::of(-1.0) && at <= T::of(extent as f64);
    if !inside || extent == 0 {
        return None;
    }
    let at = at.larger(T::ZERO);
    let low = at.down().whole() as usize;
    if low >= extent - 1 {
        return Some([(extent - 1, T::ONE), (extent - 1, T::ZERO)]);
    }
    let part = at - T::of(low as f64);
    Some([(low, T::ONE - part), (low + 1, part)])
}

fn cross<T: Real>(y: [(usize, T); 2], x: [(usize, T); 2], width: usize) -> Sample<T> {
    [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(i, j)| (y[i].0 * width + x[j].0, y[i].1 * x[j].1))
}

impl Op for RoiAlign {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        let first = |i: usize| fact(inputs, i).shape.as_deref().and_then(|s| s.first().copied().flatten());
        let channels = x.shape.as_deref().and_then(|s| s.get(1).copied().flatten());
        let shape = vec![first(1).or(first(2)), channels, Some(self.height), Some(self.width)];
        Ok(vec![Fact::new(x.dtype, Some(shape))])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let side = |i: usize, bins| {
            let d = fact(inputs, 0).shape.as_deref().and_then(|s| s.get(i).copied().flatten());
            self.most(bins, d.unwrap_or(0)) as u64
        };
        let n = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
        n.saturating_mul(side(2, self.height).saturating_mul(side(3, self.width))).saturating_mul(5)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, rois, batches) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        bounded([x, rois])?;
        let (&[_, c, _, _], &[n, 4], &[m]) = (x.shape(), rois.shape(), batches.shape()) else {
            let message = format!("{:?}, {:?} and {:?}", x.shape(), rois.shape(), batches.shape());
            return Err(OpError::shape(format!(
                "operands {message}; they must be [N, C, H, W], [R, 4] and [R]"
            )));
        };
        if n != m {
            return Err(OpError::shape(format!("{n} regions but {m} batch indices")));
        }
        let shape = [n, c, self.height, self.width];
        Ok(vec![real!(x.dtype(), T => self.run_in::<T>(ctx, &inputs, &shape))?])
    }
}
