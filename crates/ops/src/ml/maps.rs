//! Maps: ZipMap, DictVectorizer, CastMap.

use std::collections::BTreeMap;
use std::sync::Arc;

use isobit_tensor::{DType, Datum, Map, Tensor};

use super::labels::Labels;
use super::{matrix, ml};
use crate::cast::convert;
use crate::concat::concat;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    ml("ZipMap", 1, |ctx| ctx.one(ZipMap(Labels::needed(ctx, "classlabels_int64s", "classlabels_strings")?))),
    ml("DictVectorizer", 1, |ctx| {
        ctx.one(Vectorizer(Labels::needed(ctx, "int64_vocabulary", "string_vocabulary")?))
    }),
    ml("CastMap", 1, cast_map),
];

/// A map a row: from the labels to the scalars of its columns.
struct ZipMap(Labels);

impl Op for ZipMap {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::unknown()])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        crate::axes::fact(inputs, 0).numel().unwrap_or(0) as u64
    }

    fn run_any(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        let x = inputs.get(0)?;
        let (n, columns) = matrix(x.shape())?;
        if columns != self.0.len() {
            return Err(OpError::shape(format!("{columns} columns for {} labels", self.0.len())));
        }
        // A scalar tensor costs far more than its bytes.
        ctx.memory.check::<[u64; 32]>(&[n, columns])?;
        let keys = self.0.tensor();
        let maps = x.as_slice::<f32>()?.chunks_exact(columns.max(1)).map(|row| {
            let values = row.iter().map(|&v| Tensor::scalar(v).into()).collect();
            Datum::Map(Arc::new(Map { keys: keys.clone(), values }))
        });
        Ok(vec![Datum::sequence(maps.collect())])
    }
}

fn map(inputs: &Inputs) -> Result<&Map, OpError> {
    match inputs.datum(0) {
        Some(Datum::Map(m)) => Ok(m),
        Some(other) => Err(OpError::input(format!("input 0 is {}; a map is expected", other.kind()))),
        None => Err(OpError::input("input 0 is missing")),
    }
}

/// A map's values as one-element tensors.
fn values(m: &Map) -> Result<Vec<Tensor>, OpError> {
    m.values
        .iter()
        .map(|v| match v.as_tensor() {
            Some(t) if t.len() == 1 => Ok(t.clone().reshape(&[1])?),
            _ => Err(OpError::input("a map whose values are not single numbers or strings")),
        })
        .collect()
}

/// The map's values in the order of the vocabulary, zeros or empty strings for those it lacks; [1, vocabulary].
struct Vectorizer(Labels);

impl Op for Vectorizer {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(None, Some(vec![Some(1), Some(self.0.len())]))])
    }

    fn cost(&self, _: &[Option<Fact>], _: &[Fact]) -> u64 {
        self.0.len() as u64
    }

    fn run_any(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        let m = map(&inputs)?;
        let parts = values(m)?;
        let Some(first) = parts.first() else {
            return Err(OpError::input("a map without entries, whose values have no type"));
        };
        let zero = Tensor::zeros(first.dtype(), &[1])?;
        let at = |wanted: usize| -> Option<usize> {
            match (&self.0, m.keys.dtype()) {
                (Labels::Ints(v), DType::I64) => {
                    m.keys.as_slice::<i64>().ok()?.iter().position(|k| *k == v[wanted])
                }
                (Labels::Strings(v), DType::String) => {
                    m.keys.as_slice::<String>().ok()?.iter().position(|k| *k == v[wanted])
                }
                _ => None,
            }
        };
        if m.keys.dtype() != self.0.dtype() {
            return Err(OpError::input(format!(
                "keys of {}; the vocabulary is {}",
                m.keys.dtype(),
                self.0.dtype()
            )));
        }
        let found: Vec<Option<usize>> = (0..self.0.len()).map(at).collect();
        if let Some(missing) = (0..parts.len()).find(|i| !found.contains(&Some(*i))) {
            return Err(OpError::input(format!("entry {missing} of the map is not in the vocabulary")));
        }
        let all: Vec<&Tensor> = found.iter().map(|i| i.map_or(&zero, |i| &parts[i])).collect();
        let row = concat(ctx, &all, 0)?;
        Ok(vec![row.reshape(&[1, self.0.len()])?.into()])
    }
}

/// The values by ascending key: all of them side by side, or each at its key among zeros; [1, n].
struct CastMap {
    to: DType,
    /// The length of the sparse form.
    sparse: Option<usize>,
}

fn cast_map(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let to = ctx.choice(
        "cast_to",
        &[("TO_FLOAT", DType::F32), ("TO_STRING", DType::String), ("TO_INT64", DType::I64)],
    )?;
    let length = ctx.int("max_map", 1)?;
    let sparse = match ctx.choice("map_form", &[("DENSE", false), ("SPARSE", true)])? {
        false => None,
        true => Some(usize::try_from(length).map_err(|_| OpError::attribute("max_map must be positive"))?),
    };
    ctx.one(CastMap { to, sparse })
}

impl Op for CastMap {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(Some(self.to), Some(vec![Some(1), self.sparse]))])
    }

    fn cost(&self, _: &[Option<Fact>], _: &[Fact]) -> u64 {
        self.sparse.unwrap_or(1) as u64
    }

    fn run_any(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        let m = map(&inputs)?;
        let cast = |t: Tensor| convert(ctx, t, self.to);
        let entries = m.keys.as_slice::<i64>()?.iter().copied().zip(values(m)?);
        let sorted: BTreeMap<i64, Tensor> =
            entries.map(|(k, v)| Ok((k, cast(v)?))).collect::<Result<_, OpError>>()?;
        let length = self.sparse.unwrap_or(sorted.len());
        ctx.memory.check::<[u64; 3]>(&[length])?;
        let Some(length_of) = self.sparse else {
            let all: Vec<&Tensor> = sorted.values().collect();
            let empty = Tensor::zeros(self.to, &[0])?;
            let row = if all.is_empty() { empty } else { concat(ctx, &all, 0)? };
            return Ok(vec![row.reshape(&[1, length])?.into()]);
        };
        let zero = cast(Tensor::vector(vec![0i64]))?;
        if let Some(k) = sorted.keys().find(|&&k| k < 0 || k >= length_of as i64) {
            return Err(OpError::index(format!("key {k}; accepted: 0 up to, not including, {length_of}")));
        }
        let all: Vec<&Tensor> = (0..length_of as i64).map(|k| sorted.get(&k).unwrap_or(&zero)).collect();
        let row = if all.is_empty() { Tensor::zeros(self.to, &[0])? } else { concat(ctx, &all, 0)? };
        Ok(vec![row.reshape(&[1, length])?.into()])
    }
}
