//! What a chain begins with.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256, keccak256};
use alloy_rlp::{Encodable, RlpEncodable};
use isobit_ledger::Params;
use serde_json::{Value, json};

use crate::ChainError;

/// The format of genesis files.
const FORMAT: &str = "isobit-genesis-1";

/// The parameters of a network and the coins it begins with. Everybody in a network has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// The rules' parameters, the chain's id among them.
    pub params: Arc<Params>,
    /// Coins of each account, in base units.
    pub alloc: BTreeMap<Address, u128>,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Gas of a block.
    pub gas_limit: u64,
    /// Base fee of the first block.
    pub base_fee: u64,
    /// Least base fee of any block.
    pub min_base_fee: u64,
}

impl Genesis {
    /// A network with these coins, and everything else as usual.
    pub fn new(params: Params, alloc: impl IntoIterator<Item = (Address, u128)>) -> Self {
        Self {
            params: Arc::new(params),
            alloc: alloc.into_iter().collect(),
            timestamp: 0,
            gas_limit: 60_000_000,
            base_fee: 1_000_000,
            min_base_fee: 7,
        }
    }

    /// Whether a network can run with it.
    pub fn check(&self) -> Result<(), ChainError> {
        self.params.check()?;
        self.supply().ok_or(isobit_ledger::GenesisError::TooManyCoins)?;
        Ok(())
    }

    /// All coins there are; `None` if they are more than 128 bits count.
    pub fn supply(&self) -> Option<u128> {
        self.alloc.values().try_fold(0u128, |sum, b| sum.checked_add(*b))
    }

    /// As JSON, amounts as decimal text: what a genesis file holds.
    pub fn to_json(&self) -> Value {
        let alloc: serde_json::Map<String, Value> =
            self.alloc.iter().map(|(a, b)| (a.to_string(), Value::from(b.to_string()))).collect();
        json!({
            "format": FORMAT, "params": params_to_json(&self.params), "alloc": alloc, "timestamp": self.timestamp,
            "gas_limit": self.gas_limit, "base_fee": self.base_fee, "min_base_fee": self.min_base_fee,
        })
    }

    /// Reads what [`Genesis::to_json`] writes.
    pub fn from_json(json: &Value) -> Result<Self, ChainError> {
        let fail = |what: &str| ChainError::Refused(format!("not a genesis: {what} is missing or malformed"));
        if json.get("format").and_then(Value::as_str) != Some(FORMAT) {
            return Err(fail("the format isobit-genesis-1"));
        }
        let number = |key: &str| json.get(key).and_then(Value::as_u64).ok_or_else(|| fail(key));
        let mut alloc = BTreeMap::new();
        for (address, amount) in json.get("alloc").and_then(Value::as_object).ok_or_else(|| fail("alloc"))? {
            let row = address.parse().ok().zip(amount.as_str().and_then(|a| a.parse().ok()));
            let (address, amount): (Address, u128) = row.ok_or_else(|| fail(address))?;
            if alloc.insert(address, amount).is_some() {
                return Err(fail("an account that is there once"));
            }
        }
        let genesis = Self {
            params: Arc::new(json.get("params").and_then(params_from_json).ok_or_else(|| fail("params"))?),
            alloc,
            timestamp: number("timestamp")?,
            gas_limit: number("gas_limit")?,
            base_fee: number("base_fee")?,
            min_base_fee: number("min_base_fee")?,
        };
        genesis.check()?;
        Ok(genesis)
    }

    /// Keccak-256 of its RLP: parameters, accounts with their coins in ascending order of address, and the other fields. It
    /// is the first header's extra data, so that chains that differ in anything have no block in common.
    pub(crate) fn commitment(&self) -> B256 {
        let alloc: Vec<Account> =
            self.alloc.iter().map(|(&address, &balance)| Account { address, balance }).collect();
        let mut out = Vec::new();
        self.params.encode(&mut out);
        alloc.encode(&mut out);
        for field in [self.timestamp, self.gas_limit, self.base_fee, self.min_base_fee] {
            field.encode(&mut out);
        }
        keccak256(out)
    }
}

/// The rules' parameters as JSON, amounts as decimal text.
pub fn params_to_json(p: &Params) -> Value {
    json!({
        "chain_id": p.chain_id, "min_stake": p.min_stake.to_string(), "base_fee": p.base_fee.to_string(),
        "unit_price": p.unit_price.to_string(), "silence_penalty": p.silence_penalty.to_string(),
        "commit_window": p.commit_window, "reveal_window": p.reveal_window, "unbonding": p.unbonding,
        "max_replicas": p.max_replicas, "max_jobs": p.max_jobs, "callback_price": p.callback_price.to_string(),
        "max_callback_gas": p.max_callback_gas, "slash_requester": p.slash_requester,
        "slash_burn": p.slash_burn, "treasury": p.treasury, "burn": p.burn,
    })
}

/// Reads what [`params_to_json`] writes; `None` if a field is missing or malformed.
pub fn params_from_json(json: &Value) -> Option<Params> {
    let number = |key: &str| json.get(key).and_then(Value::as_u64);
    let text = |key: &str| json.get(key).and_then(Value::as_str);
    let amount = |key: &str| text(key)?.parse().ok();
    Some(Params {
        chain_id: number("chain_id")?,
        min_stake: amount("min_stake")?,
        base_fee: amount("base_fee")?,
        unit_price: amount("unit_price")?,
        silence_penalty: amount("silence_penalty")?,
        commit_window: number("commit_window")?,
        reveal_window: number("reveal_window")?,
        unbonding: number("unbonding")?,
        max_replicas: number("max_replicas")?.try_into().ok()?,
        max_jobs: number("max_jobs")?,
        callback_price: amount("callback_price")?,
        max_callback_gas: number("max_callback_gas")?,
        slash_requester: number("slash_requester")?.try_into().ok()?,
        slash_burn: number("slash_burn")?.try_into().ok()?,
        treasury: text("treasury")?.parse().ok()?,
        burn: text("burn")?.parse().ok()?,
    })
}

#[derive(RlpEncodable)]
struct Account {
    address: Address,
    balance: u128,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LEDGER;

    #[test]
    fn files_round_trip_and_what_is_missing_is_named() {
        let genesis =
            Genesis::new(Params::default(), [(Address::repeat_byte(1), u128::MAX - 7), (Address::ZERO, 7)]);
        let json = genesis.to_json();
        assert_eq!(Genesis::from_json(&json), Ok(genesis.clone()));
        for key in ["format", "params", "alloc", "timestamp", "gas_limit", "base_fee", "min_base_fee"] {
            let mut json = json.clone();
            json.as_object_mut().unwrap().remove(key);
            let error = Genesis::from_json(&json).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
        for key in json["params"].as_object().unwrap().keys() {
            let mut json = json.clone();
            json["params"].as_object_mut().unwrap().remove(key);
            assert!(Genesis::from_json(&json).is_err(), "{key}");
        }
        let mut other = genesis.clone();
        other.timestamp += 1;
        assert_ne!(other.commitment(), genesis.commitment());
        assert!(Genesis::new(Params::default(), [(Address::ZERO, u128::MAX), (LEDGER, 1)]).check().is_err());
    }
}
