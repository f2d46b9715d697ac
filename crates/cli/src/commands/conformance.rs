use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use isobit_conformance::{BLOCKS, FILE, File, Report, Setting, compare, compute, functions};
use isobit_runtime::KernelSet;

use crate::output;

/// Compare this machine's bits with the profile's, operator by operator.
///
/// For each operator and element type there are 1,024 cases drawn from a seed, failures among them; the hash over what comes out
/// must be that of the profile, for every kernel set and number of threads. Then three whole models. Exit code 1 if
/// anything differs: this machine must then not be a node, and we would like to know.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  isobit conformance --quick            half a minute for each kernel set
  isobit conformance                    every case; some minutes for each
  isobit conformance --exhaustive       17 functions on all 2^32 inputs")]
pub(crate) struct Args {
    /// The first cases of each line only.
    #[arg(long)]
    quick: bool,
    /// One kernel set; by default all that this machine has, and the fastest with three threads.
    #[arg(long, value_name = "SET")]
    kernels: Option<KernelSet>,
    /// Threads that share the work; by default all cores. Each case runs on the threads that its setting says.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// The elementary functions on every float32 instead, or those that are named.
    #[arg(long, value_name = "FUNCTION", num_args = 0.., conflicts_with_all = ["quick", "write"])]
    exhaustive: Option<Vec<String>>,
    /// Write what the scalar definition computes as a new conformance.toml: a change of the profile, or new lines.
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    write: Option<PathBuf>,
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let workers =
        args.workers.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1);
    if let Some(names) = &args.exhaustive {
        return exhaustive(names, args.kernels.unwrap_or(KernelSet::best()), workers, json);
    }
    if let Some(path) = &args.write {
        let file = run(Setting { set: KernelSet::Scalar, threads: 1 }, false, workers, json);
        std::fs::write(path, file.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = match args.kernels {
        Some(set) => vec![Setting { set, threads: 1 }],
        None => Setting::all(),
    };
    let expected = File::parse(FILE)?;
    let mut report = Report::default();
    for setting in settings {
        let before = report.differences.len();
        compare(&expected, &run(setting, args.quick, workers, json), setting, &mut report);
        if !json {
            output::line(&format!("{setting}: {} differences", report.differences.len() - before));
        }
    }
    let equal = report.differences.is_empty();
    if json {
        let list = report.differences.iter();
        let list = list.map(|d| serde_json::json!({ "name": d.name, "setting": d.setting, "how": d.how }));
        output::json(&serde_json::json!({
            "equal": equal, "compared": report.compared, "cases": report.cases, "differences": list.collect::<Vec<_>>(),
        }));
    } else {
        for d in &report.differences {
            output::line(&format!("{} ({}) {}", d.name, d.setting, d.how));
        }
        let (lines, cases) = (output::thousands(report.compared as u64), output::thousands(report.cases));
        let verdict = if equal { "the same bits" } else { "NOT the same bits" };
        output::line(&format!("{verdict}: {lines} lines and models, {cases} cases"));
    }
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn run(setting: Setting, quick: bool, workers: usize, json: bool) -> File {
    let bar = output::progress(0, "operators", json);
    let file = compute(setting, quick, workers, &|_, done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    file
}

fn exhaustive(names: &[String], set: KernelSet, workers: usize, json: bool) -> Result<ExitCode> {
    let functions = functions(names).map_err(anyhow::Error::msg)?;
    let mut rows = vec![vec!["function".into(), "kernels".into(), "equal".into(), "hash".into()]];
    let mut equal = true;
    for f in functions {
        let bar = output::progress(BLOCKS as u64, f.name, json);
        let hash = f.hash(set, workers, &|| bar.inc(1)).to_string();
        bar.finish_and_clear();
        equal &= hash == f.expected;
        let verdict = if hash == f.expected { "yes" } else { "NO" };
        rows.push(vec![f.name.into(), set.to_string(), verdict.into(), hash]);
    }
    if json {
        let list = rows[1..].iter().map(|r| serde_json::json!({ "function": r[0], "kernels": r[1], "equal": r[2] == "yes", "hash": r[3] }));
        output::json(&serde_json::json!({ "equal": equal, "functions": list.collect::<Vec<_>>() }));
    } else {
        output::line(&output::table(&rows));
    }
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
