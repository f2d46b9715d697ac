//! What a chain begins with.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256, keccak256};
use alloy_rlp::{Encodable, RlpEncodable};
use isobit_ledger::Params;
use serde_json::{Value, json};

use crate::{ChainError, LEDGER};

/// The format of genesis files.
const FORMAT: &str = "isobit-genesis-1";

/// The parameters of a network and the coins it begins with. Everybody in a network has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// The rules' parameters, the chain's id among them.
    pub params: Arc<Params>,
    /// Coins of each account, in base units.
    pub alloc: BTreeMap<Address, u128>,
    /// Stakes of the first validators, in base units; none for a chain with one sequencer.
    pub validators: BTreeMap<Address, u128>,
    /// Who sets the prices of the chain's feed; zero for nobody.
    pub price_operator: Address,
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
            validators: BTreeMap::new(),
            price_operator: Address::ZERO,
            timestamp: 0,
            gas_limit: 60_000_000,
            base_fee: 1_000_000,
            min_base_fee: 7,
        }
    }

    /// Whether a network can run with it.
    pub fn check(&self) -> Result<(), ChainError> {
        self.params.check()?;
        let fail = |what: String| {
            Err(ChainError::Refused(format!("a genesis that no network can run with: {what}")))
        };
        if self.validators.len() > usize::from(self.params.max_validators) {
            return fail(format!("{} validators", self.validators.len()));
        }
        if let Some((who, stake)) = self.validators.iter().find(|(_, s)| **s < self.params.min_stake) {
            return fail(format!("validator {who} has a stake of {stake} base units"));
        }
        if self.alloc.contains_key(&LEDGER) {
            return fail("coins for the ledger itself".into());
        }
        self.supply().ok_or(isobit_ledger::GenesisError::TooManyCoins)?;
        Ok(())
    }

    /// All coins there are; `None` if they are more than 128 bits count.
    pub fn supply(&self) -> Option<u128> {
        self.alloc.values().chain(self.validators.values()).try_fold(0u128, |sum, b| sum.checked_add(*b))
    }

    /// As JSON, amounts as decimal text: what a genesis file holds.
    pub fn to_json(&self) -> Value {
        json!({
            "format": FORMAT, "params": params_to_json(&self.params), "alloc": amounts_to_json(&self.alloc),
            "validators": amounts_to_json(&self.validators), "price_operator": self.price_operator,
            "timestamp": self.timestamp,
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
        let amounts = |key: &str| {
            let mut amounts = BTreeMap::new();
            for (address, amount) in json.get(key).and_then(Value::as_object).ok_or_else(|| fail(key))? {
                let row = address.parse().ok().zip(amount.as_str().and_then(|a| a.parse().ok()));
                let (address, amount): (Address, u128) = row.ok_or_else(|| fail(address))?;
                if amounts.insert(address, amount).is_some() {
                    return Err(fail("an account that is there once"));
                }
            }
            Ok(amounts)
        };
        let genesis = Self {
            params: Arc::new(json.get("params").and_then(params_from_json).ok_or_else(|| fail("params"))?),
            alloc: amounts("alloc")?,
            validators: amounts("validators")?,
            price_operator: json
                .get("price_operator")
                .and_then(|a| a.as_str()?.parse().ok())
                .ok_or_else(|| fail("price_operator"))?,
            timestamp: number("timestamp")?,
            gas_limit: number("gas_limit")?,
            base_fee: number("base_fee")?,
            min_base_fee: number("min_base_fee")?,
        };
        genesis.check()?;
        Ok(genesis)
    }

    /// Keccak-256 of its RLP: parameters, accounts with their coins and validators with their stakes in ascending order of address, and
    /// the other fields, and the contracts that are there from the beginning. It
    /// is the first header's extra data, so that chains that differ in anything have no block in common.
    pub fn commitment(&self) -> B256 {
        let mut out = Vec::new();
        self.params.encode(&mut out);
        for amounts in [&self.alloc, &self.validators] {
            let accounts: Vec<Account> =
                amounts.iter().map(|(&address, &balance)| Account { address, balance }).collect();
            accounts.encode(&mut out);
        }
        self.price_operator.encode(&mut out);
        for field in [self.timestamp, self.gas_limit, self.base_fee, self.min_base_fee] {
            field.encode(&mut out);
        }
        for (_, code) in crate::predeploys::all() {
            code.encode(&mut out);
        }
        keccak256(out)
    }
}

fn amounts_to_json(amounts: &BTreeMap<Address, u128>) -> Value {
    amounts.iter().map(|(a, b)| (a.to_string(), Value::from(b.to_string()))).collect()
}

/// The rules' parameters as JSON, amounts as decimal text.
pub fn params_to_json(p: &Params) -> Value {
    json!({
        "chain_id": p.chain_id, "min_stake": p.min_stake.to_string(), "base_fee": p.base_fee.to_string(),
        "unit_price": p.unit_price.to_string(), "silence_penalty": p.silence_penalty.to_string(),
        "commit_window": p.commit_window, "reveal_window": p.reveal_window, "unbonding": p.unbonding,
        "max_replicas": p.max_replicas, "max_jobs": p.max_jobs, "callback_price": p.callback_price.to_string(),
        "max_callback_gas": p.max_callback_gas, "slash_requester": p.slash_requester,
        "slash_burn": p.slash_burn, "slash_equivocation": p.slash_equivocation,
        "max_validators": p.max_validators, "treasury": p.treasury, "burn": p.burn,
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
        slash_equivocation: number("slash_equivocation")?.try_into().ok()?,
        max_validators: number("max_validators")?.try_into().ok()?,
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
    use isobit_ledger::COIN;

    #[test]
    fn files_round_trip_and_what_is_missing_is_named() {
        let genesis =
            Genesis::new(Params::default(), [(Address::repeat_byte(1), u128::MAX - 7), (Address::ZERO, 7)]);
        let genesis = Genesis { validators: [(Address::repeat_byte(2), 5_000 * COIN)].into(), ..genesis };
        assert!(genesis.check().is_err(), "more coins than 128 bits count");
        let genesis = Genesis { alloc: [(Address::ZERO, 7)].into(), ..genesis };
        let json = genesis.to_json();
        assert_eq!(Genesis::from_json(&json), Ok(genesis.clone()));
        for key in [
            "format",
            "params",
            "alloc",
            "validators",
            "price_operator",
            "timestamp",
            "gas_limit",
            "base_fee",
            "min_base_fee",
        ] {
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
