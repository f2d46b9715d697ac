use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Subcommand;
use isobit_hub::Accounts;

use crate::{home, output};

/// Who may upload to the hub of a data folder; the network must not be running.
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
    /// Make an account; its password is asked for, or the first line of --password-file.
    AddUser {
        /// The e-mail address to log in with.
        email: String,
        /// Owner of the account's models; what is before the @ unless given.
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        password: home::Password,
    },
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let folder = home::data(args.data.as_deref())?.join("hub");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let Command::AddUser { email, name, password } = args.command;
    let name = name.unwrap_or_else(|| email.split('@').next().unwrap_or("").to_owned());
    let password = password.new_one()?;
    let accounts = Accounts::open(&folder.join("accounts.redb")).context("is the network running?")?;
    accounts.add(&email, &name, &password)?;
    if json {
        output::json(&serde_json::json!({ "email": email, "name": name }));
    } else {
        output::line(&format!("{email} can log in, and owns models {name}/…"));
    }
    Ok(ExitCode::SUCCESS)
}
