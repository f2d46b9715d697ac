//! MaxRoiPool: the largest pixels of regions of interest.

use isobit_tensor::Tensor;

use crate::axes::{bounded, fact, index};
use crate::number::Number;
use crate::real::{Real, check_real, read, real, write};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("MaxRoiPool", 22, max_roi_pool)];

/// A region's corners times the scale, rounded half away from zero, both inside; bins from floor(p * size / bins) up to
/// ceil((p + 1) * size / bins), cut at the image; a bin without pixels is 0.
struct MaxRoiPool {
    pooled: [usize; 2],
    scale: f32,
}

fn max_roi_pool(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    match ctx.opt_ints("pooled_shape")? {
        Some(&[h, w]) if (1..1 << 16).contains(&h) && (1..1 << 16).contains(&w) => {
            ctx.one(MaxRoiPool { pooled: [h as usize, w as usize], scale: ctx.float("spatial_scale", 1.0)? })
        }
        other => Err(OpError::attribute(format!("pooled_shape is {other:?}; give two positive numbers"))),
    }
}

/// For each bin along one side: the pixels from one to before another.
fn bins<T: Real>(start: T, end: T, scale: T, count: usize, extent: usize) -> Vec<(usize, usize)> {
    let half = T::of(0.5);
    let round = |x: T| if x < T::ZERO { -(-x + half).down() } else { (x + half).down() };
    let (start, end) = (round(start * scale), round(end * scale));
    let size = (end - start + T::ONE).larger(T::ONE) / T::of(count as f64);
    let cut = |x: T| (x + start).whole().clamp(0, extent as i64) as usize;
    (0..count)
        .map(|p| {
            let (low, high) = (T::of(p as f64) * size, T::of((p + 1) as f64) * size);
            (cut(low.down()), cut(-(-high).down()))
        })
        .collect()
}

impl MaxRoiPool {
    fn run_in<T: Real>(&self, ctx: &RunCtx<'_>, x: &Tensor, rois: &Tensor) -> Result<Tensor, OpError> {
        let (n, c, h, w) = match *x.shape() {
            [n, c, h, w] => (n, c, h, w),
            ref other => {
                return Err(OpError::shape(format!("an input of shape {other:?}; it must be [N, C, H, W]")));
            }
        };
        let &[count, 5] = rois.shape() else {
            return Err(OpError::shape(format!("regions of shape {:?}; they must be [R, 5]", rois.shape())));
        };
        let shape = [count, c, self.pooled[0], self.pooled[1]];
        let mut out = ctx.memory.filled::<T>(&shape, T::ZERO)?;
        let (data, rois) = (read::<T>(ctx, x)?, read::<T>(ctx, rois)?);
        let area = self.pooled[0] * self.pooled[1];
        for (roi, out) in rois.chunks_exact(5).zip(out.chunks_exact_mut((c * area).max(1))) {
            let batch = index(roi[0].whole(), n)?;
            let scale = T::of(self.scale.into());
            let rows = bins(roi[2], roi[4], scale, self.pooled[0], h);
            let columns = bins(roi[1], roi[3], scale, self.pooled[1], w);
            for (channel, out) in out.chunks_exact_mut(area).enumerate() {
                let image = &data[(batch * c + channel) * h * w..][..h * w];
                let bins = rows.iter().flat_map(|r| columns.iter().map(move |c| (r, c)));
                for (o, (&(top, bottom), &(left, right))) in out.iter_mut().zip(bins) {
                    let pixels = (top..bottom).flat_map(|y| (left..right).map(move |x| image[y * w + x]));
                    *o = pixels.reduce(Number::larger).unwrap_or(T::ZERO);
                }
            }
        }
        write(ctx, x.dtype(), &shape, out)
    }
}

impl Op for MaxRoiPool {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, rois) = (fact(inputs, 0), fact(inputs, 1));
        check_real(x.dtype)?;
        let at = |f: &Fact, i: usize| f.shape.as_deref().and_then(|s| s.get(i).copied().flatten());
        let shape = vec![at(rois, 0), at(x, 1), Some(self.pooled[0]), Some(self.pooled[1])];
        Ok(vec![Fact::new(x.dtype, Some(shape))])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let plane = fact(inputs, 0).known_shape().map_or(0, |s| s.iter().skip(2).product::<usize>() as u64);
        let own = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
        let planes = own / (self.pooled[0] * self.pooled[1]) as u64;
        planes.saturating_mul(plane).saturating_add(own.saturating_mul(4))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, rois) = (inputs.get(0)?, inputs.get(1)?);
        bounded([x, rois])?;
        Ok(vec![real!(x.dtype(), T => self.run_in::<T>(ctx, x, rois))?])
    }
}
