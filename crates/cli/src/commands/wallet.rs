use std::process::ExitCode;

use alloy_primitives::Address;
use anyhow::{Context, Result};
use clap::Subcommand;
use isobit_node::{Client, Gateway};
use isobit_proof::Key;

use crate::{coins, home, output};

/// Keys and coins.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    network: home::Network,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new key, encrypted with a password (an Ethereum keystore of version 3).
    New {
        /// Do not encrypt it: keep the file as you would keep cash.
        #[arg(long)]
        plain: bool,
    },
    /// Encrypt a key file that is not, in place.
    Encrypt,
    /// Print the address.
    Address,
    /// Print the coins of an address (the wallet's unless given), and its stake.
    Balance {
        /// Whose.
        address: Option<Address>,
    },
    /// Send coins.
    Send {
        /// To whom.
        to: Address,
        /// How many, e.g. 1.5.
        #[arg(value_parser = coins::parse)]
        coins: u128,
    },
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    match args.command {
        Command::New { plain } => {
            let path = args.network.key_path()?;
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot make {}", folder.display()))?;
            }
            let key = Key::generate();
            let password = if plain { None } else { Some(args.network.password.new_one()?) };
            key.save(&path, password.as_deref().map(String::as_str))
                .context("an existing key is never overwritten")?;
            say(json, serde_json::json!({ "address": key.address(), "file": path }), || {
                format!("{} in {}", key.address(), path.display())
            });
        }
        Command::Encrypt => {
            let path = args.network.key_path()?;
            anyhow::ensure!(!Key::is_encrypted(&path)?, "{} is encrypted already", path.display());
            let key = Key::encrypt(&path, &args.network.password.new_one()?)?;
            say(json, serde_json::json!({ "address": key.address(), "file": path }), || {
                format!("{} in {} is encrypted", key.address(), path.display())
            });
        }
        Command::Address => {
            let address = args.network.key()?.address();
            say(json, serde_json::json!({ "address": address }), || address.to_string());
        }
        Command::Balance { address } => {
            let address = match address {
                Some(address) => address,
                None => args.network.key()?.address(),
            };
            let gateway = args.network.gateway();
            let isobit_node::Account { balance, nonce, stake, .. } = gateway.account(address)?;
            let value = serde_json::json!({
                "address": address, "balance": balance.to_string(), "nonce": nonce,
                "stake": stake.map(|s| s.to_string()),
            });
            say(json, value, || {
                let stake = stake.map(|s| format!(", {} at stake", coins::text(s))).unwrap_or_default();
                format!("{address}: {}{stake}", coins::text(balance))
            });
        }
        Command::Send { to, coins } => {
            let gateway = args.network.gateway();
            Client::new(&gateway, args.network.key()?)?.transfer(to, coins)?;
            say(json, serde_json::json!({ "to": to, "sent": coins.to_string() }), || {
                format!("sent {} to {to}", coins::text(coins))
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn say(json: bool, value: serde_json::Value, text: impl FnOnce() -> String) {
    if json {
        output::json(&value);
    } else {
        output::line(&text());
    }
}
