use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use isobit_runtime::check;

use crate::{model, output};

/// Say whether every operator and type of a model is executable here.
///
/// Every obstacle is listed at once, with the node's name, operator and opset. Exit code 0: it runs
/// here and, because execution is defined to the bit, on every other node; 1: it does not; 2: the file
/// cannot be read as a model.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An ONNX file or a model object directory.
    model: PathBuf,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let model = model::open(&args.model)?;
    let issues = check(&model);
    if json {
        let list = issues.iter().map(|i| {
            serde_json::json!({
                "step": i.node.step, "op": i.node.op, "name": i.node.name, "opset": i.node.opset,
                "code": i.code().name(), "message": i.error.message,
            })
        });
        output::json(&serde_json::json!({
            "executable": issues.is_empty(), "nodes": model.graph.nodes.len(),
            "issues": list.collect::<Vec<_>>(),
        }));
    } else if issues.is_empty() {
        output::line(&format!("executable: all {} nodes can run here", model.graph.nodes.len()));
    } else {
        for issue in &issues {
            output::line(&format!("{}: {}", issue.node, issue.error));
        }
        output::line(&format!(
            "not executable: {} of {} nodes cannot run here",
            issues.len(),
            model.graph.nodes.len()
        ));
    }
    Ok(if issues.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
