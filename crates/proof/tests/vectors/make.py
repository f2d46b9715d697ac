"""Writes receipts.txt: digest and signature of each receipt, by eth_account, an implementation of EIP-712 that is not ours.

    pip install eth-account && python make.py
"""

import pathlib

from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
FIELDS = "bytes32 job,bytes32 model,bytes32 inputs,uint64 seed,string profile,bytes32 outputs,uint16 failure,uint64 cost,address node"
MOST = 2**64 - 1
# chain, seed, byte of the output root, failure, cost
CASES = [(1729, 42, 4, 0, 614210), (1729, 42, 0, 8, 0), (MOST, MOST, 4, 0, MOST), (1, 42, 0, 65535, 0)]
lines = []
for chain, seed, outputs, failure, cost in CASES:
    message = encode_typed_data(
        {"name": "Isobit", "version": "1", "chainId": chain},
        {"Receipt": [dict(zip(("type", "name"), f.split())) for f in FIELDS.split(",")]},
        {
            "job": b"\1" * 32,
            "model": b"\2" * 32,
            "inputs": b"\3" * 32,
            "seed": seed,
            "profile": "isobit-1",
            "outputs": bytes([outputs]) * 32,
            "failure": failure,
            "cost": cost,
            "node": Account.from_key(KEY).address,
        },
    )
    signature = Account.sign_message(message, KEY).signature
    lines.append(f"0x{_hash_eip191_message(message).hex()} 0x{signature.hex()}\n")
(pathlib.Path(__file__).parent / "receipts.txt").write_text("".join(lines))
