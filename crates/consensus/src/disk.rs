//! What a validator must not forget: the log of what it has seen and said at the height it works on, the blocks that were offered
//! there, its own among them, and for each height decided the votes that decided it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use alloy_primitives::B256;
use arc_malachitebft_core_consensus::Input;
use arc_malachitebft_core_types::{ExtendedCommitCertificate, Round};
use isobit_chain::{Block, ChainError};
use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction};

use crate::types::Protocol;
use crate::wire;

/// Log entries, by their order; the first eight bytes of each are its height.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
/// Blocks that were offered, by height and hash.
const BLOCKS: TableDefinition<'_, (u64, [u8; 32]), &[u8]> = TableDefinition::new("blocks");
/// The hash of the block that this validator built, by height and round.
const BUILT: TableDefinition<'_, (u64, i64), [u8; 32]> = TableDefinition::new("built");
/// The votes that decided, by height.
const CERTIFICATES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("certificates");

/// A validator's own database.
pub struct Disk {
    database: Database,
    pending: Pending,
    /// Number of the next log entry.
    next: u64,
    /// What is in the log already, while it is played again.
    replayed: BTreeSet<Vec<u8>>,
}

/// What is to be written before anything is said.
#[derive(Debug, Default)]
struct Pending {
    log: Vec<Vec<u8>>,
    blocks: Vec<Arc<Block>>,
    built: Vec<((u64, i64), B256)>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk at entry {}", self.next)
    }
}

fn corrupt(_: wire::WireError) -> ChainError {
    ChainError::Corrupt("an entry of the validator's database is malformed")
}

impl Disk {
    /// Opens the database in a file, or makes it.
    pub fn open(path: &Path) -> Result<Self, ChainError> {
        Self::new(Database::create(path).map_err(ChainError::store)?)
    }

    /// Opens the database in another backend: memory, or one that fails on purpose.
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, ChainError> {
        Self::new(Database::builder().create_with_backend(backend).map_err(ChainError::store)?)
    }

    fn new(database: Database) -> Result<Self, ChainError> {
        let mut disk = Self { database, pending: Pending::default(), next: 0, replayed: BTreeSet::new() };
        disk.write(|write| {
            write.open_table(LOG)?;
            write.open_table(BLOCKS)?;
            write.open_table(BUILT)?;
            write.open_table(CERTIFICATES)?;
            Ok(())
        })?;
        disk.reopen()?;
        Ok(disk)
    }

    fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), ChainError> {
        let mut write = self.database.begin_write().map_err(ChainError::store)?;
        write.set_two_phase_commit(true);
        write.set_quick_repair(true);
        change(&write).map_err(ChainError::store)?;
        write.commit().map_err(ChainError::store)
    }

    /// Forgets what was not written, as a crash would.
    pub(crate) fn reopen(&mut self) -> Result<(), ChainError> {
        (self.pending, self.replayed) = (Pending::default(), BTreeSet::new());
        let read = self.database.begin_read().map_err(ChainError::store)?;
        let log = read.open_table(LOG).map_err(ChainError::store)?;
        self.next = log.last().map_err(ChainError::store)?.map_or(0, |(at, _)| at.value() + 1);
        Ok(())
    }

    /// Adds to the log of a height; it is on disk after [`Disk::flush`].
    pub(crate) fn append(&mut self, height: u64, input: &Input<Protocol>) {
        if let Some(entry) = wire::encode_entry(input) {
            let entry = [&height.to_be_bytes(), &entry[..]].concat();
            if !self.replayed.contains(&entry) {
                self.pending.log.push(entry);
            }
        }
    }

    /// What was logged at a height, to be played again. Until [`Disk::end_replay`] what is in it is not logged once more: the log
    /// would not be what was played.
    pub(crate) fn replay(&mut self, height: u64) -> Result<Vec<Input<Protocol>>, ChainError> {
        let entries = self.log(height)?;
        let inputs = entries.iter().map(|e| wire::decode_entry(&e[8..]).map_err(corrupt)).collect();
        self.replayed = entries.into_iter().collect();
        inputs
    }

    /// The log goes on.
    pub(crate) fn end_replay(&mut self) {
        self.replayed.clear();
    }

    /// Keeps a block; it is on disk after [`Disk::flush`].
    pub(crate) fn keep(&mut self, block: Arc<Block>) {
        self.pending.blocks.push(block);
    }

    /// Keeps a block that this validator built; it is on disk after [`Disk::flush`].
    pub(crate) fn keep_own(&mut self, height: u64, round: Round, block: Arc<Block>) {
        self.pending.built.push(((height, round.as_i64()), block.hash));
        self.keep(block);
    }

    /// Puts on disk what was given so far.
    pub(crate) fn flush(&mut self) -> Result<(), ChainError> {
        let pending = std::mem::take(&mut self.pending);
        if pending.log.is_empty() && pending.blocks.is_empty() {
            return Ok(());
        }
        let first = self.next;
        self.next += pending.log.len() as u64;
        self.write(|write| {
            let mut log = write.open_table(LOG)?;
            for (at, entry) in (first..).zip(&pending.log) {
                log.insert(at, &entry[..])?;
            }
            let mut blocks = write.open_table(BLOCKS)?;
            for block in &pending.blocks {
                blocks.insert((block.header.number, block.hash.0), &block.encode()[..])?;
            }
            let mut built = write.open_table(BUILT)?;
            for (place, hash) in &pending.built {
                built.insert(place, hash.0)?;
            }
            Ok(())
        })
    }

    /// Puts the votes that decided a height on disk, and everything before them; forgets earlier heights.
    pub(crate) fn decide(
        &mut self,
        certificate: &ExtendedCommitCertificate<Protocol>,
    ) -> Result<(), ChainError> {
        self.flush()?;
        let bytes = wire::encode_certificate(certificate);
        self.write(|write| {
            write.open_table(CERTIFICATES)?.insert(certificate.height.0, &bytes[..])?;
            forget(write, certificate.height.0.saturating_sub(1))
        })
    }

    /// Forgets what was for heights up to this one, but the votes that decided them.
    pub(crate) fn forget(&mut self, height: u64) -> Result<(), ChainError> {
        self.write(|write| forget(write, height))
    }

    /// The log of a height.
    fn log(&self, height: u64) -> Result<Vec<Vec<u8>>, ChainError> {
        let read = self.database.begin_read().map_err(ChainError::store)?;
        let log = read.open_table(LOG).map_err(ChainError::store)?;
        let mut entries = Vec::new();
        for entry in log.iter().map_err(ChainError::store)? {
            let (_, bytes) = entry.map_err(ChainError::store)?;
            if height_of(bytes.value()) == height {
                entries.push(bytes.value().to_vec());
            }
        }
        Ok(entries)
    }

    /// The blocks offered at a height.
    pub(crate) fn blocks(&self, height: u64) -> Result<Vec<Arc<Block>>, ChainError> {
        let read = self.database.begin_read().map_err(ChainError::store)?;
        let table = read.open_table(BLOCKS).map_err(ChainError::store)?;
        let of_height = table.range((height, [0; 32])..=(height, [0xff; 32])).map_err(ChainError::store)?;
        let one = |row: Result<(_, redb::AccessGuard<'_, &[u8]>), redb::StorageError>| {
            Block::decode(row.map_err(ChainError::store)?.1.value()).map(Arc::new)
        };
        of_height.map(|row| one(row.map(|(k, v)| (drop(k), v)))).collect()
    }

    /// The blocks that this validator built at a height, by round.
    pub(crate) fn built(&self, height: u64) -> Result<BTreeMap<i64, B256>, ChainError> {
        let read = self.database.begin_read().map_err(ChainError::store)?;
        let table = read.open_table(BUILT).map_err(ChainError::store)?;
        let rows = table.range((height, i64::MIN)..=(height, i64::MAX)).map_err(ChainError::store)?;
        let rows = rows.map(|row| row.map(|(k, v)| (k.value().1, B256::from(v.value()))));
        rows.collect::<Result<_, _>>().map_err(ChainError::store)
    }

    /// The votes that decided a height.
    pub(crate) fn certificate(
        &self,
        height: u64,
    ) -> Result<Option<ExtendedCommitCertificate<Protocol>>, ChainError> {
        let read = self.database.begin_read().map_err(ChainError::store)?;
        let table = read.open_table(CERTIFICATES).map_err(ChainError::store)?;
        let bytes = table.get(height).map_err(ChainError::store)?;
        bytes.map(|b| wire::decode_certificate(b.value()).map_err(corrupt)).transpose()
    }
}

fn forget(write: &WriteTransaction, height: u64) -> Result<(), redb::Error> {
    write.open_table(LOG)?.retain(|_, entry| height_of(entry) > height)?;
    write.open_table(BLOCKS)?.retain(|(h, _), _| h > height)?;
    write.open_table(BUILT)?.retain(|(h, _), _| h > height)?;
    Ok(())
}

fn height_of(entry: &[u8]) -> u64 {
    entry.first_chunk::<8>().map_or(0, |h| u64::from_be_bytes(*h))
}
