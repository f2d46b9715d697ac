//! `cargo xtask cross`: the conformance runner built for other processors and run by qemu, and for WebAssembly and run by node.
//!
//! What needs qemu happens in a Debian root under `target/cross`, made by debootstrap the first time (needs root, about 4 GB): its
//! rustc has the standard libraries of the targets, its qemu the processors. WebAssembly needs `node` and a target that rustup adds.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};

/// Compare the bits of other instruction sets with the profile's, under emulation.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these processors; by default all.
    #[arg(value_parser = clap::builder::PossibleValuesParser::new(MACHINES.map(|m| m.name).into_iter().chain([WASM])))]
    machines: Vec<String>,
    /// Every case instead of the first ones: hours.
    #[arg(long)]
    full: bool,
}

/// A processor to emulate.
struct Machine {
    name: &'static str,
    target: &'static str,
    /// Debian's name of the architecture, where its compiler and libraries are needed.
    gnu: &'static str,
    qemu: &'static str,
    /// The kernel set to run; all that the processor has where it is empty.
    kernels: &'static str,
}

const fn machine(
    name: &'static str,
    target: &'static str,
    gnu: &'static str,
    qemu: &'static str,
    kernels: &'static str,
) -> Machine {
    Machine { name, target, gnu, qemu, kernels }
}

const X86: &str = "x86_64-unknown-linux-gnu";

/// Memory of 32 bits, no fused multiply-add, no threads.
const WASM: &str = "wasm32";
const WASM_TARGET: &str = "wasm32-wasip1";

const MACHINES: [Machine; 5] = [
    machine("aarch64", "aarch64-unknown-linux-gnu", "aarch64-linux-gnu", "qemu-aarch64", ""),
    machine("riscv64", "riscv64gc-unknown-linux-gnu", "riscv64-linux-gnu", "qemu-riscv64", ""),
    machine("s390x", "s390x-unknown-linux-gnu", "s390x-linux-gnu", "qemu-s390x", ""),
    machine("nehalem", X86, "x86_64-linux-gnu", "qemu-x86_64 -cpu Nehalem", ""),
    machine("haswell", X86, "x86_64-linux-gnu", "qemu-x86_64 -cpu Haswell", "avx2"),
];

/// What the root has beside the base system.
const PACKAGES: &str = "rustc cargo libc6-dev gcc libstd-rust-dev libstd-rust-dev:arm64 libstd-rust-dev:riscv64 libstd-rust-dev:s390x \
     gcc-aarch64-linux-gnu gcc-riscv64-linux-gnu gcc-s390x-linux-gnu libc6-dev-arm64-cross libc6-dev-riscv64-cross \
     libc6-dev-s390x-cross qemu-user";

pub(crate) fn main(args: &Args) -> Result<ExitCode> {
    let workspace =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in the workspace")?;
    let root = workspace.join("target/cross/root");
    let bar =
        ProgressBar::new_spinner().with_style(ProgressStyle::with_template("{spinner} {msg} {elapsed}")?);
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    let mut rows = vec![("processor", "result", "seconds".to_owned())];
    let mut equal = true;
    let is_chosen = |name: &str| args.machines.is_empty() || args.machines.iter().any(|n| n == name);
    let mut run_on = |name: &'static str, execute: &dyn Fn() -> Result<(bool, String)>| {
        bar.set_message(format!("running on {name}"));
        let start = Instant::now();
        let (is_equal, said) = execute()?;
        bar.suspend(|| print!("{}", said.lines().map(|l| format!("{name}: {l}\n")).collect::<String>()));
        equal &= is_equal;
        let result = if is_equal { "the same bits" } else { "DIFFERS" };
        rows.push((name, result, start.elapsed().as_secs().to_string()));
        anyhow::Ok(())
    };
    if is_chosen(WASM) {
        bar.set_message("building for wasm32");
        build_wasm(workspace)?;
        run_on(WASM, &|| execute_wasm(workspace, args.full))?;
    }
    let machines: Vec<&Machine> = MACHINES.iter().filter(|m| is_chosen(m.name)).collect();
    if !machines.is_empty() {
        if !root.join("usr/bin/qemu-s390x").exists() {
            bar.set_message("making a Debian root under target/cross");
            make_root(&root)?;
        }
        // Sources of dependencies come from this machine's registry: the root builds offline.
        run(Command::new(env!("CARGO")).args(["fetch", "--locked"]).current_dir(workspace))?;
    }
    let inside = Inside { workspace: workspace.to_owned(), root };
    for m in machines {
        bar.set_message(format!("building for {}", m.name));
        inside.run(&build(m))?;
        run_on(m.name, &|| inside.output(&execute(m, args.full)))?;
    }
    bar.finish_and_clear();
    for (name, result, seconds) in rows {
        println!("{name:12} {result:14} {seconds:>8}");
    }
    Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn make_root(root: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    run(Command::new("debootstrap")
        .args(["--variant=minbase", "--include=ca-certificates", "trixie"])
        .arg(root))
    .context("debootstrap is needed once, and must run as root")?;
    let inside = |script: &str| run(Command::new("chroot").arg(root).args(["sh", "-ec", script]));
    inside("for a in arm64 riscv64 s390x; do dpkg --add-architecture $a; done; apt-get update -q")?;
    inside(&format!(
        "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends {PACKAGES}; apt-get clean"
    ))
}

/// With the toolchain that this was built with, outside of the root.
fn build_wasm(workspace: &Path) -> Result<()> {
    let added =
        run(Command::new("rustup").args(["--quiet", "target", "add", WASM_TARGET]).current_dir(workspace));
    added.with_context(|| format!("the target {WASM_TARGET} is needed, and rustup to add it"))?;
    run(Command::new(env!("CARGO")).current_dir(workspace).args([
        "build",
        "--quiet",
        "--locked",
        "--release",
        "--target",
        WASM_TARGET,
        "--target-dir",
        "target/cross/build",
        "-p",
        "isobit-conformance",
    ]))
}

fn execute_wasm(workspace: &Path, full: bool) -> Result<(bool, String)> {
    let program = format!("target/cross/build/{WASM_TARGET}/release/isobit-conformance.wasm");
    let mut command = Command::new("node");
    command.current_dir(workspace).args(["--no-warnings", "xtask/src/wasi.mjs", &program]);
    command.args(if full { &[][..] } else { &["--quick"] });
    let output = command.stderr(Stdio::inherit()).output().context("node is needed to run WebAssembly")?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Debian's compiler is 1.85; one dependency uses what Rust 1.88 made stable.
fn build(m: &Machine) -> String {
    let linker = m.target.to_uppercase().replace('-', "_");
    format!(
        "export RUSTC_BOOTSTRAP=1 RUSTFLAGS='-Zcrate-attr=feature(unsigned_is_multiple_of,let_chains)'\n\
         export CARGO_TARGET_{linker}_LINKER={}-gcc\n\
         cargo build --quiet --ignore-rust-version --offline --locked --release --target {} -p isobit-conformance",
        m.gnu, m.target
    )
}

fn execute(m: &Machine, full: bool) -> String {
    let quick = if full { "" } else { "--quick" };
    let kernels = if m.kernels.is_empty() { String::new() } else { format!("--kernels {}", m.kernels) };
    let libraries = if m.target == X86 { "/".to_owned() } else { format!("/usr/{}", m.gnu) };
    format!("exec {} -L {libraries} /build/{}/release/isobit-conformance {quick} {kernels}", m.qemu, m.target)
}

/// The root, with the workspace at /work, this machine's registry and a build folder mounted in a namespace of their own.
struct Inside {
    workspace: PathBuf,
    root: PathBuf,
}

impl Inside {
    fn command(&self, script: &str) -> Result<Command> {
        let build = self.workspace.join("target/cross/build");
        for dir in ["work", "cargo", "build"] {
            fs::create_dir_all(self.root.join(dir))?;
        }
        fs::create_dir_all(&build)?;
        fs::write(self.root.join("task.sh"), format!("set -e\ncd /work\n{script}\n"))?;
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-ec", MOUNTS, "sh"]).args([&self.root, &self.workspace, &build]);
        command.arg(home.context("neither CARGO_HOME nor HOME is set")?);
        Ok(command)
    }

    fn run(&self, script: &str) -> Result<()> {
        run(&mut self.command(script)?)
    }

    /// Whether it succeeded, and what it printed.
    fn output(&self, script: &str) -> Result<(bool, String)> {
        let output = self.command(script)?.stderr(Stdio::inherit()).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }
}

const MOUNTS: &str = "mount --bind \"$2\" \"$1/work\"; mount --bind \"$3\" \"$1/build\"; mount --bind \"$4\" \"$1/cargo\"; \
     mount -t proc proc \"$1/proc\"; \
     exec chroot \"$1\" env -i PATH=/usr/bin:/bin HOME=/root CARGO_HOME=/cargo CARGO_TARGET_DIR=/build sh /task.sh";

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(status.success(), "{:?} failed: {status}", command.get_program());
    Ok(())
}
