"""Isobit beside ONNX Runtime on the exported models: parity, sameness of bits, time.

For each model: outputs against ONNX Runtime's on the same input, the output roots of every kernel set with 1, 2 and 4
threads, and the time of both runtimes measured in turn, pinned to the same cores. Prints a table and writes out/results.json.

    bench/.venv/bin/python bench/compare.py [--models A,B] [--runs N] [--skip-scalar] [--isobit PATH]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime

HERE = pathlib.Path(__file__).parent
NAMES = ["resnet50", "mobilenet_v3_large", "efficientnet_b0", "vit_b_16", "bert_base", "minilm_l6", "gpt2", "lstm"]


def isobit(args, folder, kernels, threads, repeat=1, warmup=0, output=None):
    command = [args.isobit, "run", str(folder / "model.onnx"), "--input", str(folder / "inputs.npz"), "--json"]
    command += ["--kernels", kernels, "--threads", str(threads), "--repeat", str(repeat), "--warmup", str(warmup)]
    if output:
        command += ["--output", output]
    done = subprocess.run(command, capture_output=True, text=True)
    result = json.loads(done.stdout or "{}")
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: {result.get('error', done.stderr)}")
    return result


def difference(ours, theirs):
    """Largest difference, relative to the largest magnitude of the reference."""
    scale = max(float(np.abs(theirs).max()), 1e-30)
    return float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()) / scale


def ort_times(folder, inputs, threads, runs, warmup):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    times = []
    for i in range(warmup + runs):
        start = time.perf_counter()
        session.run(None, inputs)
        if i >= warmup:
            times.append(1e3 * (time.perf_counter() - start))
    return times


def measure(args, folder, inputs, threads):
    """Both runtimes in turn, three rounds each, on the first `threads` cores."""
    os.sched_setaffinity(0, range(threads))
    ours, theirs = [], []
    for _ in range(3):
        ours += isobit(args, folder, args.best, threads, repeat=args.runs, warmup=2)["times_ms"]
        theirs += ort_times(folder, inputs, threads, args.runs, 2)
    os.sched_setaffinity(0, range(os.cpu_count()))
    return {"isobit": statistics.median(ours), "ort": statistics.median(theirs), "isobit_min": min(ours), "ort_min": min(theirs)}


def compare(args, name):
    folder = HERE / "models" / name
    inputs = dict(np.load(folder / "inputs.npz"))
    theirs = np.load(folder / "ort.npz")
    roots, result = {}, {"model": name}
    for kernels in args.sets:
        for threads in [1] if kernels == "scalar" else [1, 2, 4]:
            print(f"  {name}: {kernels}, {threads} threads ...", end="\r", flush=True)
            with tempfile.TemporaryDirectory() as tmp:
                out = f"{tmp}/out.npz"
                run = isobit(args, folder, kernels, threads, output=out)
                roots[f"{kernels}/{threads}"] = [o["root"] for o in run["outputs"]]
                ours = np.load(out)
                result["difference"] = max(difference(ours[n], theirs[n]) for n in theirs.files)
    result["roots"] = roots
    result["equal"] = len({tuple(r) for r in roots.values()}) == 1
    for threads in [1, 2]:
        result[f"ms_{threads}"] = measure(args, folder, inputs, threads)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isobit", default=str(HERE.parent / "target/release/isobit"))
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--skip-scalar", action="store_true")
    args = parser.parse_args()
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    args.sets = ["scalar"] * (not args.skip_scalar) + [s for s, f in [("avx2", "avx2"), ("avx512", "avx512f")] if f in flags]
    args.best = args.sets[-1]
    print("| model | largest relative difference | roots equal | ms, 1 thread | ORT | ratio | ms, 2 threads | ORT | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    results = []
    for name in args.models.split(","):
        r = compare(args, name)
        results.append(r)
        cells = [name, f"{r['difference']:.1e}", f"{'yes' if r['equal'] else 'NO'} ({len(r['roots'])} runs)"]
        for threads in [1, 2]:
            t = r[f"ms_{threads}"]
            cells += [f"{t['isobit']:.2f}", f"{t['ort']:.2f}", f"{t['ort'] / t['isobit']:.2f}"]
        print("| " + " | ".join(cells) + " |", flush=True)
    (HERE / "out").mkdir(exist_ok=True)
    (HERE / "out/results.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
