//! Development tasks. `cargo xtask --help`.

#![forbid(unsafe_code)]

mod cross;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Compare the bits of other instruction sets with the profile's, under emulation.
    Cross(cross::Args),
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    match Cli::parse().task {
        Task::Cross(args) => cross::main(&args),
    }
}
