use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use isobit_node::{
    Blocks, Faucet, Making, Network, Offers, Serving, price_source, read_genesis, serve, write_genesis,
};
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
    /// Nodes to run in this process; 0 for none (nodes can join from elsewhere with `isobit node`). 3 unless --p2p is given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=15))]
    nodes: Option<u8>,
    /// Found the network with so many validators, all in this process, which agree on each block.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=15), conflicts_with_all = ["p2p", "genesis"])]
    validators: Option<u8>,
    /// What the network begins with, as `isobit genesis` writes it; kept in the data folder.
    #[arg(long, value_name = "FILE")]
    genesis: Option<PathBuf>,
    /// Agree on blocks with other processes, and listen for them on this address, e.g. /ip4/0.0.0.0/tcp/7471. The key
    /// keys/validator.key of the data folder votes, if it is a validator's.
    #[arg(long, value_name = "ADDRESS")]
    p2p: Option<String>,
    /// Address of another process of the network, e.g. /ip4/10.0.0.1/tcp/7471; may be repeated. One that can be reached is enough.
    #[arg(long, value_name = "ADDRESS", requires = "p2p")]
    peer: Vec<String>,
    #[command(flatten)]
    password: home::Password,
    /// Give coins of the wallet to whoever asks (POST /v1/faucet). Only for development networks.
    #[arg(long)]
    faucet: bool,
    /// Serve inferences for money (POST /v2/models/{name}/infer), paid by HTTP 402 with Wrapped ISO, and settle such payments for
    /// others (/x402). The key keys/till.key pays the gas, and the wallet fills it up.
    #[arg(long)]
    x402: bool,
    /// Be a model hub for people with accounts (`isobit hub add-user`): login, models, versions and files as OpenGradient's SDK
    /// speaks them. The key keys/hub.key publishes what they upload, and the wallet fills it up.
    #[arg(long)]
    hub: bool,
    /// Let anybody make an account of the hub. Only for development networks.
    #[arg(long, requires = "hub")]
    open_sign_up: bool,
    /// Run workflows of the scheduler that are due. The key keys/keeper.key pays the gas, and the wallet fills it up.
    #[arg(long)]
    keeper: bool,
    /// Prices that the validators of this process say along with their votes: a file, or http:// of a program that asks the markets.
    /// Either is JSON like {"ETH/USD": "3012.55"}, at most two minutes old. The median by stake is on the chain at 0xF5.
    #[arg(long, value_name = "FILE|URL")]
    prices: Option<String>,
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
    if let Some(path) = &args.genesis {
        let genesis = read_genesis(path)?;
        if dir.join("genesis.json").exists() {
            let here = read_genesis(&dir.join("genesis.json"))?;
            ensure!(here == genesis, "{} holds another network; give another --data", dir.display());
        } else {
            write_genesis(&dir, &genesis)?;
        }
    }
    let nodes = args.nodes.unwrap_or(if args.p2p.is_some() { 0 } else { 3 });
    let blocks = match (args.validators, args.p2p) {
        (Some(n), _) => Blocks::Here(n),
        (None, Some(listen)) => Blocks::WithPeers { listen, peers: args.peer },
        (None, None) => Blocks::AsFounded,
    };
    let password = password.as_deref().map(String::as_str);
    let prices = args.prices.as_deref().map(price_source).transpose()?;
    let how = Making { blocks, block_time, prices };
    let mut network = Network::open(&dir, &vec![best; usize::from(nodes)], &how, password)?;
    if args.keeper {
        network.keep(password)?;
    }
    let till = args.x402.then(|| network.till(password)).transpose()?;
    let offers = Offers {
        faucet: args.faucet.then(|| Faucet::new(network.wallet().clone())),
        hub: args.hub.then(|| network.hub(password)).transpose()?.map(|hub| (hub, args.open_sign_up)),
        serving: till.map(|till| Serving::new(till, network.options())),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(&args.listen)
            .await
            .with_context(|| format!("cannot listen on {}; is a network up already?", args.listen))?;
        let url = format!("http://{}", listener.local_addr()?);
        announce(&network, &dir, &url, json);
        serve(listener, network.gateway().clone(), offers, stop_signal())
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
    let validators = network.gateway().chain.head().validators();
    let total: u64 = validators.iter().map(|v| v.1).sum();
    for (address, weight) in &validators {
        output::line(&format!("validator {address} (weight {weight} of {total})"));
    }
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
