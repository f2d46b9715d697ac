"""Instructions of the main kernels (AVX2), counted by valgrind: free of noise, so that a regression of a few percent shows.

    bench/instructions.py            compare with bench/instructions.json; exit status 1 above +2 %
    bench/instructions.py --write    write it

A count depends on the compiler: compare counts of one machine only.
"""

import json
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
STORED = HERE / "instructions.json"


def count(program, name, times):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, name, str(times)]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if not found:
        raise SystemExit(f"valgrind: {done.stderr}")
    return int(found.group(1))


def main():
    build = ["cargo", "build", "--release", "--quiet", "--package", "isobit-kernels", "--example", "instructions"]
    subprocess.run(build, check=True, cwd=HERE.parent)
    program = HERE.parent / "target/release/examples/instructions"
    names = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    worse, counts = False, {}
    for name in names:
        # The difference leaves the start of the program and the first packing out.
        counts[name] = (count(program, name, 3) - count(program, name, 1)) // 2
        before = stored.get(name)
        change = f"{100 * (counts[name] / before - 1):+6.1f} %" if before else "new"
        worse |= bool(before) and counts[name] > 1.02 * before
        print(f"{name:34} {counts[name]:>12,} {change}", flush=True)
    if "--write" in sys.argv[1:]:
        STORED.write_text(json.dumps(counts, indent=1) + "\n")
    elif worse:
        raise SystemExit("more instructions than before")


main()
