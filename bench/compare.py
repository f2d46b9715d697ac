"""Isobit beside ONNX Runtime, rten and tract: parity, sameness of bits, time, load time, memory.

For each model: outputs against ONNX Runtime's on the same input, the output roots of every kernel set with 1, 2 and 4
threads, and the time of all in turn (A B C D, A B C D, ...), pinned to the same cores. Prints a table and writes
out/results.json and out/speed.svg.

    bench/.venv/bin/python bench/compare.py [--models A,B] [--threads 1,2] [--rounds N] [--peers ort,rten,tract] [--no-bits]
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).parent
NAMES = ["resnet50", "mobilenet_v3_large", "efficientnet_b0", "vit_b_16", "bert_base", "minilm_l6", "gpt2", "lstm"]
PEERS = HERE / "peers/target/release/isobit-bench-peers"


def run(command, env=None, cores=None):
    """The JSON that a program prints, and the most memory it has held, in MiB."""
    pin = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    process = subprocess.Popen(
        [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **(env or {})}, preexec_fn=pin
    )
    text = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        return None
    return {**json.loads(text), "peak_mib": usage.ru_maxrss / 1024}


def isobit(args, folder, kernels, threads, repeat=1, output=None, cores=None):
    command = [args.isobit, "run", folder / "model.onnx", "--input", folder / "inputs.npz", "--json"]
    command += ["--kernels", kernels, "--threads", threads, "--repeat", repeat, "--data", args.data]
    result = run(command + (["--output", output] if output else []), cores=cores)
    if result is None:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    return result


def timed(args, engine, folder, threads, repeat):
    """One process of an engine on `threads` cores."""
    cores = range(threads)
    model, inputs = folder / "model.onnx", folder / "inputs.npz"
    if engine == "isobit":
        return isobit(args, folder, args.best, threads, repeat, cores=cores)
    if engine == "ort":
        return run([sys.executable, HERE / "peer_ort.py", model, inputs, threads, repeat], cores=cores)
    return run([PEERS, engine, model, inputs, repeat], {"RTEN_NUM_THREADS": str(threads)}, cores=cores)


def measure(args, folder, threads):
    """All engines in turn; tract has one thread. Isobit's first process finds no packed weights."""
    engines = ["isobit"] + [p for p in args.peers if p != "tract" or threads == 1]
    shutil.rmtree(pathlib.Path(args.data) / "packed", ignore_errors=True)
    once = timed(args, "isobit", folder, threads, 3)
    repeat = max(5, min(300, round(args.seconds * 1e3 / min(once["times_ms"]))))
    rounds = {e: [] for e in engines}
    for _ in range(args.rounds):
        for engine in engines:
            result = timed(args, engine, folder, threads, repeat + 2)
            if result is not None:
                rounds[engine].append(result)
    summary = {}
    for engine, results in rounds.items():
        times = [t for r in results for t in r["times_ms"][2:]]
        if times:
            summary[engine] = {
                "median": statistics.median(times),
                "min": min(times),
                "rounds": [statistics.median(r["times_ms"][2:]) for r in results],
                "load": min(r["load_ms"] for r in results),
                "peak_mib": max(r["peak_mib"] for r in results),
            }
    summary["isobit"].update(first_load=once["load_ms"], first_peak_mib=once["peak_mib"])
    return summary


def difference(ours, theirs):
    """Largest difference, relative to the largest magnitude of the reference."""
    scale = max(float(np.abs(theirs).max()), 1e-30)
    return float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()) / scale


def bits(args, folder):
    theirs = np.load(folder / "ort.npz")
    roots, worst = {}, 0.0
    for kernels in args.sets:
        for threads in [1] if kernels == "scalar" else [1, 2, 4]:
            with tempfile.TemporaryDirectory() as tmp:
                result = isobit(args, folder, kernels, threads, output=f"{tmp}/out.npz")
                roots[f"{kernels}/{threads}"] = [o["root"] for o in result["outputs"]]
                ours = np.load(f"{tmp}/out.npz")
                worst = max([worst] + [difference(ours[n], theirs[n]) for n in theirs.files])
    return {"roots": roots, "equal": len({tuple(r) for r in roots.values()}) == 1, "difference": worst}


def ratio(summary, peer, what="median"):
    theirs = summary.get(peer)
    return theirs[what] / summary["isobit"][what] if theirs else None


def chart(results, path):
    """Bars of speed relative to ONNX Runtime, one and two threads."""
    rows = [(r["model"], t, ratio(s, "ort")) for r in results for t, s in r["times"].items() if ratio(s, "ort")]
    scale, left, height = 260, 170, 18
    most = max([1.2] + [x for _, _, x in rows])
    width = left + int(scale * most) + 60
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height * len(rows) + 50}" font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="white"/><text x="10" y="18" font-weight="bold">Speed relative to ONNX Runtime (longer is faster)</text>',
    ]
    for i, (model, threads, x) in enumerate(rows):
        y = 32 + i * height
        color = "#3465a4" if threads == "1" else "#73a2d6"
        out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{model}, {threads}t</text>')
        out.append(f'<rect x="{left}" y="{y}" width="{scale * x:.0f}" height="{height - 4}" fill="{color}"/>')
        out.append(f'<text x="{left + scale * x + 5:.0f}" y="{y + 12}">{x:.2f}</text>')
    bottom = 32 + len(rows) * height
    out.append(f'<line x1="{left + scale}" y1="26" x2="{left + scale}" y2="{bottom}" stroke="#cc0000" stroke-dasharray="4 3"/></svg>')
    path.write_text("\n".join(out))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isobit", default=str(HERE.parent / "target/release/isobit"))
    parser.add_argument("--models", default=",".join(NAMES))
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="time of one process's runs")
    parser.add_argument("--peers", default="ort,rten,tract")
    parser.add_argument("--no-bits", action="store_true", help="do not compare roots over kernel sets and threads")
    parser.add_argument("--out", default="results")
    args = parser.parse_args()
    flags = pathlib.Path("/proc/cpuinfo").read_text()
    args.sets = ["scalar"] + [s for s, f in [("avx2", "avx2"), ("avx512", "avx512f")] if f in flags]
    args.best = args.sets[-1]
    args.peers = [p for p in args.peers.split(",") if p == "ort" or PEERS.exists()]
    print("| model | threads | ms (min) | ONNX Runtime | ratio | ratio of minima | rten | tract | load ms (first) | ORT | peak MiB (first) | ORT | difference | roots |")
    print("| --- " * 14 + "|")
    results = []
    own = tempfile.TemporaryDirectory()
    args.data = own.name
    for name in args.models.split(","):
        folder = HERE / "models" / name
        result = {"model": name, "times": {}, **({} if args.no_bits else bits(args, folder))}
        for threads in map(int, args.threads.split(",")):
            s = result["times"][str(threads)] = measure(args, folder, threads)
            ours, ort = s["isobit"], s.get("ort")
            cell = lambda x, form="{:.2f}": "" if x is None else form.format(x)
            cells = [name, str(threads), f"{ours['median']:.2f} ({ours['min']:.2f})"]
            cells += [f"{ort['median']:.2f} ({ort['min']:.2f})" if ort else "", cell(ratio(s, "ort")), cell(ratio(s, "ort", "min"))]
            cells += [cell(ratio(s, "rten")), cell(ratio(s, "tract")), f"{ours['load']:.0f} ({ours['first_load']:.0f})", cell(ort and ort["load"], "{:.0f}")]
            cells += [f"{ours['peak_mib']:.0f} ({ours['first_peak_mib']:.0f})", cell(ort and ort["peak_mib"], "{:.0f}")]
            cells += ["", ""] if args.no_bits else [f"{result['difference']:.1e}", "equal" if result["equal"] else "NOT EQUAL"]
            print("| " + " | ".join(cells) + " |", flush=True)
        results.append(result)
    (HERE / "out").mkdir(exist_ok=True)
    (HERE / f"out/{args.out}.json").write_text(json.dumps(results, indent=1))
    chart(results, HERE / f"out/{args.out}.svg")


if __name__ == "__main__":
    main()
