use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use isobit_graph::ModelObject;
use isobit_node::{Client, is_registered, publish_model};
use isobit_runtime::check;

use crate::{home, model, output};

/// Publish a model: store its canonical form, register its address.
///
/// The address depends on nothing but the model's meaning: the same model from another file has the same address.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// An ONNX file or a model object directory.
    model: PathBuf,
    /// Name for people; the file's name unless given.
    #[arg(long)]
    name: Option<String>,
    /// Only write the model object (model.onnx, weights.bin, manifest.json) to this folder.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    #[command(flatten)]
    network: home::Network,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let model = model::open(&args.model)?;
    let issues = check(&model);
    if let Some(first) = issues.first() {
        bail!(
            "{first_node}: {e} ({n} nodes in all; `isobit check` lists them)",
            first_node = first.node,
            e = first.error,
            n = issues.len()
        );
    }
    let object = ModelObject::from_model(&model)?;
    let address = object.address();
    if let Some(dir) = &args.to {
        object.write_dir(dir)?;
    } else {
        let gateway = args.network.gateway();
        publish_model(&gateway, &object)?;
        if !is_registered(&gateway, &object)? {
            let stem = args.model.file_stem().map(|s| s.to_string_lossy().into_owned());
            let name = args.name.or(stem).unwrap_or_else(|| "model".into());
            Client::new(&gateway, args.network.key()?)?.register(&object, &name)?;
        }
    }
    if json {
        output::json(&serde_json::json!({ "model": address.to_string() }));
    } else {
        output::line(&format!("published {address}"));
    }
    Ok(ExitCode::SUCCESS)
}
