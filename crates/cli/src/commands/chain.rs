use std::path::{Path, PathBuf};
use std::process::ExitCode;

use alloy_primitives::B256;
use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use isobit_node::{Network, read_genesis, write_genesis};

use crate::{coins, home, output};

/// Look at the chain in a data folder; the network must not be running.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Data folder; ~/.isobit unless given.
    #[arg(long, global = true, env = "ISOBIT_HOME", value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Execute every block again from the genesis, in memory, and compare each with what is on disk; count all coins.
    Verify,
    /// Write the state after the last block to a file, for others to begin with.
    Snapshot {
        /// The file.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Begin a chain with a snapshot. Everything in it is checked against the block that you name.
    Restore {
        /// The snapshot.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Hash of the block that it is of, from somebody you trust: a validator, an explorer, your own node.
        #[arg(long, value_name = "HASH")]
        block: B256,
        /// What the network began with; the data folder's unless given.
        #[arg(long, value_name = "FILE")]
        genesis: Option<PathBuf>,
    },
    /// Forget transactions and receipts of old blocks. The state and all headers stay.
    Prune {
        /// How many of the last blocks to keep whole.
        #[arg(long, default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        keep: u64,
    },
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let dir = home::data(args.data.as_deref())?;
    match args.command {
        Command::Verify => verify(&dir, json),
        Command::Snapshot { out } => snapshot(&dir, &out, json),
        Command::Restore { from, block, genesis } => restore(&dir, &from, block, genesis.as_deref(), json),
        Command::Prune { keep } => prune(&dir, keep, json),
    }
}

fn verify(dir: &Path, json: bool) -> Result<ExitCode> {
    let chain = open(dir)?;
    let head = chain.head();
    let bar = output::progress(head.header.number, "executing", json);
    let replayed = chain.replay(|number| bar.set_position(number))?;
    bar.finish_and_clear();
    let total = head.check_coins()?.total().context("more coins than 128 bits count")?;
    if json {
        output::json(&serde_json::json!({
            "blocks": head.header.number, "hash": replayed, "state_root": head.header.state_root,
            "coins": total.to_string(),
        }));
    } else {
        output::line(&format!("blocks     {}, each executed again with the same result", head.header.number));
        output::line(&format!("head       {replayed}"));
        output::line(&format!("state root {}", head.header.state_root));
        output::line(&format!("coins      {}, as at genesis", coins::text(total)));
    }
    Ok(ExitCode::SUCCESS)
}

fn open(dir: &Path) -> Result<isobit_chain::Chain> {
    Network::chain(dir).context("the network must be stopped, and its folder be given by --data")
}

fn snapshot(dir: &Path, out: &Path, json: bool) -> Result<ExitCode> {
    let chain = open(dir)?;
    let next = out.with_extension("part");
    let file = std::fs::File::create(&next).with_context(|| format!("cannot write {}", next.display()))?;
    let mut writer = std::io::BufWriter::new(file);
    let bar = output::progress(0, "records", json);
    let hash = chain.snapshot(&mut writer, |n| bar.set_position(n))?;
    bar.finish_and_clear();
    let file = writer.into_inner().context("the snapshot was not written")?;
    file.sync_all().and_then(|()| std::fs::rename(&next, out)).context("the snapshot was not written")?;
    let number = chain.head().header.number;
    if json {
        output::json(&serde_json::json!({ "block": hash, "number": number, "file": out }));
    } else {
        output::line(&format!("block  {number}, {hash}"));
        output::line(&format!("file   {}", out.display()));
        output::line("Whoever restores it needs the hash from somebody they trust.");
    }
    Ok(ExitCode::SUCCESS)
}

fn restore(dir: &Path, from: &Path, block: B256, genesis: Option<&Path>, json: bool) -> Result<ExitCode> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let own = dir.join("genesis.json");
    if let Some(path) = genesis {
        let genesis = read_genesis(path)?;
        if own.exists() {
            ensure!(read_genesis(&own)? == genesis, "{} holds another network", dir.display());
        } else {
            write_genesis(dir, &genesis)?;
        }
    }
    let genesis = read_genesis(&own).context("give what the network began with by --genesis")?;
    let file = std::fs::File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let folder = dir.join("chain");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let store = isobit_chain::Store::open(&folder)?;
    let number = store.restore(&genesis, block, &mut std::io::BufReader::new(file))?;
    if json {
        output::json(&serde_json::json!({ "block": block, "number": number }));
    } else {
        output::line(&format!("block {number}, {block}: its state is here, and checked"));
    }
    Ok(ExitCode::SUCCESS)
}

fn prune(dir: &Path, keep: u64, json: bool) -> Result<ExitCode> {
    let pruned = open(dir)?.prune(keep)?;
    if json {
        output::json(&serde_json::json!({ "pruned": pruned }));
    } else {
        output::line(&format!("{pruned} blocks pruned"));
    }
    Ok(ExitCode::SUCCESS)
}
