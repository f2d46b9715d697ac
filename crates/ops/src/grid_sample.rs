//! GridSample: values of an image at given positions.

use isobit_tensor::{Element, Tensor};

use crate::axes::{bounded, fact};
use crate::cast::convert;
use crate::number::Number;
use crate::real::{Real, read, real};
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("GridSample", 22, grid_sample)];

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Linear,
    Nearest,
    Cubic,
}

#[derive(Clone, Copy)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

/// Positions further out than this, in pixels, count as this far; a NaN counts as the lower bound.
const FAR: f64 = 16_777_216.0;

struct GridSample {
    mode: Mode,
    padding: Padding,
    align_corners: bool,
}

fn grid_sample(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let modes = [
        ("linear", Mode::Linear),
        ("nearest", Mode::Nearest),
        ("cubic", Mode::Cubic),
        // As versions 16 to 19 call them.
        ("bilinear", Mode::Linear),
        ("bicubic", Mode::Cubic),
    ];
    let paddings =
        [("zeros", Padding::Zeros), ("border", Padding::Border), ("reflection", Padding::Reflection)];
    ctx.one(GridSample {
        mode: ctx.choice("mode", &modes)?,
        padding: ctx.choice("padding_mode", &paddings)?,
        align_corners: ctx.flag("align_corners", false)?,
    })
}

impl GridSample {
    fn shape(&self, x: &[Option<usize>], grid: &[Option<usize>]) -> Result<Vec<Option<usize>>, OpError> {
        let message = || {
            OpError::shape(format!(
                "an image {x:?} and a grid {grid:?}; they must be [N, C, D1, .., Dr] and [N, .., .., r]"
            ))
        };
        let ([n, c, dims @ ..], [m, points @ .., r]) = (x, grid) else { return Err(message()) };
        let differ = |a: Option<usize>, b: Option<usize>| a.is_some() && b.is_some() && a != b;
        if dims.is_empty() || points.len() != dims.len() || differ(*n, *m) || differ(*r, Some(dims.len())) {
            return Err(message());
        }
        Ok([&[n.or(*m), *c], points].concat())
    }
}

impl Op for GridSample {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, grid) = (fact(inputs, 0), fact(inputs, 1));
        let shape = match (&x.shape, &grid.shape) {
            (Some(x), Some(grid)) => Some(self.shape(x, grid)?),
            _ => None,
        };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let axes = fact(inputs, 0).rank().unwrap_or(4).saturating_sub(2).min(16) as u32;
        let taps = match self.mode {
            Mode::Nearest => 1,
            Mode::Linear => 2u64.saturating_pow(axes),
            Mode::Cubic => 4u64.saturating_pow(axes),
        };
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(taps))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, grid) = (inputs.get(0)?, inputs.get(1)?);
        bounded([x, grid])?;
        let all = |t: &Tensor| t.shape().iter().map(|&d| Some(d)).collect::<Vec<_>>();
        let shape = crate::axes::settled(self.shape(&all(x), &all(grid))?)?;
        if self.mode == Mode::Nearest {
            let places = real!(grid.dtype(), T => self.places::<T>(ctx, x, grid))?;
            let out = typed!(x.dtype(), T => {
                let out = ctx.memory.filled::<T>(&shape, T::default())?;
                Ok::<_, OpError>(Tensor::new(&shape, pick(x.as_slice::<T>()?, out, &shape, x.shape(), &places))?)
            })?;
            return Ok(vec![out]);
        }
        let wide = match x.dtype() {
            isobit_tensor::DType::F64 => isobit_tensor::DType::F64,
            _ => isobit_tensor::DType::F32,
        };
        if x.dtype().is_small() || matches!(x.dtype(), isobit_tensor::DType::String) {
            return Err(OpError::unsupported_type(x.dtype()));
        }
        real!(wide, T => {
            let out = ctx.memory.filled::<T>(&shape, T::ZERO)?;
            let data = read::<T>(ctx, x)?;
            let out = self.blend::<T>(&data, out, (&shape, x.shape()), &read::<T>(ctx, grid)?);
            Ok(vec![convert(ctx, Tensor::new(&shape, out)?, x.dtype())?])
        })
    }
}

impl GridSample {
    /// Where a normalised coordinate lies along an extent, in pixels.
    fn position<T: Real>(&self, n: T, extent: usize) -> T {
        let (len, half) = (T::of(extent as f64), T::of(2.0));
        let at = match self.align_corners {
            true => (n + T::ONE) / half * (len - T::ONE),
            false => ((n + T::ONE) * len - T::ONE) / half,
        };
        let (low, high) = (T::of(-FAR), T::of(FAR));
        match at {
            at if at >= high => high,
            at if at > low => at,
            _ => low,
        }
    }

    /// The pixel that is read at an index, if any.
    fn pixel(&self, i: i64, extent: usize) -> Option<usize> {
        let last = extent as i64 - 1;
        let inside = match self.padding {
            Padding::Zeros => Some(i).filter(|i| (0..=last).contains(i)),
            Padding::Border => Some(i.clamp(0, last.max(0))),
            Padding::Reflection => Some(self.reflect(i, extent as i64)),
        };
        inside.map(|i| i as usize).filter(|&i| i < extent)
    }

    /// An index reflected at the middle of the corner pixels (align_corners) or at their outer edges.
    fn reflect(&self, i: i64, extent: i64) -> i64 {
        if self.align_corners {
            if extent <= 1 {
                return 0;
            }
            let period = 2 * (extent - 1);
            let i = i.rem_euclid(period);
            return if i < extent { i } else { period - i };
        }
        let i = i.rem_euclid(2 * extent.max(1));
        if i < extent { i } else { 2 * extent - 1 - i }
    }

    /// For the nearest mode: the offset in an image's plane for each point of the grid.
    fn places<T: Real>(
        &self,
        ctx: &RunCtx<'_>,
        x: &Tensor,
        grid: &Tensor,
    ) -> Result<Vec<Option<usize>>, OpError> {
        let dims = &x.shape()[2..];
        let place = |point: &[T]| {
            // The grid names the innermost axis first.
            dims.iter().zip(point.iter().rev()).try_fold(0, |at, (&d, &n)| {
                Some(at * d + self.pixel(self.position(n, d).nearest().whole(), d)?)
            })
        };
        Ok(read::<T>(ctx, grid)?.chunks_exact(dims.len()).map(place).collect())
    }

    /// Pixels and weights along one axis.
    fn taps<T: Real>(&self, n: T, extent: usize) -> Vec<(Option<usize>, T)> {
        let at = self.position(n, extent);
        let below = at.down();
        let (t, first) = (at - below, below.whole());
        match self.mode {
            Mode::Cubic => (-1..).zip(cubic(t)).map(|(i, w)| (self.pixel(first + i, extent), w)).collect(),
            _ => [(0, T::ONE - t), (1, t)].map(|(i, w)| (self.pixel(first + i, extent), w)).to_vec(),
        }
    }

    fn blend<T: Real>(
        &self,
        x: &[T],
        mut out: Vec<T>,
        (shape, own): (&[usize], &[usize]),
        grid: &[T],
    ) -> Vec<T> {
        let dims = &own[2..];
        let (plane, points): (usize, usize) = (dims.iter().product(), shape[2..].iter().product());
        let channels = own[1];
        if out.is_empty() {
            return out;
        }
        for (n, out) in out.chunks_exact_mut(channels * points).enumerate() {
            let image = &x[n * channels * plane..(n + 1) * channels * plane];
            let grid = &grid[n * points * dims.len()..];
            for (p, point) in grid.chunks_exact(dims.len()).take(points).enumerate() {
                let axes: Vec<_> =
                    dims.iter().zip(point.iter().rev()).map(|(&d, &n)| self.taps(n, d)).collect();
                for c in 0..channels {
                    out[c * points + p] = interpolate(&image[c * plane..(c + 1) * plane], &axes, dims);
                }
            }
        }
        out
    }
}

/// Along the first axis a chain from +0 over its taps, ascending, of what the other axes give; outside is +0.
fn interpolate<T: Real>(x: &[T], axes: &[Vec<(Option<usize>, T)>], dims: &[usize]) -> T {
    let inner: usize = dims[1..].iter().product();
    axes[0].iter().fold(T::ZERO, |acc, &(at, w)| {
        let value = match at {
            None => T::ZERO,
            Some(i) if axes.len() == 1 => x[i],
            Some(i) => interpolate(&x[i * inner..(i + 1) * inner], &axes[1..], &dims[1..]),
        };
        w.fma(value, acc)
    })
}

/// Keys' weights of the four pixels around a position `t` past the second, A = -0.75.
fn cubic<T: Real>(t: T) -> [T; 4] {
    let a = T::of(-0.75);
    let [two, three, four, five, eight] = [2.0, 3.0, 4.0, 5.0, 8.0].map(T::of);
    let outer = |x: T| ((a * x - five * a) * x + eight * a) * x - four * a;
    let inner = |x: T| ((a + two) * x - (a + three)) * x * x + T::ONE;
    [outer(t + T::ONE), inner(t), inner(T::ONE - t), outer(two - t)]
}

fn pick<T: Element>(
    x: &[T],
    mut out: Vec<T>,
    shape: &[usize],
    own: &[usize],
    places: &[Option<usize>],
) -> Vec<T> {
    let (plane, points): (usize, usize) = (own[2..].iter().product(), shape[2..].iter().product());
    let channels = own[1];
    if out.is_empty() {
        return out;
    }
    for (i, out) in out.chunks_exact_mut(points).enumerate() {
        let image = &x[i * plane..(i + 1) * plane];
        for (o, place) in out.iter_mut().zip(&places[i / channels * points..]) {
            if let Some(at) = *place {
                o.clone_from(&image[at]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_reflected_again_and_again() {
        let edge = GridSample { mode: Mode::Linear, padding: Padding::Reflection, align_corners: false };
        assert_eq!([-4, -1, 0, 2, 3, 6].map(|i| edge.reflect(i, 3)), [2, 0, 0, 2, 2, 0]);
        let middle = GridSample { align_corners: true, ..edge };
        assert_eq!([-3, -1, 0, 2, 3, 5].map(|i| middle.reflect(i, 3)), [1, 1, 0, 2, 1, 1]);
        assert_eq!(middle.reflect(7, 1), 0);
    }
}
