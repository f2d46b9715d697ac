//! Making transactions.

use alloy_consensus::{SignableTransaction, Signed, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{B256, Bytes, TxKind, U256};
use alloy_sol_types::SolCall;
use isobit_ledger::{Action, Inputs, Params, SignedBallot};
use isobit_proof::Key;

use crate::abi::IIsobit;
use crate::block::LEDGER;

/// A transaction to be signed: its place among the sender's, its gas and price, and what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// How many transactions of the sender come before.
    pub nonce: u64,
    /// Most gas.
    pub gas: u64,
    /// Most price of a unit of gas.
    pub max_fee_per_gas: u128,
    /// The part of the price that is a tip.
    pub tip: u128,
    /// What is called, or a creation.
    pub to: TxKind,
    /// Coins that go along.
    pub value: u128,
    /// Input.
    pub data: Bytes,
}

impl Order {
    /// A call (or a creation); nonce, gas and price are for the caller to fill in.
    pub fn new(to: TxKind, value: u128, data: Bytes) -> Self {
        Self { nonce: 0, gas: 0, max_fee_per_gas: 0, tip: 0, to, value, data }
    }

    /// Signs it as an EIP-1559 transaction for a chain; returns its hash and its EIP-2718 bytes.
    pub fn sign(self, key: &Key, chain_id: u64) -> (B256, Bytes) {
        let tx = TxEip1559 {
            chain_id,
            nonce: self.nonce,
            gas_limit: self.gas,
            max_fee_per_gas: self.max_fee_per_gas,
            max_priority_fee_per_gas: self.tip,
            to: self.to,
            value: U256::from(self.value),
            input: self.data,
            ..TxEip1559::default()
        };
        let signature = key.sign(tx.signature_hash());
        let tx = TxEnvelope::Eip1559(Signed::new_unhashed(tx, signature));
        (*tx.hash(), tx.encoded_2718().into())
    }
}

/// The call of the ledger that does an action: coins that go along, and input.
pub fn ledger_call(action: &Action, params: &Params) -> (u128, Bytes) {
    let (value, data) = match action.clone() {
        Action::Publish { model, name, uri, unit_fee } => {
            (0, IIsobit::publishCall { model, name, uri, unitFee: U256::from(unit_fee) }.abi_encode())
        }
        Action::Join { stake, endpoint } => (stake, IIsobit::joinCall { endpoint }.abi_encode()),
        Action::Validate { stake, endpoint } => (stake, IIsobit::validateCall { endpoint }.abi_encode()),
        Action::Accuse { first, second } => {
            let call = IIsobit::accuseCall {
                first: ballot(&first),
                firstSignature: Bytes::copy_from_slice(&first.signature),
                second: ballot(&second),
                secondSignature: Bytes::copy_from_slice(&second.signature),
            };
            (0, call.abi_encode())
        }
        Action::Leave => (0, IIsobit::unbondCall {}.abi_encode()),
        Action::Withdraw => (0, IIsobit::withdrawCall {}.abi_encode()),
        Action::Post { model, inputs, seed, level, max_fee, deadline, callback_gas } => {
            let level = level.code();
            match inputs {
                Inputs::Root(inputs) if callback_gas == 0 => {
                    (max_fee, IIsobit::postCall { model, inputs, seed, level, deadline }.abi_encode())
                }
                inputs => {
                    // Only with their tensors can a callback be asked for; a root alone is refused by the rules.
                    let tensors = match inputs {
                        Inputs::Tensors(tensors) => tensors,
                        Inputs::Root(_) => Bytes::new(),
                    };
                    let value = max_fee.saturating_add(params.callback_fee(callback_gas));
                    let call = IIsobit::requestCall {
                        model,
                        tensors,
                        seed,
                        level,
                        deadline,
                        callbackGas: callback_gas,
                    };
                    (value, call.abi_encode())
                }
            }
        }
        Action::Provide { tensors } => (0, IIsobit::provideCall { tensors }.abi_encode()),
        Action::Describe { manifest } => (0, IIsobit::describeCall { manifest }.abi_encode()),
        Action::Commit { job, commitment } => (0, IIsobit::commitCall { job, commitment }.abi_encode()),
        Action::Reveal { job, outputs, failure, cost, receipt, salt } => {
            (0, IIsobit::revealCall { job, outputs, failure, cost, receipt, salt }.abi_encode())
        }
    };
    (value, data.into())
}

fn ballot(signed: &SignedBallot) -> IIsobit::Ballot {
    let b = &signed.ballot;
    IIsobit::Ballot {
        kind: b.kind as u8,
        height: b.height,
        round: b.round,
        polRound: b.pol_round,
        value: b.value,
        validator: b.validator,
    }
}

/// An order that does an action on the ledger; nonce, gas and price are for the caller to fill in.
pub fn ledger_order(action: &Action, params: &Params) -> Order {
    let (value, data) = ledger_call(action, params);
    Order::new(TxKind::Call(LEDGER), value, data)
}
