"""Writes digest.txt and signature.txt with eth_account, an implementation of EIP-712 that is not ours.

    pip install eth-account && python make.py
"""

import pathlib

from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_typed_data

KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
FIELDS = "bytes32 job,bytes32 model,bytes32 inputs,uint64 seed,string profile,bytes32 outputs,uint16 failure,uint64 cost,address node"
message = encode_typed_data(
    {"name": "Isobit", "version": "1", "chainId": 1729},
    {"Receipt": [dict(zip(("type", "name"), f.split())) for f in FIELDS.split(",")]},
    {
        "job": b"\1" * 32,
        "model": b"\2" * 32,
        "inputs": b"\3" * 32,
        "seed": 42,
        "profile": "isobit-1",
        "outputs": b"\4" * 32,
        "failure": 0,
        "cost": 614210,
        "node": Account.from_key(KEY).address,
    },
)
here = pathlib.Path(__file__).parent
(here / "digest.txt").write_text("0x" + _hash_eip191_message(message).hex() + "\n")
(here / "signature.txt").write_text("0x" + Account.sign_message(message, KEY).signature.hex() + "\n")
