#!/usr/bin/env bash
# Starts a network in a temporary folder and runs other people's clients against it. Give the binary; default: a debug build.
# ISOBIT_UP has more options of `isobit up`, as --validators 4.
set -euo pipefail
isobit=$(realpath "${1:-target/debug/isobit}")
cd "$(dirname "$0")"
# MetaMask's packages name peers that only its browser extension has.
[ -d node_modules ] || npm install --no-audit --no-fund --no-package-lock --legacy-peer-deps --silent
python=${PYTHON:-.venv/bin/python}
if [ ! -x "$python" ]; then
    python3 -m venv .venv
    .venv/bin/pip install -q -r requirements.txt
fi
folder=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
export ISOBIT_URL="http://127.0.0.1:$port" ISOBIT_HOME="$folder"
export ISOBIT_HUB_PASSWORD="correct horse battery"
echo "$ISOBIT_HUB_PASSWORD" > "$folder/password"
"$isobit" hub add-user hub@example.org --password-file "$folder/password" > /dev/null
"$isobit" up --x402 --hub --keeper ${ISOBIT_UP:-} --listen "127.0.0.1:$port" > "$folder/log" 2>&1 &
network=$!
trap 'kill $network 2>/dev/null; wait $network 2>/dev/null || true; rm -rf "$folder"' EXIT
for _ in $(seq 100); do
    curl -sf "$ISOBIT_URL/healthz" > /dev/null && break
    sleep 0.1
done
ISOBIT_MODEL=0x$("$isobit" publish ../models/digits-cnn/model.onnx --name isobit/digits-cnn --json | sed 's/.*"model": *"\([0-9a-f]*\)".*/\1/' | grep -o '[0-9a-f]\{64\}')
ISOBIT_KEY_HEX=0x$(cat "$folder/keys/wallet.key")
export ISOBIT_MODEL ISOBIT_KEY_HEX ISOBIT=$isobit

node compile.mjs --check 2> /dev/null
timeout 120 node ethers.mjs
timeout 120 node viem.mjs
timeout 120 node metamask.mjs
timeout 120 "$python" web3_py.py
timeout 120 "$python" x402_py.py
timeout 120 node x402.mjs
cast=node_modules/.bin/cast
[ "$($cast chain-id --rpc-url "$ISOBIT_URL")" = 1729 ]
$cast send --rpc-url "$ISOBIT_URL" --private-key "$ISOBIT_KEY_HEX" --value 1ether 0x00000000000000000000000000000000000000bb --json | grep -q '"status":"0x1"'
[ "$($cast balance --rpc-url "$ISOBIT_URL" 0x00000000000000000000000000000000000000bb)" = 1000000000000000000 ]
$cast call --rpc-url "$ISOBIT_URL" 0x0000000000000000000000000000000000150b17 'modelNamed(string)(bytes32)' isobit/digits-cnn | grep -q "$ISOBIT_MODEL"
# OpenGradient's SDK, three generations of it.
"$python" image.py "$folder/image.npy"
"$isobit" run ../models/digits-cnn/model.onnx --input "image=$folder/image.npy" --output "$folder/out.npz" > /dev/null
ISOBIT_EXPECTED=$("$python" expected.py "$folder/out.npz")
export ISOBIT_EXPECTED ISOBIT_OG_KEY=$ISOBIT_KEY_HEX
for version in 0.5.13 0.7.5 1.1.4; do
    sdk=.venv-$version
    if [ ! -x "$sdk/bin/python" ]; then
        python3 -m venv "$sdk"
        "$sdk/bin/pip" install -q "opengradient==$version" "web3==8.0.0"
    fi
    timeout 200 "$sdk/bin/python" opengradient_sdk.py
    timeout 200 "$sdk/bin/python" opengradient_workflow.py
done
# Its model hub, whose hosts it has hard-coded: through a proxy that stands for them.
.venv-1.1.4/bin/python hub_proxy.py "$ISOBIT_URL" "$folder/proxy" > "$folder/proxy-port" &
proxy=$!
trap 'kill $network $proxy 2>/dev/null; wait $network 2>/dev/null || true; rm -rf "$folder"' EXIT
while [ ! -s "$folder/proxy-port" ]; do sleep 0.1; done
head -c 1000 ../models/digits-cnn/model.onnx > "$folder/bad.onnx"
for version in 0.5.13 0.7.5 1.1.4; do
    HTTPS_PROXY="http://127.0.0.1:$(cat "$folder/proxy-port")" REQUESTS_CA_BUNDLE="$folder/proxy/ca.pem" \
        NO_PROXY=127.0.0.1,localhost FIREBASE_API_KEY=any ISOBIT_BAD_ONNX="$folder/bad.onnx" \
        timeout 200 ".venv-$version/bin/python" opengradient_hub.py 2> "$folder/hub.log" || { cat "$folder/hub.log"; exit 1; }
done
echo "cast $($cast --version | head -1 | sed 's/.*Version: //; s/cast //'): 4 checks hold"
