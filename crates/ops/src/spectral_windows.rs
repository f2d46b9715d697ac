//! HannWindow, HammingWindow, BlackmanWindow, MelWeightMatrix: computed in f64 and cast.

use std::f64::consts::PI;

use isobit_numerics::{cos64, exp64, ln64, sin64};
use isobit_tensor::{DType, Tensor};

use crate::axes::{extent, fact, int};
use crate::cast::convert;
use crate::create::dtype_attr_of;
use crate::fold::fold;
use crate::real::number;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("HannWindow", 17, |ctx| window(ctx, hann)),
    OpDef::onnx("HammingWindow", 17, |ctx| window(ctx, hamming)),
    OpDef::onnx("BlackmanWindow", 17, |ctx| window(ctx, blackman)),
    OpDef::onnx("MelWeightMatrix", 17, |ctx| ctx.one(Mel { dtype: output_type(ctx)? })),
];

fn output_type(ctx: &BuildCtx<'_>) -> Result<DType, OpError> {
    let dtype = dtype_attr_of(ctx, "output_datatype")?.unwrap_or(DType::F32);
    match dtype {
        t if t.is_small() => Err(OpError::unsupported_type(t)),
        t @ (DType::Bool | DType::String | DType::Complex64 | DType::Complex128) => {
            Err(OpError::unsupported_type(t))
        }
        t => Ok(t),
    }
}

/// sin(n pi / N) squared.
fn hann(n: f64, period: f64) -> f64 {
    let s = sin64(n * PI / period);
    s * s
}

/// 25/46 - 21/46 cos(n 2 pi / N).
fn hamming(n: f64, period: f64) -> f64 {
    let alpha = 25.0 / 46.0;
    alpha - cos64(n * PI * 2.0 / period) * (1.0 - alpha)
}

/// -0.5 cos(n 2 pi / N) + 0.08 cos(n 4 pi / N) + 0.42.
fn blackman(n: f64, period: f64) -> f64 {
    cos64(n * (PI * 2.0) / period) * -0.5 + cos64(n * (PI * 4.0) / period) * 0.08 + 0.42
}

struct Window {
    value: fn(f64, f64) -> f64,
    periodic: bool,
    dtype: DType,
}

fn window(ctx: &BuildCtx<'_>, value: fn(f64, f64) -> f64) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Window { value, periodic: ctx.flag("periodic", true)?, dtype: output_type(ctx)? })
}

fn size(t: &Tensor) -> Result<usize, OpError> {
    extent(int(t)?)
}

impl Op for Window {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let length = fact(inputs, 0).value.as_ref().map(size).transpose()?;
        Ok(vec![Fact::new(Some(self.dtype), Some(vec![length]))])
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(20))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let size = size(inputs.get(0)?)?;
        let mut out = ctx.memory.filled::<f64>(&[size], 1.0)?;
        let period = if self.periodic { size as f64 } else { size as f64 - 1.0 };
        // The only point of a window without a period is 1.
        if period > 0.0 {
            out.iter_mut().enumerate().for_each(|(n, o)| *o = (self.value)(n as f64, period));
        }
        Ok(vec![convert(ctx, Tensor::new(&[size], out)?, self.dtype)?])
    }
}

/// Triangles on the mel scale.
struct Mel {
    dtype: DType,
}

/// The spectrogram bins of the triangles' corners.
fn corners(bands: usize, length: usize, rate: f64, [low, high]: [f64; 2]) -> Result<Vec<usize>, OpError> {
    let ln10 = ln64(10.0);
    let mel = |hertz: f64| 2595.0 * ln64(1.0 + hertz / 700.0) / ln10;
    let (start, end) = (mel(low), mel(high));
    let step = (end - start) / (bands as f64 + 2.0);
    let last = (length / 2) as f64;
    (0..bands + 2)
        .map(|i| {
            let hertz = 700.0 * (exp64((i as f64 * step + start) / 2595.0 * ln10) - 1.0);
            let bin = ((length as f64 + 1.0) * hertz / rate).floor();
            match (0.0..=last).contains(&bin) {
                true => Ok(bin as usize),
                false => Err(OpError::input("a band reaches past 0 to half of the sample rate")),
            }
        })
        .collect()
}

impl Op for Mel {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let known = |i: usize| fact(inputs, i).value.as_ref().map(size).transpose();
            Ok(vec![Fact::new(Some(self.dtype), Some(vec![known(1)?.map(|n| n / 2 + 1), known(0)?]))])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (bands, length) = (size(inputs.get(0)?)?, size(inputs.get(1)?)?);
        let shape = [length / 2 + 1, bands];
        let mut out = ctx.memory.filled::<f64>(&shape, 0.0)?;
        ctx.memory.check::<f64>(&[bands])?;
        let rate = int(inputs.get(2)?)? as f64;
        let edges = [number(ctx, inputs.get(3)?)?, number(ctx, inputs.get(4)?)?];
        let bins = if bands == 0 { Vec::new() } else { corners(bands, length, rate, edges)? };
        for (band, corner) in bins.windows(3).enumerate() {
            let &[left, middle, right] = corner else { continue };
            if left >= middle {
                out[middle * bands + band] = 1.0;
            } else {
                (left..=middle)
                    .for_each(|j| out[j * bands + band] = (j - left) as f64 / (middle - left) as f64);
            }
            for j in middle..right {
                out[j * bands + band] = (right - j) as f64 / (right - middle) as f64;
            }
        }
        Ok(vec![convert(ctx, Tensor::new(&shape, out)?, self.dtype)?])
    }
}
