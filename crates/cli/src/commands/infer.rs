use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use alloy_primitives::B256;
use anyhow::{Context, Result, bail};
use isobit_graph::{Model, ModelObject};
use isobit_ledger::Phase;
use isobit_node::{Client, Gateway, fetch_model, store_tensors};
use isobit_runtime::{Options, Session};
use isobit_tensor::{Hash, Tensor};

use crate::{coins, home, model, output, tensors};

/// Ask the network for an inference, wait for it, and print the outputs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isobit infer model.onnx --input inputs.npz --receipt receipt.json")]
pub(crate) struct Args {
    /// The model: its address, its name on the network, or its file.
    model: String,
    /// Inputs: FILE (.npz, .safetensors, .json), or NAME=FILE.npy. May be repeated.
    #[arg(short, long = "input", value_name = "[NAME=]FILE", conflicts_with = "random")]
    inputs: Vec<String>,
    /// Random inputs from this seed.
    #[arg(long, value_name = "SEED")]
    random: Option<u64>,
    /// Extent of a symbolic dimension for --random.
    #[arg(long = "dim", value_name = "NAME=N", value_parser = super::run::parse_dim)]
    dims: Vec<(String, usize)>,
    /// Nodes that run it: 1 is level `signed`, more is `replicated(n)`.
    #[arg(long, default_value_t = 3, value_name = "N")]
    replicas: u8,
    /// Most to pay, in coins.
    #[arg(long, default_value = "1", value_parser = coins::parse, value_name = "COINS")]
    max_fee: u128,
    /// Seed of the run's random operators.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the first agreeing node's receipt to FILE.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Write the outputs to FILE (.npz or .safetensors).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only say what it would cost: the cost follows from the model and the inputs' shapes, the fee from the cost.
    #[arg(long)]
    quote: bool,
    /// Print the job's id and do not wait.
    #[arg(long)]
    no_wait: bool,
    /// Seconds to wait.
    #[arg(long, default_value_t = 300, value_name = "S")]
    timeout: u64,
    #[command(flatten)]
    network: home::Network,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let gateway = args.network.gateway();
    let (address, model) = find(&gateway, &args.model)?;
    let inputs = match args.random {
        Some(seed) => tensors::random_inputs(&model.graph, seed, &args.dims.iter().cloned().collect())?,
        None => tensors::read_inputs(&args.inputs, &model.graph)?,
    };
    let inputs = in_order(&model, inputs)?;
    if args.quote {
        return quote(&gateway, address, model, &inputs, args.replicas, json);
    }
    let client = Client::new(&gateway, args.network.key()?)?;
    let root = store_tensors(&gateway, &inputs)?;
    let id = client.post(address, root, args.seed, args.replicas, args.max_fee)?;
    if args.no_wait {
        if json {
            output::json(&serde_json::json!({ "job": id }));
        } else {
            output::line(&format!("job {id}; look at it with `isobit job {id}`"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let job = client.wait(id, Duration::from_secs(args.timeout))?;
    if let Some(path) = &args.receipt {
        let receipts = job.receipts(gateway.params()?.chain_id);
        let agreed = receipts
            .iter()
            .find(|r| job.seat(r.receipt.node).is_some_and(|s| s.end() == isobit_ledger::End::Paid));
        let receipt = agreed.context("the job has no agreed receipt")?;
        std::fs::write(path, receipt.to_json())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    super::job::print(&gateway, &job, args.output.as_deref(), json)?;
    Ok(if job.phase() == Phase::Settled { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What a job would cost at most: units, and the fee that pays for them in full.
fn quote(
    gateway: &dyn Gateway,
    address: Hash,
    model: Model,
    inputs: &[(String, Tensor)],
    replicas: u8,
    json: bool,
) -> Result<ExitCode> {
    let session = Session::load(model, &Options::default().threads(1))?;
    let tensors: Vec<Tensor> = inputs.iter().map(|(_, t)| t.clone()).collect();
    let cost = session.known_cost(&tensors);
    let cost =
        cost.context("the cost of this model does not follow from the inputs' shapes alone; give --max-fee")?;
    let fee = gateway.price(B256::from(address.0), cost, replicas)?;
    if json {
        output::json(&serde_json::json!({
            "model": B256::from(address.0), "cost": cost, "replicas": replicas, "fee": fee.to_string(),
        }));
    } else {
        let units = output::thousands(cost);
        output::line(&format!("cost  {units} units, {replicas} nodes"));
        output::line(&format!("fee   {}", coins::text(fee)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The model by address, name or file.
fn find(gateway: &dyn Gateway, text: &str) -> Result<(Hash, Model)> {
    let models = gateway.models()?;
    let published = |h: &Hash| models.iter().any(|(m, _)| *m == B256::from(h.0));
    let path = std::path::Path::new(text);
    if path.exists() {
        let model = model::open(path)?;
        let address = ModelObject::from_model(&model)?.address();
        if !published(&address) {
            bail!("the model {address} is not published; run `isobit publish {text}` first");
        }
        return Ok((address, model));
    }
    let named = models.iter().find(|(_, name)| name == text).map(|(m, _)| Hash(m.0));
    let address = text.parse::<Hash>().ok().filter(published).or(named);
    let address = address
        .with_context(|| format!("'{text}' is no file, and no model's address or name on this network"))?;
    Ok((address, fetch_model(gateway, &address)?))
}

/// The inputs in the model's order: that is what their root is about.
fn in_order(model: &Model, mut inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>> {
    let mut out = Vec::new();
    for &v in &model.graph.inputs {
        let name = &model.graph.value(v).name;
        let at = inputs.iter().position(|(n, _)| n == name);
        out.push(inputs.remove(at.with_context(|| format!("input '{name}' is missing"))?));
    }
    match inputs.first() {
        Some((name, _)) => bail!("the model has no input '{name}'"),
        None => Ok(out),
    }
}
