use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::Address;
use anyhow::{Context, Result};
use clap::Subcommand;
use isobit_chain::Genesis;
use isobit_ledger::{COIN, Params};
use isobit_node::{read_genesis, write_genesis};

use crate::{coins, home, output};

/// Coins of each validator beside its stake, to accuse others with.
const GAS_MONEY: u128 = COIN;

/// Write and read what a network begins with: its validators, its coins, its parameters.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a genesis and a data folder for each validator, with its key, to be taken to its machine.
    #[command(
        after_help = "Then on each machine:\n  isobit up --data DIR/validator-1 --p2p /ip4/0.0.0.0/tcp/7471 --peer /ip4/OTHER/tcp/7471"
    )]
    New {
        /// Folder to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// How many validators.
        #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
        validators: u16,
        /// Stake of each, in coins.
        #[arg(long, default_value = "10000", value_parser = coins::parse, value_name = "COINS")]
        stake: u128,
        /// Validators whose keys are kept elsewhere, beside those made here: ADDRESS=COINS, may be repeated.
        #[arg(long, value_name = "ADDRESS=COINS", value_parser = amount)]
        validator: Vec<(Address, u128)>,
        /// Coins of an account: ADDRESS=COINS, may be repeated.
        #[arg(long, value_name = "ADDRESS=COINS", value_parser = amount)]
        alloc: Vec<(Address, u128)>,
        /// Who sets the prices of the chain's feed; nobody unless given.
        #[arg(long, default_value_t = Address::ZERO, value_name = "ADDRESS")]
        price_operator: Address,
        /// The chain's id (EIP-155).
        #[arg(long, default_value_t = 1729, value_name = "ID")]
        chain_id: u64,
        #[command(flatten)]
        password: home::Password,
    },
    /// Check a genesis file and say what it is of. Networks with the same commitment are the same network.
    Show {
        /// The file.
        file: PathBuf,
    },
}

/// Reads `0x…=1.5`.
fn amount(text: &str) -> Result<(Address, u128), String> {
    let (address, coins) = text.split_once('=').ok_or("give it as ADDRESS=COINS")?;
    let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
    Ok((address, coins::parse(coins)?))
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    match args.command {
        Command::New { out, validators, stake, validator, alloc, price_operator, chain_id, password } => {
            let mut genesis = Genesis::new(Params { chain_id, ..Params::default() }, alloc);
            genesis.price_operator = price_operator;
            genesis.timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            genesis.validators.extend(validator);
            let folders: Vec<PathBuf> =
                (1..=validators).map(|i| out.join(format!("validator-{i}"))).collect();
            for folder in &folders {
                let keys = folder.join("keys");
                std::fs::create_dir_all(&keys).with_context(|| format!("cannot make {}", keys.display()))?;
                let key = password.load_or_generate(&keys.join("validator.key"))?;
                genesis.validators.insert(key.address(), stake);
                *genesis.alloc.entry(key.address()).or_default() += GAS_MONEY;
            }
            genesis.check()?;
            for folder in folders.iter().chain([&out]) {
                write_genesis(folder, &genesis)?;
            }
            show(&genesis, Some(&out), json);
        }
        Command::Show { file } => show(&read_genesis(&file)?, None, json),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(genesis: &Genesis, folder: Option<&Path>, json: bool) {
    let (commitment, chain_id) = (genesis.commitment(), genesis.params.chain_id);
    let supply = genesis.supply().unwrap_or(u128::MAX);
    if json {
        let validators: serde_json::Map<String, serde_json::Value> =
            genesis.validators.iter().map(|(a, s)| (a.to_string(), s.to_string().into())).collect();
        output::json(&serde_json::json!({
            "chain_id": chain_id, "commitment": commitment, "supply": supply.to_string(),
            "accounts": genesis.alloc.len(), "validators": validators, "folder": folder,
        }));
        return;
    }
    output::line(&format!("chain      {chain_id}"));
    output::line(&format!("commitment {commitment}"));
    output::line(&format!("coins      {}, {} accounts", coins::text(supply), genesis.alloc.len()));
    for (address, stake) in &genesis.validators {
        output::line(&format!("validator  {address}, stake {}", coins::text(*stake)));
    }
    if genesis.validators.is_empty() {
        output::line("validators none: one process makes the blocks");
    }
    if let Some(folder) = folder {
        output::line(&format!("written to {}", folder.display()));
    }
}
