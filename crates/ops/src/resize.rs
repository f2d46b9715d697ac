//! Resize: nearest, linear and cubic, every coordinate mode, antialiasing.
//!
//! Coordinates and weights are f32. Axes are resized one after the other, in ascending order; an element
//! is `acc = +0; acc = fma(weight, x, acc)` over its taps in ascending order. f16 and bf16 are computed in
//! f32 and rounded once at the end, integers too and cast; f64 in f64 with the same f32 weights.

use isobit_numerics::{fma, fma64};
use isobit_tensor::{DType, Tensor};

use crate::axes::{axes, extent, fact, given, known_ints};
use crate::cast::convert;
use crate::fold::fold;
use crate::gather::rows;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Resize", 19, resize)];

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Clone, Copy, PartialEq)]
enum Coordinates {
    HalfPixel,
    HalfPixelSymmetric,
    PytorchHalfPixel,
    AlignCorners,
    Asymmetric,
    Crop,
}

#[derive(Clone, Copy)]
enum Nearest {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
}

#[derive(Clone, Copy, PartialEq)]
enum Aspect {
    Stretch,
    NotLarger,
    NotSmaller,
}

struct Resize {
    mode: Mode,
    coordinates: Coordinates,
    nearest: Nearest,
    aspect: Aspect,
    axes: Option<Vec<i64>>,
    antialias: bool,
    exclude_outside: bool,
    cubic: f32,
    extrapolation: f32,
}

fn resize(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Resize {
        mode: ctx.choice(
            "mode",
            &[("nearest", Mode::Nearest), ("linear", Mode::Linear), ("cubic", Mode::Cubic)],
        )?,
        coordinates: ctx.choice(
            "coordinate_transformation_mode",
            &[
                ("half_pixel", Coordinates::HalfPixel),
                ("half_pixel_symmetric", Coordinates::HalfPixelSymmetric),
                ("pytorch_half_pixel", Coordinates::PytorchHalfPixel),
                ("align_corners", Coordinates::AlignCorners),
                ("asymmetric", Coordinates::Asymmetric),
                ("tf_crop_and_resize", Coordinates::Crop),
            ],
        )?,
        nearest: ctx.choice(
            "nearest_mode",
            &[
                ("round_prefer_floor", Nearest::PreferFloor),
                ("round_prefer_ceil", Nearest::PreferCeil),
                ("floor", Nearest::Floor),
                ("ceil", Nearest::Ceil),
            ],
        )?,
        aspect: ctx.choice(
            "keep_aspect_ratio_policy",
            &[
                ("stretch", Aspect::Stretch),
                ("not_larger", Aspect::NotLarger),
                ("not_smaller", Aspect::NotSmaller),
            ],
        )?,
        axes: ctx.opt_ints("axes")?.map(<[i64]>::to_vec),
        antialias: ctx.flag("antialias", false)?,
        exclude_outside: ctx.flag("exclude_outside", false)?,
        cubic: ctx.float("cubic_coeff_a", -0.75)?,
        extrapolation: ctx.float("extrapolation_value", 0.0)?,
    })
}

/// One axis to resize.
#[derive(Debug, Clone, Copy)]
struct Line {
    axis: usize,
    from: usize,
    to: usize,
    scale: f32,
    /// `to` before it was rounded down: what aligning corners goes by.
    width: f32,
    roi: (f32, f32),
}

/// The taps of one output position: input positions and their weights.
type Taps = Vec<(usize, f32)>;

impl Resize {
    fn lines(
        &self,
        shape: &[usize],
        roi: Option<&[f32]>,
        scales: Option<&[f32]>,
        sizes: Option<&[i64]>,
    ) -> Result<Vec<Line>, OpError> {
        let on = match &self.axes {
            Some(on) => axes(on, shape.len())?,
            None => (0..shape.len()).collect(),
        };
        let count = |what: &str, n: usize, of: usize| match n == of {
            true => Ok(()),
            false => Err(OpError::shape(format!("{n} {what} for {} axes; expected {of}", on.len()))),
        };
        let roi = match (roi, self.coordinates) {
            (Some(roi), Coordinates::Crop) => {
                count("region bounds", roi.len(), 2 * on.len())?;
                Some(roi.split_at(on.len()))
            }
            (None, Coordinates::Crop) => {
                return Err(OpError::input("input 1, the region to crop, is missing"));
            }
            _ => None,
        };
        let line = |i: usize| {
            let from = shape[on[i]];
            let roi = roi.map_or((0.0, 1.0), |(starts, ends)| (starts[i], ends[i]));
            Line { axis: on[i], from, to: from, scale: 1.0, width: from as f32, roi }
        };
        let mut lines: Vec<Line> = (0..on.len()).map(line).collect();
        match (scales, sizes) {
            (Some(scales), None) => {
                count("scales", scales.len(), on.len())?;
                for (line, &scale) in lines.iter_mut().zip(scales) {
                    if !(scale > 0.0 && scale.is_finite()) {
                        return Err(OpError::input(format!("a scale of {scale}; it must be positive")));
                    }
                    line.to = whole(line.from as f32 * (line.roi.1 - line.roi.0) * scale)?;
                    line.scale = scale;
                    line.width = line.from as f32 * scale;
                }
            }
            (None, Some(sizes)) => {
                count("sizes", sizes.len(), on.len())?;
                for (line, &size) in lines.iter_mut().zip(sizes) {
                    line.to = extent(size)?;
                    line.scale = line.to as f32 / line.from as f32;
                    line.width = line.to as f32;
                }
                self.keep_aspect(&mut lines)?;
            }
            _ => {
                return Err(OpError::input("expected either input 2, the scales, or input 3, the sizes"));
            }
        }
        if let Some(line) = lines.iter().find(|l| l.from == 0 && l.to > 0) {
            return Err(OpError::shape(format!("axis {} of extent 0 cannot be resized", line.axis)));
        }
        lines.sort_by_key(|l| l.axis);
        Ok(lines)
    }

    fn keep_aspect(&self, lines: &mut [Line]) -> Result<(), OpError> {
        let Some(first) = lines.first().filter(|_| self.aspect != Aspect::Stretch) else { return Ok(()) };
        let mut scale = first.scale;
        for line in lines.iter() {
            if (self.aspect == Aspect::NotLarger) == (line.scale < scale) {
                scale = line.scale;
            }
        }
        for line in lines {
            line.scale = scale;
            line.width = scale * line.from as f32;
            line.to = whole((line.width + 0.5).floor())?;
        }
        Ok(())
    }

    /// Where output position `x` lies in the input.
    fn coordinate(&self, line: &Line, x: usize) -> f32 {
        let (x, n, m) = (x as f32, line.from as f32, line.to as f32);
        let half_pixel = (x + 0.5) / line.scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half_pixel,
            Coordinates::HalfPixelSymmetric => {
                let adjustment = m / (line.scale * n);
                n / 2.0 * (1.0 - adjustment) + half_pixel
            }
            Coordinates::PytorchHalfPixel if line.to > 1 => half_pixel,
            Coordinates::PytorchHalfPixel => 0.0,
            Coordinates::AlignCorners if line.to > 1 => x * (n - 1.0) / (line.width - 1.0),
            Coordinates::AlignCorners => 0.0,
            Coordinates::Asymmetric => x / line.scale,
            Coordinates::Crop if line.to > 1 => {
                line.roi.0 * (n - 1.0) + x * (line.roi.1 - line.roi.0) * (n - 1.0) / (m - 1.0)
            }
            Coordinates::Crop => 0.5 * (line.roi.0 + line.roi.1) * (n - 1.0),
        }
    }

    fn nearest(&self, line: &Line, x: usize) -> usize {
        let x = self.coordinate(line, x);
        let (low, high) = (x.floor(), x.ceil());
        let at = match self.nearest {
            Nearest::PreferFloor if x - low <= 0.5 => low,
            Nearest::PreferFloor => high,
            Nearest::PreferCeil if x - low < 0.5 => low,
            Nearest::PreferCeil => high,
            Nearest::Floor => low,
            Nearest::Ceil => high,
        };
        // Negative and NaN become 0.
        (at as usize).min(line.from - 1)
    }

    fn taps(&self, line: &Line, x: usize) -> Result<Taps, OpError> {
        let last = line.from - 1;
        let x = self.coordinate(line, x);
        if self.mode == Mode::Linear && !self.antialias {
            let x = x.clamp(0.0, last as f32);
            let (low, ratio) = ((x as usize).min(last), x - x.floor());
            return Ok(vec![(low, 1.0 - ratio), ((low + 1).min(last), ratio)]);
        }
        // The filter is widened by what the axis shrinks, when antialiasing.
        let shrink = if self.antialias && line.scale < 1.0 { line.scale } else { 1.0 };
        let reach = if self.mode == Mode::Cubic { 2.0 } else { 1.0 };
        let start = (-reach / shrink).floor() as i64 + 1;
        if start < -2 * (line.from as i64) - 8 {
            return Err(OpError::input(format!("a scale of {} for an extent of {}", line.scale, line.from)));
        }
        // The pixel on the left of `x`, also where `x` is a pixel.
        let base = x.ceil() - 1.0;
        let ratio = x - base;
        let mut taps: Vec<(i64, f32)> = (start..2 - start)
            .map(|i| (i.saturating_add(base as i64), self.weight(((i as f32 - ratio) * shrink).abs())))
            .collect();
        let normalise = |taps: &mut [(i64, f32)]| {
            let sum = taps.iter().fold(0.0, |sum, t| sum + t.1);
            taps.iter_mut().for_each(|t| t.1 /= sum);
        };
        if self.antialias {
            normalise(&mut taps);
        }
        if self.exclude_outside {
            for tap in &mut taps {
                if tap.0 < 0 || tap.0 > last as i64 {
                    tap.1 = 0.0;
                }
            }
            normalise(&mut taps);
        }
        Ok(taps.into_iter().map(|(i, w)| (i.clamp(0, last as i64) as usize, w)).collect())
    }

    /// The filter at distance `d` from its centre.
    fn weight(&self, d: f32) -> f32 {
        let a = self.cubic;
        match self.mode {
            Mode::Cubic if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
            Mode::Cubic if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
            Mode::Cubic => 0.0,
            _ => (1.0 - d).clamp(0.0, 1.0),
        }
    }

    fn pick(&self, ctx: &RunCtx<'_>, mut data: Tensor, lines: &[Line]) -> Result<Tensor, OpError> {
        for line in lines {
            let picked: Vec<usize> = (0..line.to).map(|x| self.nearest(line, x)).collect();
            let mut shape = data.shape().to_vec();
            shape[line.axis] = line.to;
            data = typed!(data.dtype(), T => rows::<T>(ctx, &data, line.axis, &picked, &shape))?;
        }
        Ok(data)
    }

    fn interpolate(&self, ctx: &RunCtx<'_>, data: Tensor, lines: &[Line]) -> Result<Tensor, OpError> {
        let dtype = data.dtype();
        let mut data = match dtype {
            DType::F64 => data,
            _ => convert(ctx, data, DType::F32)?,
        };
        for line in lines {
            let taps = (0..line.to).map(|x| self.taps(line, x)).collect::<Result<Vec<_>, _>>()?;
            let mut shape = data.shape().to_vec();
            shape[line.axis] = line.to;
            let inner: usize = shape[line.axis + 1..].iter().product();
            data = match dtype {
                DType::F64 => {
                    let mut out = ctx.memory.filled(&shape, 0f64)?;
                    filter(data.as_slice()?, &mut out, line.from, inner, &taps, |w, x, acc| {
                        fma64(w.into(), x, acc)
                    });
                    Tensor::new(&shape, out)?
                }
                _ => {
                    let mut out = ctx.memory.filled(&shape, 0f32)?;
                    filter(data.as_slice()?, &mut out, line.from, inner, &taps, fma);
                    Tensor::new(&shape, out)?
                }
            };
        }
        convert(ctx, data, dtype)
    }

    /// Overwrites what lies outside the input, after cropping.
    fn extrapolate(&self, ctx: &RunCtx<'_>, data: Tensor, lines: &[Line]) -> Result<Tensor, OpError> {
        let outside: Vec<Vec<bool>> = lines
            .iter()
            .map(|l| {
                (0..l.to)
                    .map(|x| {
                        let x = self.coordinate(l, x);
                        x < 0.0 || x > (l.from as f32 - 1.0)
                    })
                    .collect()
            })
            .collect();
        let value = convert(ctx, Tensor::scalar(self.extrapolation), data.dtype())?;
        typed!(data.dtype(), T => {
            let value = value.into_vec::<T>()?.swap_remove(0);
            let shape = data.shape().to_vec();
            let mut out = data.into_vec::<T>()?;
            for (line, outside) in lines.iter().zip(&outside) {
                let inner: usize = shape[line.axis + 1..].iter().product();
                for (k, row) in out.chunks_exact_mut(inner.max(1)).enumerate() {
                    if outside[k % line.to] {
                        row.fill(Clone::clone(&value));
                    }
                }
            }
            Ok(Tensor::new(&shape, out)?)
        })
    }
}

/// Replaces runs of `from` rows of `inner` elements by one row for each of `taps`.
fn filter<T: Copy>(
    src: &[T],
    out: &mut [T],
    from: usize,
    inner: usize,
    taps: &[Taps],
    fma: impl Fn(f32, T, T) -> T,
) {
    if out.is_empty() {
        return;
    }
    for (k, row) in out.chunks_exact_mut(inner).enumerate() {
        let block = &src[k / taps.len() * from * inner..][..from * inner];
        for &(i, w) in &taps[k % taps.len()] {
            for (o, &x) in row.iter_mut().zip(&block[i * inner..][..inner]) {
                *o = fma(w, x, *o);
            }
        }
    }
}

/// An optional operand that may also be given but empty.
fn some<T>(values: &[T]) -> Option<&[T]> {
    Some(values).filter(|v| !v.is_empty())
}

impl Op for Resize {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let Some(dims) = &data.shape else { return Ok(vec![Fact::typed(data.dtype)]) };
            let unread = |i| given(inputs, i).is_some_and(|f| f.value.is_none() && f.numel() != Some(0));
            let unknown = Ok(vec![Fact::new(data.dtype, Some(vec![None; dims.len()]))]);
            let crops = self.coordinates == Coordinates::Crop;
            let Some(shape) = data.known_shape().filter(|_| !(unread(2) || unread(3) || crops && unread(1)))
            else {
                return unknown;
            };
            let floats = |i: usize| -> Result<Vec<f32>, OpError> {
                match &fact(inputs, i).value {
                    Some(t) => region(t),
                    None => Ok(Vec::new()),
                }
            };
            let (roi, scales) = (floats(1)?, floats(2)?);
            let sizes = known_ints(inputs, 3)?.unwrap_or_default();
            let mut out = shape.clone();
            for line in self.lines(&shape, some(&roi), some(&scales), some(&sizes))? {
                out[line.axis] = line.to;
            }
            Ok(vec![Fact::new(data.dtype, Some(crate::axes::known(&out)))])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let floats = |i: usize| match inputs.opt(i) {
            Some(t) => region(t),
            None => Ok(Vec::new()),
        };
        let (roi, scales) = (floats(1)?, floats(2)?);
        let sizes = inputs.opt(3).map(crate::axes::ints).transpose()?.unwrap_or_default();
        let data = inputs.take(0)?;
        let mut lines = self.lines(data.shape(), some(&roi), some(&scales), some(&sizes))?;
        // What keeps its size and place stays as it is.
        lines.retain(|l| l.from != l.to || l.scale != 1.0 || l.roi != (0.0, 1.0));
        let mut shape = data.shape().to_vec();
        for line in &lines {
            shape[line.axis] = line.to;
        }
        let n = isobit_tensor::numel(&shape);
        if n == Some(0) {
            return Ok(vec![Tensor::zeros(data.dtype(), &shape)?]);
        }
        // The limit on memory is checked for the whole result before any table is made.
        drop(ctx.memory.alloc::<u8>(&shape)?);
        let out = match self.mode {
            Mode::Nearest => self.pick(ctx, data, &lines)?,
            _ => self.interpolate(ctx, data, &lines)?,
        };
        let crops = self.coordinates == Coordinates::Crop;
        Ok(vec![if crops { self.extrapolate(ctx, out, &lines)? } else { out }])
    }
}

/// A region or scales, in f32.
/// The extent that a size of the axis comes to. Nothing below 0 is left of a region that runs backwards.
fn whole(size: f32) -> Result<usize, OpError> {
    extent((size as i64).max(0))
}

fn region(tensor: &Tensor) -> Result<Vec<f32>, OpError> {
    use crate::number::Number;
    typed!(floats tensor.dtype(), T => {
        Ok(tensor.as_slice::<T>()?.iter().map(|v| v.wide() as f32).collect())
    })
}
