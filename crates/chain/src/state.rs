//! The state in layers. What the last blocks changed is in memory, a layer a block; what is older is in a database of its own,
//! which another thread brings up to date, many blocks at a time: rows of a state lie scattered, and to put those of one
//! block on disk costs more than to execute it. Nothing is lost by that: the changes of a block are on disk with the block
//! ([`crate::store`]) until the database has them.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard};

use alloy_primitives::Bytes;
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use hashbrown::{DefaultHashBuilder, HashTable};
use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};

use crate::ChainError;

/// As many layers go to the database at once; fewer if they have many bytes.
const FLUSHED: (usize, usize) = (4, 32 << 20);
/// With as many layers, or bytes, in memory the next block waits.
const FULL: (usize, usize) = (64, 256 << 20);

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// What the state is made of, and what else follows from the blocks and lies scattered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    Accounts,
    Storage,
    Code,
    Trie,
    /// Block numbers by hash.
    Numbers,
    /// Places of transactions by hash.
    Txs,
    /// Jobs that ended, by id.
    Jobs,
}

const TABLES: [Table; 7] =
    [Table::Accounts, Table::Storage, Table::Code, Table::Trie, Table::Numbers, Table::Txs, Table::Jobs];
const META: Definition = TableDefinition::new("meta");

impl Table {
    pub(crate) fn definition(self) -> Definition {
        TableDefinition::new(match self {
            Table::Accounts => "accounts",
            Table::Storage => "storage",
            Table::Code => "code",
            Table::Trie => "trie",
            Table::Numbers => "numbers",
            Table::Txs => "transactions",
            Table::Jobs => "ended_jobs",
        })
    }
}

/// The rows that a block changes. No row has an empty value: that one removes it.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    pub(crate) number: u64,
    rows: HashTable<(Name, Bytes)>,
    bytes: usize,
}

/// A row's table and key, by a hash that is the same in all layers: who looks for it hashes it once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Name {
    hash: u64,
    table: Table,
    key: Bytes,
}

fn hash(table: Table, key: &[u8]) -> u64 {
    static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);
    HASHER.hash_one((table as u8, key))
}

#[derive(RlpEncodable, RlpDecodable)]
struct EncodedRow {
    table: u8,
    key: Bytes,
    value: Bytes,
}

#[derive(RlpEncodable, RlpDecodable)]
struct EncodedLayer {
    number: u64,
    rows: Vec<EncodedRow>,
}

impl Layer {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// Sets a row, or removes it with an empty value. Each row once.
    pub(crate) fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, value) = (key.into(), value.into());
        self.bytes += key.len() + value.len() + 128;
        let hash = hash(table, &key);
        self.rows.insert_unique(hash, (Name { hash, table, key }, value), |row| row.0.hash);
    }

    fn get(&self, hash: u64, table: Table, key: &[u8]) -> Option<&Bytes> {
        let found = self.rows.find(hash, |(name, _)| name.table == table && name.key[..] == *key);
        found.map(|row| &row.1)
    }

    /// Writes its rows into the database.
    pub(crate) fn write(&self, write: &redb::WriteTransaction) -> Result<(), ChainError> {
        write_rows(write, |table| merged([self], table))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let rows = TABLES.into_iter().flat_map(|table| {
            let encoded = move |(key, value)| EncodedRow {
                table: table as u8,
                key: Bytes::copy_from_slice(key),
                value: Bytes::copy_from_slice(value),
            };
            merged([self], table).into_iter().map(encoded)
        });
        alloy_rlp::encode(EncodedLayer { number: self.number, rows: rows.collect() })
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, ChainError> {
        let corrupt = || ChainError::corrupt("the changes of a block are malformed");
        let encoded = EncodedLayer::decode(&mut &bytes[..]).map_err(|_| corrupt())?;
        let mut layer = Self::new(encoded.number);
        for row in encoded.rows {
            let table = TABLES.get(usize::from(row.table)).ok_or_else(corrupt)?;
            layer.put(*table, row.key, row.value);
        }
        Ok(layer)
    }
}

/// The database as it was when this was made.
struct Base([ReadTable; TABLES.len()]);

impl Base {
    fn new(database: &Database) -> Result<Self, ChainError> {
        let read = database.begin_read().map_err(ChainError::store)?;
        let tables = TABLES.map(|t| read.open_table(t.definition()).map_err(ChainError::store));
        let mut opened = Vec::with_capacity(TABLES.len());
        for table in tables {
            opened.push(table?);
        }
        let tables = opened.try_into();
        Ok(Self(tables.map_err(|_| ChainError::Corrupt("tables are missing"))?))
    }
}

/// The state after a block; it stays so while blocks are added.
pub(crate) struct State {
    base: Arc<Base>,
    /// In ascending order of block.
    layers: Vec<Arc<Layer>>,
}

/// Who hears of rows.
pub(crate) type Told<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), ChainError> + 'a;

impl State {
    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, ChainError> {
        let hash = hash(table, key);
        for layer in self.layers.iter().rev() {
            if let Some(value) = layer.get(hash, table, key) {
                return Ok((!value.is_empty()).then(|| value.clone()));
            }
        }
        let value = self.base.0[table as usize].get(key).map_err(ChainError::store)?;
        Ok(value.map(|v| Bytes::copy_from_slice(v.value())))
    }

    /// Every row of a table, in ascending order of key.
    pub(crate) fn each(&self, table: Table, told: &mut Told<'_>) -> Result<(), ChainError> {
        let changed = merged(self.layers.iter().map(|l| &**l), table);
        let mut changed = changed.into_iter().peekable();
        let mut tell = |key: &[u8], value: &[u8]| if value.is_empty() { Ok(()) } else { told(key, value) };
        for row in self.base.0[table as usize].range::<&[u8]>(..).map_err(ChainError::store)? {
            let (key, value) = row.map_err(ChainError::store)?;
            while let Some((k, v)) = changed.next_if(|(k, _)| *k < key.value()) {
                tell(k, v)?;
            }
            match changed.next_if(|(k, _)| *k == key.value()) {
                Some((k, v)) => tell(k, v)?,
                None => tell(key.value(), value.value())?,
            }
        }
        changed.try_for_each(|(k, v)| tell(k, v))
    }

    /// The size in memory of what the last block changed.
    pub(crate) fn last_bytes(&self) -> usize {
        self.layers.last().map_or(0, |l| l.bytes)
    }

    fn is_beyond(&self, (count, bytes): (usize, usize)) -> bool {
        self.layers.len() >= count || self.layers.iter().map(|l| l.bytes).sum::<usize>() >= bytes
    }
}

/// What layers, the oldest first, have come to in a table.
fn merged<'l>(layers: impl IntoIterator<Item = &'l Layer>, table: Table) -> BTreeMap<&'l [u8], &'l [u8]> {
    let rows = layers.into_iter().flat_map(|l| &l.rows).filter(|row| row.0.table == table);
    rows.map(|(name, value)| (&name.key[..], &value[..])).collect()
}

/// Writes rows in ascending order of key: those of a page follow each other.
fn write_rows<'r>(
    write: &redb::WriteTransaction,
    of: impl Fn(Table) -> BTreeMap<&'r [u8], &'r [u8]>,
) -> Result<(), ChainError> {
    for table in TABLES {
        let mut rows = write.open_table(table.definition()).map_err(ChainError::store)?;
        for (key, value) in of(table) {
            if value.is_empty() {
                rows.remove(key).map_err(ChainError::store)?;
            } else {
                rows.insert(key, value).map_err(ChainError::store)?;
            }
        }
    }
    Ok(())
}

struct Current {
    state: Arc<State>,
    /// The block whose state the database has.
    flushed: Option<u64>,
    failed: Option<ChainError>,
    stopping: bool,
}

/// The last state, and the database below it.
pub(crate) struct States {
    database: Database,
    current: Mutex<Current>,
    changed: Condvar,
    /// Held while the database is written.
    writing: Mutex<()>,
}

impl States {
    /// Opens the database. Its state is that of the block [`States::flushed`].
    pub(crate) fn new(database: Database) -> Result<Self, ChainError> {
        let write = database.begin_write().map_err(ChainError::store)?;
        for table in TABLES.map(Table::definition).into_iter().chain([META]) {
            write.open_table(table).map_err(ChainError::store)?;
        }
        write.commit().map_err(ChainError::store)?;
        let state = Arc::new(State { base: Arc::new(Base::new(&database)?), layers: Vec::new() });
        let flushed = {
            let read = database.begin_read().map_err(ChainError::store)?;
            let meta = read.open_table(META).map_err(ChainError::store)?;
            let number = meta.get(&b"block"[..]).map_err(ChainError::store)?;
            let number = number.map(|n| n.value().try_into().map(u64::from_be_bytes));
            number.transpose().map_err(|_| ChainError::corrupt("the state's block is malformed"))?
        };
        let current = Current { state, flushed, failed: None, stopping: false };
        Ok(Self { database, current: current.into(), changed: Condvar::new(), writing: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The state after the last block.
    pub(crate) fn current(&self) -> Arc<State> {
        self.lock().state.clone()
    }

    /// The block whose state the database has.
    pub(crate) fn flushed(&self) -> Option<u64> {
        self.lock().flushed
    }

    /// Waits until there is room for the changes of another block. `flushes`: nobody else brings the database up to date.
    pub(crate) fn make_room(&self, flushes: bool) -> Result<(), ChainError> {
        if flushes && self.current().is_beyond(FLUSHED) {
            return self.flush();
        }
        let current = self.lock();
        let is_full = |c: &mut Current| c.state.is_beyond(FULL) && c.failed.is_none() && !c.stopping;
        let current = self.changed.wait_while(current, is_full).unwrap_or_else(|e| e.into_inner());
        current.failed.clone().map_or(Ok(()), Err)
    }

    /// Adds the changes of a block, which are on disk with it.
    pub(crate) fn push(&self, layer: Layer) {
        let mut current = self.lock();
        let mut layers = current.state.layers.clone();
        layers.push(layer.into());
        current.state = Arc::new(State { base: current.state.base.clone(), layers });
        self.changed.notify_all();
    }

    /// Brings the database up to date.
    pub(crate) fn flush(&self) -> Result<(), ChainError> {
        let _writing = self.writing.lock().unwrap_or_else(|e| e.into_inner());
        let state = self.current();
        let Some(last) = state.layers.last() else { return Ok(()) };
        self.write(last.number, |write| {
            write_rows(write, |table| merged(state.layers.iter().map(|l| &**l), table))
        })?;
        self.rebase(last.number, state.layers.len())
    }

    /// Writes the state of a block at once, over an empty one: that of the genesis, or of a snapshot.
    pub(crate) fn found<T>(
        &self,
        rows: impl FnOnce(&redb::WriteTransaction) -> Result<(u64, T), ChainError>,
    ) -> Result<T, ChainError> {
        let write = self.begin()?;
        let (number, value) = rows(&write)?;
        self.commit(write, number)?;
        self.rebase(number, 0)?;
        Ok(value)
    }

    /// Removes rows that are older than all layers.
    pub(crate) fn forget(&self, table: Table, keys: &[Bytes]) -> Result<(), ChainError> {
        let _writing = self.writing.lock().unwrap_or_else(|e| e.into_inner());
        let Some(number) = self.flushed() else { return Ok(()) };
        self.write(number, |write| {
            let mut rows = write.open_table(table.definition()).map_err(ChainError::store)?;
            keys.iter().try_for_each(|key| rows.remove(&key[..]).map(drop).map_err(ChainError::store))
        })?;
        self.rebase(number, 0)
    }

    /// Empties the database: it was written before the first block was, and that never was.
    pub(crate) fn clear(&self) -> Result<(), ChainError> {
        let write = self.begin()?;
        for table in TABLES.map(Table::definition).into_iter().chain([META]) {
            write.delete_table(table).map_err(ChainError::store)?;
            write.open_table(table).map_err(ChainError::store)?;
        }
        write.commit().map_err(ChainError::store)?;
        let mut current = self.lock();
        current.state = Arc::new(State { base: Arc::new(Base::new(&self.database)?), layers: Vec::new() });
        current.flushed = None;
        Ok(())
    }

    fn begin(&self) -> Result<redb::WriteTransaction, ChainError> {
        let mut write = self.database.begin_write().map_err(ChainError::store)?;
        write.set_quick_repair(true);
        Ok(write)
    }

    fn commit(&self, write: redb::WriteTransaction, number: u64) -> Result<(), ChainError> {
        let put = write
            .open_table(META)
            .map_err(ChainError::store)?
            .insert(&b"block"[..], &number.to_be_bytes()[..])
            .map(drop);
        put.map_err(ChainError::store)?;
        write.commit().map_err(ChainError::store)
    }

    fn write(
        &self,
        number: u64,
        rows: impl FnOnce(&redb::WriteTransaction) -> Result<(), ChainError>,
    ) -> Result<(), ChainError> {
        let write = self.begin()?;
        rows(&write)?;
        self.commit(write, number)
    }

    /// The database has the state of a block, and so the first layers.
    fn rebase(&self, number: u64, layers: usize) -> Result<(), ChainError> {
        let base = Arc::new(Base::new(&self.database)?);
        let mut current = self.lock();
        current.state = Arc::new(State { base, layers: current.state.layers[layers..].to_vec() });
        current.flushed = Some(number);
        self.changed.notify_all();
        Ok(())
    }

    /// Brings the database up to date whenever there are layers enough, until it is told to stop.
    pub(crate) fn keep_flushing(&self) {
        loop {
            let current = self.lock();
            let waits = |c: &mut Current| !c.stopping && !c.state.is_beyond(FLUSHED);
            let current = self.changed.wait_while(current, waits).unwrap_or_else(|e| e.into_inner());
            if current.stopping {
                return;
            }
            drop(current);
            if let Err(e) = self.flush() {
                tracing::error!("the state was not stored: {e}");
                self.lock().failed = Some(e);
                self.changed.notify_all();
                return;
            }
        }
    }

    /// Ends [`States::keep_flushing`].
    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }
}
