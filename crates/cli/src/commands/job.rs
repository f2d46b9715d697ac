use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alloy_primitives::B256;
use anyhow::{Context, Result};
use isobit_ledger::Job;
use isobit_node::{Gateway, fetch_tensors};
use isobit_tensor::Hash;

use crate::{coins, home, output, tensors};

/// Show a job: its phase, its nodes and what they answered, its outputs.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job's id.
    id: B256,
    /// Write the outputs to FILE (.npz or .safetensors).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    network: home::Network,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let gateway = args.network.gateway();
    let job = gateway.job(args.id)?.with_context(|| format!("no job {} on {}", args.id, args.network.url))?;
    print(&gateway, &job, args.output.as_deref(), json)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a job and, once agreed, its outputs.
pub(crate) fn print(gateway: &dyn Gateway, job: &Job, to: Option<&Path>, json: bool) -> Result<()> {
    let outputs = match job.agreed() {
        Some((root, 0, _)) => fetch_tensors(gateway, &Hash(root.0))?,
        _ => Vec::new(),
    };
    if let Some(path) = to {
        tensors::write(path, &outputs)?;
    }
    let phase = format!("{:?}", job.phase()).to_lowercase();
    let failure = job.agreed().map(|a| a.1).filter(|&c| c != 0);
    if json {
        let seats =
            job.seats.iter().map(|s| serde_json::json!({ "node": s.node, "end": format!("{:?}", s.end()) }));
        let list = outputs.iter().map(|(name, t)| {
            serde_json::json!({
                "name": name, "dtype": t.dtype().name(), "shape": t.shape(), "root": t.root().to_string(),
            })
        });
        output::json(&serde_json::json!({
            "job": job.id, "phase": phase, "failure": failure, "fee": job.fee.to_string(),
            "seats": seats.collect::<Vec<_>>(), "outputs": list.collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    output::line(&format!("job     {} {phase}", job.id));
    for seat in &job.seats {
        output::line(&format!("node    {} {}", seat.node, format!("{:?}", seat.end()).to_lowercase()));
    }
    if job.fee > 0 {
        output::line(&format!("fee     {} to each agreeing node", coins::text(job.fee)));
    }
    if let Some(code) = failure {
        output::line(&format!("failed  with the agreed code {code} (SEMANTICS.md, section 7)"));
    }
    for (name, t) in &outputs {
        output::line(&format!("{name}: {} {:?}", t.dtype(), t.shape()));
        output::line(&format!("  root   {}", t.root()));
        output::line(&format!("  values {}", tensors::preview(t, 8)));
    }
    Ok(())
}
