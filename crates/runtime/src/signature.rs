//! Whether what a caller gives is what a model's signature asks for.

use std::collections::BTreeMap;

use isobit_graph::{Dim, Graph, Type, Value};
use isobit_tensor::{DType, Datum};

use crate::RunError;

/// Puts inputs in the model's order, checked against its signature.
pub(crate) fn bind(graph: &Graph, inputs: Vec<(String, Datum)>) -> Result<Vec<Datum>, RunError> {
    let names = || graph.inputs.iter().map(|v| graph.value(*v).name.as_str()).collect::<Vec<_>>().join(", ");
    let mut given: BTreeMap<String, Datum> = BTreeMap::new();
    for (name, datum) in inputs {
        if !graph.inputs.iter().any(|v| graph.value(*v).name == name) {
            let message = format!("the model has no such input; it takes: {}", names());
            return Err(RunError::Input { name, message });
        }
        if given.contains_key(&name) {
            return Err(RunError::Input { name, message: "given twice".into() });
        }
        given.insert(name, datum);
    }
    let mut symbols: BTreeMap<&str, usize> = BTreeMap::new();
    let mut bound = Vec::with_capacity(graph.inputs.len());
    for &v in &graph.inputs {
        let value = graph.value(v);
        let error = |message: String| RunError::Input { name: value.name.clone(), message };
        let datum = given.remove(&value.name);
        let datum = datum.ok_or_else(|| error(format!("missing; the model takes: {}", names())))?;
        check(value, &datum, &mut symbols).map_err(error)?;
        bound.push(datum);
    }
    Ok(bound)
}

fn check<'m>(value: &'m Value, datum: &Datum, symbols: &mut BTreeMap<&'m str, usize>) -> Result<(), String> {
    if let Some(declared) = &value.container {
        return match fits(declared, datum) {
            true => Ok(()),
            false => Err(format!("expected {declared}, got {}", datum.kind())),
        };
    }
    let Datum::Tensor(tensor) = datum else {
        return Err(format!("expected a tensor, got {}", datum.kind()));
    };
    if let Some(dtype) = value.dtype.filter(|&d| d != tensor.dtype()) {
        return Err(format!("expected {dtype}, got {}", tensor.dtype()));
    }
    match &value.shape {
        Some(shape) => check_shape(shape, tensor.shape(), symbols),
        None => Ok(()),
    }
}

/// Whether a value is of a type; extents inside of containers are not compared.
fn fits(declared: &Type, datum: &Datum) -> bool {
    match (declared, datum) {
        (Type::Tensor { dtype, .. }, Datum::Tensor(t)) => dtype.is_none_or(|d: DType| d == t.dtype()),
        (Type::Sequence(t), Datum::Sequence(items)) => items.iter().all(|item| fits(t, item)),
        (Type::Optional(t), Datum::Optional(value)) => value.as_ref().is_none_or(|v| fits(t, v)),
        // A value where one may be missing.
        (Type::Optional(t), other) => fits(t, other),
        (Type::Map { key, value }, Datum::Map(m)) => {
            m.keys.dtype() == *key
                && m.keys.len() == m.values.len()
                && m.values.iter().all(|v| fits(value, v))
        }
        _ => false,
    }
}

/// Compares a shape with its declaration; a symbol stands for one number throughout.
fn check_shape<'m>(
    declared: &'m [Dim],
    shape: &[usize],
    symbols: &mut BTreeMap<&'m str, usize>,
) -> Result<(), String> {
    let text = || {
        let dims = declared.iter().map(|d| match d {
            Dim::Known(n) => n.to_string(),
            Dim::Symbol(s) => s.clone(),
            Dim::Unknown => "?".into(),
        });
        format!("expected shape [{}], got {shape:?}", dims.collect::<Vec<_>>().join(", "))
    };
    if declared.len() != shape.len() {
        return Err(text());
    }
    for (d, &n) in declared.iter().zip(shape) {
        match d {
            Dim::Known(k) if *k != n => return Err(text()),
            Dim::Symbol(s) => {
                let bound = *symbols.entry(s).or_insert(n);
                if bound != n {
                    return Err(format!("{}; {s} is {bound} elsewhere", text()));
                }
            }
            _ => {}
        }
    }
    Ok(())
}
