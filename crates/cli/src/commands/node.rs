use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use isobit_ledger::Action;
use isobit_node::{Client, Gateway, Remote, Worker};
use isobit_runtime::{KernelSet, Options};

use crate::{coins, home, model, output};

/// Run a node for a network elsewhere: fetch models, run jobs, sign receipts, earn.
///
/// The node's account needs the least stake; `isobit wallet send` gives it coins. Stop it with Ctrl-C: jobs that it has
/// committed to are revealed when it is started again, as the same answer comes out again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The network's URL.
    #[arg(long, env = "ISOBIT_URL", default_value_t = format!("http://{}", crate::home::LISTEN), value_name = "URL")]
    url: String,
    /// The node's key file; made if it does not exist.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Data folder, where packed weights are kept (in packed/, whose files may be deleted at any time); ~/.isobit unless given.
    #[arg(long, env = "ISOBIT_HOME", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    password: crate::home::Password,
    /// Stake to join with, in coins; the least one unless given.
    #[arg(long, value_parser = coins::parse, value_name = "COINS")]
    stake: Option<u128>,
    /// Kernel set; by default the fastest of this machine. It changes the speed, never a bit.
    #[arg(long, value_name = "SET")]
    kernels: Option<KernelSet>,
    /// Threads; by default all cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Leave the network instead: no new jobs, the stake back after the unbonding time (`isobit node --withdraw`).
    #[arg(long, conflicts_with = "withdraw")]
    leave: bool,
    /// Take the stake back after leaving.
    #[arg(long)]
    withdraw: bool,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let gateway = Remote::new(&args.url);
    let key = args.password.load_or_generate(&args.key)?;
    let address = key.address();
    let client = Client::new(&gateway, key.clone())?;
    if args.leave || args.withdraw {
        client.act(if args.leave { Action::Leave } else { Action::Withdraw })?;
        let done = if args.leave { "leaving" } else { "withdrawn" };
        if json {
            output::json(&serde_json::json!({ "node": address, "status": done }));
        } else {
            output::line(&format!("node {address}: {done}"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let account = gateway.account(address)?;
    if account.stake.is_none() {
        let stake = args.stake.unwrap_or(gateway.params()?.min_stake);
        let has = account.balance;
        if has <= stake {
            bail!(
                "node {address} has {}, the stake is {}, and it needs some for gas; send it coins with `isobit wallet send {address} COINS`",
                coins::text(has),
                coins::text(stake)
            );
        }
        client.act(Action::Join { stake, endpoint: String::new() })?;
    }
    let set = args.kernels.unwrap_or_else(KernelSet::best);
    let mut options = Options::default().kernel_set(set).threads(args.threads.unwrap_or_else(model::cores));
    options.packed = home::packed(args.data.as_deref());
    let mut worker = Worker::new(Arc::new(gateway.clone()), key, options)?;
    let stake = gateway.account(address)?.stake.unwrap_or(0);
    if json {
        output::json(
            &serde_json::json!({ "node": address, "stake": stake.to_string(), "kernel_set": set.name() }),
        );
    } else {
        output::line(&format!("node {address}, stake {}, {set}; Ctrl-C stops it", coins::text(stake)));
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.spawn(async move {
        let _ = tokio::signal::ctrl_c().await; // without a handler the process simply ends
        flag.store(true, Ordering::Relaxed);
    });
    worker.work(&stop);
    gateway.status().context("the network is gone")?;
    Ok(ExitCode::SUCCESS)
}
