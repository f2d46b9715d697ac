//! The runner for machines on which the whole of `isobit` is not built: prints the differences and a summary, or writes the file.
//!
//!     isobit-conformance [--quick] [--workers N] [--kernels SET] [--only OPERATOR,..] [--write PATH]
//!     isobit-conformance --exhaustive [--workers N] [--kernels SET] [FUNCTION..]
//!     isobit-conformance pack ARCHIVE.. > templates.tar.zst

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use isobit_conformance::{FILE, File, Report, Setting, compare, compute, compute_lines, functions, pack};
use isobit_runtime::KernelSet;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<bool, Box<dyn std::error::Error>> {
    if args.first().is_some_and(|a| a == "pack") {
        let archives = args[1..].iter().map(std::fs::read).collect::<Result<Vec<_>, _>>()?;
        std::io::stdout().write_all(&pack(&archives)?)?;
        return Ok(true);
    }
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1));
    let quick = args.iter().any(|a| a == "--quick");
    let quiet = |_: &str, _: usize, _: usize| {};
    let workers = match value("--workers") {
        Some(n) => n.parse()?,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    };
    if args.first().is_some_and(|a| a == "--exhaustive") {
        let set = value("--kernels").map_or(Ok(KernelSet::best()), |set| set.parse())?;
        let mut names = Vec::new();
        let mut rest = args[1..].iter();
        while let Some(a) = rest.next() {
            if a.starts_with("--") {
                rest.next(); // its value
            } else {
                names.push(a.clone());
            }
        }
        let mut equal = true;
        for f in functions(&names)? {
            let same = f.hash(set, workers, &|| ()).to_string() == f.expected;
            println!(
                "{} on {set}: 4294967296 inputs, {}",
                f.name,
                if same { "the same bits" } else { "DIFFERS" }
            );
            equal &= same;
        }
        return Ok(equal);
    }
    let only = value("--only");
    let is_wanted = |op: &str| only.is_none_or(|only| only.split(',').any(|o| o == op));
    let computed = |setting, quick| match only {
        None => compute(setting, quick, workers, &quiet),
        Some(_) => compute_lines(&is_wanted, setting, quick, workers, &quiet),
    };
    let mut expected = File::parse(FILE)?;
    if let Some(path) = value("--write") {
        let mut file = computed(Setting { set: KernelSet::Scalar, threads: 1 }, false);
        if only.is_some() {
            expected.lines.extend(file.lines);
            file = expected;
        }
        std::fs::write(path, file.to_string())?;
        return Ok(true);
    }
    if only.is_some() {
        expected.lines.retain(|name, _| name.split(' ').next().is_some_and(is_wanted));
        expected.models.clear();
    }
    let settings = match value("--kernels") {
        Some(set) => vec![Setting { set: set.parse()?, threads: 1 }],
        None => Setting::all(),
    };
    let mut report = Report::default();
    for setting in settings {
        let before = report.differences.len();
        compare(&expected, &computed(setting, quick), setting, &mut report);
        println!("{setting}: {} differences", report.differences.len() - before);
    }
    for d in report.differences.iter().take(500) {
        println!("  {} ({}) {}", d.name, d.setting, d.how);
    }
    println!(
        "{} lines and models, {} cases, {} differences",
        report.compared,
        report.cases,
        report.differences.len()
    );
    Ok(report.differences.is_empty())
}
