use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use isobit_node::{Faucet, Network, serve};
use isobit_runtime::KernelSet;

use crate::{coins, home, output};

/// Run the network: hub, ledger, nodes and HTTP API in one process, until Ctrl-C.
///
/// The first start founds a network in the data folder: a wallet with a million coins and the nodes' keys. Every block and blob
/// is on disk before anybody hears of it, so nothing that was acknowledged is lost, even if the process is killed.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Then, in another terminal:\n  isobit publish model.onnx\n  isobit infer model.onnx --random 1"
)]
pub(crate) struct Args {
    /// Data folder; ~/.isobit unless given.
    #[arg(long, env = "ISOBIT_HOME", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address and port to listen on.
    #[arg(long, default_value = home::LISTEN, value_name = "HOST:PORT")]
    listen: String,
    /// Nodes to run in this process; 0 for none (nodes can join from elsewhere with `isobit node`).
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=15))]
    nodes: u8,
    #[command(flatten)]
    password: home::Password,
    /// Give coins of the wallet to whoever asks (POST /v1/faucet). Only for development networks.
    #[arg(long)]
    faucet: bool,
    /// Least time between two blocks, in milliseconds. Wallets expect 300 or more.
    #[arg(long, default_value_t = 300, value_name = "MS")]
    block_time: u64,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let dir = home::data(args.data.as_deref())?;
    std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let best = KernelSet::best();
    let password = args.password.given()?;
    if password.is_none() && !json && !dir.join("keys").exists() {
        output::line(
            "note      the keys are not encrypted; give --password-file, or run `isobit wallet encrypt` later",
        );
    }
    let block_time = Duration::from_millis(args.block_time);
    let mut network = Network::open(
        &dir,
        &vec![best; usize::from(args.nodes)],
        block_time,
        password.as_deref().map(String::as_str),
    )?;
    let faucet = args.faucet.then(|| Faucet::new(network.wallet().clone()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(&args.listen)
            .await
            .with_context(|| format!("cannot listen on {}; is a network up already?", args.listen))?;
        let url = format!("http://{}", listener.local_addr()?);
        announce(&network, &dir, &url, json);
        serve(listener, network.gateway().clone(), faucet, stop_signal())
            .await
            .context("the HTTP server failed")
    })?;
    if !json {
        output::line("stopping: finishing the block in hand");
    }
    network.stop();
    Ok(ExitCode::SUCCESS)
}

fn announce(network: &Network, dir: &std::path::Path, url: &str, json: bool) {
    let wallet = network.wallet().address();
    let nodes: Vec<String> = network.nodes().iter().map(|(k, _)| k.address().to_string()).collect();
    if json {
        output::json(&serde_json::json!({
            "url": url, "data": dir, "wallet": wallet, "nodes": nodes,
            "height": network.gateway().chain.head().header.number,
        }));
        return;
    }
    let balance = network.gateway().chain.head().balance(wallet).unwrap_or(0);
    output::line(&format!("network   {url}, height {}", network.gateway().chain.head().header.number));
    output::line(&format!("data      {}", dir.display()));
    output::line(&format!("wallet    {wallet}, {}", coins::text(balance)));
    for (key, set) in network.nodes() {
        output::line(&format!("node      {} ({set})", key.address()));
    }
    output::line("Ctrl-C stops it; nothing is lost");
}

/// Ctrl-C, or a service manager's SIGTERM.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut term) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await; // without a handler the process simply ends
}
