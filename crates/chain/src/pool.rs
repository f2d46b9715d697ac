//! Transactions that wait for a block. They are also in a file, so that one that was accepted is not lost when the process
//! is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Transaction, TxEnvelope};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, U256};

use crate::block::{decode_tx, is_system};
use crate::store::Row;
use crate::{ChainError, Genesis};

/// Most transactions that wait, of all senders and of one.
const MAX_WAITING: usize = 50_000;
const MAX_OF_SENDER: usize = 2_000;
/// How far ahead of the next nonce a transaction may be.
const MAX_GAP: u64 = 2_000;
/// The file is written anew when it has this many bytes more than what waits.
const SLACK: u64 = 16 << 20;

type Tx = Recovered<TxEnvelope>;

/// The waiting transactions, by sender and nonce.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    senders: BTreeMap<Address, BTreeMap<u64, Tx>>,
    by_hash: BTreeMap<B256, (Address, u64)>,
    file: Option<(PathBuf, File, u64)>,
}

impl Pool {
    /// The pool whose file this is, with what waited when it was last open.
    pub(crate) fn open(path: PathBuf) -> Result<Self, ChainError> {
        let fail = |e: std::io::Error| ChainError::store(format!("{}: {e}", path.display()));
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(fail(e)),
        };
        let mut pool = Self::default();
        let mut rest = &bytes[..];
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            // A record that was cut by a crash ends the file.
            let Some((tx, tail)) = tail.split_at_checked(u32::from_le_bytes(*length) as usize) else { break };
            if let Ok(tx) = decode_tx(tx) {
                pool.put(tx);
            }
            rest = tail;
        }
        let file = File::options().create(true).append(true).open(&path).map_err(fail)?;
        pool.file = Some((path, file, u64::MAX));
        pool.compact()?;
        Ok(pool)
    }

    /// Those of whom transactions wait.
    pub(crate) fn senders(&self) -> Vec<Address> {
        self.senders.keys().copied().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(crate) fn get(&self, hash: B256) -> Option<&Tx> {
        let (sender, nonce) = self.by_hash.get(&hash)?;
        self.senders.get(sender)?.get(nonce)
    }

    /// Some of them, encoded, each sender's in order.
    pub(crate) fn raw(&self, skip: usize, most: usize) -> Vec<Bytes> {
        let all = self.senders.values().flat_map(BTreeMap::values);
        all.skip(skip).take(most).map(|tx| tx.inner().encoded_2718().into()).collect()
    }

    /// The nonce after the sender's waiting ones.
    pub(crate) fn next_nonce(&self, sender: Address, next: u64) -> u64 {
        let waiting = self.senders.get(&sender);
        (next..).find(|n| !waiting.is_some_and(|w| w.contains_key(n))).unwrap_or(next)
    }

    /// Takes a transaction that could be in a block some day. When it returns, the transaction is in the file.
    pub(crate) fn add(
        &mut self,
        tx: Tx,
        row: &Row,
        base_fee: u64,
        genesis: &Genesis,
    ) -> Result<B256, ChainError> {
        self.check(&tx, row, base_fee, genesis)?;
        let hash = *tx.inner().hash();
        if let Some((_, file, size)) = &mut self.file {
            let bytes = tx.inner().encoded_2718();
            let record = [&(bytes.len() as u32).to_le_bytes(), &bytes[..]].concat();
            file.write_all(&record).map_err(ChainError::store)?;
            *size += record.len() as u64;
        }
        self.put(tx);
        Ok(hash)
    }

    fn check(&self, tx: &Tx, row: &Row, base_fee: u64, genesis: &Genesis) -> Result<(), ChainError> {
        let refuse = |why: String| Err(ChainError::Refused(why));
        let (sender, nonce, hash) = (tx.signer(), tx.nonce(), tx.inner().hash());
        let chain_id = genesis.params.chain_id;
        if is_system(tx.inner()) {
            return refuse("invalid signature: there is none".into());
        }
        if tx.chain_id().is_some_and(|id| id != chain_id) {
            return refuse(format!(
                "invalid chain id: this is {chain_id}, the transaction is for {}",
                tx.chain_id().unwrap_or(0)
            ));
        }
        if self.by_hash.contains_key(hash) {
            return refuse("already known".into());
        }
        if nonce < row.nonce {
            return refuse(format!("nonce too low: next nonce {}, tx nonce {nonce}", row.nonce));
        }
        if nonce - row.nonce > MAX_GAP {
            return refuse(format!("nonce too high: next nonce {}, tx nonce {nonce}", row.nonce));
        }
        if tx.gas_limit() > genesis.gas_limit {
            return refuse(format!("exceeds block gas limit: {} of {}", tx.gas_limit(), genesis.gas_limit));
        }
        let intrinsic = alloy_intrinsic(tx);
        if tx.gas_limit() < intrinsic {
            return refuse(format!("intrinsic gas too low: have {}, want {intrinsic}", tx.gas_limit()));
        }
        if tx.max_priority_fee_per_gas().is_some_and(|tip| tip > tx.max_fee_per_gas()) {
            return refuse("max priority fee per gas higher than max fee per gas".into());
        }
        if tx.max_fee_per_gas() < u128::from(genesis.min_base_fee) {
            return refuse(format!(
                "transaction underpriced: max fee per gas {}, the least is {}; the base fee is {base_fee}",
                tx.max_fee_per_gas(),
                genesis.min_base_fee
            ));
        }
        let needs = U256::from(tx.max_fee_per_gas())
            .saturating_mul(U256::from(tx.gas_limit()))
            .saturating_add(tx.value());
        if needs > U256::from(row.balance) {
            return refuse(format!(
                "insufficient funds for gas * price + value: address {sender} have {} want {needs}",
                row.balance
            ));
        }
        let waiting = self.senders.get(&sender);
        if let Some(other) = waiting.and_then(|w| w.get(&nonce)) {
            let least = other.max_fee_per_gas() + other.max_fee_per_gas() / 10 + 1;
            if tx.max_fee_per_gas() < least {
                return refuse(format!(
                    "replacement transaction underpriced: one with nonce {nonce} waits; offer at least {least} a gas"
                ));
            }
        } else if waiting.is_some_and(|w| w.len() >= MAX_OF_SENDER) || self.len() >= MAX_WAITING {
            return refuse("txpool is full: too many transactions wait; try again".into());
        }
        Ok(())
    }

    fn put(&mut self, tx: Tx) {
        let (sender, nonce, hash) = (tx.signer(), tx.nonce(), *tx.inner().hash());
        if let Some(old) = self.senders.entry(sender).or_default().insert(nonce, tx) {
            self.by_hash.remove(old.inner().hash());
        }
        self.by_hash.insert(hash, (sender, nonce));
    }

    pub(crate) fn remove(&mut self, hash: B256) {
        let Some((sender, nonce)) = self.by_hash.remove(&hash) else { return };
        if let Some(waiting) = self.senders.get_mut(&sender) {
            waiting.remove(&nonce);
            if waiting.is_empty() {
                self.senders.remove(&sender);
            }
        }
    }

    /// Removes what a sender's new nonce has overtaken; says what that was.
    pub(crate) fn overtake(&mut self, sender: Address, next: u64) -> Vec<B256> {
        let over: Vec<B256> = self
            .senders
            .get(&sender)
            .map(|w| w.range(..next).map(|(_, tx)| *tx.inner().hash()).collect())
            .unwrap_or_default();
        over.iter().for_each(|hash| self.remove(*hash));
        over
    }

    /// What a sender's transaction with this nonce would be taken by: its tip, if it can be in the next block.
    fn place(
        &self,
        sender: Address,
        nonce: u64,
        base_fee: u64,
        is_held: &impl Fn(B256) -> bool,
    ) -> Option<(u128, Address, u64)> {
        let tx = self.senders.get(&sender)?.get(&nonce)?;
        let tip = tx.effective_tip_per_gas(base_fee)?;
        (!is_held(*tx.inner().hash())).then_some((tip, sender, nonce))
    }

    /// Whether [`Pool::best`] has any: every transaction that was taken in fits an empty block.
    pub(crate) fn has_any(
        &self,
        base_fee: u64,
        next_nonce: impl Fn(Address) -> u64,
        is_held: impl Fn(B256) -> bool,
    ) -> bool {
        self.senders.keys().any(|&s| self.place(s, next_nonce(s), base_fee, &is_held).is_some())
    }

    /// Transactions that can be in the next block, the better paid first, each sender's in order.
    pub(crate) fn best(
        &self,
        gas_limit: u64,
        base_fee: u64,
        next_nonce: impl Fn(Address) -> u64,
        is_held: impl Fn(B256) -> bool,
    ) -> Vec<Tx> {
        let head = |sender: Address, nonce: u64| self.place(sender, nonce, base_fee, &is_held);
        let mut heads: BTreeSet<(u128, Address, u64)> =
            self.senders.keys().filter_map(|&s| head(s, next_nonce(s))).collect();
        let (mut gas, mut best) = (0u64, Vec::new());
        while let Some((_, sender, nonce)) = heads.pop_last() {
            let tx = &self.senders[&sender][&nonce];
            if gas + tx.gas_limit() > gas_limit {
                continue; // nor any later one of this sender
            }
            gas += 21_000;
            best.push(tx.clone());
            heads.extend(head(sender, nonce + 1));
        }
        best
    }

    /// Writes the file anew if it is mostly about transactions that wait no more.
    pub(crate) fn compact(&mut self) -> Result<(), ChainError> {
        let Some((path, file, size)) = &mut self.file else { return Ok(()) };
        if *size < SLACK {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for tx in self.senders.values().flat_map(BTreeMap::values) {
            let tx = tx.inner().encoded_2718();
            bytes.extend_from_slice(&(tx.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&tx);
        }
        let next = path.with_extension("new");
        std::fs::write(&next, &bytes)
            .and_then(|()| std::fs::rename(&next, &*path))
            .map_err(ChainError::store)?;
        *file = File::options().append(true).open(&*path).map_err(ChainError::store)?;
        *size = 0;
        Ok(())
    }
}

/// Gas that a transaction costs before anything runs.
fn alloy_intrinsic(tx: &Tx) -> u64 {
    let zeros = tx.input().iter().filter(|b| **b == 0).count() as u64;
    let tokens = zeros + 4 * (tx.input().len() as u64 - zeros);
    let (create, words) = (u64::from(tx.is_create()), tx.input().len().div_ceil(32) as u64);
    let standard = 21_000 + 4 * tokens + create * (32_000 + 2 * words);
    standard.max(21_000 + 10 * tokens)
}
