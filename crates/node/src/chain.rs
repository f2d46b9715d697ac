//! The sequencer: it orders transactions into blocks, executes them by the ledger's rules and stores them, one block at
//! a time. A BFT engine will take its place behind the same calls.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256};
use isobit_ledger::{Block, Job, Params, SignedTx, State, TxError};

use crate::NodeError;
use crate::store::Store;

/// Time between blocks while jobs are in progress and nothing else happens: it moves their deadlines on.
const IDLE_BLOCK: Duration = Duration::from_millis(500);
/// Most transactions in a block, and waiting for one.
const MAX_BLOCK: usize = 2_000;
const MAX_WAITING: usize = 20_000;

/// A running chain. Dropping the last handle stops the sequencer after the block it is making.
pub struct Chain {
    shared: Arc<Shared>,
    sequencer: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Work for the sequencer.
    work: Condvar,
    /// A block was made.
    block: Condvar,
    store: Store,
}

struct Inner {
    state: State,
    head: B256,
    waiting: Vec<SignedTx>,
    /// Outcomes of transactions whose senders have not looked yet.
    outcomes: BTreeMap<B256, Result<u64, TxError>>,
    failed: Option<String>,
    stopping: bool,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chain at height {}", self.height())
    }
}

impl Chain {
    /// Opens the chain in a file, or begins it with these allocations.
    pub fn open(path: &Path, params: Params, genesis: &[(Address, u128)]) -> Result<Self, NodeError> {
        let store = Store::open(path)?;
        let (state, head) = match store.head(params.clone())? {
            Some(head) => head,
            None => {
                let state = State::genesis(params, genesis.iter().copied());
                (state.map_err(|e| NodeError::Refused(e.to_string()))?, B256::ZERO)
            }
        };
        let inner = Inner {
            state,
            head,
            waiting: Vec::new(),
            outcomes: BTreeMap::new(),
            failed: None,
            stopping: false,
        };
        let shared =
            Arc::new(Shared { inner: Mutex::new(inner), work: Condvar::new(), block: Condvar::new(), store });
        let worker = shared.clone();
        let sequencer = std::thread::Builder::new()
            .name("sequencer".into())
            .spawn(move || worker.sequence())
            .map_err(|e| NodeError::Store(e.to_string()))?;
        Ok(Self { shared, sequencer: Some(sequencer) })
    }

    /// Puts a transaction into a block. When this returns a height, the block is on disk.
    pub fn submit(&self, tx: SignedTx) -> Result<u64, NodeError> {
        let hash = tx.hash();
        let mut inner = self.shared.lock();
        if inner.stopping {
            return Err(NodeError::Stopping);
        }
        if inner.waiting.len() >= MAX_WAITING {
            return Err(NodeError::Refused("too many transactions are waiting; try again".into()));
        }
        inner.waiting.push(tx);
        self.shared.work.notify_one();
        loop {
            if let Some(outcome) = inner.outcomes.remove(&hash) {
                return outcome.map_err(|e| NodeError::Refused(e.to_string()));
            }
            if let Some(failed) = &inner.failed {
                return Err(NodeError::Store(failed.clone()));
            }
            if inner.stopping {
                return Err(NodeError::Stopping);
            }
            inner = self.shared.block.wait(inner).unwrap_or_else(|e| e.into_inner());
        }
    }

    /// Looks at the state.
    pub fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.shared.lock().state)
    }

    /// Height of the last block.
    pub fn height(&self) -> u64 {
        self.read(|s| s.height)
    }

    /// A job, in progress or ended.
    pub fn job(&self, id: B256) -> Result<Option<Job>, NodeError> {
        match self.read(|s| s.jobs.get(&id).cloned()) {
            Some(job) => Ok(Some(job)),
            None => self.shared.store.job(id),
        }
    }

    /// A block.
    pub fn block(&self, height: u64) -> Result<Option<Block>, NodeError> {
        self.shared.store.block(height)
    }

    /// Waits for a block after `height`, or until the time is over; returns the height then.
    pub fn wait(&self, height: u64, timeout: Duration) -> u64 {
        let inner = self.shared.lock();
        let waiting = |i: &mut Inner| i.state.height <= height && !i.stopping && i.failed.is_none();
        let (inner, _) =
            self.shared.block.wait_timeout_while(inner, timeout, waiting).unwrap_or_else(|e| e.into_inner());
        inner.state.height
    }

    /// Ends the sequencer after the block it is making; waiting senders get an error.
    pub fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        self.shared.block.notify_all();
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.sequencer.take() {
            let _ = thread.join(); // a panic there has been reported by the thread itself
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn sequence(&self) {
        let mut inner = self.lock();
        loop {
            if inner.waiting.is_empty() && !inner.stopping {
                let idle = |i: &mut Inner| i.waiting.is_empty() && !i.stopping;
                inner = if inner.state.awaits_draw() {
                    inner // nodes are drawn at the end of the next block
                } else if inner.state.jobs.is_empty() {
                    self.work.wait_while(inner, idle).unwrap_or_else(|e| e.into_inner())
                } else {
                    self.work.wait_timeout_while(inner, IDLE_BLOCK, idle).unwrap_or_else(|e| e.into_inner()).0
                };
            }
            if inner.stopping {
                return;
            }
            let take = inner.waiting.len().min(MAX_BLOCK);
            let txs: Vec<SignedTx> = inner.waiting.drain(..take).collect();
            // Readers go on with the old state until the new one is on disk.
            let (mut state, parent) = (inner.state.clone(), inner.head);
            drop(inner);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            let executed = Block::build(&mut state, parent, now, &txs);
            let stored = self.store.append(&executed, &state);
            inner = self.lock();
            if let Err(e) = stored {
                tracing::error!(
                    "block {} was not stored: {e}; the chain stops here",
                    executed.block.header.height
                );
                inner.failed = Some(e.to_string());
                self.block.notify_all();
                return;
            }
            let height = executed.block.header.height;
            inner.head = executed.block.hash();
            inner.state = state;
            let refused: BTreeMap<B256, TxError> = executed.refused.into_iter().collect();
            for tx in &txs {
                let hash = tx.hash();
                let outcome = refused.get(&hash).cloned().map_or(Ok(height), Err);
                inner.outcomes.insert(hash, outcome);
            }
            tracing::debug!(height, txs = txs.len(), refused = refused.len(), "block");
            self.block.notify_all();
        }
    }
}
