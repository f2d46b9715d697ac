//! Tensors in and out of files: `.npy`, `.npz`, `.safetensors`, `.json`, and seeded random ones.

mod json;
mod numpy;
mod random;
mod safetensors;

use std::path::Path;

use anyhow::{Context, Result, bail};
use isobit_graph::{Dim, Graph, Value};
use isobit_tensor::Tensor;

pub(crate) use self::random::random_inputs;
pub(crate) use self::safetensors::parse as parse_safetensors;

/// Named tensors, in order of name where a file has no order of its own.
pub(crate) type Named = Vec<(String, Tensor)>;

/// Reads tensors for the inputs of `graph` from a file or from `NAME=FILE.npy`.
pub(crate) fn read_inputs(specs: &[String], graph: &Graph) -> Result<Named> {
    let mut all = Named::new();
    for spec in specs {
        let (name, path) = match spec.split_once('=') {
            Some((name, path)) if !Path::new(spec).exists() => (Some(name), Path::new(path)),
            _ => (None, Path::new(spec.as_str())),
        };
        let tensors = read(path, name, graph).with_context(|| format!("cannot read {}", path.display()))?;
        all.extend(tensors);
    }
    Ok(all)
}

fn read(path: &Path, name: Option<&str>, graph: &Graph) -> Result<Named> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    let mut tensors = match extension {
        "npy" => {
            let only = match (name, graph.inputs.as_slice()) {
                (Some(name), _) => name.to_owned(),
                (None, [one]) => graph.value(*one).name.clone(),
                (None, _) => {
                    bail!("the model has several inputs; say which: --input NAME={}", path.display())
                }
            };
            return Ok(vec![(only, numpy::read_npy(path)?)]);
        }
        "npz" => numpy::read_npz(path)?,
        "safetensors" => self::safetensors::read(path)?,
        "json" => json::read(path, graph)?,
        _ => bail!("unknown tensor file '.{extension}'; give .npy, .npz, .safetensors or .json"),
    };
    if let Some(name) = name {
        if tensors.len() != 1 {
            bail!("NAME=FILE needs a file with one tensor; this one has {}", tensors.len());
        }
        tensors[0].0 = name.to_owned();
    }
    Ok(tensors)
}

/// Writes tensors as `.npz` or `.safetensors`, by the file's extension.
pub(crate) fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "npz" => numpy::write_npz(path, tensors),
        "safetensors" => self::safetensors::write(path, tensors),
        other => bail!("cannot write '.{other}'; give .npz or .safetensors"),
    }
    .with_context(|| format!("cannot write {}", path.display()))
}

/// `[batch, 3, 224, 224]`.
pub(crate) fn shape_text(value: &Value) -> String {
    let Some(shape) = &value.shape else { return "[...]".into() };
    let dims = shape.iter().map(|d| match d {
        Dim::Known(n) => n.to_string(),
        Dim::Symbol(s) => s.clone(),
        Dim::Unknown => "?".into(),
    });
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}

/// The first elements, for people.
pub(crate) fn preview(tensor: &Tensor, most: usize) -> String {
    let text: Vec<String> = isobit_tensor::with_data!(tensor.data(), b => {
        b.iter().take(most).map(|v| format!("{v:?}")).collect()
    });
    let more = if tensor.len() > most { ", ..." } else { "" };
    format!("[{}{more}]", text.join(", "))
}
