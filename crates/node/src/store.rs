//! The chain on disk: blocks, the latest state and ended jobs, one durable transaction a block.

use std::path::Path;

use alloy_primitives::B256;
use alloy_rlp::Decodable;
use isobit_ledger::{Block, Executed, Job, Params, State};
use redb::{Database, ReadableDatabase, TableDefinition};

use crate::NodeError;

const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks");
const JOBS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("ended_jobs");
const HEAD: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("head");

pub(crate) struct Store(Database);

fn fail(e: impl std::fmt::Display) -> NodeError {
    NodeError::Store(e.to_string())
}

impl Store {
    pub(crate) fn open(path: &Path) -> Result<Self, NodeError> {
        Ok(Self(Database::create(path).map_err(fail)?))
    }

    /// The last block's state and hash; `None` before the first.
    pub(crate) fn head(&self, params: Params) -> Result<Option<(State, B256)>, NodeError> {
        let read = self.0.begin_read().map_err(fail)?;
        let table = match read.open_table(HEAD) {
            Ok(t) => t,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        let (Some(state), Some(hash)) = (table.get("state").map_err(fail)?, table.get("hash").map_err(fail)?)
        else {
            return Ok(None);
        };
        let state = State::decode(params, state.value()).map_err(fail)?;
        let hash = B256::try_from(hash.value()).map_err(fail)?;
        Ok(Some((state, hash)))
    }

    /// Writes a block and what it did. When this returns, all of it is on disk; before, none of it.
    pub(crate) fn append(&self, executed: &Executed, state: &State) -> Result<(), NodeError> {
        let mut write = self.0.begin_write().map_err(fail)?;
        write.set_two_phase_commit(true);
        {
            let block = &executed.block;
            write
                .open_table(BLOCKS)
                .map_err(fail)?
                .insert(block.header.height, &block.encode()[..])
                .map_err(fail)?;
            let mut jobs = write.open_table(JOBS).map_err(fail)?;
            for job in &executed.ended {
                jobs.insert(job.id.as_slice(), &alloy_rlp::encode(job)[..]).map_err(fail)?;
            }
            let mut head = write.open_table(HEAD).map_err(fail)?;
            head.insert("state", &state.encode()[..]).map_err(fail)?;
            head.insert("hash", block.hash().as_slice()).map_err(fail)?;
        }
        write.commit().map_err(fail)
    }

    /// An ended job.
    pub(crate) fn job(&self, id: B256) -> Result<Option<Job>, NodeError> {
        let read = self.0.begin_read().map_err(fail)?;
        let table = match read.open_table(JOBS) {
            Ok(t) => t,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        let found = table.get(id.as_slice()).map_err(fail)?;
        found.map(|bytes| Job::decode(&mut bytes.value()).map_err(fail)).transpose()
    }

    /// A block.
    pub(crate) fn block(&self, height: u64) -> Result<Option<Block>, NodeError> {
        let read = self.0.begin_read().map_err(fail)?;
        let table = match read.open_table(BLOCKS) {
            Ok(t) => t,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        let found = table.get(height).map_err(fail)?;
        found.map(|b| Block::decode(b.value()).map_err(fail)).transpose()
    }
}
