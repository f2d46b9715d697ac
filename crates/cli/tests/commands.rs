//! The command as a user runs it: what it prints, how it fails, and that nothing that was acknowledged is lost.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn digits() -> String {
    repository().join("models/digits-cnn/model.onnx").display().to_string()
}

fn isobit(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isobit")).args(args).output().unwrap()
}

/// Runs a command that must succeed and returns its JSON.
#[track_caller]
fn json(args: &[&str]) -> Value {
    let out = isobit(&[args, &["--json"]].concat());
    assert!(out.status.success(), "{args:?}: {}{}", text(&out.stdout), text(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The demo on a part of the images, then its receipt offline; any changed byte that matters makes it fail.
#[test]
fn demo_and_verify() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("demo").display().to_string();
    let demo = json(&["demo", "--images", "40", "--out", &out]);
    assert_eq!(demo["ok"], true);
    assert_eq!(demo["agree"], 40);
    assert_eq!(demo["right"], 40);
    assert_eq!(demo["coins_before"], demo["coins_after"]);
    assert_eq!(demo["liar"]["stake_after"], "0");

    let path = |name: &str| format!("{out}/{name}");
    let verify = |receipt: &str, model: &str, input: &str| {
        isobit(&["verify", receipt, "--model", model, "--input", input, "--json"])
    };
    let (receipt, model, input) = (path("receipt.json"), path("model.onnx"), path("input.safetensors"));
    let good = verify(&receipt, &model, &input);
    assert_eq!(good.status.code(), Some(0), "{}", text(&good.stdout));
    for set in isobit_kernels::KernelSet::available() {
        let args = ["verify", &receipt, "--model", &model, "--input", &input, "--kernels", set.name()];
        assert!(isobit(&args).status.success(), "{set}");
    }

    // Each byte of the receipt's values, and some of input and model.
    let original = std::fs::read_to_string(&receipt).unwrap();
    let bad = path("bad.json");
    for field in ["chain_id", "job", "model", "inputs", "seed", "outputs", "cost", "node", "signature"] {
        let at = original.find(&format!("\"{field}\": ")).unwrap() + field.len() + 4;
        let digit = original[at..].find(|c: char| c.is_ascii_digit() && c != '0').unwrap() + at;
        let mut changed = original.clone().into_bytes();
        changed[digit] = if changed[digit] == b'9' { b'8' } else { changed[digit] + 1 };
        std::fs::write(&bad, changed).unwrap();
        assert_eq!(verify(&bad, &model, &input).status.code(), Some(1), "{field}");
    }
    let mut bytes = std::fs::read(&input).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(path("other.safetensors"), bytes).unwrap();
    let failed: Value =
        serde_json::from_slice(&verify(&receipt, &model, &path("other.safetensors")).stdout).unwrap();
    assert_eq!(failed["verified"], false);
    let fails = |name: &str| {
        failed["fields"].as_array().unwrap().iter().any(|f| f["field"] == name && f["holds"] == false)
    };
    assert!(fails("inputs") && !fails("model"));
    let mut bytes = std::fs::read(&model).unwrap();
    let middle = bytes.len() / 2; // in the weights
    bytes[middle] ^= 1;
    std::fs::write(path("other.onnx"), bytes).unwrap();
    assert_ne!(verify(&receipt, &path("other.onnx"), &input).status.code(), Some(0));
}

#[test]
fn run_inspect_check() {
    let roots: Vec<Value> = isobit_kernels::KernelSet::available()
        .iter()
        .flat_map(|set| ["1", "2", "4"].map(|threads| (set.name(), threads)))
        .map(|(set, threads)| {
            json(&[
                "run",
                &digits(),
                "--random",
                "7",
                "--dim",
                "batch=5",
                "--kernels",
                set,
                "--threads",
                threads,
            ])
        })
        .map(|run| run["outputs"][0]["root"].clone())
        .collect();
    assert!(roots.iter().all(|r| r == &roots[0]), "{roots:?}");

    let about = json(&["inspect", &digits(), "--dim", "batch=5"]);
    assert_eq!(about["parameters"], 23950);
    assert_eq!(about["cost"], 5 * 614_210);
    assert_eq!(json(&["check", &digits()])["executable"], true);

    let missing = isobit(&["run", "no-such-file.onnx", "--random", "1"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("no-such-file.onnx"));
    let none = isobit(&["run", &digits()]);
    assert!(text(&none.stderr).contains("--random"));
    let set = isobit(&["run", &digits(), "--random", "1", "--kernels", "quantum"]);
    assert!(text(&set.stderr).contains("scalar"));
}

struct Network {
    child: Child,
    url: String,
}

impl Network {
    fn up(data: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_isobit"))
            .args(["up", "--data", data, "--listen", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let about: Value = serde_json::from_str(&line).unwrap();
        Self { child, url: about["url"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Killed at any moment, the network comes up again with every job that had settled, every blob whole, and all coins; and what is
/// on disk is what executing all blocks from the genesis gives.
#[test]
fn nothing_is_lost_when_killed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().display().to_string();
    let mut settled: Vec<(String, Value)> = Vec::new();
    let mut blocks = 0;
    for round in 0..8u64 {
        let network = Network::up(&data);
        let with = |args: &[&str]| json(&[args, &["--url", &network.url, "--data", &data]].concat());
        with(&["publish", &digits(), "--name", "digits"]);
        for (id, outputs) in &settled {
            let job = with(&["job", id]);
            assert_eq!((&job["phase"], &job["outputs"]), (&Value::from("settled"), outputs));
        }
        if round % 2 == 0 {
            let job = with(&["infer", "digits", "--random", &round.to_string()]);
            assert_eq!(job["phase"], "settled");
            settled.push((job["job"].as_str().unwrap().to_owned(), job["outputs"].clone()));
        }
        // Jobs that are on their way when the process is killed, at a moment that is another in each round.
        with(&["infer", "digits", "--random", "99", "--no-wait"]);
        with(&["infer", "digits", "--random", "98", "--no-wait"]);
        std::thread::sleep(std::time::Duration::from_millis(round * 137 % 700));
        drop(network);
        let verified = json(&["chain", "verify", "--data", &data]);
        assert_eq!(verified["coins"], "1006000000000000000000000");
        let now = verified["blocks"].as_u64().unwrap();
        assert!(now > blocks);
        blocks = now;
    }
    let blobs = isobit_hub::BlobStore::open(&dir.path().join("blobs")).unwrap();
    for hash in blobs.list().unwrap() {
        blobs.get(&hash).unwrap();
    }
}
