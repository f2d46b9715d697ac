//! Categories: LabelEncoder, CategoryMapper, OneHotEncoder.

use std::collections::BTreeMap;

use isobit_tensor::{DType, Tensor};

use super::labels::Labels;
use super::ml;
use crate::axes::fact;
use crate::cast::convert;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    ml("LabelEncoder", 4, label_encoder),
    ml("CategoryMapper", 1, category_mapper),
    ml("OneHotEncoder", 1, one_hot),
];

/// A category. Floats are compared by value: all NaN are one, and so are the zeros.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Int(i64),
    Bits(u64),
    Text(String),
}

fn keys(ctx: Option<&RunCtx<'_>>, t: &Tensor) -> Result<Vec<Key>, OpError> {
    let float = |x: f64| match x {
        x if x.is_nan() => Key::Bits(u64::MAX),
        0.0 => Key::Bits(0),
        x => Key::Bits(x.to_bits()),
    };
    Ok(match (t.dtype(), ctx) {
        (DType::String, _) => t.as_slice::<String>()?.iter().map(|s| Key::Text(s.clone())).collect(),
        (DType::F32, _) => t.as_slice::<f32>()?.iter().map(|&x| float(x.into())).collect(),
        (DType::F64, _) => t.as_slice::<f64>()?.iter().map(|&x| float(x)).collect(),
        (DType::I64, _) => t.as_slice::<i64>()?.iter().map(|&x| Key::Int(x)).collect(),
        (DType::I32, _) => t.as_slice::<i32>()?.iter().map(|&x| Key::Int(x.into())).collect(),
        (DType::I16, _) => t.as_slice::<i16>()?.iter().map(|&x| Key::Int(x.into())).collect(),
        (DType::Bool, Some(ctx)) => keys(None, &convert(ctx, t.clone(), DType::I32)?)?,
        (other, _) => return Err(OpError::unsupported_type(other)),
    })
}

/// Looks each element up among the keys; of equal keys the last holds.
struct Lookup {
    from: DType,
    index: BTreeMap<Key, usize>,
    values: Tensor,
    /// One element, for what is not found.
    default: Tensor,
}

impl Lookup {
    fn new(keys_of: Tensor, values: Tensor, default: Tensor) -> Result<Self, OpError> {
        if keys_of.len() != values.len() {
            return Err(OpError::attribute(format!("{} keys for {} values", keys_of.len(), values.len())));
        }
        if default.dtype() != values.dtype() || default.len() != 1 {
            return Err(OpError::attribute(format!("the default must be one {}", values.dtype())));
        }
        let index = keys(None, &keys_of)?.into_iter().enumerate().map(|(i, k)| (k, i)).collect();
        Ok(Self { from: keys_of.dtype(), index, values, default })
    }
}

/// A list attribute as a tensor: the plain names or `_tensor`.
fn list(ctx: &BuildCtx<'_>, prefix: &str) -> Result<Tensor, OpError> {
    let name = |kind: &str| format!("{prefix}_{kind}");
    let strings =
        ctx.opt_strs(&name("strings"))?.map(|v| v.into_iter().map(str::to_owned).collect::<Vec<_>>());
    let found: Vec<Tensor> = [
        ctx.opt_tensor(&name("tensor"))?.cloned(),
        ctx.opt_ints(&name("int64s"))?.map(|v| Tensor::vector(v.to_vec())),
        ctx.opt_floats(&name("floats"))?.map(|v| Tensor::vector(v.to_vec())),
        strings.map(Tensor::vector),
    ]
    .into_iter()
    .flatten()
    .filter(|t| !t.is_empty())
    .collect();
    match <[Tensor; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(_) => {
            Err(OpError::attribute(format!("give one of {prefix}_int64s, _floats, _strings and _tensor")))
        }
    }
}

fn label_encoder(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    // The form of version 1: strings to their positions, or back.
    if let Some(classes) = ctx.opt_strs("classes_strings")? {
        let classes: Vec<String> = classes.into_iter().map(str::to_owned).collect();
        let texts = Tensor::vector(classes.clone());
        let ids = Tensor::vector((0..classes.len() as i64).collect());
        return both_ways(ctx, texts, ids);
    }
    let values = list(ctx, "values")?;
    let default = match (ctx.opt_tensor("default_tensor")?, values.dtype()) {
        (Some(t), _) => t.clone(),
        (None, DType::String) => Tensor::scalar(ctx.str("default_string", "_Unused")?.to_owned()),
        (None, DType::F32) => Tensor::scalar(ctx.float("default_float", -0.0)?),
        (None, DType::F64) => Tensor::scalar(f64::from(ctx.float("default_float", -0.0)?)),
        (None, DType::I64) => Tensor::scalar(ctx.int("default_int64", -1)?),
        (None, DType::I32) => Tensor::scalar(ctx.int("default_int64", -1)? as i32),
        (None, DType::I16) => Tensor::scalar(ctx.int("default_int64", -1)? as i16),
        (None, other) => return Err(OpError::unsupported_type(other)),
    };
    ctx.one(Lookup::new(list(ctx, "keys")?, values, default)?)
}

impl Op for Lookup {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|&t| t != self.from) {
            return Err(OpError::input(format!("elements of type {t}; the keys are {}", self.from)));
        }
        Ok(vec![Fact::new(Some(self.values.dtype()), x.shape.clone())])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        if x.dtype() != self.from {
            return Err(OpError::input(format!(
                "elements of type {}; the keys are {}",
                x.dtype(),
                self.from
            )));
        }
        let at: Vec<Option<usize>> = keys(Some(ctx), x)?.iter().map(|k| self.index.get(k).copied()).collect();
        let out = crate::typed::typed!(plain self.values.dtype(), T => {
            let (values, default) = (self.values.as_slice::<T>()?, self.default.as_slice::<T>()?);
            let mut out = ctx.memory.alloc::<T>(x.shape())?;
            out.iter_mut().zip(at).for_each(|(o, i)| o.clone_from(i.map_or(&default[0], |i| &values[i])));
            Ok::<_, OpError>(Tensor::new(x.shape(), out)?)
        })?;
        Ok(vec![out])
    }
}

/// Strings to integers or back, whichever the operand holds.
struct BothWays {
    to_ints: Lookup,
    to_texts: Lookup,
}

fn both_ways(ctx: &BuildCtx<'_>, texts: Tensor, ids: Tensor) -> Result<Box<dyn Op>, OpError> {
    let (id, text) = (ctx.int("default_int64", -1)?, ctx.str("default_string", "_Unused")?.to_owned());
    ctx.one(BothWays {
        to_ints: Lookup::new(texts.clone(), ids.clone(), Tensor::scalar(id))?,
        to_texts: Lookup::new(ids, texts, Tensor::scalar(text))?,
    })
}

fn category_mapper(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let texts = ctx.opt_strs("cats_strings")?.unwrap_or_default().into_iter().map(str::to_owned).collect();
    let ids = ctx.opt_ints("cats_int64s")?.unwrap_or_default().to_vec();
    both_ways(ctx, Tensor::vector(texts), Tensor::vector(ids))
}

impl BothWays {
    fn way(&self, dtype: DType) -> &Lookup {
        if dtype == DType::String { &self.to_ints } else { &self.to_texts }
    }
}

impl Op for BothWays {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        match x.dtype {
            Some(t) => self.way(t).infer(inputs),
            None => Ok(vec![Fact::new(None, x.shape.clone())]),
        }
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        self.way(inputs.get(0)?.dtype()).run(ctx, inputs)
    }
}

/// A new last axis, 1 at the element's category.
struct OneHot {
    index: BTreeMap<Key, usize>,
    text: bool,
    width: usize,
    /// Whether an element of no category gives zeros rather than an error.
    zeros: bool,
}

fn one_hot(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let cats = Labels::needed(ctx, "cats_int64s", "cats_strings")?;
    let index = keys(None, &cats.tensor())?.into_iter().enumerate().map(|(i, k)| (k, i)).collect();
    let text = cats.dtype() == DType::String;
    ctx.one(OneHot { index, text, width: cats.len(), zeros: ctx.flag("zeros", true)? })
}

impl Op for OneHot {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let shape = fact(inputs, 0).shape.as_ref().map(|s| [&s[..], &[Some(self.width)]].concat());
        Ok(vec![Fact::new(Some(DType::F32), shape)])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        // Integers are the categories of numbers; floats are cut to integers.
        let whole = match x.dtype() {
            DType::String if self.text => x.clone(),
            t if self.text || t == DType::String => return Err(OpError::unsupported_type(t)),
            _ => convert(ctx, x.clone(), DType::I64)?,
        };
        let shape = [x.shape(), &[self.width]].concat();
        let mut out = ctx.memory.filled::<f32>(&shape, 0.0)?;
        for (row, key) in out.chunks_exact_mut(self.width.max(1)).zip(keys(None, &whole)?) {
            match self.index.get(&key) {
                Some(&i) => row[i] = 1.0,
                None if self.zeros => {}
                None => return Err(OpError::input(format!("{key:?} is no category"))),
            }
        }
        Ok(vec![Tensor::new(&shape, out)?])
    }
}
