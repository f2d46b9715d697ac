"""web3.py, as it comes: transactions, filters, logs, errors, and the library Tensors against numpy."""

import os
import random
import struct
import time

import web3
from web3 import Web3
from web3.exceptions import ContractLogicError, Web3RPCError

from common import artifact, check, digit, done

w3 = Web3(Web3.HTTPProvider(os.environ["ISOBIT_URL"]))
account = w3.eth.account.from_key(os.environ["ISOBIT_KEY_HEX"])
w3.middleware_onion.inject(web3.middleware.SignAndSendRawMiddlewareBuilder.build(account), layer=0)
w3.eth.default_account = account.address
ledger = w3.eth.contract("0x0000000000000000000000000000000000150b17", abi=artifact("IIsobit")["abi"])

check("connected", w3.is_connected() and w3.eth.chain_id == 1729 and w3.net.version == "1729")
check("client", w3.client_version.startswith("isobit/"))
block_filter = w3.eth.filter("latest")
to = w3.eth.account.create().address
receipt = w3.eth.wait_for_transaction_receipt(w3.eth.send_transaction({"to": to, "value": 7}))
check("EIP-1559 transfer", receipt.status == 1 and receipt.type == 2 and w3.eth.get_balance(to) == 7)
legacy = account.sign_transaction(
    {"to": to, "value": 8, "gas": 21000, "gasPrice": w3.eth.gas_price, "chainId": 1729,
     "nonce": w3.eth.get_transaction_count(account.address, "pending")})
receipt = w3.eth.wait_for_transaction_receipt(w3.eth.send_raw_transaction(legacy.raw_transaction))
check("legacy transfer", receipt.status == 1 and receipt.type == 0 and w3.eth.get_balance(to) == 15)
check("block filter", receipt.blockHash in block_filter.get_new_entries())
check("fee history", len(w3.eth.fee_history(3, "latest", [10, 90]).reward) >= 1)
check("block", w3.eth.get_block(receipt.blockNumber, True).transactions[0].hash == receipt.transactionHash)
check("block receipts", w3.eth.get_block_receipts(receipt.blockNumber)[0].transactionHash == receipt.transactionHash)
check("raw transaction by index", w3.eth.get_transaction_by_block(receipt.blockNumber, 0).nonce == w3.eth.get_transaction(receipt.transactionHash).nonce)

art = artifact("DigitReader")
receipt = w3.eth.wait_for_transaction_receipt(
    w3.eth.contract(abi=art["abi"], bytecode=art["bytecode"]).constructor(os.environ["ISOBIT_MODEL"]).transact())
reader = w3.eth.contract(receipt.contractAddress, abi=art["abi"])
log_filter = reader.events.Read.create_filter(from_block="latest")
value = reader.functions.price(614_210).call()
asked = w3.eth.wait_for_transaction_receipt(reader.functions.ask(digit["pixels"]).transact({"value": value}))
job = ledger.events.Posted().process_log(asked.logs[0]).args.job
check("asked", asked.status == 1)
found = []
for _ in range(300):
    found += log_filter.get_new_entries()
    if found:
        break
    time.sleep(0.1)
check("callback", len(found) == 1 and found[0].args.job == job and found[0].args.digit == digit["label"])
answer = ledger.functions.answer(job).call()
check("answer", answer[0] and not answer[1] and answer[4] == 614_210)
check("logs", len(reader.events.Read().get_logs(from_block=0)) == 1)
check("ledger's logs", len(ledger.events.Settled().get_logs(from_block=asked.blockNumber, argument_filters={"job": job})) == 1)
try:
    reader.functions.askAndRevert(digit["pixels"]).estimate_gas({"value": value})
    check("it reverts", False)
except ContractLogicError as e:
    check("revert reason", "changed my mind" in str(e))
try:
    ledger.functions.publish(bytes(32), "", "", 0).estimate_gas()
    check("an empty name", False)
except ContractLogicError as e:
    check("ledger's reason", "must have 1 to 128 bytes" in str(e))
check("older state", w3.eth.get_balance(to, 0) == 0 < w3.eth.get_balance(to))
try:
    w3.eth.get_balance(to, 10**9)
    check("a block to come", False)
except Web3RPCError as e:
    check("a block to come", "header not found" in str(e))

# Solidity's floats against the machine's.
art = artifact("TensorsTest")
receipt = w3.eth.wait_for_transaction_receipt(w3.eth.contract(abi=art["abi"], bytecode=art["bytecode"]).constructor().transact())
tensors = w3.eth.contract(receipt.contractAddress, abi=art["abi"])
rng = random.Random(5)


def nearest(value, decimals):
    """The bits of the float32 nearest to value / 10^decimals, by exact arithmetic."""
    from fractions import Fraction

    x = abs(Fraction(value, 10**decimals))
    if x == 0:
        return 0
    e = -149
    while Fraction(2) ** e * (1 << 24) <= x:
        e += 1
    n = x / Fraction(2) ** e
    q = int(n)
    if n - q > Fraction(1, 2) or (n - q == Fraction(1, 2) and q % 2):
        q += 1
    return struct.unpack("<I", struct.pack("<f", float(q * Fraction(2) ** e)))[0] | (0x80000000 if value < 0 else 0)


cases = [(v, d) for v in (0, 1, -1, 5, 2**24 + 1, 2**24 + 3, 10**30, 1 - 2**127, 2**126) for d in (0, 1, 6, 18, 30)]
cases += [(rng.randrange(-(2 ** rng.randrange(1, 127)), 2 ** rng.randrange(1, 127)), rng.randrange(31)) for _ in range(60)]
for v, d in cases:
    got = tensors.functions.toFloat(v, d).call()
    check(f"toFloat({v}, {d}): {got:#x}, {nearest(v, d):#x}", got == nearest(v, d))
for _ in range(60):
    bits = rng.getrandbits(32)
    if bits >> 23 & 0xFF == 0xFF or bits >> 23 & 0xFF > 200:
        continue
    x = struct.unpack("<f", struct.pack("<I", bits))[0]
    from fractions import Fraction

    expected = int(Fraction(x) * 10**6)
    check(f"floatAt({x})", tensors.functions.floatAt(struct.pack("<I", bits), 0, 6).call() == expected)
done(f"web3.py {web3.__version__}")
