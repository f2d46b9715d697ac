"""Plain transfers per second and the time from sending to a final receipt, Isobit beside anvil in one run; then jobs.

    pip install web3 && npm install --prefix bench/out @foundry-rs/anvil && cargo build --release && python bench/chain.py

Every transaction is signed before the clock starts. Throughput: 4,000 transfers of 80 accounts in batches of 80, from the first
batch sent to the last receipt there. Latency: one transfer after another, from sending to its receipt, asked for every 2 ms."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

from eth_account import Account

ROOT = pathlib.Path(__file__).resolve().parent.parent
ISOBIT = os.environ.get("ISOBIT", str(ROOT / "target/release/isobit"))
ANVIL = os.environ.get("ANVIL") or shutil.which("anvil") or str(ROOT / "bench/out/node_modules/.bin/anvil")
SENDERS, EACH, BATCH, LATENCY = 80, 50, 80, 100
CHAIN = 1729


class Rpc:
    def __init__(self, url):
        self.url = url

    def send(self, body):
        request = urllib.request.Request(self.url, json.dumps(body).encode(), {"content-type": "application/json"})
        return json.load(urllib.request.urlopen(request, timeout=120))

    def call(self, method, *params):
        answer = self.send({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def batch(self, method, items):
        answers = self.send([{"jsonrpc": "2.0", "id": i, "method": method, "params": [x]} for i, x in enumerate(items)])
        bad = [a for a in answers if "error" in a]
        if bad:
            raise RuntimeError(f"{method}: {bad[0]['error']}")
        return [a["result"] for a in sorted(answers, key=lambda a: a["id"])]


def wait_up(rpc):
    for _ in range(200):
        try:
            return rpc.call("eth_chainId")
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the node did not start")


def sign(key, nonce, to, value=1, gas=21_000, data=b""):
    tx = {"type": 2, "chainId": CHAIN, "nonce": nonce, "to": to, "value": value, "gas": gas, "data": data,
          "maxFeePerGas": 3_000_000_000, "maxPriorityFeePerGas": 1}
    return "0x" + bytes(Account.sign_transaction(tx, key).raw_transaction).hex()


def receipt(rpc, hash_, patience=60):
    end = time.time() + patience
    while time.time() < end:
        found = rpc.call("eth_getTransactionReceipt", hash_)
        if found:
            return found
        time.sleep(0.002)
    raise SystemExit(f"a transaction was not included: {rpc.call('txpool_status')}")


def measure(name, rpc, funder, throughput=True):
    senders = [Account.from_key("0x" + f"{i + 7:064x}") for i in range(SENDERS)]
    nonce = int(rpc.call("eth_getTransactionCount", funder.address, "latest"), 16)
    funding = [sign(funder.key, nonce + i, a.address, 10**18) for i, a in enumerate(senders)]
    receipt(rpc, rpc.batch("eth_sendRawTransaction", funding)[-1])
    to = "0x00000000000000000000000000000000000000cc"
    # One transaction of each sender in turn, so that a batch is of many senders.
    raw = [sign(a.key, n, to) for n in range(EACH) for a in senders]
    if not throughput:
        raw = raw[:1]
    batches = [raw[i : i + BATCH] for i in range(0, len(raw), BATCH)]
    start = time.time()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        hashes = [h for part in pool.map(lambda b: rpc.batch("eth_sendRawTransaction", b), batches) for h in part]
    sent = time.time() - start
    for h in hashes[-min(SENDERS, len(hashes)):]:
        receipt(rpc, h)
    took = time.time() - start
    times = []
    for n in range(LATENCY):
        tx = sign(senders[0].key, (EACH if throughput else 1) + n, to)
        begin = time.time()
        receipt(rpc, rpc.call("eth_sendRawTransaction", tx))
        times.append((time.time() - begin) * 1e3)
    times.sort()
    speed = round(len(raw) / took) if throughput else None
    row = {"node": name, "transfers_per_s": speed, "sent_per_s": round(len(raw) / sent),
           "p50_ms": round(times[len(times) // 2], 1), "p99_ms": round(times[int(len(times) * 0.99)], 1)}
    print(f"{name:<28} {speed or '-':>7} transfers/s   p50 {row['p50_ms']:>6} ms   p99 {row['p99_ms']:>6} ms", flush=True)
    return row


def isobit(block_ms, port, run, validators=0):
    with tempfile.TemporaryDirectory() as folder:
        more = ["--validators", str(validators)] if validators else []
        node = subprocess.Popen([ISOBIT, "up", "--listen", f"127.0.0.1:{port}", "--block-time", str(block_ms), *more],
                                env={**os.environ, "ISOBIT_HOME": folder}, stdout=subprocess.DEVNULL)
        try:
            rpc = Rpc(f"http://127.0.0.1:{port}")
            wait_up(rpc)
            time.sleep(1)
            return run(rpc, folder, port)
        finally:
            node.terminate()
            node.wait()


def transfers(block_ms, validators=0):
    def run(rpc, folder, _):
        funder = Account.from_key((pathlib.Path(folder) / "keys/wallet.key").read_text().strip())
        who = f"isobit x{validators}" if validators else "isobit"
        return measure(f"{who}, block time {block_ms} ms", rpc, funder)
    return run


def jobs(rpc, folder, port):
    """Jobs of the digits CNN at replicated(3), posted as fast as they are taken, until the last is settled."""
    env = {**os.environ, "ISOBIT_HOME": folder, "ISOBIT_URL": f"http://127.0.0.1:{port}"}
    model = ROOT / "models/digits-cnn/model.onnx"
    subprocess.run([ISOBIT, "publish", str(model)], env=env, check=True, stdout=subprocess.DEVNULL)
    out = subprocess.run([ISOBIT, "infer", str(model), "--random", "1", "--dim", "batch=1", "--json"], env=env, check=True, capture_output=True)
    done = json.loads(out.stdout)
    from web3 import Web3

    w3 = Web3(Web3.HTTPProvider(f"http://127.0.0.1:{port}"))
    abi = json.loads((ROOT / "contracts/artifacts/IIsobit.json").read_text())["abi"]
    ledger = w3.eth.contract("0x0000000000000000000000000000000000150b17", abi=abi)
    posted = ledger.events.Posted().get_logs(from_block=0)[0].args
    key = (pathlib.Path(folder) / "keys/wallet.key").read_text().strip()
    sender = Account.from_key(key)
    nonce = w3.eth.get_transaction_count(sender.address, "pending")
    n = 300
    value = ledger.functions.quote(posted.model, 614_210, 0x0103, 0).call()
    raw = []
    for i in range(n):
        data = ledger.encode_abi("post", [posted.model, posted.inputs, i, 0x0103, 0])
        raw.append(sign(key, nonce + i, ledger.address, value, 1_500_000, data))
    first = w3.eth.block_number
    start = time.time()
    for i in range(0, n, BATCH):
        rpc.batch("eth_sendRawTransaction", raw[i : i + BATCH])
    while len(ledger.events.Settled().get_logs(from_block=first)) < n:
        time.sleep(0.05)
        if time.time() - start > 300:
            raise SystemExit("the jobs did not settle")
    took = time.time() - start
    stamp = lambda log: w3.eth.get_block(log.blockNumber).number
    blocks = {log.args.job: log.blockNumber for log in ledger.events.Posted().get_logs(from_block=first + 1)}
    ages = sorted(log.blockNumber - blocks[log.args.job] for log in ledger.events.Settled().get_logs(from_block=first) if log.args.job in blocks)
    row = {"jobs_per_s": round(n / took, 1), "blocks_p50": ages[len(ages) // 2], "blocks_p99": ages[int(len(ages) * 0.99)]}
    print(f"{'jobs of 3 nodes':<28} {row['jobs_per_s']:>7} jobs/s        settled after {row['blocks_p50']} blocks (p50), {row['blocks_p99']} (p99)", flush=True)
    return row


def main():
    rows = []
    # Sealing at once, anvil leaves transactions behind when many come together: its throughput is measured with a block time.
    for name, port, options in (("anvil, at once", 18544, []), ("anvil, block time 300 ms", 18545, ["--block-time", "0.3"])):
        anvil = subprocess.Popen([ANVIL, "--chain-id", str(CHAIN), "--port", str(port), "--silent", "--gas-limit", "60000000", *options])
        try:
            rpc = Rpc(f"http://127.0.0.1:{port}")
            wait_up(rpc)
            key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil's first account
            rows.append(measure(name, rpc, Account.from_key(key), throughput=bool(options)))
        finally:
            anvil.terminate()
            anvil.wait()
    for block_ms, port in ((0, 18546), (300, 18547)):
        rows.append(isobit(block_ms, port, transfers(block_ms)))
    # Four validators, each with its own chain on disk, agree on each block; all in one process on this machine.
    for block_ms, port in ((0, 18550), (300, 18551)):
        rows.append(isobit(block_ms, port, transfers(block_ms, 4), 4))
    for block_ms, port, validators in ((0, 18548, 0), (300, 18549, 0), (300, 18552, 4)):
        rows.append({"block_ms": block_ms, "validators": validators, **isobit(block_ms, port, jobs, validators)})
    if len(sys.argv) > 1:
        pathlib.Path(sys.argv[1]).write_text(json.dumps(rows, indent=1))


main()
