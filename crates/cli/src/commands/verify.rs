use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use isobit_graph::{Model, ModelObject};
use isobit_proof::{Outcome, SignedReceipt, tensors_root};
use isobit_runtime::{KernelSet, Limits, Options, RunOptions, Session};
use isobit_tensor::Tensor;

use crate::tensors::{self, Named};
use crate::{model, output};

/// Check a receipt offline: run its job again and compare, field by field.
///
/// Nothing is asked of any network. Exit code 0: every field holds; 1: some field does not; 2: a file cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isobit verify receipt.json --model model.onnx --input input.safetensors")]
pub(crate) struct Args {
    /// The receipt.
    receipt: PathBuf,
    /// The model: an ONNX file or a model object directory.
    #[arg(long)]
    model: PathBuf,
    /// The job's inputs: FILE (.npz, .safetensors, .json), or NAME=FILE.npy. May be repeated.
    #[arg(short, long = "input", value_name = "[NAME=]FILE")]
    inputs: Vec<String>,
    /// Kernel set; by default the fastest of this machine.
    #[arg(long, value_name = "SET")]
    kernels: Option<KernelSet>,
    /// Threads; by default all cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

/// One field of the receipt and whether it holds.
struct Field {
    name: &'static str,
    holds: bool,
    detail: String,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let bytes =
        std::fs::read(&args.receipt).with_context(|| format!("cannot read {}", args.receipt.display()))?;
    let receipt = match SignedReceipt::from_json(&bytes) {
        Ok(receipt) => receipt,
        Err(e) => return Ok(report(&[Field { name: "format", holds: false, detail: e.to_string() }], json)),
    };
    let model = model::open(&args.model)?;
    let inputs = tensors::read_inputs(&args.inputs, &model.graph)?;
    let options = Options::default()
        .kernel_set(args.kernels.unwrap_or_else(KernelSet::best))
        .threads(args.threads.unwrap_or_else(model::cores));
    Ok(report(&check(&receipt, &model, inputs, &options)?, json))
}

fn check(signed: &SignedReceipt, model: &Model, inputs: Named, options: &Options) -> Result<Vec<Field>> {
    let r = &signed.receipt;
    let mut fields = vec![
        Field { name: "format", holds: true, detail: isobit_proof::FORMAT.into() },
        Field { name: "profile", holds: true, detail: isobit_proof::PROFILE.into() },
    ];
    let mut compare = |name, claimed: String, found: String| {
        let holds = claimed == found;
        let detail =
            if holds { found } else { format!("the receipt says {claimed}, this machine finds {found}") };
        fields.push(Field { name, holds, detail });
    };
    let signer = signed.signer().map_or("a malformed signature".into(), |a| a.to_string());
    compare("signature", r.node.to_string(), signer);
    compare("model", r.model.to_string(), ModelObject::from_model(model)?.address().to_string());
    // In the model's order, as the network does it.
    let name_of = |v: &isobit_graph::ValueId| model.graph.value(*v).name.as_str();
    let ordered = model.graph.inputs.iter().map(name_of).filter_map(|name| {
        inputs.iter().find(|(n, _)| n == name).map(|(n, t): &(String, Tensor)| (n.as_str(), t))
    });
    compare("inputs", r.inputs.to_string(), tensors_root(ordered).to_string());

    let session = Session::load(model.clone(), options)?;
    let run = session.run(inputs, &RunOptions { seed: r.seed, limits: Limits::default(), profile: false });
    let (found, cost, why) = match run {
        Ok(result) => {
            let outputs = tensors_root(result.outputs.iter().map(|(n, t)| (n.as_str(), t)));
            (Outcome::Ok { outputs }, result.cost, None)
        }
        Err(e) => (Outcome::Failed { code: e.code() as u16 }, 0, Some(e.to_string())),
    };
    let text = |o: Outcome| match o {
        Outcome::Ok { outputs } => outputs.to_string(),
        Outcome::Failed { code } => format!("failure {code}"),
    };
    let found = text(found) + &why.map(|w| format!(" ({w})")).unwrap_or_default();
    let claimed = match r.outcome {
        Outcome::Failed { .. } if found.starts_with(&text(r.outcome)) => found.clone(),
        outcome => text(outcome),
    };
    compare("outputs", claimed, found);
    compare("cost", r.cost.to_string(), cost.to_string());
    Ok(fields)
}

fn report(fields: &[Field], json: bool) -> ExitCode {
    let all = fields.iter().all(|f| f.holds);
    if json {
        let list = fields
            .iter()
            .map(|f| serde_json::json!({ "field": f.name, "holds": f.holds, "detail": f.detail }));
        output::json(&serde_json::json!({ "verified": all, "fields": list.collect::<Vec<_>>() }));
    } else {
        for f in fields {
            output::line(&format!("{} {:9}  {}", if f.holds { "holds" } else { "FAILS" }, f.name, f.detail));
        }
        output::line(if all { "verified: this machine came to the same bits" } else { "NOT verified" });
    }
    if all { ExitCode::SUCCESS } else { ExitCode::from(1) }
}
