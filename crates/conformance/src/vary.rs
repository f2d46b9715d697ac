//! One case made of a template.

use std::sync::Arc;

use isobit_tensor::{DType, Datum, Map, Tensor, with_data};

use crate::draw::Draw;
use crate::templates::Template;
use crate::values;

/// The operands of a case: those of the template that have its main element type, or are among `alone` where that is not empty,
/// become random ones of `dtype`.
pub(crate) fn operands(d: &mut Draw, t: &Template, dtype: Option<DType>, alone: &[usize]) -> Vec<Datum> {
    let resize = resize(d, t);
    let main = |i: usize, input: &Datum| match alone {
        [] => t.dtype(),
        alone => alone.contains(&i).then(|| input.dtype()).flatten(),
    };
    t.inputs.iter().enumerate().map(|(i, input)| vary(d, input, main(i, input), dtype, &resize)).collect()
}

/// Which extents change to which, or that a rank is lost.
enum Resize {
    None,
    Extent(usize, usize),
    Scalar(usize),
}

fn resize(d: &mut Draw, t: &Template) -> Resize {
    if !d.once_in(6) {
        return Resize::None;
    }
    let extents: Vec<usize> =
        t.inputs.iter().filter_map(Datum::as_tensor).flat_map(|t| t.shape().to_vec()).collect();
    if extents.is_empty() || d.once_in(5) {
        return Resize::Scalar(d.below(t.inputs.len().max(1)));
    }
    let from = d.pick(&extents);
    let to = d.pick(&[0, 1, from + 1, from * 2]);
    Resize::Extent(from, if to > 200 { 1 } else { to })
}

fn vary(d: &mut Draw, datum: &Datum, main: Option<DType>, dtype: Option<DType>, how: &Resize) -> Datum {
    match datum {
        Datum::Tensor(t) => tensor(d, t, main, dtype, how).into(),
        Datum::Sequence(items) => {
            Datum::sequence(items.iter().map(|i| vary(d, i, main, dtype, how)).collect())
        }
        Datum::Optional(None) => Datum::Optional(None),
        Datum::Optional(Some(v)) => Datum::Optional(Some(Arc::new(vary(d, v, main, dtype, how)))),
        Datum::Map(m) => {
            let values = m.values.iter().map(|v| vary(d, v, main, dtype, how)).collect();
            Datum::Map(Arc::new(Map { keys: m.keys.clone(), values }))
        }
    }
}

fn tensor(d: &mut Draw, t: &Tensor, main: Option<DType>, dtype: Option<DType>, how: &Resize) -> Tensor {
    if main != Some(t.dtype()) {
        return disturbed(d, t);
    }
    let dtype = dtype.unwrap_or(t.dtype());
    // Integers are often indices, extents or codes, which random ones would seldom be.
    let integral = t.dtype().is_int() || t.dtype() == DType::String;
    if integral && dtype == t.dtype() && d.coin() {
        return disturbed(d, t);
    }
    let shape: Vec<usize> = match how {
        Resize::Scalar(n) if *n == d.below(2) => Vec::new(),
        Resize::Extent(from, to) => t.shape().iter().map(|&e| if e == *from { *to } else { e }).collect(),
        _ => t.shape().to_vec(),
    };
    values::tensor(d, dtype, &shape)
}

/// The tensor itself; once in 12 times one number of it is one more or less.
fn disturbed(d: &mut Draw, t: &Tensor) -> Tensor {
    if !d.once_in(12) || t.is_empty() {
        return t.clone();
    }
    let at = d.below(t.len());
    let step = d.pick(&[-1i64, 1]);
    match t.dtype() {
        DType::I64 => change::<i64>(t, at, |v| v.wrapping_add(step)),
        DType::I32 => change::<i32>(t, at, |v| v.wrapping_add(step as i32)),
        DType::Bool => change::<bool>(t, at, |v| !v),
        DType::F32 => change::<f32>(t, at, |v| v + step as f32),
        _ => t.clone(),
    }
}

fn change<T: isobit_tensor::Element + Copy>(t: &Tensor, at: usize, f: impl Fn(T) -> T) -> Tensor {
    let mut all = t.as_slice::<T>().expect("the type that was matched").to_vec();
    all[at] = f(all[at]);
    Tensor::new(t.shape(), all).expect("the shape it had")
}

/// A copy in buffers of its own, which an operator may reuse.
pub(crate) fn fresh(datum: &Datum) -> Datum {
    match datum {
        Datum::Tensor(t) => {
            with_data!(t.data(), b => Tensor::new(t.shape(), b.to_vec())).expect("the shape it had").into()
        }
        other => other.clone(),
    }
}
