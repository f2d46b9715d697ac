//! The chain on disk: one durable transaction a block, and consistent views of the state between blocks.
//!
//! Two databases: blocks in one, each with what it changes in the state; the state in the other, which follows
//! ([`crate::state`]). A block is there when the first has it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Header, ReceiptEnvelope, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use alloy_rlp::Decodable;
use alloy_trie::EMPTY_ROOT_HASH;
use isobit_ledger::{Job, Params};
use redb::{Database, ReadableDatabase, StorageBackend, TableDefinition};
use revm::DatabaseRef;
use revm::bytecode::Bytecode;
use revm::database_interface::DBErrorMarker;
use revm::state::AccountInfo;

use crate::ChainError;
use crate::block::{Block, Built, LEDGER, decode_receipts, decode_txs, encode_list, encode_txs};
use crate::slots::{Ledger, Slots};
use crate::state::{Layer, State, States, Table, Told};
use crate::trie::{Dirty, Nodes};

pub(crate) type BlockTable = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(crate) const HEADERS: BlockTable = BlockTable::new("headers");
pub(crate) const BODIES: BlockTable = BlockTable::new("bodies");
pub(crate) const RECEIPTS: BlockTable = BlockTable::new("receipts");
/// What blocks change in the state, until its database has it.
const CHANGES: BlockTable = BlockTable::new("changes");
pub(crate) const META: BlockTable = BlockTable::new("meta");
const ALL: [BlockTable; 5] = [HEADERS, BODIES, RECEIPTS, CHANGES, META];

impl DBErrorMarker for ChainError {}

/// An account with the root of its storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) nonce: u64,
    pub(crate) balance: u128,
    pub(crate) code: B256,
    pub(crate) storage: B256,
}

impl Default for Row {
    fn default() -> Self {
        Self { nonce: 0, balance: 0, code: KECCAK256_EMPTY, storage: EMPTY_ROOT_HASH }
    }
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        let parts: [&[u8]; 4] = [
            &self.nonce.to_be_bytes(),
            &self.balance.to_be_bytes(),
            self.code.as_slice(),
            self.storage.as_slice(),
        ];
        parts.concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ChainError> {
        let bytes: &[u8; 88] =
            bytes.try_into().map_err(|_| ChainError::corrupt("an account is malformed"))?;
        Ok(Self {
            nonce: u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")),
            balance: u128::from_be_bytes(bytes[8..24].try_into().expect("sixteen bytes")),
            code: B256::from_slice(&bytes[24..56]),
            storage: B256::from_slice(&bytes[56..]),
        })
    }
}

/// What a block changes. `None` removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) accounts: BTreeMap<Address, Option<Row>>,
    pub(crate) storage: BTreeMap<(Address, B256), B256>,
    pub(crate) code: BTreeMap<B256, Bytes>,
    pub(crate) trie: Dirty,
}

/// The chain's databases.
pub struct Store {
    pub(crate) blocks: Database,
    pub(crate) states: Arc<States>,
    /// Brings the state's database up to date; without it, [`Store::append`] does.
    follower: Option<std::thread::JoinHandle<()>>,
    code: Mutex<BTreeMap<B256, Bytecode>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

fn slot_key(address: Address, slot: B256) -> [u8; 52] {
    let mut key = [0; 52];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(slot.as_slice());
    key
}

impl Store {
    /// Opens the databases in a folder, or makes them.
    pub fn open(folder: &Path) -> Result<Self, ChainError> {
        if folder.join("chain.redb").exists() && !folder.join("blocks.redb").exists() {
            return Err(ChainError::OldStore(folder.display().to_string()));
        }
        let [blocks, state] = ["blocks.redb", "state.redb"]
            .map(|name| Database::create(folder.join(name)).map_err(ChainError::store));
        let mut store = Self::new(blocks?, state?)?;
        let states = store.states.clone();
        let follower = std::thread::Builder::new().name("state".into()).spawn(move || states.keep_flushing());
        store.follower = Some(follower.map_err(ChainError::store)?);
        Ok(store)
    }

    /// Opens the databases in other backends: memory, or ones that fail on purpose.
    pub fn with_backends(
        blocks: impl StorageBackend,
        state: impl StorageBackend,
    ) -> Result<Self, ChainError> {
        let blocks = Database::builder().create_with_backend(blocks).map_err(ChainError::store)?;
        Self::new(blocks, Database::builder().create_with_backend(state).map_err(ChainError::store)?)
    }

    /// A store in memory.
    pub fn in_memory() -> Result<Self, ChainError> {
        let memory = redb::backends::InMemoryBackend::new;
        Self::with_backends(memory(), memory())
    }

    fn new(blocks: Database, state: Database) -> Result<Self, ChainError> {
        let write = blocks.begin_write().map_err(ChainError::store)?;
        for table in ALL {
            write.open_table(table).map_err(ChainError::store)?;
        }
        write.commit().map_err(ChainError::store)?;
        let states = Arc::new(States::new(state)?);
        let store = Self { blocks, states, follower: None, code: Mutex::default() };
        let flushed = store.states.flushed();
        match store.head()? {
            // The first state is written before the first block: a crash came between.
            None if flushed.is_some() => store.states.clear()?,
            None => {}
            Some(head) => {
                for number in flushed.map_or(0, |f| f + 1)..=head {
                    let changes = store.get(CHANGES, &number.to_be_bytes())?;
                    let changes = changes.ok_or(ChainError::Corrupt(
                        "the state of its last block is missing (state.redb, beside blocks.redb); restore a snapshot into another --data",
                    ))?;
                    store.states.push(Layer::decode(&changes)?);
                }
                if flushed.is_some_and(|f| f > head) {
                    return Err(ChainError::Corrupt(
                        "the state (state.redb) is of a later block than the last one",
                    ));
                }
            }
        }
        Ok(store)
    }

    fn get(&self, table: BlockTable, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        let read = self.blocks.begin_read().map_err(ChainError::store)?;
        let table = read.open_table(table).map_err(ChainError::store)?;
        Ok(table.get(key).map_err(ChainError::store)?.map(|v| v.value().to_vec()))
    }

    /// The state as it is now; it stays so while blocks are added.
    pub(crate) fn view(self: &Arc<Self>) -> View {
        View { state: self.states.current(), store: self.clone() }
    }

    /// The number of the last block; `None` before the genesis.
    pub(crate) fn head(&self) -> Result<Option<u64>, ChainError> {
        let head = self.get(META, b"head")?;
        let read = |b: Vec<u8>| b.try_into().map(u64::from_be_bytes);
        head.map(read).transpose().map_err(|_| ChainError::corrupt("the head is malformed"))
    }

    /// A header by its block's number.
    pub fn header(&self, number: u64) -> Result<Option<Header>, ChainError> {
        let bytes = self.get(HEADERS, &number.to_be_bytes())?;
        bytes.map(|b| decode_header(&b)).transpose()
    }

    /// The number of a block by its hash.
    pub fn number(&self, hash: B256) -> Result<Option<u64>, ChainError> {
        let number = self.states.current().get(Table::Numbers, hash.as_slice())?;
        Ok(number.and_then(|n| n[..].try_into().ok()).map(u64::from_be_bytes))
    }

    /// A block by its number; `None` also for one that was pruned, or is older than the snapshot that the chain came of.
    pub fn block(&self, number: u64) -> Result<Option<Block>, ChainError> {
        let Some(header) = self.header(number)? else { return Ok(None) };
        let Some(body) = self.get(BODIES, &number.to_be_bytes())? else { return Ok(None) };
        let txs: Vec<Recovered<TxEnvelope>> = decode_txs(&body)?;
        Ok(Some(Block { hash: header.hash_slow(), header, txs }))
    }

    /// The receipts of a block; empty for a block that is not known.
    pub fn receipts(&self, number: u64) -> Result<Vec<ReceiptEnvelope>, ChainError> {
        let receipts = self.get(RECEIPTS, &number.to_be_bytes())?;
        Ok(receipts.map(|r| decode_receipts(&r)).transpose()?.unwrap_or_default())
    }

    /// In which block a transaction is, and where in it.
    pub fn tx(&self, hash: B256) -> Result<Option<(u64, usize)>, ChainError> {
        let Some(place) = self.states.current().get(Table::Txs, hash.as_slice())? else { return Ok(None) };
        let place: [u8; 16] =
            place[..].try_into().map_err(|_| ChainError::corrupt("a transaction's place is malformed"))?;
        let place = u128::from_be_bytes(place);
        Ok(Some(((place >> 64) as u64, place as u64 as usize)))
    }

    /// A job that ended.
    pub fn job(&self, id: B256) -> Result<Option<Job>, ChainError> {
        let job = self.states.current().get(Table::Jobs, id.as_slice())?;
        let job = job.map(|b| Job::decode(&mut &b[..])).transpose();
        job.map_err(|_| ChainError::corrupt("an ended job is malformed"))
    }

    /// Writes the first block and the state before it.
    pub(crate) fn found(&self, built: &Built) -> Result<(), ChainError> {
        let layer = layer(built);
        self.states.found(|write| Ok((layer.number, layer.write(write)?)))?;
        self.write_block(built, None)
    }

    /// Writes a block and what it did. When this returns, all of it is on disk; before, none of it.
    pub(crate) fn append(&self, built: &Built) -> Result<(), ChainError> {
        self.states.make_room(self.follower.is_none())?;
        let layer = layer(built);
        self.write_block(built, Some(layer.encode()))?;
        self.states.push(layer);
        Ok(())
    }

    fn write_block(&self, built: &Built, changes: Option<Vec<u8>>) -> Result<(), ChainError> {
        let mut write = self.blocks.begin_write().map_err(ChainError::store)?;
        write.set_quick_repair(true);
        let Built { block, receipts, .. } = built;
        let number = block.header.number.to_be_bytes();
        let put = |table: BlockTable, key: &[u8], value: Vec<u8>| {
            let mut table = write.open_table(table).map_err(ChainError::store)?;
            table.insert(key, &value[..]).map(drop).map_err(ChainError::store)
        };
        put(HEADERS, &number, alloy_rlp::encode(&block.header))?;
        put(BODIES, &number, encode_txs(&block.txs))?;
        put(RECEIPTS, &number, encode_list(receipts))?;
        put(META, b"head", number.to_vec())?;
        if let Some(changes) = changes {
            put(CHANGES, &number, changes)?;
        }
        if let Some(flushed) = self.states.flushed() {
            let mut table = write.open_table(CHANGES).map_err(ChainError::store)?;
            let old = ..=&flushed.to_be_bytes()[..];
            table.retain_in(old, |_, _| false).map_err(ChainError::store)?;
        }
        write.commit().map_err(ChainError::store)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.states.stop();
        if let Some(thread) = self.follower.take() {
            let _ = thread.join(); // a panic there has been reported by the thread itself
        }
    }
}

/// The rows that a block changes.
fn layer(built: &Built) -> Layer {
    let Built { block, ended, changes, .. } = built;
    let mut layer = Layer::new(block.header.number);
    for (address, row) in &changes.accounts {
        layer.put(Table::Accounts, address.to_vec(), row.map(|r| r.encode()).unwrap_or_default());
    }
    for ((address, slot), value) in &changes.storage {
        let value = if value.is_zero() { Vec::new() } else { value.to_vec() };
        layer.put(Table::Storage, slot_key(*address, *slot).to_vec(), value);
    }
    for (hash, code) in &changes.code {
        layer.put(Table::Code, hash.to_vec(), code.clone());
    }
    for (key, node) in &changes.trie {
        layer.put(Table::Trie, key.clone(), node.clone().unwrap_or_default());
    }
    layer.put(Table::Numbers, block.hash.to_vec(), block.header.number.to_be_bytes().to_vec());
    for (i, tx) in block.txs.iter().enumerate() {
        let place = u128::from(block.header.number) << 64 | i as u128;
        layer.put(Table::Txs, tx.inner().hash().to_vec(), place.to_be_bytes().to_vec());
    }
    for job in ended {
        layer.put(Table::Jobs, job.id.to_vec(), alloy_rlp::encode(job));
    }
    layer
}

fn decode_header(mut bytes: &[u8]) -> Result<Header, ChainError> {
    Header::decode(&mut bytes).map_err(|_| ChainError::corrupt("a header is malformed"))
}

/// The state after a block, for reading.
#[derive(Clone)]
pub(crate) struct View {
    state: Arc<State>,
    store: Arc<Store>,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View")
    }
}

impl View {
    pub(crate) fn row(&self, address: Address) -> Result<Option<Row>, ChainError> {
        self.state.get(Table::Accounts, address.as_slice())?.map(|r| Row::decode(&r)).transpose()
    }

    /// Every account, in ascending order of address.
    pub(crate) fn rows(&self) -> Result<Vec<(Address, Row)>, ChainError> {
        let mut rows = Vec::new();
        self.each(Table::Accounts, &mut |key, value| {
            rows.push((Address::from_slice(key), Row::decode(value)?));
            Ok(())
        })?;
        Ok(rows)
    }

    /// Every row of a table, in ascending order of key.
    pub(crate) fn each(&self, table: Table, told: &mut Told<'_>) -> Result<(), ChainError> {
        self.state.each(table, told)
    }

    /// The size in memory of what the last block changed.
    pub(crate) fn last_bytes(&self) -> usize {
        self.state.last_bytes()
    }

    pub(crate) fn slot(&self, address: Address, slot: B256) -> Result<B256, ChainError> {
        let value = self.state.get(Table::Storage, &slot_key(address, slot))?;
        Ok(value.map(|v| B256::from_slice(&v)).unwrap_or_default())
    }

    pub(crate) fn code(&self, hash: B256) -> Result<Bytes, ChainError> {
        Ok(self.state.get(Table::Code, hash.as_slice())?.unwrap_or_default())
    }

    /// The ledger as it is in this state. Only for reading.
    pub(crate) fn ledger<'p>(&self, params: &'p Params) -> Ledger<'p, &View> {
        Ledger::new(self, params, 0)
    }
}

impl Slots for &View {
    fn load(&mut self, slot: U256) -> U256 {
        match View::slot(self, LEDGER, slot.into()) {
            Ok(value) => value.into(),
            Err(e) => {
                tracing::error!("{e}");
                U256::ZERO
            }
        }
    }

    fn store(&mut self, _: U256, _: U256) {
        unreachable!("a view is only read")
    }

    fn pay(&mut self, _: Address, _: u128) {
        unreachable!("a view is only read")
    }
}

impl Nodes for View {
    fn node(&self, key: &[u8]) -> Result<Option<Bytes>, ChainError> {
        self.state.get(Table::Trie, key)
    }
}

impl DatabaseRef for View {
    type Error = ChainError;

    fn basic_ref(&self, address: Address) -> Result<Option<AccountInfo>, ChainError> {
        Ok(self.row(address)?.map(|row| {
            AccountInfo {
                balance: U256::from(row.balance),
                nonce: row.nonce,
                code_hash: row.code,
                ..AccountInfo::default()
            }
            .without_code()
        }))
    }

    fn code_by_hash_ref(&self, hash: B256) -> Result<Bytecode, ChainError> {
        let cache = || self.store.code.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(code) = cache().get(&hash) {
            return Ok(code.clone());
        }
        let code = Bytecode::new_raw_checked(self.code(hash)?)
            .map_err(|_| ChainError::corrupt("a contract's code is malformed"))?;
        let mut cache = cache();
        if cache.len() >= 512 {
            cache.pop_first();
        }
        cache.insert(hash, code.clone());
        Ok(code)
    }

    fn storage_ref(&self, address: Address, slot: U256) -> Result<U256, ChainError> {
        Ok(self.slot(address, slot.into())?.into())
    }

    fn block_hash_ref(&self, number: u64) -> Result<B256, ChainError> {
        Ok(self.store.header(number)?.map(|h| h.hash_slow()).unwrap_or_default())
    }
}
