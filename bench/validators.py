#!/usr/bin/env python3
"""Four validator processes, each in a network namespace of its own: killed, cut off, joined by others, upgraded.

Linux and root are needed (ip netns). Nothing but Python's standard library and the built program:

    cargo build && sudo bench/validators.py target/debug/isobit

After each act all validators must have one chain, with every transaction that was accepted in it. Prints a table.
"""
import concurrent.futures
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ISOBIT = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/debug/isobit")
WORK = tempfile.mkdtemp(prefix="isobit-validators-")
BRIDGE = "isobit-br"
RNG = random.Random(7)


def sh(*args, check=True):
    return subprocess.run(args, check=check, capture_output=True, text=True).stdout


def namespace(i):
    return f"isobit-{i}"


def ip(i):
    return f"10.97.0.{i}"


def wire_up(n):
    sh("ip", "link", "add", BRIDGE, "type", "bridge")
    sh("ip", "addr", "add", "10.97.0.254/24", "dev", BRIDGE)
    sh("ip", "link", "set", BRIDGE, "up")
    for i in range(1, n + 1):
        ns = namespace(i)
        sh("ip", "netns", "add", ns)
        sh("ip", "link", "add", f"isob{i}", "type", "veth", "peer", "name", "eth0", "netns", ns)
        sh("ip", "link", "set", f"isob{i}", "master", BRIDGE, "up")
        sh("ip", "-n", ns, "addr", "add", f"{ip(i)}/24", "dev", "eth0")
        sh("ip", "-n", ns, "link", "set", "eth0", "up")
        sh("ip", "-n", ns, "link", "set", "lo", "up")


def take_down(n):
    for i in range(1, n + 1):
        sh("ip", "link", "del", f"isob{i}", check=False)
        sh("ip", "netns", "del", namespace(i), check=False)
    sh("ip", "link", "del", BRIDGE, check=False)


def plug(i, is_in):
    sh("ip", "link", "set", f"isob{i}", "up" if is_in else "down")


class Validator:
    def __init__(self, i, program=ISOBIT, folder=None):
        self.i, self.program, self.process = i, program, None
        self.folder = folder or f"{WORK}/validator-{i}"

    def start(self, *more):
        peers = [a for j in range(1, 5) if j != self.i for a in ("--peer", f"/ip4/{ip(j)}/tcp/7471")]
        log = open(f"{WORK}/{self.i}.log", "a")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace(self.i), self.program, "-v", "up", "--data", self.folder,
             "--listen", f"{ip(self.i)}:7470", "--p2p", f"/ip4/{ip(self.i)}/tcp/7471", *peers, *more],
            stdout=log, stderr=log)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)
        self.process = None

    @property
    def url(self):
        return f"http://{ip(self.i)}:7470"

    def rpc(self, method, *params):
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}).encode()
        # Through the namespace: one that is cut off can still be asked from within.
        out = sh("ip", "netns", "exec", namespace(self.i), "curl", "-s", "-m", "5", "-H",
                 "content-type: application/json", "-d", body.decode(), self.url)
        answer = json.loads(out)
        if "error" in answer:
            raise RuntimeError(answer["error"]["message"])
        return answer["result"]

    def height(self):
        try:
            return int(self.rpc("eth_blockNumber"), 16)
        except (ValueError, subprocess.CalledProcessError):
            return -1

    def price(self, base, quote):
        """`latest(string,string)` of the price feed: the price, and its minute."""
        words = [(64).to_bytes(32, "big"), (128).to_bytes(32, "big")]
        for text in (base, quote):
            words += [len(text).to_bytes(32, "big"), text.encode().ljust(32, b"\0")]
        call = {"to": "0x" + "f5".rjust(40, "0"), "data": "0x234d519c" + b"".join(words).hex()}
        answer = self.rpc("eth_call", call, "latest")[2:]
        return int(answer[:64], 16) / 10**18, int(answer[64:], 16)

    def block(self, number):
        return self.rpc("eth_getBlockByNumber", hex(number), False)


class Wallet:
    """Signs transfers with the program itself, and remembers what was accepted."""

    def __init__(self, folder):
        self.folder, self.accepted = folder, []

    def send(self, via, quiet=False):
        to = "0x" + RNG.randbytes(20).hex()
        out = subprocess.run(
            ["ip", "netns", "exec", namespace(via.i), ISOBIT, "--json", "wallet", "send", to, "0.001",
             "--url", via.url, "--data", self.folder], capture_output=True, text=True, timeout=90)
        if out.returncode == 0:
            self.accepted.append(to)
        elif not quiet:
            print(out.stdout, out.stderr, file=sys.stderr)
        return out.returncode == 0


def wait(what, condition, seconds=60):
    start = time.time()
    while time.time() - start < seconds:
        if condition():
            return time.time() - start
        time.sleep(0.1)
    raise SystemExit(f"FAILED: {what} did not happen in {seconds} s; logs are in {WORK}")


def agree(validators, wallet):
    """All are at one height, have the same blocks, and every accepted transfer arrived."""
    wait("agreement", lambda: len({v.height() for v in validators}) == 1 and validators[0].height() > 0)
    top = validators[0].height()
    for number in range(1, top + 1):
        hashes = {v.block(number)["hash"] for v in validators}
        assert len(hashes) == 1, f"a fork at {number}: {hashes}"
    for v in validators:
        for to in wallet.accepted:
            assert int(v.rpc("eth_getBalance", to, "latest"), 16) == 10**15, (v.i, to)
    return top


def main():
    n = 6
    take_down(n)
    wire_up(n)
    rows = []

    def row(act, result):
        rows.append((act, result))
        print(f"{act:58} {result}", flush=True)

    validators = []
    try:
        sh(ISOBIT, "wallet", "new", "--plain", "--data", f"{WORK}/wallet")
        address = json.loads(sh(ISOBIT, "--json", "wallet", "address", "--data", f"{WORK}/wallet"))["address"]
        sh(ISOBIT, "genesis", "new", "--out", WORK, "--validators", "4", "--alloc", f"{address}=1000000")
        wallet = Wallet(f"{WORK}/wallet")
        validators = [Validator(i) for i in range(1, 5)]
        # Each has a market of its own, and one is out of its mind.
        for v, price in zip(validators, ["3000.5", "3010.25", "3020", "0.01"]):
            with open(f"{WORK}/prices-{v.i}.json", "w") as prices:
                json.dump({"ETH/USD": price}, prices)
            v.start("--prices", prices.name)
        took = wait("the first block", lambda: all(v.height() >= 0 for v in validators))
        assert wallet.send(validators[0])
        row("four processes start and agree on a transfer", f"height {agree(validators, wallet)}")

        wait("a price", lambda: all(v.price("ETH", "USD")[1] > 0 for v in validators), 120)
        seen = {v.price("ETH", "USD")[0] for v in validators}
        assert seen <= {3000.5, 3010.25}, seen
        row("a price that they agree on, though one says 0.01", f"{' and '.join(map(str, sorted(seen)))}")

        start = time.time()
        for k in range(10):
            assert wallet.send(validators[k % 4])
        row("10 transfers, one after the other, through all four", f"{(time.time() - start) / 10:.2f} s each")
        agree(validators, wallet)

        # kill -9, again and again, while transfers go on.
        for _ in range(8):
            victim = RNG.choice(validators)
            others = [v for v in validators if v is not victim]
            victim.kill()
            for _ in range(2):
                assert wallet.send(RNG.choice(others)), "three of four must go on"
            victim.start()
            wait("catching up", lambda: victim.height() == max(v.height() for v in others))
        row("8 times kill -9 of one of four, 2 transfers meanwhile", f"height {agree(validators, wallet)}")

        # All at once.
        for v in validators:
            v.kill()
        for v in validators:
            v.start()
        wait("restart of all", lambda: len({v.height() for v in validators}) == 1 and validators[0].height() > 0)
        assert wallet.send(validators[2])
        row("kill -9 of all four, and again", f"height {agree(validators, wallet)}")

        # A minority is cut off: the others go on, it comes back.
        plug(4, False)
        for _ in range(3):
            assert wallet.send(validators[0])
        before = validators[3].height()
        plug(4, True)
        took = wait("catching up", lambda: validators[3].height() == validators[0].height() > before)
        row("one of four cut off, 3 transfers, healed", f"caught up in {took:.1f} s, height {agree(validators, wallet)}")

        # Two and two: nobody decides, nothing forks.
        heights = [v.height() for v in validators]
        plug(3, False)
        plug(4, False)
        sent = subprocess.Popen(
            ["ip", "netns", "exec", namespace(1), ISOBIT, "wallet", "send", "0x" + "77" * 20, "0.001",
             "--url", validators[0].url, "--data", wallet.folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(15)
        assert sent.poll() is None, "a transfer was decided by half"
        assert [v.height() for v in validators] == heights
        plug(3, True)
        plug(4, True)
        start = time.time()
        assert sent.wait(60) == 0
        wallet.accepted.append("0x" + "77" * 20)
        row("two and two for 15 s: no block; healed", f"{time.time() - start:.1f} s to the block, height {agree(validators, wallet)}")

        # Somebody joins from genesis, and becomes a validator.
        fifth = Validator(5)
        os.makedirs(f"{fifth.folder}/keys")
        sh(ISOBIT, "wallet", "new", "--plain", "--key", f"{fifth.folder}/keys/validator.key")
        fifth.start("--genesis", f"{WORK}/genesis.json")
        validators.append(fifth)
        took = wait("the fifth's catching up", lambda: fifth.height() == validators[0].height())
        row("a fifth joins from genesis", f"{fifth.height()} blocks in {took:.1f} s")
        fifth_address = json.loads(sh(ISOBIT, "--json", "wallet", "address", "--key", f"{fifth.folder}/keys/validator.key"))["address"]
        sh("ip", "netns", "exec", namespace(1), ISOBIT, "wallet", "send", fifth_address, "20001",
           "--url", validators[0].url, "--data", wallet.folder)
        sh("ip", "netns", "exec", namespace(5), ISOBIT, "validator", "join", "--stake", "20000",
           "--url", fifth.url, "--key", f"{fifth.folder}/keys/validator.key")
        listed = sh("ip", "netns", "exec", namespace(1), ISOBIT, "--json", "validator", "list", "--url", validators[0].url)
        weights = {v["validator"].lower(): v["weight"] for v in json.loads(listed)}
        assert weights[fifth_address.lower()] == 20000 and len(weights) == 5, weights
        # With a third of the weight (20,000 of 60,000) it is needed now.
        assert wallet.send(validators[1])
        fifth.kill()
        stuck = subprocess.run(
            ["timeout", "8", "ip", "netns", "exec", namespace(1), ISOBIT, "wallet", "send", "0x" + "78" * 20, "0.001",
             "--url", validators[0].url, "--data", wallet.folder], capture_output=True)
        assert stuck.returncode == 124, "blocks were decided without a third of the weight"
        fifth.start()
        wait("restart of the fifth", lambda: fifth.height() >= 0)
        wait("going on", lambda: int(fifth.rpc("eth_getBalance", "0x" + "78" * 20, "latest"), 16) > 0)
        row("it stakes a third, and nothing is decided without it", f"height {agree(validators, wallet)}")
        sh("ip", "netns", "exec", namespace(5), ISOBIT, "validator", "leave",
           "--url", fifth.url, "--key", f"{fifth.folder}/keys/validator.key")
        fifth.kill()
        assert wallet.send(validators[0])
        validators.pop()
        row("it leaves, and is not needed any more", f"height {agree(validators, wallet)}")

        # Somebody joins from a snapshot.
        validators[0].stop()
        made = json.loads(sh(ISOBIT, "--json", "chain", "snapshot", "--data", validators[0].folder,
                             "--out", f"{WORK}/snapshot"))
        validators[0].start()
        sixth = Validator(6)
        sh(ISOBIT, "chain", "restore", "--data", sixth.folder, "--from", f"{WORK}/snapshot",
           "--block", made["block"], "--genesis", f"{WORK}/genesis.json")
        sixth.start()
        wait("catching up", lambda: validators[0].height() == validators[1].height())
        assert wallet.send(validators[0])
        took = wait("the sixth's catching up", lambda: sixth.height() == validators[0].height())
        top = validators[0].height()
        assert top > made["number"]
        assert sixth.block(top)["hash"] == validators[0].block(top)["hash"]
        sixth.stop()
        row("a sixth joins from a snapshot", f"of block {made['number']}, height {top} in {took:.1f} s")

        # Another build of the program, one validator after the other.
        upgraded = f"{WORK}/isobit-next"
        shutil.copy(ISOBIT, upgraded)
        for v in validators:
            v.stop()
            v.program = upgraded
            assert wallet.send(RNG.choice([o for o in validators if o is not v]))
            v.start()
            wait("catching up", lambda: v.height() == max(o.height() for o in validators))
        row("rolling upgrade: stopped, replaced, started, one by one", f"height {agree(validators, wallet)}")

        # Two processes with one key. Both propose when its turn comes, one of them at once: while transactions come from several
        # sides their blocks differ before long, and the others see it.
        liar = validators.pop()
        key = f"{liar.folder}/keys/validator.key"
        liar_address = json.loads(sh(ISOBIT, "--json", "wallet", "address", "--key", key))["address"].lower()
        others = [Wallet(f"{WORK}/wallet-{k}") for k in range(9)]
        for other in others:
            sh(ISOBIT, "wallet", "new", "--plain", "--data", other.folder)
            address = json.loads(sh(ISOBIT, "--json", "wallet", "address", "--data", other.folder))["address"]
            sh("ip", "netns", "exec", namespace(1), ISOBIT, "wallet", "send", address, "100",
               "--url", validators[0].url, "--data", wallet.folder)
        liar.stop()
        twin = Validator(6, liar.program, f"{WORK}/twin")
        shutil.copytree(liar.folder, twin.folder)
        liar.start()
        twin.start("--block-time", "0")
        wait("the two of them", lambda: liar.height() == twin.height() == validators[0].height())

        def listed():
            out = sh("ip", "netns", "exec", namespace(1), ISOBIT, "--json", "validator", "list", "--url", validators[0].url)
            return {v["validator"].lower() for v in json.loads(out)}

        sides, start = [twin, liar, validators[0]], time.time()

        def keep_sending(other, side):
            while liar_address in listed() and time.time() < start + 240:
                other.send(side, quiet=True)

        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda k: keep_sending(others[k], sides[k % 3]), range(9)))
        assert liar_address not in listed(), "nobody was accused"
        took = time.time() - start
        for process in (liar, twin):
            process.kill()
        for other in others:
            wallet.accepted += other.accepted
        assert wallet.send(validators[0])
        row("one key in two processes", f"slashed and out in {took:.0f} s, height {agree(validators, wallet)}")

        for v in validators:
            v.stop()
        roots = set()
        for v in validators:
            out = json.loads(sh(v.program, "--json", "chain", "verify", "--data", v.folder))
            roots.add((out["hash"], out["state_root"]))
        assert len(roots) == 1
        row("replay of each chain from genesis", f"one state root, {len(wallet.accepted)} transfers")
    finally:
        for v in validators:
            if v.process:
                v.process.kill()
        take_down(n)
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main()
