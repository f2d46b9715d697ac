use std::process::ExitCode;

use alloy_primitives::Address;
use anyhow::Result;
use clap::Subcommand;
use isobit_ledger::Action;
use isobit_node::{Client, Gateway};

use crate::{coins, home, output};

/// Become a validator, or leave; see who votes on blocks.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    network: home::Network,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print who votes on the next block, and with what weight.
    List,
    /// Put coins of the key at stake and vote from the next block on. Run `isobit up --p2p` with this key first, until it has
    /// caught up: a validator that is not there is missed.
    Join {
        /// How many coins; the least stake unless given.
        #[arg(long, value_parser = coins::parse, value_name = "COINS")]
        stake: Option<u128>,
        /// Where it can be reached, for people to see.
        #[arg(long, default_value = "", value_name = "ADDRESS")]
        endpoint: String,
    },
    /// Vote no more from the next block on; the stake can be withdrawn after the unbonding time.
    Leave,
    /// Take the stake back.
    Withdraw,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let gateway = args.network.gateway();
    let action = match args.command {
        Command::List => {
            list(&gateway.validators()?, json);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Join { stake, endpoint } => {
            let stake =
                stake.map_or_else(|| Ok(gateway.params()?.min_stake), Ok::<_, isobit_node::NodeError>)?;
            Action::Validate { stake, endpoint }
        }
        Command::Leave => Action::Leave,
        Command::Withdraw => Action::Withdraw,
    };
    let done = match action {
        Action::Validate { .. } => "votes from the next block on",
        Action::Leave => "votes no more",
        _ => "withdrawn",
    };
    let key = args.network.key()?;
    Client::new(&gateway, key.clone())?.act(action)?;
    if json {
        output::json(&serde_json::json!({ "validator": key.address(), "status": done }));
    } else {
        output::line(&format!("{}: {done}", key.address()));
    }
    Ok(ExitCode::SUCCESS)
}

fn list(validators: &[(Address, u64)], json: bool) {
    if json {
        let all: Vec<_> =
            validators.iter().map(|(a, w)| serde_json::json!({ "validator": a, "weight": w })).collect();
        output::json(&serde_json::json!(all));
        return;
    }
    let total: u64 = validators.iter().map(|v| v.1).sum();
    for (address, weight) in validators {
        output::line(&format!("{address} {:>5.1} %", *weight as f64 * 100.0 / total.max(1) as f64));
    }
    if validators.is_empty() {
        output::line("none: one process makes the blocks");
    }
}
