//! DFT and STFT. Both compute in f64 and round once.
//!
//! A transform of n = p * m points, p the smallest prime factor of n, is made of p transforms Y_r of m points (those at
//! r, r + p, ...): X[k] = Y_0[k mod m] and then, for r = 1, 2, ..: + w Y_r[k mod m] with w = exp(-2 pi i (r k mod n) / n),
//! where w y is (wr yr) - (wi yi) and (wr yi) + (wi yr), each operation rounded.

use isobit_numerics::{cos64, sin64};
use isobit_tensor::{DType, Tensor};

use crate::axes::{axis, bounded, fact, int, settled};
use crate::cast::convert;
use crate::real::real;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("DFT", 20, dft), OpDef::onnx("STFT", 17, stft)];

/// Longest transform.
const MOST: usize = 1 << 28;

type Complex = (f64, f64);

/// The transform of some number of points.
struct Plan {
    n: usize,
    /// exp(-2 pi i j / n) for j = 0 .. n - 1.
    roots: Vec<Complex>,
}

impl Plan {
    fn new(n: usize) -> Self {
        Self { n, roots: (0..n).map(|j| root(j, n)).collect() }
    }

    /// Forward, or with conjugate roots and divided by n.
    fn run(&self, x: &[Complex], inverse: bool) -> Vec<Complex> {
        if !inverse {
            return self.part(x, 0, 1, self.n);
        }
        // The inverse is the conjugate of the transform of the conjugate.
        let x: Vec<Complex> = x.iter().map(|&(re, im)| (re, -im)).collect();
        let n = self.n as f64;
        self.part(&x, 0, 1, self.n).into_iter().map(|(re, im)| (re / n, -im / n)).collect()
    }

    /// The transform of the n points at `start`, `start + step`, ...
    fn part(&self, x: &[Complex], start: usize, step: usize, n: usize) -> Vec<Complex> {
        if n <= 1 {
            return x[start..start + n].to_vec();
        }
        let p = smallest_factor(n);
        let m = n / p;
        let parts: Vec<Vec<Complex>> = (0..p).map(|r| self.part(x, start + r * step, step * p, m)).collect();
        // A root of order n is one of order self.n = n * step.
        (0..n)
            .map(|k| {
                let (mut re, mut im) = parts[0][k % m];
                for (r, part) in parts.iter().enumerate().skip(1) {
                    let (wr, wi) = self.roots[(r * k) % n * step];
                    let (yr, yi) = part[k % m];
                    re += wr * yr - wi * yi;
                    im += wr * yi + wi * yr;
                }
                (re, im)
            })
            .collect()
    }
}

/// exp(-2 pi i j / n), exact on the axes.
fn root(j: usize, n: usize) -> Complex {
    let (quadrant, rest) = (4 * j / n, 4 * j % n);
    let angle = std::f64::consts::FRAC_PI_2 * (rest as f64 / n as f64);
    let (c, s) = if rest == 0 { (1.0, 0.0) } else { (cos64(angle), sin64(angle)) };
    match quadrant {
        0 => (c, -s),
        1 => (-s, -c),
        2 => (-c, s),
        _ => (s, c),
    }
}

fn smallest_factor(n: usize) -> usize {
    (2..).take_while(|p| p * p <= n).find(|p| n.is_multiple_of(*p)).unwrap_or(n)
}

/// Multiplications of a transform: n times the sum of its prime factors.
fn weight(mut n: usize) -> u64 {
    let (whole, mut sum) = (n as u64, 1u64);
    while n > 1 {
        let p = smallest_factor(n);
        sum = sum.saturating_add(p as u64);
        n /= p;
    }
    whole.saturating_mul(sum).saturating_mul(4)
}

fn check(t: Option<DType>) -> Result<(), OpError> {
    t.map(|t| real!(t, T => Ok(std::mem::size_of::<T>()))).transpose().map(drop)
}

struct Dft {
    inverse: bool,
    onesided: bool,
}

fn dft(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Dft { inverse: ctx.flag("inverse", false)?, onesided: ctx.flag("onesided", false)? })
}

/// What a transform does along its axis.
struct Line {
    axis: usize,
    /// Points of the transform.
    n: usize,
    /// Points of the result and numbers of each.
    output: [usize; 2],
}

impl Dft {
    fn line(&self, shape: &[usize], length: Option<i64>, at: i64) -> Result<Line, OpError> {
        let rank = shape.len();
        let a = axis(at, rank)?;
        if rank < 2 || a + 1 == rank || !(1..=2).contains(&shape[rank - 1]) {
            let message = format!("an input of shape {shape:?} along axis {at}");
            return Err(OpError::shape(format!(
                "{message}; its last extent must be 1 or 2, and the axis another"
            )));
        }
        if self.onesided && self.inverse != (shape[rank - 1] == 2) {
            let need = if self.inverse { "complex" } else { "real" };
            return Err(OpError::shape(format!(
                "a onesided transform in this direction takes {need} numbers"
            )));
        }
        let one_side = self.onesided && self.inverse;
        let default = if one_side { 2 * shape[a].saturating_sub(1) } else { shape[a] };
        let n = match length {
            None => default,
            Some(n) => usize::try_from(n).unwrap_or(0),
        };
        if !(1..=MOST).contains(&n) {
            return Err(OpError::input(format!("a transform of {n} points; accepted: 1 to {MOST}")));
        }
        let output = match (self.onesided, self.inverse) {
            (true, true) => [n, 1],
            (true, false) => [n / 2 + 1, 2],
            _ => [n, 2],
        };
        Ok(Line { axis: a, n, output })
    }

    fn operand(inputs: &[Option<Fact>], i: usize) -> Result<Option<Option<i64>>, OpError> {
        match inputs.get(i).and_then(Option::as_ref) {
            None => Ok(Some(None)),
            Some(f) => f.value.as_ref().map(int).transpose().map(|v| v.map(Some)),
        }
    }

    /// The points of one line, filled up with zeros.
    fn gather(
        &self,
        x: &[f64],
        at: impl Fn(usize) -> usize,
        have: usize,
        parts: usize,
        n: usize,
    ) -> Vec<Complex> {
        let value = |i: usize| match parts {
            _ if i >= have => (0.0, 0.0),
            1 => (x[at(i)], 0.0),
            _ => (x[at(i)], x[at(i) + 1]),
        };
        if !(self.onesided && self.inverse) {
            return (0..n).map(value).collect();
        }
        // The other half is the conjugate; where both halves meet, numbers are real.
        let real = |i: usize| (value(i).0, 0.0);
        (0..n)
            .map(|i| match i {
                0 => real(0),
                i if 2 * i == n => real(i),
                i if 2 * i < n => value(i),
                i => (value(n - i).0, -value(n - i).1),
            })
            .collect()
    }
}

impl Op for Dft {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check(x.dtype)?;
        let (length, at) = (Self::operand(inputs, 1)?, Self::operand(inputs, 2)?);
        let shape = match (x.known_shape(), length, at) {
            (Some(shape), Some(length), Some(at)) => {
                let line = self.line(&shape, length, at.unwrap_or(-2))?;
                let mut out = shape.to_vec();
                out[line.axis] = line.output[0];
                out[shape.len() - 1] = line.output[1];
                Some(out.into_iter().map(Some).collect())
            }
            _ => x.rank().map(|r| vec![None; r]),
        };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    /// As if the axis were the longest.
    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let Some(shape) = outputs.first().and_then(Fact::known_shape) else { return 0 };
        let each =
            |&d: &usize| (shape.iter().product::<usize>() as u64 / d.max(1) as u64).saturating_mul(weight(d));
        shape.iter().map(each).max().unwrap_or(0)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        check(Some(x.dtype()))?;
        bounded([x])?;
        let length = inputs.opt(1).map(int).transpose()?;
        let line = self.line(x.shape(), length, inputs.opt(2).map(int).transpose()?.unwrap_or(-2))?;
        let (have, parts) = (x.shape()[line.axis], x.shape()[x.rank() - 1]);
        let mut shape = x.shape().to_vec();
        shape[line.axis] = line.output[0];
        shape[x.rank() - 1] = line.output[1];
        let mut out = ctx.memory.filled::<f64>(&shape, 0.0)?;
        ctx.memory.check::<[f64; 8]>(&[line.n])?;
        let wide = convert(ctx, x.clone(), DType::F64)?;
        let x64 = wide.as_slice::<f64>()?;
        let plan = Plan::new(line.n);
        let inner: usize = shape[line.axis + 1..shape.len() - 1].iter().product();
        let outer: usize = shape[..line.axis].iter().product();
        let [points, numbers] = line.output;
        for o in 0..if out.is_empty() { 0 } else { outer } {
            for i in 0..inner {
                let at = |j: usize| ((o * have + j) * inner + i) * parts;
                let y = plan.run(&self.gather(x64, at, have, parts, line.n), self.inverse);
                for (k, &(re, im)) in y.iter().take(points).enumerate() {
                    let to = ((o * points + k) * inner + i) * numbers;
                    out[to] = re;
                    if numbers == 2 {
                        out[to + 1] = im;
                    }
                }
            }
        }
        Ok(vec![convert(ctx, Tensor::new(&shape, out)?, x.dtype())?])
    }
}

/// A transform of each frame times the window.
struct Stft {
    onesided: bool,
}

fn stft(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    ctx.one(Stft { onesided: ctx.flag("onesided", true)? })
}

impl Stft {
    /// [batch, frames, points, 2] for frames of `n` samples every `step`.
    fn shape(&self, signal: &[Option<usize>], n: i64, step: i64) -> Result<Vec<Option<usize>>, OpError> {
        let &[batch, length, _] = signal else {
            return Err(OpError::shape(format!(
                "a signal of rank {}; it must be [batch, length, 1 or 2]",
                signal.len()
            )));
        };
        let positive = |v: i64, what: &str| {
            let v = usize::try_from(v).ok().filter(|v| (1..=MOST).contains(v));
            v.ok_or_else(|| OpError::input(format!("{what} must be from 1 to {MOST}")))
        };
        let (n, step) = (positive(n, "frame_length")?, positive(step, "frame_step")?);
        let frames = match length {
            Some(l) if l < n => return Err(OpError::shape(format!("frames of {n} in a signal of {l}"))),
            Some(l) => Some((l - n) / step + 1),
            None => None,
        };
        Ok(vec![batch, frames, Some(if self.onesided { n / 2 + 1 } else { n }), Some(2)])
    }
}

impl Op for Stft {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, window) = (fact(inputs, 0), fact(inputs, 2));
        check(x.dtype)?;
        let value = |i: usize| fact(inputs, i).value.as_ref().map(int).transpose();
        let of_window = window.shape.as_deref().and_then(|s| s.first().copied().flatten()).map(|n| n as i64);
        let shape = match (&x.shape, value(1)?, value(3)?.or(of_window)) {
            (Some(signal), Some(step), Some(n)) => Some(self.shape(signal, n, step)?),
            _ => Some(vec![None, None, None, Some(2)]),
        };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let Some(&[b, f, n, _]) = outputs.first().and_then(Fact::known_shape).as_deref() else { return 0 };
        let n = if self.onesided { 2 * n } else { n };
        // Of two lengths that give as many points the dearer one.
        (b as u64)
            .saturating_mul(f as u64)
            .saturating_mul(weight(n).max(weight(n.saturating_sub(1))).max(weight(n.saturating_sub(2))))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        check(Some(x.dtype()))?;
        let step = int(inputs.get(1)?)?;
        let window = match inputs.opt(2) {
            Some(w) => Some(convert(ctx, w.clone(), DType::F64)?.into_vec::<f64>()?),
            None => None,
        };
        let given = inputs.opt(3).map(int).transpose()?;
        let signal = x.shape().get(1).copied().unwrap_or(0) as i64;
        let n = given.or(window.as_ref().map(|w| w.len() as i64)).unwrap_or(signal);
        let dims: Vec<Option<usize>> = x.shape().iter().map(|&d| Some(d)).collect();
        let shape = settled(self.shape(&dims, n, step)?)?;
        let (n, step, parts) = (n as usize, step as usize, x.shape()[2]);
        if window.as_ref().is_some_and(|w| w.len() != n) {
            return Err(OpError::shape(format!("a window that is not as long as frames of {n}")));
        }
        if !(1..=2).contains(&parts) || self.onesided && parts == 2 {
            let kind = if self.onesided { "1 (real) where onesided is set" } else { "1 or 2" };
            return Err(OpError::shape(format!(
                "a signal of shape {:?}; its last extent must be {kind}",
                x.shape()
            )));
        }
        let mut out = ctx.memory.filled::<f64>(&shape, 0.0)?;
        ctx.memory.check::<[f64; 8]>(&[n])?;
        let wide = convert(ctx, x.clone(), DType::F64)?;
        let (samples, length) = (wide.as_slice::<f64>()?, x.shape()[1]);
        let plan = Plan::new(n);
        for (frame, out) in out.chunks_exact_mut(shape[2] * 2).enumerate() {
            let start = frame / shape[1] * length + frame % shape[1] * step;
            let points: Vec<Complex> = (0..n)
                .map(|i| {
                    let (w, at) = (window.as_ref().map_or(1.0, |w| w[i]), (start + i) * parts);
                    (samples[at] * w, if parts == 2 { samples[at + 1] * w } else { 0.0 })
                })
                .collect();
            for (o, (re, im)) in out.chunks_exact_mut(2).zip(plan.run(&points, false)) {
                o.copy_from_slice(&[re, im]);
            }
        }
        Ok(vec![convert(ctx, Tensor::new(&shape, out)?, x.dtype())?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_are_those_of_the_definition() {
        for n in [1, 2, 3, 4, 6, 8, 12, 15, 17, 30] {
            let x: Vec<Complex> = (0..n).map(|i| (i as f64 - 2.5, 1.0 / (i + 1) as f64)).collect();
            let plan = Plan::new(n);
            let y = plan.run(&x, false);
            for (k, &(re, im)) in y.iter().enumerate() {
                let terms = x.iter().enumerate().map(|(j, &(a, b))| {
                    let (c, s) = root(j * k % n, n);
                    (c * a - s * b, c * b + s * a)
                });
                let (a, b) = terms.fold((0.0, 0.0), |(p, q), (a, b)| (p + a, q + b));
                assert!((re - a).abs() + (im - b).abs() < 1e-11, "{n} points, {k}");
            }
            for (back, x) in plan.run(&y, true).iter().zip(&x) {
                assert!((back.0 - x.0).abs() + (back.1 - x.1).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn roots_on_the_axes_are_exact() {
        assert_eq!([0, 1, 2, 3].map(|j| root(j, 4)), [(1.0, -0.0), (-0.0, -1.0), (-1.0, 0.0), (0.0, 1.0)]);
        assert_eq!(weight(400), 400 * 4 * (1 + 2 + 2 + 2 + 2 + 5 + 5));
    }
}
