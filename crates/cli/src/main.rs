//! The `isobit` command: one binary that is hub, node, ledger and client.

#![forbid(unsafe_code)]

mod commands;
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
    /// Run a model on this machine and print its outputs and their roots.
    Run(commands::run::Args),
    /// Show what a model is: signature, operators, parameters, cost, address.
    Inspect(commands::inspect::Args),
    /// Say whether every operator and type of a model is executable here (exit code 1 if not).
    Check(commands::check::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    init_logging(cli.verbose);
    let json = cli.json;
    let result = match cli.command {
        Command::Run(args) => commands::run::main(args, json),
        Command::Inspect(args) => commands::inspect::main(args, json),
        Command::Check(args) => commands::check::main(args, json),
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
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
