//! Transactions as EIP-712 typed data, domain `Isobit` version `1`.

#![allow(missing_docs)]

use alloy_primitives::B256;
use alloy_sol_types::{SolStruct, eip712_domain, sol};

use crate::{Action, Tx};

sol! {
    struct Transfer { address from; uint64 nonce; address to; uint128 amount; }
    struct Publish { address from; uint64 nonce; bytes32 model; string name; string uri; uint128 unitFee; }
    struct Join { address from; uint64 nonce; uint128 stake; string endpoint; }
    struct Leave { address from; uint64 nonce; }
    struct Withdraw { address from; uint64 nonce; }
    struct Post {
        address from; uint64 nonce; bytes32 model; bytes32 inputs; uint64 seed; string level; uint128 maxFee; uint64 deadline;
    }
    struct Commit { address from; uint64 nonce; bytes32 job; bytes32 commitment; }
    struct Reveal {
        address from; uint64 nonce; bytes32 job; bytes32 outputs; uint16 failure; uint64 cost; bytes receipt; bytes32 salt;
    }
}

pub(crate) fn digest(tx: &Tx, chain_id: u64) -> B256 {
    fn hash(message: &impl SolStruct, chain_id: u64) -> B256 {
        message.eip712_signing_hash(&eip712_domain! { name: "Isobit", version: "1", chain_id: chain_id, })
    }
    let (from, nonce) = (tx.from, tx.nonce);
    match tx.action.clone() {
        Action::Transfer { to, amount } => hash(&Transfer { from, nonce, to, amount }, chain_id),
        Action::Publish { model, name, uri, unit_fee } => {
            hash(&Publish { from, nonce, model, name, uri, unitFee: unit_fee }, chain_id)
        }
        Action::Join { stake, endpoint } => hash(&Join { from, nonce, stake, endpoint }, chain_id),
        Action::Leave => hash(&Leave { from, nonce }, chain_id),
        Action::Withdraw => hash(&Withdraw { from, nonce }, chain_id),
        Action::Post { model, inputs, seed, level, max_fee, deadline } => {
            let (level, max_fee) = (level.to_string(), max_fee);
            hash(&Post { from, nonce, model, inputs, seed, level, maxFee: max_fee, deadline }, chain_id)
        }
        Action::Commit { job, commitment } => hash(&Commit { from, nonce, job, commitment }, chain_id),
        Action::Reveal { job, outputs, failure, cost, receipt, salt } => {
            hash(&Reveal { from, nonce, job, outputs, failure, cost, receipt, salt }, chain_id)
        }
    }
}
