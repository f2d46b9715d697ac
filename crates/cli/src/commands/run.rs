use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use isobit_kernels::gemm::peak;
use isobit_runtime::{Kept, KernelSet, Options, RunOptions, RunResult, Session, StepTime};

use crate::tensors::{self, Named};
use crate::{home, model, output};

/// Run a model on this machine and print its outputs and their roots.
///
/// The root is the BLAKE3 commitment of an output: the same on every machine, with every kernel set
/// and any number of threads.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  isobit run model.onnx --random 42\n  \
    isobit run model.onnx --input inputs.npz --threads 2 --profile\n  \
    isobit run model.onnx --input image=cat.npy --output out.npz --json")]
pub(crate) struct Args {
    /// An ONNX file or a model object directory.
    model: PathBuf,
    /// Inputs: FILE (.npz, .safetensors, .json), or NAME=FILE.npy. May be repeated.
    #[arg(short, long = "input", value_name = "[NAME=]FILE", conflicts_with = "random")]
    inputs: Vec<String>,
    /// Random inputs from this seed (symbolic dimensions are 1 unless given with --dim).
    #[arg(long, value_name = "SEED")]
    random: Option<u64>,
    /// Extent of a symbolic dimension for --random.
    #[arg(long = "dim", value_name = "NAME=N", value_parser = parse_dim)]
    dims: Vec<(String, usize)>,
    /// Write the outputs to FILE (.npz or .safetensors).
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Kernel set; by default the fastest of this machine. It changes the speed, never a bit.
    #[arg(long, value_name = "SET")]
    kernels: Option<KernelSet>,
    /// Threads; by default all cores.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Data folder, where packed weights and their roots are kept (in packed/, whose files may be deleted at any time); ~/.isobit
    /// unless given.
    #[arg(long, env = "ISOBIT_HOME", value_name = "DIR")]
    data: Option<PathBuf>,
    /// Hash and pack the weights anew, and do not keep that.
    #[arg(long)]
    no_cache: bool,
    /// Seed of the run's random operators.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print time by operator, GFLOP/s of products and their share of the machine's measured peak.
    #[arg(long)]
    profile: bool,
    /// Timed runs.
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: usize,
    /// Untimed runs before them.
    #[arg(long, default_value_t = 0, value_name = "N")]
    warmup: usize,
}

pub(crate) fn parse_dim(text: &str) -> Result<(String, usize), String> {
    let (name, n) = text.split_once('=').ok_or("give NAME=N, e.g. batch=8")?;
    Ok((name.to_owned(), n.parse().map_err(|_| format!("'{n}' is no number"))?))
}

pub(crate) fn main(args: Args, json: bool) -> Result<ExitCode> {
    let start = Instant::now();
    let packed = home::packed(args.data.as_deref()).filter(|_| !args.no_cache);
    let model = model::open_known(&args.model, packed.as_deref())?;
    let set = args.kernels.unwrap_or_else(KernelSet::best);
    let threads = args.threads.unwrap_or_else(model::cores);
    let mut options = Options::default().kernel_set(set).threads(threads);
    options.packed = packed;
    let session = Session::load(model, &options).context("`isobit check` lists all that is missing")?;
    if let Kept::Failed(why) = session.kept() {
        output::warning(&format!("packed weights are not kept: {why}"));
    }
    let graph = &session.model().graph;
    let load = start.elapsed();

    let inputs = match args.random {
        Some(seed) => tensors::random_inputs(graph, seed, &args.dims.iter().cloned().collect())?,
        None if args.inputs.is_empty() && !graph.inputs.is_empty() => {
            bail!("no inputs; give --input FILE, or --random SEED")
        }
        None => tensors::read_inputs(&args.inputs, graph)?,
    };
    let options = RunOptions { seed: args.seed, profile: args.profile, ..RunOptions::default() };
    let (result, times) = repeat(&session, &inputs, &options, &args, json)?;
    if let Some(path) = &args.output {
        tensors::write(path, &result.outputs)?;
    }
    if json {
        print_json(&session, threads, load, &result, &times);
    } else {
        print_text(&result, load, &times, set, threads);
    }
    Ok(ExitCode::SUCCESS)
}

fn repeat(
    session: &Session,
    inputs: &Named,
    options: &RunOptions,
    args: &Args,
    json: bool,
) -> Result<(RunResult, Vec<Duration>)> {
    let total = args.warmup + args.repeat.max(1);
    let bar = output::progress(total as u64, "running", json || total == 1);
    let mut times = Vec::new();
    let mut last: Option<RunResult> = None;
    for i in 0..total {
        let given = inputs.clone();
        let start = Instant::now();
        let result = session.run(given, options)?;
        if i >= args.warmup {
            times.push(start.elapsed());
        }
        last = Some(result);
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((last.expect("at least one run"), times))
}

fn print_json(session: &Session, threads: usize, load: Duration, result: &RunResult, times: &[Duration]) {
    let ms = |d: &Duration| d.as_secs_f64() * 1e3;
    let outputs = result.outputs.iter().map(|(name, t)| {
        serde_json::json!({
            "name": name, "dtype": t.dtype().name(), "shape": t.shape(), "root": t.root().to_string(),
        })
    });
    let steps = result.steps.iter().map(|s| {
        serde_json::json!({
            "step": s.node.step, "op": s.node.op, "name": s.node.name,
            "ms": ms(&s.time), "cost": s.cost, "fused": s.fused,
        })
    });
    output::json(&serde_json::json!({
        "outputs": outputs.collect::<Vec<_>>(), "cost": result.cost,
        "kernel_set": session.kernel_set().name(), "threads": threads,
        "load_ms": ms(&load), "times_ms": times.iter().map(ms).collect::<Vec<_>>(),
        "steps": steps.collect::<Vec<_>>(),
    }));
}

fn print_text(result: &RunResult, load: Duration, times: &[Duration], set: KernelSet, threads: usize) {
    for (name, t) in &result.outputs {
        output::line(&format!("{name}: {} {:?}", t.dtype(), t.shape()));
        output::line(&format!("  root   {}", t.root()));
        output::line(&format!("  values {}", tensors::preview(t, 8)));
    }
    let mut sorted = times.to_vec();
    sorted.sort();
    let (min, median) = (sorted[0], sorted[sorted.len() / 2]);
    output::line(&format!(
        "cost {} units; {set}, {threads} threads: load {load:.1?}, run {median:.2?}{}",
        output::thousands(result.cost),
        if times.len() > 1 { format!(" median of {}, {min:.2?} best", times.len()) } else { String::new() },
    ));
    if !result.steps.is_empty() {
        let peak = peak(set) * threads as f64;
        output::line("");
        output::line(output::table(&by_operator(&result.steps, peak)).trim_end());
        output::line(&format!(
            "\nfused: calls whose work an earlier operator did in the same pass, in its time; \
             peak: {:.1} GFLOP/s, {threads} times what one core's inner tile does here",
            2.0 * peak / 1e9
        ));
    }
}

/// Operators whose unit of cost is a multiply-add.
const PRODUCTS: [&str; 9] =
    ["Conv", "ConvTranspose", "MatMul", "Gemm", "Attention", "LSTM", "GRU", "RNN", "Einsum"];

/// Time and cost summed by operator, the slowest first. `peak`: multiply-adds a second that the machine can do.
fn by_operator(steps: &[StepTime], peak: f64) -> Vec<Vec<String>> {
    #[derive(Default)]
    struct Sum {
        calls: usize,
        fused: usize,
        time: Duration,
        cost: u64,
    }
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for step in steps {
        let sum = sums.entry(&step.node.op).or_default();
        sum.calls += 1;
        sum.fused += usize::from(step.fused);
        sum.time += step.time;
        sum.cost += step.cost;
    }
    let total: f64 = steps.iter().map(|s| s.time.as_secs_f64()).sum();
    let mut rows: Vec<_> = sums.into_iter().collect();
    rows.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.time));
    let head =
        ["operator", "calls", "fused", "ms", "%", "cost", "GFLOP/s", "% of peak"].map(str::to_owned).to_vec();
    std::iter::once(head)
        .chain(rows.into_iter().map(|(op, sum)| {
            let s = sum.time.as_secs_f64();
            let rate = sum.cost as f64 / s.max(1e-9);
            let product = PRODUCTS.contains(&op);
            let of_product = |text: String| if product { text } else { String::new() };
            vec![
                op.to_owned(),
                sum.calls.to_string(),
                if sum.fused > 0 { sum.fused.to_string() } else { String::new() },
                format!("{:.3}", s * 1e3),
                format!("{:.1}", 100.0 * s / total.max(1e-12)),
                output::thousands(sum.cost),
                of_product(format!("{:.1}", 2.0 * rate / 1e9)),
                of_product(format!("{:.0}", 100.0 * rate / peak)),
            ]
        }))
        .collect()
}
