use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use isobit_graph::Graph;
use isobit_node::tensor_from_json;
use isobit_tensor::{DType, Tensor};
use serde_json::Value as Json;

use super::Named;

/// Deepest nesting of arrays that is read (no tensor has more dimensions).
const MAX_DEPTH: usize = 64;

/// `{"name": [[1, 2], [3, 4]], ...}`, or for each name `{"dtype", "shape", "data": [flat]}`.
/// Without a `dtype` the model's own is used.
pub(super) fn read(path: &Path, graph: &Graph) -> Result<Named> {
    let json: Json = serde_json::from_slice(&std::fs::read(path)?)?;
    parse(&json, graph)
}

pub(crate) fn parse(json: &Json, graph: &Graph) -> Result<Named> {
    let object = json.as_object().context("expected an object: {\"input name\": array, ...}")?;
    object
        .iter()
        .map(|(name, value)| {
            let declared = graph.inputs.iter().map(|&v| graph.value(v)).find(|v| &v.name == name);
            let declared = declared.and_then(|v| v.dtype);
            let tensor = tensor(value, declared).with_context(|| format!("input '{name}'"))?;
            Ok((name.clone(), tensor))
        })
        .collect()
}

fn tensor(value: &Json, declared: Option<DType>) -> Result<Tensor> {
    if let Some(object) = value.as_object() {
        let dtype = match object.get("dtype").and_then(Json::as_str) {
            Some(name) => DType::ALL.iter().copied().find(|d| d.name() == name),
            None => declared,
        };
        let dtype = dtype.ok_or_else(|| anyhow!("\"dtype\" is missing or unknown; e.g. \"float32\""))?;
        let shape = object.get("shape").and_then(Json::as_array).context("\"shape\" must be an array")?;
        let shape = shape
            .iter()
            .map(|d| d.as_u64().and_then(|d| usize::try_from(d).ok()).context("\"shape\" holds a non-extent"))
            .collect::<Result<Vec<_>>>()?;
        let data = object.get("data").and_then(Json::as_array).context("\"data\" must be a flat array")?;
        return elements(dtype, &shape, data.iter().collect());
    }
    let mut shape = Vec::new();
    let mut at = value;
    while let Some(items) = at.as_array() {
        if shape.len() == MAX_DEPTH {
            bail!("nested deeper than {MAX_DEPTH}");
        }
        shape.push(items.len());
        let Some(first) = items.first() else { break };
        at = first;
    }
    let mut flat = Vec::new();
    flatten(value, &shape, &mut flat)?;
    let dtype = declared.ok_or_else(|| anyhow!("the model has no such input"))?;
    elements(dtype, &shape, flat)
}

fn flatten<'j>(value: &'j Json, shape: &[usize], out: &mut Vec<&'j Json>) -> Result<()> {
    let Some((&extent, rest)) = shape.split_first() else {
        out.push(value);
        return Ok(());
    };
    match value.as_array() {
        Some(items) if items.len() == extent => items.iter().try_for_each(|v| flatten(v, rest, out)),
        _ => bail!("rows of unequal length; the first row says {extent}"),
    }
}

fn elements(dtype: DType, shape: &[usize], data: Vec<&Json>) -> Result<Tensor> {
    tensor_from_json(dtype, shape, &data).map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_graph::Value;

    fn graph() -> Graph {
        let mut g = Graph::default();
        let x =
            g.add_value(Value { name: "x".into(), dtype: Some(DType::F32), shape: None, ..Value::default() });
        g.inputs.push(x);
        g
    }

    #[test]
    fn nested_and_flat_forms_agree() {
        let nested = serde_json::json!({"x": [[1, 2.5], [3, -4]]});
        let flat = serde_json::json!({"x": {"dtype": "float32", "shape": [2, 2], "data": [1, 2.5, 3, -4]}});
        let expected = vec![("x".to_owned(), Tensor::new(&[2, 2], vec![1f32, 2.5, 3.0, -4.0]).unwrap())];
        assert_eq!(parse(&nested, &graph()).unwrap(), expected);
        assert_eq!(parse(&flat, &graph()).unwrap(), expected);
    }

    #[test]
    fn wrong_forms_say_why() {
        for (json, text) in [
            (serde_json::json!([1]), "expected an object"),
            (serde_json::json!({"x": [[1], [2, 3]]}), "unequal length"),
            (serde_json::json!({"x": ["a"]}), "is no float32"),
            (serde_json::json!({"y": [1]}), "no such input"),
            (serde_json::json!({"x": {"shape": [3], "data": [1]}}), "does not match"),
        ] {
            let error = format!("{:#}", parse(&json, &graph()).unwrap_err());
            assert!(error.contains(text), "{error}");
        }
    }
}
