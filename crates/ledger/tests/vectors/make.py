"""Writes transactions.txt: kind, digest and signature of one transaction of each kind, by eth_account, an implementation of
EIP-712 that is not ours.

    pip install eth-account && python make.py
"""

import pathlib

from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
b = lambda n: bytes([n]) * 32
ALL = [
    ("Transfer", "address to,uint128 amount", ["0x" + "01" * 20, 2**128 - 1]),
    ("Publish", "bytes32 model,string name,string uri,uint128 unitFee", [b(2), "a/b", "https://x", 9]),
    ("Join", "uint128 stake,string endpoint", [0, "node.example:7470"]),
    ("Leave", "", []),
    ("Withdraw", "", []),
    (
        "Post",
        "bytes32 model,bytes32 inputs,uint64 seed,string level,uint128 maxFee,uint64 deadline",
        [b(3), b(4), 2**64 - 1, "replicated(3)", 6, 7],
    ),
    ("Commit", "bytes32 job,bytes32 commitment", [b(7), b(8)]),
    (
        "Reveal",
        "bytes32 job,bytes32 outputs,uint16 failure,uint64 cost,bytes receipt,bytes32 salt",
        [b(9), b(0), 6, 0, bytes([1]) * 65, b(1)],
    ),
]
lines = []
for nonce, (name, fields, values) in enumerate(ALL):
    fields = [dict(zip(("type", "name"), f.split())) for f in ("address from,uint64 nonce," + fields).rstrip(",").split(",")]
    values = [Account.from_key(KEY).address, nonce, *values]
    message = encode_typed_data(
        {"name": "Isobit", "version": "1", "chainId": 1729},
        {name: fields},
        dict(zip((f["name"] for f in fields), values)),
    )
    signature = Account.sign_message(message, KEY).signature
    lines.append(f"{name} 0x{_hash_eip191_message(message).hex()} 0x{signature.hex()}\n")
(pathlib.Path(__file__).parent / "transactions.txt").write_text("".join(lines))
