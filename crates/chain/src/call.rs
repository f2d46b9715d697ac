//! Calls that change nothing: what a transaction would return, and how much gas it needs.

use alloy_evm::Evm;
use alloy_evm::overrides::{StateOverrideError, apply_state_overrides};
use alloy_primitives::{Address, Bytes, TxKind, U256, hex};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_sol_types::{Panic, Revert, SolError};
use revm::context::TxEnv;
use revm::context::result::{EVMError, ExecutionResult, HaltReason};
use revm::context_interface::transaction::AccessList;
use revm::database::{State, WrapDatabaseRef};

use crate::block::{LEDGER, SYSTEM};
use crate::execute::{evm, evm_env, next_header};
use crate::precompile::Shared;
use crate::{ChainError, Head};

/// A call, as `eth_call` has it. What is not given is as wide as can be.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// Who calls.
    pub from: Address,
    /// What is called; nothing for a creation.
    pub to: Option<Address>,
    /// Most gas.
    pub gas: Option<u64>,
    /// Most price of a unit of gas.
    pub gas_price: Option<u128>,
    /// Coins that go along.
    pub value: U256,
    /// Input.
    pub data: Bytes,
    /// Addresses and slots that are paid for in advance.
    pub access_list: AccessList,
    /// What is to be thought different in the state.
    pub overrides: StateOverride,
}

/// Why a call does not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// It was reverted: why in words, and the bytes.
    #[error("execution reverted{}", why(.0))]
    Reverted(Bytes),
    /// It ran out of gas, or worse.
    #[error("{0}")]
    Halted(String),
    /// It could be in no block.
    #[error("{0}")]
    Invalid(String),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// `: ` and the reason in revert data, if it has one of the forms that Solidity gives it.
fn why(data: &Bytes) -> String {
    if let Ok(revert) = Revert::abi_decode(data) {
        format!(": {}", revert.reason)
    } else if let Ok(panic) = Panic::abi_decode(data) {
        format!(": {panic}")
    } else if data.is_empty() {
        String::new()
    } else {
        format!(": {}", hex::encode_prefixed(data))
    }
}

/// Runs a call in the block after `head`.
pub(crate) fn call(head: &Head, call: &Call, gas: u64) -> Result<ExecutionResult, CallError> {
    if call.from == SYSTEM {
        return Err(CallError::Invalid("nobody calls as the end of a block".into()));
    }
    let header = next_header(&head.genesis, &head.header, head.header.timestamp, head.header.beneficiary);
    let mut env = evm_env(&head.genesis, &header);
    // Without a price nobody pays.
    env.cfg_env.disable_base_fee = call.gas_price.is_none();
    env.cfg_env.disable_balance_check = call.gas_price.is_none() && call.value.is_zero();
    env.cfg_env.disable_nonce_check = true;
    env.cfg_env.disable_eip3607 = true;
    env.cfg_env.disable_block_gas_limit = true;
    let mut db = State::builder().with_database(WrapDatabaseRef(head.view.clone())).build();
    // What the rules read there is always as they have written it.
    if call.overrides.contains_key(&LEDGER) {
        return Err(CallError::Invalid(format!("the ledger's account, {LEDGER}, cannot be overridden")));
    }
    if !call.overrides.is_empty() {
        apply_state_overrides(call.overrides.clone(), &mut db).map_err(|e| match e {
            StateOverrideError::Database(e) => ChainError::Evm(e.to_string()).into(),
            e => CallError::Invalid(format!("state override: {e}")),
        })?;
    }
    let tx = TxEnv {
        caller: call.from,
        kind: call.to.map_or(TxKind::Create, TxKind::Call),
        data: call.data.clone(),
        value: call.value,
        gas_limit: gas,
        gas_price: call.gas_price.unwrap_or(0),
        access_list: call.access_list.clone(),
        chain_id: Some(head.genesis.params.chain_id),
        ..TxEnv::default()
    };
    let side = Shared::default();
    let result = evm(&mut db, env, &head.genesis.params, &side, true).transact_raw(tx);
    match result {
        Ok(result) => Ok(result.result),
        Err(EVMError::Transaction(e)) => Err(CallError::Invalid(e.to_string())),
        Err(e) => Err(ChainError::Evm(e.to_string()).into()),
    }
}

/// What it returns.
pub(crate) fn output(result: ExecutionResult) -> Result<(Bytes, u64), CallError> {
    match result {
        ExecutionResult::Success { output, gas, .. } => Ok((output.into_data(), gas.tx_gas_used())),
        ExecutionResult::Revert { output, .. } => Err(CallError::Reverted(output)),
        ExecutionResult::Halt { reason, .. } => Err(CallError::Halted(match reason {
            HaltReason::OutOfGas(_) => "out of gas".into(),
            reason => format!("execution halted: {reason:?}"),
        })),
    }
}

/// What a transfer to an account without code uses, and needs.
const TRANSFER: u64 = 21_000;

/// The least gas with which a call succeeds: to 1 part in 64, that of a plain transfer exactly.
pub(crate) fn estimate(head: &Head, request: &Call) -> Result<u64, CallError> {
    let mut most = request.gas.unwrap_or(u64::MAX).min(head.genesis.gas_limit);
    if let Some(price) = request.gas_price.filter(|p| *p > 0) {
        let balance = match request.overrides.get(&request.from).and_then(|o| o.balance) {
            Some(balance) => balance,
            None => U256::from(head.balance(request.from)?),
        };
        let left = balance.checked_sub(request.value);
        let left = left.ok_or_else(|| CallError::Invalid("insufficient funds for transfer".into()))?;
        most = most.min((left / U256::from(price)).saturating_to());
    }
    let run = |gas: u64| call(head, request, gas).and_then(output);
    let (_, used) = run(most)?;
    if request.data.is_empty() && used == TRANSFER {
        return Ok(used);
    }
    let (mut low, mut high) = (used.saturating_sub(1), most);
    // A call can only pass on 63 of 64 parts of its gas, so a little more than what is used is mostly enough.
    let guess = used + used / 63 + 2_300;
    if guess < high && run(guess).is_ok() {
        high = guess;
    }
    while low + 1 < high && (high - low) * 64 > high {
        let middle = low + (high - low) / 2;
        match run(middle) {
            Ok(_) => high = middle,
            Err(CallError::Chain(e)) => return Err(e.into()),
            Err(_) => low = middle,
        }
    }
    Ok(high)
}
