use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use isobit_graph::{Graph, Model, ModelObject, ValueId};
use isobit_runtime::infer;

use crate::{model, output, tensors};

/// Show what a model is: signature, operators, parameters, cost, address.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An ONNX file or a model object directory.
    model: PathBuf,
    /// Extent of a symbolic dimension, for the cost; 1 unless given.
    #[arg(long = "dim", value_name = "NAME=N", value_parser = super::run::parse_dim)]
    dims: Vec<(String, usize)>,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let model = model::open(&args.model)?;
    let object = ModelObject::from_model(&model)?;
    let mut dims = symbols(&model.graph);
    dims.extend(args.dims);
    let inference = infer(&model, &dims);
    let cost = inference.cost();
    let operators = operators(&model);
    let parameters: usize = model.graph.initializers.values().map(|t| t.len()).sum();
    let bytes: usize = model.graph.initializers.values().map(|t| t.byte_len()).sum();
    if json {
        output::json(&serde_json::json!({
            "address": object.address().to_string(),
            "opsets": model.opsets, "producer": model.producer,
            "inputs": signature_json(&model.graph, &model.graph.inputs),
            "outputs": signature_json(&model.graph, &model.graph.outputs),
            "nodes": model.graph.nodes.len(), "operators": operators,
            "parameters": parameters, "weight_bytes": bytes,
            "cost": cost, "dims": dims,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("address     {}", object.address()));
    let opsets =
        model.opsets.iter().map(|(d, v)| format!("{} {v}", if d.is_empty() { "ai.onnx" } else { d }));
    output::line(&format!("opsets      {}", opsets.collect::<Vec<_>>().join(", ")));
    signature(&model.graph, "inputs ", &model.graph.inputs);
    signature(&model.graph, "outputs", &model.graph.outputs);
    output::line(&format!(
        "parameters  {} ({} bytes)",
        output::thousands(parameters as u64),
        output::thousands(bytes as u64)
    ));
    let bound = dims.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(", ");
    let bound = if bound.is_empty() { bound } else { format!(" at {bound}") };
    output::line(&match cost {
        Some(cost) => format!("cost        {} units{bound}", output::thousands(cost)),
        None => "cost        known only once it runs (shapes depend on values)".to_owned(),
    });
    output::line(&format!("nodes       {}", model.graph.nodes.len()));
    let mut rows = vec![vec!["operator".to_owned(), "count".to_owned()]];
    rows.extend(operators.iter().map(|(op, n)| vec![op.clone(), n.to_string()]));
    output::line(output::table(&rows).trim_end());
    if !inference.errors.is_empty() {
        output::line(&format!("{} nodes cannot run here; see `isobit check`", inference.errors.len()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Every symbol of the inputs' shapes, at 1.
fn symbols(graph: &Graph) -> BTreeMap<String, usize> {
    let shapes = graph.inputs.iter().filter_map(|&v| graph.value(v).shape.as_ref());
    shapes
        .flatten()
        .filter_map(|d| match d {
            isobit_graph::Dim::Symbol(s) => Some((s.clone(), 1)),
            _ => None,
        })
        .collect()
}

fn operators(model: &Model) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in &model.graph.nodes {
        *counts.entry(node.qualified()).or_insert(0) += 1;
    }
    counts
}

fn signature(graph: &Graph, title: &str, values: &[ValueId]) {
    for (i, &v) in values.iter().enumerate() {
        let value = graph.value(v);
        let dtype = value.dtype.map_or("?", |d| d.name());
        let title = if i == 0 { title } else { "       " };
        output::line(&format!("{title}     {}: {dtype} {}", value.name, tensors::shape_text(value)));
    }
}

fn signature_json(graph: &Graph, values: &[ValueId]) -> Vec<serde_json::Value> {
    let of = |&v: &ValueId| {
        let value = graph.value(v);
        serde_json::json!({
            "name": value.name, "dtype": value.dtype.map(|d| d.name()), "shape": tensors::shape_text(value),
        })
    };
    values.iter().map(of).collect()
}
