//! The chain on disk: one durable transaction a block, and consistent views of the state between blocks.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Header, ReceiptEnvelope, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use alloy_rlp::Decodable;
use alloy_trie::EMPTY_ROOT_HASH;
use isobit_ledger::{Job, Params};
use redb::{Database, ReadOnlyTable, ReadableDatabase, StorageBackend, TableDefinition, TableHandle};
use revm::DatabaseRef;
use revm::bytecode::Bytecode;
use revm::database_interface::DBErrorMarker;
use revm::state::AccountInfo;

use crate::ChainError;
use crate::block::{Block, Built, LEDGER, decode_receipts, decode_txs, encode_list, encode_txs};
use crate::slots::{Ledger, Slots};
use crate::trie::{Dirty, Nodes};

pub(crate) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

pub(crate) const ACCOUNTS: Table = Table::new("accounts");
pub(crate) const STORAGE: Table = Table::new("storage");
pub(crate) const CODE: Table = Table::new("code");
pub(crate) const TRIE: Table = Table::new("trie");
pub(crate) const HEADERS: Table = Table::new("headers");
pub(crate) const BODIES: Table = Table::new("bodies");
pub(crate) const RECEIPTS: Table = Table::new("receipts");
pub(crate) const NUMBERS: Table = Table::new("numbers");
pub(crate) const TXS: Table = Table::new("transactions");
const JOBS: Table = Table::new("ended_jobs");
pub(crate) const META: Table = Table::new("meta");
const ALL: [Table; 11] = [ACCOUNTS, STORAGE, CODE, TRIE, HEADERS, BODIES, RECEIPTS, NUMBERS, TXS, JOBS, META];

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

/// The chain's database.
pub struct Store {
    pub(crate) database: Database,
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
    /// Opens the database in a file, or makes it.
    pub fn open(path: &Path) -> Result<Self, ChainError> {
        Self::new(Database::create(path).map_err(ChainError::store)?)
    }

    /// Opens the database in another backend: memory, or one that fails on purpose.
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, ChainError> {
        Self::new(Database::builder().create_with_backend(backend).map_err(ChainError::store)?)
    }

    fn new(database: Database) -> Result<Self, ChainError> {
        let write = database.begin_write().map_err(ChainError::store)?;
        for table in ALL {
            write.open_table(table).map_err(ChainError::store)?;
        }
        write.commit().map_err(ChainError::store)?;
        Ok(Self { database, code: Mutex::default() })
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        let read = self.database.begin_read().map_err(ChainError::store)?;
        let table = read.open_table(table).map_err(ChainError::store)?;
        Ok(table.get(key).map_err(ChainError::store)?.map(|v| v.value().to_vec()))
    }

    /// The state as it is now; it stays so while blocks are added.
    pub(crate) fn view(self: &Arc<Self>) -> Result<View, ChainError> {
        let read = self.database.begin_read().map_err(ChainError::store)?;
        let open = |table| read.open_table(table).map_err(ChainError::store);
        Ok(View(Arc::new(Tables {
            accounts: open(ACCOUNTS)?,
            storage: open(STORAGE)?,
            code: open(CODE)?,
            trie: open(TRIE)?,
            headers: open(HEADERS)?,
            store: self.clone(),
        })))
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
        let number = self.get(NUMBERS, hash.as_slice())?;
        Ok(number.and_then(|n| n.try_into().ok()).map(u64::from_be_bytes))
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
        let Some(place) = self.get(TXS, hash.as_slice())? else { return Ok(None) };
        let place: [u8; 16] =
            place.try_into().map_err(|_| ChainError::corrupt("a transaction's place is malformed"))?;
        let place = u128::from_be_bytes(place);
        Ok(Some(((place >> 64) as u64, place as u64 as usize)))
    }

    /// A job that ended.
    pub fn job(&self, id: B256) -> Result<Option<Job>, ChainError> {
        let job = self.get(JOBS, id.as_slice())?;
        let job = job.map(|b| Job::decode(&mut &b[..])).transpose();
        job.map_err(|_| ChainError::corrupt("an ended job is malformed"))
    }

    /// Writes a block and what it did. When this returns, all of it is on disk; before, none of it.
    pub(crate) fn append(&self, built: &Built) -> Result<(), ChainError> {
        let mut write = self.database.begin_write().map_err(ChainError::store)?;
        write.set_quick_repair(true);
        let Built { block, receipts, ended, changes, .. } = built;
        let number = block.header.number.to_be_bytes();
        {
            let put = |table: Table, rows: &mut dyn Iterator<Item = (Vec<u8>, Option<Vec<u8>>)>| {
                let mut table = write.open_table(table).map_err(ChainError::store)?;
                for (key, value) in rows {
                    match value {
                        Some(value) => table.insert(&key[..], &value[..]).map_err(ChainError::store)?,
                        None => table.remove(&key[..]).map_err(ChainError::store)?,
                    };
                }
                Ok::<(), ChainError>(())
            };
            let rows = changes.accounts.iter().map(|(a, r)| (a.to_vec(), r.map(|r| r.encode())));
            put(ACCOUNTS, &mut { rows })?;
            let slots = changes
                .storage
                .iter()
                .map(|((a, s), v)| (slot_key(*a, *s).to_vec(), (!v.is_zero()).then(|| v.to_vec())));
            put(STORAGE, &mut { slots })?;
            put(CODE, &mut changes.code.iter().map(|(h, c)| (h.to_vec(), Some(c.to_vec()))))?;
            put(TRIE, &mut changes.trie.iter().map(|(k, n)| (k.clone(), n.clone())))?;
            let one = |key: &[u8], value: Vec<u8>| std::iter::once((key.to_vec(), Some(value)));
            put(HEADERS, &mut one(&number, alloy_rlp::encode(&block.header)))?;
            put(BODIES, &mut one(&number, encode_txs(&block.txs)))?;
            put(RECEIPTS, &mut one(&number, encode_list(receipts)))?;
            put(NUMBERS, &mut one(block.hash.as_slice(), number.to_vec()))?;
            let places = block.txs.iter().enumerate().map(|(i, tx)| {
                let place = u128::from(block.header.number) << 64 | i as u128;
                (tx.inner().hash().to_vec(), Some(place.to_be_bytes().to_vec()))
            });
            put(TXS, &mut { places })?;
            put(JOBS, &mut ended.iter().map(|j| (j.id.to_vec(), Some(alloy_rlp::encode(j)))))?;
            put(META, &mut one(b"head", number.to_vec()))?;
        }
        write.commit().map_err(ChainError::store)
    }
}

fn decode_header(mut bytes: &[u8]) -> Result<Header, ChainError> {
    Header::decode(&mut bytes).map_err(|_| ChainError::corrupt("a header is malformed"))
}

type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

struct Tables {
    accounts: ReadTable,
    storage: ReadTable,
    code: ReadTable,
    trie: ReadTable,
    headers: ReadTable,
    store: Arc<Store>,
}

/// The state after a block, for reading.
#[derive(Clone)]
pub(crate) struct View(Arc<Tables>);

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("View")
    }
}

fn get(table: &ReadTable, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
    Ok(table.get(key).map_err(ChainError::store)?.map(|v| v.value().to_vec()))
}

/// Who hears of rows.
type Told<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), ChainError> + 'a;

impl View {
    pub(crate) fn row(&self, address: Address) -> Result<Option<Row>, ChainError> {
        get(&self.0.accounts, address.as_slice())?.map(|r| Row::decode(&r)).transpose()
    }

    /// Every account, in ascending order of address.
    pub(crate) fn rows(&self) -> Result<Vec<(Address, Row)>, ChainError> {
        let rows = self.0.accounts.range::<&[u8]>(..).map_err(ChainError::store)?;
        rows.map(|row| {
            let (key, value) = row.map_err(ChainError::store)?;
            Ok((Address::from_slice(key.value()), Row::decode(value.value())?))
        })
        .collect()
    }

    /// Every row of a table of the state, in ascending order of key.
    pub(crate) fn each(&self, table: Table, told: &mut Told<'_>) -> Result<(), ChainError> {
        let tables = [(ACCOUNTS, &self.0.accounts), (STORAGE, &self.0.storage), (CODE, &self.0.code)];
        let found = tables.into_iter().find(|(t, _)| t.name() == table.name());
        let (_, rows) = found.ok_or(ChainError::Corrupt("that table is no part of the state"))?;
        for row in rows.range::<&[u8]>(..).map_err(ChainError::store)? {
            let (key, value) = row.map_err(ChainError::store)?;
            told(key.value(), value.value())?;
        }
        Ok(())
    }

    pub(crate) fn slot(&self, address: Address, slot: B256) -> Result<B256, ChainError> {
        let value = get(&self.0.storage, &slot_key(address, slot))?;
        Ok(value.map(|v| B256::from_slice(&v)).unwrap_or_default())
    }

    pub(crate) fn code(&self, hash: B256) -> Result<Bytes, ChainError> {
        Ok(get(&self.0.code, hash.as_slice())?.unwrap_or_default().into())
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
    fn node(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ChainError> {
        get(&self.0.trie, key)
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
        let cache = || self.0.store.code.lock().unwrap_or_else(|e| e.into_inner());
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
        let header = get(&self.0.headers, &number.to_be_bytes())?;
        Ok(header.map(|h| decode_header(&h)).transpose()?.map(|h| h.hash_slow()).unwrap_or_default())
    }
}
