"""What the Python clients share: named checks, the contracts, the image."""

import json
import pathlib

HERE = pathlib.Path(__file__).parent
count = 0
digit = json.loads((HERE / "digit.json").read_text())


def check(what, holds):
    """A named check; the first that fails ends the program."""
    global count
    if not holds:
        raise SystemExit(f"FAILED: {what}")
    count += 1


def artifact(name):
    return json.loads((HERE / f"../contracts/artifacts/{name}.json").read_text())


def done(who):
    print(f"{who}: {count} checks hold")
