//! Coins for whoever asks, in development networks.

use std::sync::Mutex;

use alloy_primitives::Address;
use isobit_ledger::COIN;
use isobit_proof::Key;

use crate::{Client, Gateway, Local, NodeError};

/// Coins that are given at a time, in base units, and what an address may have at most to be given more.
const GIFT: u128 = 10 * COIN;
const POOR: u128 = COIN;

/// Gives coins of an account to addresses that have none. It has no other limit: only for networks whose coins are worth nothing.
#[derive(Debug)]
pub struct Faucet {
    key: Key,
    /// One at a time, so that nonces follow one another.
    turn: Mutex<()>,
}

impl Faucet {
    /// A faucet that gives what this key has.
    pub fn new(key: Key) -> Self {
        Self { key, turn: Mutex::new(()) }
    }

    /// Gives coins to an address and waits until they are there; returns how many.
    pub fn give(&self, local: &Local, to: Address) -> Result<u128, NodeError> {
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        if local.account(to)?.balance > POOR {
            return Err(NodeError::Refused(format!("{to} has more than 1 ISO already")));
        }
        Client::new(local, self.key.clone())?.transfer(to, GIFT)?;
        Ok(GIFT)
    }
}
