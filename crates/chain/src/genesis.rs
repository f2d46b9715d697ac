//! What a chain begins with.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256, keccak256};
use alloy_rlp::{Encodable, RlpEncodable};
use isobit_ledger::Params;

use crate::ChainError;

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

#[derive(RlpEncodable)]
struct Account {
    address: Address,
    balance: u128,
}
