//! The `isobit` command: one binary that is hub, node, ledger and client.

#![forbid(unsafe_code)]

mod coins;
mod commands;
mod home;
mod model;
mod output;
mod tensors;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Verifiable AI inference: same model, same bits, on every node.
#[derive(Debug, Parser)]
#[command(name = "isobit", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    /// Print machine-readable JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    /// Log more (repeat for still more); RUST_LOG is honoured too.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// See it work: a hub, a ledger and three unlike nodes agree on 360 images, and catch a liar.
    Demo(commands::demo::Args),
    /// Run a model on this machine and print its outputs and their roots.
    Run(commands::run::Args),
    /// Show what a model is: signature, operators, parameters, cost, address.
    Inspect(commands::inspect::Args),
    /// Say whether every operator and type of a model is executable here (exit code 1 if not).
    Check(commands::check::Args),
    /// Compare this machine's bits with the profile's, operator by operator (exit code 1 if they differ).
    Conformance(commands::conformance::Args),
    /// Check a receipt offline: run its job again and compare, field by field.
    Verify(commands::verify::Args),
    /// Run the network: hub, ledger, nodes and HTTP API in one process.
    Up(commands::up::Args),
    /// Publish a model: store its canonical form, register its address.
    Publish(commands::publish::Args),
    /// Ask the network for an inference, wait for it, and print the outputs.
    Infer(commands::infer::Args),
    /// Show a job: its phase, its nodes and what they answered, its outputs.
    Job(commands::job::Args),
    /// Run a node for a network elsewhere: fetch models, run jobs, sign receipts, earn.
    Node(commands::node::Args),
    /// Write and read what a network begins with.
    Genesis(commands::genesis::Args),
    /// Become a validator, or leave; see who votes on blocks.
    Validator(commands::validator::Args),
    /// Look at the chain in a data folder, offline.
    Chain(commands::chain::Args),
    /// Who may upload to the hub of a data folder.
    Hub(commands::hub::Args),
    /// Keys and coins.
    Wallet(commands::wallet::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    init_logging(cli.verbose);
    let json = cli.json;
    let result = match cli.command {
        Command::Demo(args) => commands::demo::main(args, json),
        Command::Run(args) => commands::run::main(args, json),
        Command::Inspect(args) => commands::inspect::main(args, json),
        Command::Check(args) => commands::check::main(args, json),
        Command::Conformance(args) => commands::conformance::main(args, json),
        Command::Verify(args) => commands::verify::main(args, json),
        Command::Up(args) => commands::up::main(args, json),
        Command::Publish(args) => commands::publish::main(args, json),
        Command::Infer(args) => commands::infer::main(args, json),
        Command::Job(args) => commands::job::main(args, json),
        Command::Node(args) => commands::node::main(args, json),
        Command::Genesis(args) => commands::genesis::main(args, json),
        Command::Validator(args) => commands::validator::main(args, json),
        Command::Chain(args) => commands::chain::main(args, json),
        Command::Hub(args) => commands::hub::main(args, json),
        Command::Wallet(args) => commands::wallet::main(args, json),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error, json);
            ExitCode::from(2)
        }
    }
}

fn init_logging(verbose: u8) {
    let default = match verbose {
        // The network's own crates speak of every message, and call it an error that nobody is connected yet.
        0 => "warn,arc_malachitebft_network=off,arc_malachitebft_discovery=off,libp2p=error",
        1 => {
            "info,arc_malachitebft_network=off,arc_malachitebft_core_consensus=warn,arc_malachitebft_discovery=off,libp2p=warn"
        }
        2 => "debug,libp2p=info,hyper=info",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
