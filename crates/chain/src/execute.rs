//! Executing blocks: a parent's state, a header's context and transactions give the next state and its root.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy_consensus::proofs::{calculate_receipt_root, calculate_transaction_root};
use alloy_consensus::transaction::Recovered;
use alloy_consensus::{
    EMPTY_OMMER_ROOT_HASH, Header, Receipt, ReceiptEnvelope, Transaction, TxEnvelope, TxType,
};
use alloy_eips::eip1559::{BaseFeeParams, calc_next_block_base_fee};
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_evm::eth::EthEvmBuilder;
use alloy_evm::precompiles::PrecompilesMap;
use alloy_evm::{Evm, EvmEnv, FromRecoveredTx};
use alloy_primitives::{Address, B256, Bloom, Bytes, KECCAK256_EMPTY, Log, TxKind, U256, keccak256};
use alloy_sol_types::SolCall;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount};
use isobit_ledger::{NodeEntry, Params, Storage};
use revm::DatabaseCommit;
use revm::context::result::{EVMError, ExecutionResult};
use revm::context::{BlockEnv, CfgEnv, TxEnv};
use revm::context_interface::block::BlobExcessGasAndPrice;
use revm::database::states::bundle_state::BundleRetention;
use revm::database::{BundleState, State, WrapDatabaseRef};
use revm::primitives::hardfork::SpecId;

use crate::abi::IInferenceCallback;
use crate::block::{Block, Built, LEDGER, Refused, is_system, system_tx};
use crate::opengradient::{self, Missing};
use crate::precompile::{ISystem, Shared, install};
use crate::predeploys::{self, PRICES};
use crate::slots::Ledger;
use crate::store::{Changes, Row, View};
use crate::trie::{Change, Trie};
use crate::{ChainError, Genesis};

/// The EVM's version.
const SPEC: SpecId = SpecId::OSAKA;
/// Most gas of the callbacks at the end of a block.
const CALLBACK_GAS: u64 = 20_000_000;
/// Gas that a callback's transaction has beyond what its contract may use: its own cost, and that of a byte of its input.
const CALLBACK_OVERHEAD: (u64, u64) = (21_000, 40);
/// Prefix of the nodes of the accounts' trie, and of an account's storage trie.
const ACCOUNT_TRIE: &[u8] = b"a";
const STORAGE_TRIE: u8 = b's';

pub(crate) fn storage_prefix(address: Address) -> Vec<u8> {
    [&[STORAGE_TRIE], keccak256(address).as_slice()].concat()
}

pub(crate) fn account_prefix() -> &'static [u8] {
    ACCOUNT_TRIE
}

/// What whoever makes a block chooses.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Seconds since 1970; the parent's if that is later.
    pub timestamp: u64,
    /// Who gets the tips.
    pub beneficiary: Address,
    /// Transactions in order.
    pub txs: Vec<Recovered<TxEnvelope>>,
    /// Those that have waited long enough for an inference: they are in the block even if it is not there.
    pub overdue: BTreeSet<B256>,
}

/// A header of what this chain has none of: uncles, withdrawals, blobs, a beacon chain.
fn empty_header() -> Header {
    Header {
        ommers_hash: EMPTY_OMMER_ROOT_HASH,
        withdrawals_root: Some(EMPTY_ROOT_HASH),
        blob_gas_used: Some(0),
        excess_blob_gas: Some(0),
        parent_beacon_block_root: Some(B256::ZERO),
        requests_hash: Some(EMPTY_REQUESTS_HASH),
        ..Header::default()
    }
}

/// The header of the block after `parent`, up to what executing it gives.
pub(crate) fn next_header(
    genesis: &Genesis,
    parent: &Header,
    timestamp: u64,
    beneficiary: Address,
) -> Header {
    let hash = parent.hash_slow();
    let base_fee = calc_next_block_base_fee(
        parent.gas_used,
        parent.gas_limit,
        parent.base_fee_per_gas.unwrap_or_default(),
        BaseFeeParams::ethereum(),
    );
    Header {
        parent_hash: hash,
        beneficiary,
        number: parent.number + 1,
        gas_limit: genesis.gas_limit,
        timestamp: timestamp.max(parent.timestamp),
        mix_hash: hash,
        base_fee_per_gas: Some(base_fee.max(genesis.min_base_fee)),
        ..empty_header()
    }
}

pub(crate) fn evm_env(genesis: &Genesis, header: &Header) -> EvmEnv {
    let mut cfg = CfgEnv::new_with_spec(SPEC).with_chain_id(genesis.params.chain_id);
    cfg.tx_gas_limit_cap = Some(u64::MAX);
    let block = BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: U256::ZERO,
        prevrandao: Some(header.mix_hash),
        blob_excess_gas_and_price: Some(BlobExcessGasAndPrice { excess_blob_gas: 0, blob_gasprice: 1 }),
        ..BlockEnv::default()
    };
    EvmEnv::new(cfg, block)
}

/// An EVM with the ledger in it.
pub(crate) fn evm<DB: alloy_evm::Database>(
    db: DB,
    env: EvmEnv,
    params: &Arc<Params>,
    side: &Shared,
    simulate: bool,
) -> impl Evm<
    DB = DB,
    Tx = TxEnv,
    Error = EVMError<DB::Error>,
    HaltReason = revm::context::result::HaltReason,
    Precompiles = PrecompilesMap,
> {
    let mut evm = EthEvmBuilder::new(db, env).build();
    install(evm.precompiles_mut(), params, side);
    opengradient::install(evm.precompiles_mut(), params, side, simulate);
    evm
}

/// Makes the block after `parent` of those transactions that fit, in order.
pub(crate) fn build(
    genesis: &Genesis,
    view: &View,
    parent: &Header,
    proposal: &Proposal,
) -> Result<Built, ChainError> {
    let header = next_header(genesis, parent, proposal.timestamp, proposal.beneficiary);
    let mut run = Run::new(genesis, view, header);
    let mut behind = BTreeSet::new();
    for tx in &proposal.txs {
        // Without one transaction of a sender no later one can be in the block, and it is not at fault.
        if behind.contains(&tx.signer()) {
            continue;
        }
        let may_wait = !proposal.overdue.contains(tx.inner().hash());
        if let Err(refused) = run.transact(tx, may_wait)? {
            behind.insert(tx.signer());
            run.refused.push(refused);
        }
    }
    run.end()
}

/// Executes a block that somebody else made, on the state of its parent: it must be exactly what executing it gives.
pub(crate) fn execute(
    genesis: &Genesis,
    view: &View,
    parent: &Header,
    block: &Block,
) -> Result<Built, ChainError> {
    let number = block.header.number;
    let invalid = |why: String| ChainError::Block { number, why };
    let header = next_header(genesis, parent, block.header.timestamp, block.header.beneficiary);
    if number != header.number || block.header.parent_hash != header.parent_hash {
        return Err(invalid(format!("block {} with hash {} is the head", parent.number, header.parent_hash)));
    }
    let mut run = Run::new(genesis, view, header);
    for tx in block.txs.iter().filter(|tx| !is_system(tx.inner())) {
        run.transact(tx, false)?.map_err(|r| invalid(format!("transaction {}: {}", r.hash, r.why)))?;
    }
    let built = run.end()?;
    if built.block != *block {
        let (ours, theirs) = (&built.block.header, &block.header);
        let field = [
            ("state root", ours.state_root == theirs.state_root),
            (
                "transactions",
                ours.transactions_root == theirs.transactions_root && built.block.txs == block.txs,
            ),
            ("receipts", ours.receipts_root == theirs.receipts_root),
            ("timestamp", ours.timestamp == theirs.timestamp),
        ];
        let which = field.into_iter().find(|f| !f.1).map_or("header", |f| f.0);
        return Err(invalid(format!("executing it gives another {which}")));
    }
    Ok(built)
}

/// The state before the first block.
pub(crate) fn genesis_block(genesis: &Genesis, view: &View) -> Result<Built, ChainError> {
    let mut rows: Vec<(Address, Row)> =
        genesis.alloc.iter().map(|(a, b)| (*a, Row { balance: *b, ..Row::default() })).collect();
    // A contract that calls a precompile first looks whether there is code.
    let stub = Bytes::from_static(&[0xfe]);
    let precompiles = [LEDGER, opengradient::HUB, opengradient::PRECOMPILE].map(|a| (a, stub.clone()));
    let mut changes = Changes::default();
    for (address, code) in precompiles.into_iter().chain(predeploys::all().iter().cloned()) {
        let balance = genesis.alloc.get(&address).copied().unwrap_or(0);
        let hash = keccak256(&code);
        changes.code.insert(hash, code);
        rows.retain(|(a, _)| *a != address);
        rows.push((address, Row { nonce: 1, balance, code: hash, ..Row::default() }));
    }
    for (address, row) in &mut rows {
        let slots = match *address {
            LEDGER => first_slots(genesis),
            PRICES if !genesis.price_operator.is_zero() => {
                [(U256::ZERO, genesis.price_operator.into_word().into())].into()
            }
            _ => continue,
        };
        if *address == LEDGER {
            row.balance += genesis.validators.values().sum::<u128>();
        }
        let mut leaves: Vec<Change> = slots.iter().map(|(s, v)| slot_leaf(*s, *v)).collect();
        leaves.sort();
        row.storage = Trie::new(view, &storage_prefix(*address), &mut changes.trie).update(&leaves)?;
        let slots = slots.into_iter().map(|(slot, v)| ((*address, B256::from(slot)), B256::from(v)));
        changes.storage.extend(slots);
    }
    let mut leaves: Vec<Change> = rows.iter().map(|(a, r)| (account_path(*a), Some(leaf(r)))).collect();
    leaves.sort();
    changes.accounts = rows.into_iter().map(|(a, r)| (a, Some(r))).collect();
    let state_root = Trie::new(view, ACCOUNT_TRIE, &mut changes.trie).update(&leaves)?;
    let header = Header {
        state_root,
        gas_limit: genesis.gas_limit,
        timestamp: genesis.timestamp,
        extra_data: genesis.commitment().to_vec().into(),
        base_fee_per_gas: Some(genesis.base_fee),
        ..empty_header()
    };
    let block = Block { hash: header.hash_slow(), header, txs: Vec::new() };
    Ok(Built { block, receipts: Vec::new(), ended: Vec::new(), refused: Vec::new(), changes })
}

/// The ledger's slots at genesis: its validators.
fn first_slots(genesis: &Genesis) -> BTreeMap<U256, U256> {
    let mut slots = BTreeMap::new();
    let mut ledger = Ledger::new(&mut slots, &genesis.params, 0);
    for (&address, &stake) in &genesis.validators {
        let entry = NodeEntry { stake, validates: true, ..NodeEntry::default() };
        ledger.set_node(address, Some(entry));
    }
    slots
}

type Db = State<WrapDatabaseRef<View>>;
type DbError = <Db as revm::Database>::Error;

/// A block being executed.
struct Run<'a> {
    genesis: &'a Genesis,
    view: &'a View,
    header: Header,
    env: EvmEnv,
    db: Db,
    side: Shared,
    txs: Vec<Recovered<TxEnvelope>>,
    receipts: Vec<ReceiptEnvelope>,
    refused: Vec<Refused>,
    gas_used: u64,
}

impl<'a> Run<'a> {
    fn new(genesis: &'a Genesis, view: &'a View, header: Header) -> Self {
        let db = State::builder().with_database(WrapDatabaseRef(view.clone())).with_bundle_update().build();
        Self {
            genesis,
            view,
            env: evm_env(genesis, &header),
            header,
            db,
            side: Shared::default(),
            txs: Vec::new(),
            receipts: Vec::new(),
            refused: Vec::new(),
            gas_used: 0,
        }
    }

    /// Runs a transaction. If it `may_wait` and lacks an inference, it changes nothing.
    fn evm_transact(
        &mut self,
        env: EvmEnv,
        tx: TxEnv,
        may_wait: bool,
    ) -> Result<Result<ExecutionResult, Vec<Missing>>, EVMError<DbError>> {
        let mut evm = evm(&mut self.db, env, &self.genesis.params, &self.side, false);
        let result = evm.transact_raw(tx)?;
        drop(evm);
        let missing = std::mem::take(&mut self.side.lock().unwrap_or_else(|e| e.into_inner()).missing);
        if may_wait && !missing.is_empty() {
            return Ok(Err(missing));
        }
        self.db.commit(result.state);
        Ok(Ok(result.result))
    }

    /// A user's transaction. Invalid ones change nothing.
    fn transact(
        &mut self,
        tx: &Recovered<TxEnvelope>,
        may_wait: bool,
    ) -> Result<Result<(), Refused>, ChainError> {
        let hash = *tx.inner().hash();
        let refuse = |why: String, later| Ok(Err(Refused { hash, why, later, missing: Vec::new() }));
        if is_system(tx.inner()) {
            return refuse("a transaction without a signature".into(), false);
        }
        if tx.gas_limit() > self.header.gas_limit - self.gas_used {
            return refuse("the block has not as much gas left".into(), true);
        }
        let env = TxEnv::from_recovered_tx(tx.inner(), tx.signer());
        match self.evm_transact(self.env.clone(), env, may_wait) {
            Ok(Err(missing)) => {
                let why = "it waits for an inference".to_owned();
                Ok(Err(Refused { hash, why, later: true, missing }))
            }
            Ok(Ok(result)) => {
                self.gas_used += result.tx_gas_used();
                self.push(tx.clone(), result);
                Ok(Ok(()))
            }
            Err(EVMError::Transaction(e)) => refuse(e.to_string(), false),
            Err(e) => Err(ChainError::Evm(e.to_string())),
        }
    }

    fn push(&mut self, tx: Recovered<TxEnvelope>, result: ExecutionResult) {
        let receipt: Receipt<Log> = Receipt {
            status: result.is_success().into(),
            cumulative_gas_used: self.gas_used,
            logs: result.into_logs(),
        };
        let receipt = receipt.with_bloom();
        self.receipts.push(match tx.inner().tx_type() {
            TxType::Legacy => ReceiptEnvelope::Legacy(receipt),
            TxType::Eip2930 => ReceiptEnvelope::Eip2930(receipt),
            TxType::Eip4844 => ReceiptEnvelope::Eip4844(receipt),
            TxType::Eip7702 => ReceiptEnvelope::Eip7702(receipt),
            _ => ReceiptEnvelope::Eip1559(receipt),
        });
        self.txs.push(tx);
    }

    /// A transaction of the block's own.
    fn system(&mut self, tx: Recovered<TxEnvelope>) -> Result<ExecutionResult, ChainError> {
        let mut env = self.env.clone();
        env.cfg_env.disable_balance_check = true;
        env.cfg_env.disable_base_fee = true;
        env.cfg_env.disable_nonce_check = true;
        env.cfg_env.disable_eip3607 = true;
        env.cfg_env.disable_block_gas_limit = true;
        let to = tx.to().unwrap_or_default();
        let env_tx = TxEnv {
            caller: tx.signer(),
            kind: TxKind::Call(to),
            data: tx.input().clone(),
            gas_limit: tx.gas_limit(),
            gas_price: 0,
            chain_id: Some(self.genesis.params.chain_id),
            ..TxEnv::default()
        };
        let result = self.evm_transact(env, env_tx, false).map_err(|e| ChainError::Evm(e.to_string()))?;
        result.map_err(|_| ChainError::Evm("a block's own transaction does not wait".into()))
    }

    /// The end of the block: the base fees go to the burn account, the rules end the block, callbacks are made.
    fn end(mut self) -> Result<Built, ChainError> {
        let burnt = U256::from(self.header.base_fee_per_gas.unwrap_or_default()) * U256::from(self.gas_used);
        if !burnt.is_zero() {
            let account = self.db.load_cache_account(self.genesis.params.burn);
            let account = account.map_err(|e| ChainError::Evm(e.to_string()))?;
            let mut account = account.account_info().unwrap_or_default();
            account.balance += burnt;
            let mut account = revm::state::Account::from(account);
            account.mark_touch();
            self.db.commit([(self.genesis.params.burn, account)].into_iter().collect());
        }
        let (chain_id, number) = (self.genesis.params.chain_id, self.header.number);
        let busy = {
            let evm = LedgerReader { db: &mut self.db };
            crate::slots::Ledger::new(evm, &self.genesis.params, 0).is_busy()
        };
        let mut ended = Vec::new();
        if busy {
            let input = ISystem::endBlockCall { callbackGas: CALLBACK_GAS }.abi_encode().into();
            let tx = system_tx(chain_id, number << 20, 30_000_000, LEDGER, input);
            let result = self.system(tx.clone())?;
            if !result.is_success() {
                return Err(ChainError::Evm(format!("the end of block {number} failed: {result:?}")));
            }
            let has_happened = !result.logs().is_empty();
            if has_happened {
                self.push(tx, result);
            }
            let side = std::mem::take(&mut *self.side.lock().unwrap_or_else(|e| e.into_inner()));
            ended = side.ended;
            for (i, (callback, answer, tensors)) in side.callbacks.into_iter().enumerate() {
                let call = IInferenceCallback::onInferenceCall {
                    job: callback.job,
                    settled: answer.settled,
                    failure: answer.failure,
                    tensors,
                };
                let nonce = number << 20 | (i as u64 + 1);
                let input = Bytes::from(call.abi_encode());
                let gas = callback.gas + CALLBACK_OVERHEAD.0 + CALLBACK_OVERHEAD.1 * input.len() as u64;
                let tx = system_tx(chain_id, nonce, gas, callback.to, input);
                let result = self.system(tx.clone())?;
                self.push(tx, result);
            }
        }
        self.seal(ended)
    }

    fn seal(mut self, ended: Vec<isobit_ledger::Job>) -> Result<Built, ChainError> {
        self.db.merge_transitions(BundleRetention::PlainState);
        let (changes, state_root) = changes(self.view, &self.db.take_bundle())?;
        let envelopes: Vec<&TxEnvelope> = self.txs.iter().map(|tx| tx.inner()).collect();
        let mut header = self.header;
        header.state_root = state_root;
        header.transactions_root = calculate_transaction_root(&envelopes);
        header.receipts_root = calculate_receipt_root(&self.receipts);
        header.logs_bloom = self.receipts.iter().fold(Bloom::ZERO, |bloom, r| bloom | *r.logs_bloom());
        header.gas_used = self.gas_used;
        let block = Block { hash: header.hash_slow(), header, txs: self.txs };
        Ok(Built { block, receipts: self.receipts, ended, refused: self.refused, changes })
    }
}

/// The ledger's slots in the middle of a block.
struct LedgerReader<'a> {
    db: &'a mut Db,
}

impl crate::slots::Slots for LedgerReader<'_> {
    fn load(&mut self, slot: U256) -> U256 {
        use revm::Database;
        let loaded = self.db.basic(LEDGER).and_then(|_| self.db.storage(LEDGER, slot));
        loaded.unwrap_or_else(|e| {
            tracing::error!("{e}");
            U256::ZERO
        })
    }

    fn store(&mut self, _: U256, _: U256) {
        unreachable!("it is only read")
    }

    fn pay(&mut self, _: Address, _: u128) {
        unreachable!("it is only read")
    }
}

pub(crate) fn account_path(address: Address) -> Nibbles {
    Nibbles::unpack(keccak256(address))
}

pub(crate) fn leaf(row: &Row) -> Vec<u8> {
    alloy_rlp::encode(TrieAccount {
        nonce: row.nonce,
        balance: U256::from(row.balance),
        storage_root: row.storage,
        code_hash: row.code,
    })
}

pub(crate) fn slot_leaf(slot: U256, value: U256) -> Change {
    let path = Nibbles::unpack(keccak256(B256::from(slot)));
    (path, (!value.is_zero()).then(|| alloy_rlp::encode(value)))
}

/// What is different after a block, and the root of the state then.
fn changes(view: &View, bundle: &BundleState) -> Result<(Changes, B256), ChainError> {
    let mut changes = Changes::default();
    let mut leaves: Vec<Change> = Vec::new();
    for (&address, account) in &bundle.state {
        let before = view.row(address)?;
        let mut storage = before.map_or(EMPTY_ROOT_HASH, |r| r.storage);
        let mut slots: Vec<Change> = Vec::new();
        for (&slot, value) in &account.storage {
            if value.is_changed() {
                let key = B256::from(slot);
                let value = value.present_value;
                changes.storage.insert((address, key), value.into());
                slots.push(slot_leaf(slot, value));
            }
        }
        if !slots.is_empty() {
            slots.sort();
            storage = Trie::new(view, &storage_prefix(address), &mut changes.trie).update(&slots)?;
        }
        let row = match &account.info {
            Some(info) if !info.is_empty() || storage != EMPTY_ROOT_HASH => {
                let balance = u128::try_from(info.balance)
                    .map_err(|_| ChainError::Evm(format!("{address} has more coins than there are")))?;
                Some(Row { nonce: info.nonce, balance, code: info.code_hash, storage })
            }
            _ => None,
        };
        if row != before {
            leaves.push((account_path(address), row.as_ref().map(leaf)));
            changes.accounts.insert(address, row);
        }
    }
    for (hash, code) in &bundle.contracts {
        if *hash != KECCAK256_EMPTY && view.code(*hash)?.is_empty() {
            changes.code.insert(*hash, code.original_bytes());
        }
    }
    leaves.sort();
    let root = Trie::new(view, ACCOUNT_TRIE, &mut changes.trie).update(&leaves)?;
    Ok((changes, root))
}
