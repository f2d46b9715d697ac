use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use isobit_node::Network;

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
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let dir = home::data(args.data.as_deref())?;
    match args.command {
        Command::Verify => verify(&dir, json),
    }
}

fn verify(dir: &std::path::Path, json: bool) -> Result<ExitCode> {
    let chain =
        Network::chain(dir).context("the network must be stopped, and its folder be given by --data")?;
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
