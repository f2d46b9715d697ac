use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use anyhow::{Context, Result, ensure};
use isobit_graph::ModelObject;
use isobit_ledger::{COIN, End, Job, Phase};
use isobit_node::{Client, Gateway, Making, Network, Run, fetch_tensors, publish_model, store_tensors};
use isobit_proof::Key;
use isobit_runtime::KernelSet;
use isobit_tensor::{Hash, Tensor};

use crate::{coins, output, tensors};

const MODEL: &[u8] = include_bytes!("../../../../models/digits-cnn/model.onnx");
const SAMPLES: &[u8] = include_bytes!("../../../../models/digits-cnn/samples.safetensors");
/// Most a job may cost the requester.
const MAX_FEE: u128 = COIN;
/// Nodes that run each job.
const REPLICAS: u8 = 3;
const PATIENCE: Duration = Duration::from_secs(300);

/// See it work: a hub, a ledger and three unlike nodes agree on 360 images, and catch a liar.
///
/// Everything happens in this process and a temporary folder; the receipt, its model and its input are left in --out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to leave a receipt, with what it takes to check it.
    #[arg(long, default_value = "isobit-demo", value_name = "DIR")]
    out: PathBuf,
    /// How many of the 360 images to classify.
    #[arg(long, default_value_t = 360, value_parser = clap::value_parser!(u64).range(1..=360))]
    images: u64,
}

/// The held-out images with PyTorch's probabilities and the true digits.
struct Samples {
    images: Vec<Tensor>,
    expected: Vec<f32>,
    labels: Vec<i64>,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let say = |text: &str| {
        if !json {
            output::line(text);
        }
    };
    let start = Instant::now();
    let dir = tempfile::tempdir().context("no temporary folder")?;
    let sets = unlike_sets();
    let mut network = Network::open(dir.path(), &sets, &Making::as_founded(Duration::ZERO), None)?;
    let names = sets.iter().map(|s| s.name()).collect::<Vec<_>>().join(", ");
    say(&format!("network   one hub, one ledger, {} nodes with kernel sets {names}", sets.len()));

    let model = isobit_graph::from_onnx_bytes(MODEL)?;
    let address = publish_model(network.gateway(), &ModelObject::from_model(&model)?)?;
    let name = "isobit/digits-cnn".to_owned();
    Client::new(network.gateway(), network.wallet().clone())?.act(isobit_ledger::Action::Publish {
        model: address.0.into(),
        name,
        uri: String::new(),
        unit_fee: 0,
    })?;
    say(&format!("model     digits CNN, {address}"));

    let samples = samples(args.images as usize)?;
    let before = balances(&network)?;
    let coins_before = total_coins(&network)?;
    let jobs = classify(&network, address, &samples.images, json)?;
    let after = balances(&network)?;
    let found = judge(&network, &jobs, &samples)?;
    let escrowed: u128 = jobs.iter().map(|j| j.max_fee).sum();
    let paid: u128 = jobs
        .iter()
        .flat_map(|j| j.seats.iter().map(move |s| (j, s)))
        .filter(|(_, s)| s.end() == End::Paid)
        .map(|(j, _)| j.fee)
        .sum();
    let n = jobs.len();
    say(&format!("accuracy  {} of {n} images ({:.1} %)", found.right, 100.0 * found.right as f64 / n as f64));
    say(&format!("parity    largest difference to PyTorch's probabilities {:.1e}", found.difference));
    say(&format!("bits      {} of {n} receipt triples agree bit for bit", found.agree));
    say(&format!(
        "fees      {} escrowed, {} paid, {} returned",
        coins::text(escrowed),
        coins::text(paid),
        coins::text(escrowed - paid)
    ));
    let mut rows = vec![["account", "before", "after"].map(str::to_owned).to_vec()];
    rows.extend(
        before.iter().zip(&after).map(|(b, a)| vec![b.0.clone(), coins::short(b.2), coins::short(a.2)]),
    );
    say(&output::table(&rows));

    let caught = catch_a_liar(&mut network, address, &samples.images)?;
    say(&format!(
        "liar      a fourth node flips one bit of one output: caught in job {}, stake {} -> {}, the job {}",
        &caught.job.id.to_string()[..10],
        coins::text(caught.stake_before),
        coins::text(caught.stake_after),
        if caught.job.phase() == Phase::Settled {
            "settled with the two honest answers"
        } else {
            "did NOT settle"
        },
    ));
    let coins_after = total_coins(&network)?;
    say(&format!("coins     {} before, {} after", coins::text(coins_before), coins::text(coins_after)));

    let command = leave_receipt(&network, &args.out, &jobs[0], &samples.images[0])?;
    say(&format!(
        "receipt   {}; check it offline with\n          {command}",
        args.out.join("receipt.json").display()
    ));
    say(&format!("done in {:.1} s", start.elapsed().as_secs_f64()));
    let good = found.agree == n
        && jobs.iter().all(|j| j.phase() == Phase::Settled)
        && caught.stake_after == 0
        && caught.job.phase() == Phase::Settled
        && coins_before == coins_after;
    if json {
        output::json(&serde_json::json!({
            "kernel_sets": sets.iter().map(|s| s.name()).collect::<Vec<_>>(), "model": address.to_string(),
            "images": n, "right": found.right, "largest_difference": found.difference, "agree": found.agree,
            "escrowed": escrowed.to_string(), "paid": paid.to_string(),
            "balances": before.iter().zip(&after).map(|(b, a)| serde_json::json!({
                "account": b.0, "address": b.1, "before": b.2.to_string(), "after": a.2.to_string(),
            })).collect::<Vec<_>>(),
            "liar": { "job": caught.job.id, "stake_before": caught.stake_before.to_string(),
                      "stake_after": caught.stake_after.to_string() },
            "coins_before": coins_before.to_string(), "coins_after": coins_after.to_string(),
            "seconds": start.elapsed().as_secs_f64(), "ok": good,
        }));
    }
    network.stop();
    ensure!(good, "the network did not agree as it must; this is a bug in Isobit");
    Ok(ExitCode::SUCCESS)
}

/// Three kernel sets as unlike as this machine has: the slowest, one in between, the fastest.
fn unlike_sets() -> [KernelSet; 3] {
    let all = KernelSet::available();
    [all[0], all[all.len() / 2], all[all.len() - 1]]
}

fn samples(n: usize) -> Result<Samples> {
    let all = tensors::parse_safetensors(SAMPLES)?;
    let get = |name: &str| {
        let found = all.iter().find(|(k, _)| k == name).map(|(_, t)| t.clone());
        found.with_context(|| format!("the samples have no '{name}'"))
    };
    let pixels = get("input")?.into_vec::<f32>()?;
    let images = pixels.chunks_exact(64).take(n).map(|p| Tensor::new(&[1, 1, 8, 8], p.to_vec()));
    Ok(Samples {
        images: images.collect::<Result<_, _>>()?,
        expected: get("expected")?.into_vec()?,
        labels: get("label")?.into_vec()?,
    })
}

/// Name, address and coins (at hand and at stake) of every account.
fn balances(network: &Network) -> Result<Vec<(String, Address, u128)>> {
    let gateway = network.gateway();
    let params = gateway.params()?;
    let mut accounts = vec![("requester".to_owned(), network.wallet().address())];
    for (i, (key, set)) in network.nodes().iter().enumerate() {
        accounts.push((format!("node {} ({set}), with stake", i + 1), key.address()));
    }
    accounts.push(("treasury".into(), params.treasury));
    accounts.push(("burnt for gas".into(), params.burn));
    accounts
        .into_iter()
        .map(|(name, address)| {
            let account = gateway.account(address)?;
            Ok((name, address, account.balance + account.stake.unwrap_or(0)))
        })
        .collect()
}

/// All coins there are, counted one by one.
fn total_coins(network: &Network) -> Result<u128> {
    network.gateway().chain.head().check_coins()?.total().context("more coins than 128 bits count")
}

/// Posts one job an image and waits for all.
fn classify(network: &Network, model: Hash, images: &[Tensor], json: bool) -> Result<Vec<Job>> {
    let client = Client::new(network.gateway(), network.wallet().clone())?;
    let bar = output::progress(images.len() as u64, "inferring", json);
    let mut ids = Vec::with_capacity(images.len());
    for image in images {
        let inputs = store_tensors(network.gateway(), &[("image".to_owned(), image.clone())])?;
        ids.push(client.post(model, inputs, 0, REPLICAS, MAX_FEE)?);
        let open = network.gateway().chain.head().open_jobs() as usize;
        bar.set_position((ids.len() - open.min(ids.len())) as u64);
    }
    let mut jobs = Vec::with_capacity(ids.len());
    for id in ids {
        jobs.push(client.wait(id, PATIENCE)?);
        let open = network.gateway().chain.head().open_jobs() as usize;
        bar.set_position((images.len() - open.min(images.len())) as u64);
    }
    bar.finish_and_clear();
    Ok(jobs)
}

struct Found {
    right: usize,
    difference: f64,
    agree: usize,
}

/// Compares what the network answered with the labels and with PyTorch.
fn judge(network: &Network, jobs: &[Job], samples: &Samples) -> Result<Found> {
    let chain_id = network.gateway().params()?.chain_id;
    let mut found = Found { right: 0, difference: 0.0, agree: 0 };
    for (i, job) in jobs.iter().enumerate() {
        let receipts = job.receipts(chain_id);
        let answers = receipts.iter().map(|r| (r.receipt.outcome, r.receipt.cost));
        let same = answers.clone().all(|a| Some(a) == answers.clone().next());
        found.agree += usize::from(receipts.len() == usize::from(REPLICAS) && same);
        let Some((outputs, 0, _)) = job.agreed() else { continue };
        let outputs = fetch_tensors(network.gateway(), &Hash(outputs.0))?;
        let probabilities = outputs[0].1.as_slice::<f32>()?;
        let expected = &samples.expected[i * 10..(i + 1) * 10];
        for (p, e) in probabilities.iter().zip(expected) {
            let d = f64::from((p - e).abs());
            found.difference = if d > found.difference { d } else { found.difference };
        }
        let best = (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]));
        found.right += usize::from(best == usize::try_from(samples.labels[i]).ok());
    }
    Ok(found)
}

/// Flips the lowest bit of the first element of the first output.
struct Liar;

impl Run for Liar {
    fn answer(&mut self, mut outputs: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
        if let Some((_, tensor)) = outputs.first_mut() {
            let shape = tensor.shape().to_vec();
            if let Ok(mut values) = tensor.clone().into_vec::<f32>() {
                values[0] = f32::from_bits(values[0].to_bits() ^ 1);
                *tensor = Tensor::new(&shape, values).expect("the shape is unchanged");
            }
        }
        outputs
    }
}

struct Caught {
    job: Job,
    stake_before: u128,
    stake_after: u128,
}

/// A lying node joins; jobs are posted until it is drawn for one.
fn catch_a_liar(network: &mut Network, model: Hash, images: &[Tensor]) -> Result<Caught> {
    let key = Key::generate();
    let liar = key.address();
    network.add_node(key, KernelSet::best(), Box::new(Liar))?;
    let stake = |n: &Network| -> Result<u128> { Ok(n.gateway().account(liar)?.stake.unwrap_or(0)) };
    let stake_before = stake(network)?;
    let client = Client::new(network.gateway(), network.wallet().clone())?;
    for image in images.iter().cycle().take(100) {
        let inputs = store_tensors(network.gateway(), &[("image".to_owned(), image.clone())])?;
        let id = client.post(model, inputs, 0, REPLICAS, MAX_FEE)?;
        let job = client.wait(id, PATIENCE)?;
        if job.seat(liar).is_some() {
            return Ok(Caught { stake_before, stake_after: stake(network)?, job });
        }
    }
    anyhow::bail!("the lying node was not drawn in 100 jobs")
}

/// Writes a receipt, its model and its input; returns the command that checks it.
fn leave_receipt(network: &Network, out: &Path, job: &Job, image: &Tensor) -> Result<String> {
    let write = |name: &str, bytes: &[u8]| {
        let path = out.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
    };
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let receipts = job.receipts(network.gateway().params()?.chain_id);
    let receipt = receipts.first().context("the job has no receipt")?;
    write("receipt.json", receipt.to_json().as_bytes())?;
    write("model.onnx", MODEL)?;
    tensors::write(&out.join("input.safetensors"), &[("image".to_owned(), image.clone())])?;
    let d = out.display();
    Ok(format!(
        "cargo run --release -- verify {d}/receipt.json --model {d}/model.onnx --input {d}/input.safetensors"
    ))
}
