#!/usr/bin/env bash
# Exports what is missing, builds Isobit and the peers, and compares. Arguments go to compare.py.
set -euo pipefail
cd "$(dirname "$0")/.."
bench/setup.sh
for model in resnet50 mobilenet_v3_large efficientnet_b0 vit_b_16 bert_base minilm_l6 gpt2 lstm; do
    [ -f "bench/models/$model/ort.npz" ] || bench/.venv/bin/python bench/export.py "$model"
done
cargo build --release
cargo build --release --manifest-path bench/peers/Cargo.toml
bench/.venv/bin/python bench/compare.py "$@"
