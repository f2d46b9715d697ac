#!/usr/bin/env bash
# Makes the virtual environment that exports models and runs the peer. Never needed to build or test Isobit.
set -euo pipefail
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/pip install --quiet --requirement requirements.txt
