//! Features: ArrayFeatureExtractor, Binarizer, FeatureVectorizer, Imputer, Normalizer, Scaler.

use isobit_numerics::{max, sum_abs, sum_squares};
use isobit_tensor::{DType, Element, Tensor};

use super::{floats, matrix, ml};
use crate::axes::{fact, index, ints};
use crate::number::Number;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    ml("ArrayFeatureExtractor", 1, |ctx| ctx.one(Extract)),
    ml("Binarizer", 1, |ctx| ctx.one(Binarizer(ctx.float("threshold", 0.0)?))),
    ml("FeatureVectorizer", 1, vectorizer),
    ml("Imputer", 1, imputer),
    ml("Normalizer", 1, |ctx| ctx.one(normalizer(ctx)?)),
    ml("Scaler", 1, scaler),
];

/// Elements along the last axis; a vector is taken for a row.
struct Extract;

impl Op for Extract {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (x, y) = (fact(inputs, 0), fact(inputs, 1));
        let shape = x.shape.as_ref().map(|s| match &s[..] {
            [] | [_] => vec![Some(1), y.numel()],
            [lead @ .., _] => [lead, &[y.numel()]].concat(),
        });
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        fn go<T: Element>(ctx: &RunCtx<'_>, x: &Tensor, at: &[i64]) -> Result<Tensor, OpError> {
            let (lead, width) = match x.shape() {
                [] => return Err(OpError::shape("a scalar has no features")),
                [n] => (&[1][..], *n),
                [lead @ .., n] => (lead, *n),
            };
            let at = at.iter().map(|&i| index(i, width)).collect::<Result<Vec<_>, _>>()?;
            let shape = [lead, &[at.len()]].concat();
            let mut out = ctx.memory.alloc::<T>(&shape)?;
            let src = x.as_slice::<T>()?.chunks_exact(width.max(1));
            for (row, src) in out.chunks_exact_mut(at.len().max(1)).zip(src) {
                row.iter_mut().zip(&at).for_each(|(o, &i)| o.clone_from(&src[i]));
            }
            Ok(Tensor::new(&shape, out)?)
        }
        let (x, at) = (inputs.get(0)?, ints(inputs.get(1)?)?);
        Ok(vec![typed!(plain x.dtype(), T => go::<T>(ctx, x, &at))?])
    }
}

/// 1 above the threshold, else 0 (NaN included).
struct Binarizer(f32);

impl Op for Binarizer {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, _: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, threshold) = (inputs.get(0)?, f64::from(self.0));
        let out = typed!(numbers x.dtype(), T => {
            let above = |v: &T| if v.wide() > threshold { T::ONE } else { T::ZERO };
            Ok::<_, OpError>(Tensor::new(x.shape(), x.as_slice::<T>()?.iter().map(above).collect())?)
        })?;
        Ok(vec![out])
    }
}

/// Columns side by side, each operand cut or filled with 0 to its width.
struct Vectorizer(Vec<usize>);

fn vectorizer(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let widths = crate::axes::extents(ctx.opt_ints("inputdimensions")?.unwrap_or_default())?;
    let total = widths.iter().try_fold(0u64, |n, &w| n.checked_add(w as u64));
    match total.is_some_and(|n| n < 1 << 40) {
        true => ctx.one(Vectorizer(widths)),
        false => Err(OpError::attribute("inputdimensions are too large")),
    }
}

impl Op for Vectorizer {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let width = self.0.iter().sum();
        Ok(vec![Fact::new(Some(DType::F32), Some(vec![columnar(fact(inputs, 0)), Some(width)]))])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        if inputs.len() != self.0.len() {
            let message = format!("{} operands for {} inputdimensions", inputs.len(), self.0.len());
            return Err(OpError::input(message));
        }
        // A vector is a column here.
        let shape = |t: &Tensor| match *t.shape() {
            [n] => Ok((n, 1)),
            [n, c] => Ok((n, c)),
            ref other => {
                Err(OpError::shape(format!("an input of shape {other:?}; it must be [N] or [N, C]")))
            }
        };
        let n = shape(inputs.get(0)?)?.0;
        let width: usize = self.0.iter().sum();
        let mut out = ctx.memory.filled::<f32>(&[n, width], 0.0)?;
        let mut start = 0;
        for (i, &own) in self.0.iter().enumerate() {
            let x = inputs.get(i)?;
            let (rows, columns) = shape(x)?;
            if rows != n {
                return Err(OpError::shape(format!("inputs of {n} and {rows} rows")));
            }
            let data = floats(ctx, x)?;
            for (r, row) in data.chunks_exact(columns.max(1)).enumerate() {
                let take = columns.min(own);
                out[r * width + start..][..take].copy_from_slice(&row[..take]);
            }
            start += own;
        }
        Ok(vec![Tensor::new(&[n, width], out)?])
    }
}

fn columnar(f: &Fact) -> Option<usize> {
    f.shape.as_deref().and_then(|s| s.first().copied().flatten())
}

/// Elements equal to one value (NaN: all NaN) become another, one for all columns or one each.
struct Imputer {
    floats: Option<(Vec<f32>, f32)>,
    ints: Option<(Vec<i64>, i64)>,
}

fn imputer(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let floats = ctx.opt_floats("imputed_value_floats")?.filter(|v| !v.is_empty()).map(<[f32]>::to_vec);
    let ints = ctx.opt_ints("imputed_value_int64s")?.filter(|v| !v.is_empty()).map(<[i64]>::to_vec);
    if floats.is_none() && ints.is_none() {
        return Err(OpError::attribute("give imputed_value_floats or imputed_value_int64s"));
    }
    let (float, int) = (ctx.float("replaced_value_float", 0.0)?, ctx.int("replaced_value_int64", 0)?);
    ctx.one(Imputer { floats: floats.map(|v| (v, float)), ints: ints.map(|v| (v, int)) })
}

fn impute<T: Number>(x: &Tensor, values: &[T], replaced: T) -> Result<Tensor, OpError> {
    let width = x.shape().last().copied().unwrap_or(1);
    if values.len() != 1 && values.len() != width {
        return Err(OpError::shape(format!("{} imputed values for {width} columns", values.len())));
    }
    let new = x.as_slice::<T>()?.iter().enumerate().map(|(i, &v)| {
        let replace = v == replaced || v.nan() && replaced.nan();
        if replace { values[i % width.max(1) % values.len()] } else { v }
    });
    Ok(Tensor::new(x.shape(), new.collect())?)
}

impl Op for Imputer {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn run(&self, _: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let out = match (x.dtype(), &self.floats, &self.ints) {
            (DType::F32, Some((v, r)), _) => impute::<f32>(x, v, *r)?,
            (DType::F64, Some((v, r)), _) => {
                impute::<f64>(x, &v.iter().map(|&v| v.into()).collect::<Vec<f64>>(), (*r).into())?
            }
            (DType::I64, _, Some((v, r))) => impute::<i64>(x, v, *r)?,
            (DType::I32, _, Some((v, r))) => {
                let narrow = |v: i64| {
                    i32::try_from(v)
                        .map_err(|_| OpError::attribute(format!("{v} is no int32, as the input is")))
                };
                impute::<i32>(x, &v.iter().map(|&v| narrow(v)).collect::<Result<Vec<_>, _>>()?, narrow(*r)?)?
            }
            (t, _, _) => return Err(OpError::input(format!("no imputed values for elements of type {t}"))),
        };
        Ok(vec![out])
    }
}

/// Each row divided by its largest element, 32-lane sum of magnitudes, or root of the 32-lane sum of squares; a divisor
/// of 0 leaves it.
#[derive(Clone, Copy)]
enum Normalizer {
    Max,
    L1,
    L2,
}

fn normalizer(ctx: &BuildCtx<'_>) -> Result<Normalizer, OpError> {
    ctx.choice("norm", &[("MAX", Normalizer::Max), ("L1", Normalizer::L1), ("L2", Normalizer::L2)])
}

impl Op for Normalizer {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(Some(DType::F32), fact(inputs, 0).shape.clone())])
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(2))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let (_, width) = matrix(x.shape())?;
        let mut data = floats(ctx, x)?;
        for row in data.chunks_exact_mut(width.max(1)) {
            let divisor = match self {
                Normalizer::Max => row.iter().copied().fold(f32::NEG_INFINITY, max),
                Normalizer::L1 => sum_abs(row.iter().copied()),
                Normalizer::L2 => sum_squares(row.iter().copied()).sqrt(),
            };
            if divisor != 0.0 {
                row.iter_mut().for_each(|v| *v /= divisor);
            }
        }
        Ok(vec![Tensor::new(x.shape(), data)?])
    }
}

/// (x - offset) * scale, one for all columns or one each.
struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

fn scaler(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let list = |name: &str, default: f32| -> Result<Vec<f32>, OpError> {
        Ok(ctx.opt_floats(name)?.filter(|v| !v.is_empty()).map_or_else(|| vec![default], <[f32]>::to_vec))
    };
    ctx.one(Scaler { offset: list("offset", 0.0)?, scale: list("scale", 1.0)? })
}

impl Op for Scaler {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(Some(DType::F32), fact(inputs, 0).shape.clone())])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let width = x.shape().last().copied().unwrap_or(1);
        for (name, list) in [("offset", &self.offset), ("scale", &self.scale)] {
            if list.len() != 1 && list.len() != width {
                return Err(OpError::shape(format!("{name} has {} numbers for {width} columns", list.len())));
            }
        }
        let mut data = floats(ctx, x)?;
        for (i, v) in data.iter_mut().enumerate() {
            let c = i % width.max(1);
            *v = (*v - self.offset[c % self.offset.len()]) * self.scale[c % self.scale.len()];
        }
        Ok(vec![Tensor::new(x.shape(), data)?])
    }
}
