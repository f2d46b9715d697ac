//! A chain as its users see it: the head, the pool, and the sequencer that makes blocks of what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Header, ReceiptEnvelope, TxEnvelope};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use isobit_ledger::{Answer, Coins, Job, ModelEntry, NodeEntry, Storage};
use isobit_proof::Key;

use crate::block::{LEDGER, decode_tx};
use crate::call::{self, Call, CallError};
use crate::execute::{self, Proposal, account_prefix, storage_prefix};
use crate::pool::Pool;
use crate::sign::Order;
use crate::store::{Row, Store, View};
use crate::{Block, Built, ChainError, Genesis, Missing, Refused, trie};

/// Time between blocks while jobs are in progress and nothing else happens: it moves their deadlines on.
const IDLE_BLOCK: Duration = Duration::from_millis(500);
/// How long a transaction waits for an inference before it is in a block without it, and reverted.
const PATIENCE: Duration = Duration::from_secs(100);
/// Most inferences that are waited for.
const MAX_MISSING: usize = 10_000;
/// The states of so many blocks can be asked for, as long as what they changed has at most so many bytes.
const RECENT: (usize, usize) = (128, 64 << 20);
/// How many outcomes of transactions that were dropped are remembered.
const MAX_DROPPED: usize = 10_000;

/// The last block and the state after it; it stays as it is while blocks are added.
#[derive(Debug, Clone)]
pub struct Head {
    /// What the chain began with.
    pub genesis: Arc<Genesis>,
    /// The last block's header.
    pub header: Header,
    /// Its hash.
    pub hash: B256,
    pub(crate) view: View,
    /// Whether the last block has posted a job, once somebody has asked.
    has_posted: OnceLock<bool>,
}

/// An account with its Merkle proof and those of some of its slots.
#[derive(Debug, Clone)]
pub struct AccountProof {
    /// Nonce, balance, hash of the code, root of the storage.
    pub account: (u64, u128, B256, B256),
    /// Nodes from the state root to the account.
    pub proof: Vec<Bytes>,
    /// Slot, value, nodes from the storage root to it.
    pub slots: Vec<(B256, U256, Vec<Bytes>)>,
}

impl Head {
    fn row(&self, address: Address) -> Result<Row, ChainError> {
        Ok(self.view.row(address)?.unwrap_or_default())
    }

    /// Who votes on the next block, in ascending order of address, and with what weight.
    pub fn validators(&self) -> Vec<(Address, u64)> {
        let all = self.view.ledger(&self.genesis.params).validators();
        all.into_iter().map(|(a, n)| (a, n.weight())).collect()
    }

    /// Coins of an address.
    pub fn balance(&self, address: Address) -> Result<u128, ChainError> {
        Ok(self.row(address)?.balance)
    }

    /// The nonce of the address' next transaction.
    pub fn nonce(&self, address: Address) -> Result<u64, ChainError> {
        Ok(self.row(address)?.nonce)
    }

    /// An account's code.
    pub fn code(&self, address: Address) -> Result<Bytes, ChainError> {
        self.view.code(self.row(address)?.code)
    }

    /// A slot of an account.
    pub fn slot(&self, address: Address, slot: B256) -> Result<B256, ChainError> {
        self.view.slot(address, slot)
    }

    /// An account and slots of it with their Merkle proofs (EIP-1186).
    pub fn proof(&self, address: Address, slots: &[B256]) -> Result<AccountProof, ChainError> {
        let row = self.row(address)?;
        let proof = trie::proof(&self.view, account_prefix(), keccak256(address))?;
        let prefix = storage_prefix(address);
        let slots = slots.iter().map(|&slot| {
            let proof = trie::proof(&self.view, &prefix, keccak256(slot))?;
            Ok((slot, self.view.slot(address, slot)?.into(), proof))
        });
        let slots = slots.collect::<Result<_, ChainError>>()?;
        Ok(AccountProof { account: (row.nonce, row.balance, row.code, row.storage), proof, slots })
    }

    /// What a call would return in the next block.
    pub fn call(&self, request: &Call) -> Result<Bytes, CallError> {
        let gas = request.gas.unwrap_or(u64::MAX).min(self.genesis.gas_limit);
        Ok(call::output(call::call(self, request, gas)?)?.0)
    }

    /// The gas that a call needs.
    pub fn estimate(&self, request: &Call) -> Result<u64, CallError> {
        call::estimate(self, request)
    }

    /// The base fee of the next block.
    pub fn next_base_fee(&self) -> u64 {
        execute::next_header(&self.genesis, &self.header, 0, Address::ZERO)
            .base_fee_per_gas
            .unwrap_or_default()
    }

    /// Jobs in progress, in ascending order of id.
    pub fn jobs(&self) -> Vec<Job> {
        let ledger = self.view.ledger(&self.genesis.params);
        ledger.jobs().into_iter().filter_map(|id| ledger.job(id)).collect()
    }

    /// How many jobs are in progress.
    pub fn open_jobs(&self) -> u64 {
        self.view.ledger(&self.genesis.params).open_jobs()
    }

    /// Whether the end of the next block has something to do though nobody sends a transaction.
    pub fn is_busy(&self) -> bool {
        self.view.ledger(&self.genesis.params).is_busy()
    }

    /// Whether a job was posted in the last block: its nodes are drawn at the end of the next one.
    fn has_posted(&self) -> bool {
        let posted = |job: &Job| job.posted == self.header.number;
        *self.has_posted.get_or_init(|| self.is_busy() && self.jobs().iter().any(posted))
    }

    /// A published model.
    pub fn model(&self, id: B256) -> Option<ModelEntry> {
        self.view.ledger(&self.genesis.params).model(id)
    }

    /// A job in progress.
    pub fn job(&self, id: B256) -> Option<Job> {
        self.view.ledger(&self.genesis.params).job(id)
    }

    /// How a job ended.
    pub fn answer(&self, id: B256) -> Option<Answer> {
        self.view.ledger(&self.genesis.params).answer(id)
    }

    /// How the last job of a model on some inputs, with seed 0, was settled.
    pub fn settled(&self, model: B256, inputs: B256) -> Option<Answer> {
        self.view.ledger(&self.genesis.params).settled(model, inputs, 0)
    }

    /// A model's manifest, if it is on the ledger.
    pub fn manifest(&self, model: B256) -> Option<Bytes> {
        self.view.ledger(&self.genesis.params).manifest(model)
    }

    /// A set of tensors on the ledger.
    pub fn tensors(&self, root: B256) -> Option<Bytes> {
        self.view.ledger(&self.genesis.params).tensors(root)
    }

    /// How many jobs a requester has posted.
    pub fn posted(&self, requester: Address) -> u64 {
        self.view.ledger(&self.genesis.params).posted(requester)
    }

    /// Published models.
    pub fn models(&self) -> Vec<(B256, ModelEntry)> {
        self.view.ledger(&self.genesis.params).models()
    }

    /// The model that a name stands for.
    pub fn model_named(&self, name: &str) -> Option<B256> {
        self.view.ledger(&self.genesis.params).named(name)
    }

    /// Nodes in ascending order of address.
    pub fn nodes(&self) -> Vec<(Address, NodeEntry)> {
        self.view.ledger(&self.genesis.params).nodes()
    }

    /// A node.
    pub fn node(&self, address: Address) -> Option<NodeEntry> {
        self.view.ledger(&self.genesis.params).node(address)
    }

    /// Where all coins are, counted one by one: it takes as long as there are accounts. The ledger's account holds stakes and
    /// escrow, so what it has beyond them is lost to anybody, and counted as a balance.
    pub fn coins(&self) -> Result<Coins, ChainError> {
        let mut coins = Coins::default();
        for (address, row) in self.view.rows()? {
            if address != LEDGER {
                coins.balances += row.balance;
            }
        }
        for (_, node) in self.nodes() {
            *(if node.leaves > 0 { &mut coins.unbonding } else { &mut coins.staked }) += node.stake;
        }
        coins.escrow = self.jobs().iter().map(|j| j.max_fee).sum();
        let kept = coins.staked + coins.unbonding + coins.escrow;
        let held = self.balance(LEDGER)?;
        let surplus = held.checked_sub(kept);
        coins.balances +=
            surplus.ok_or(ChainError::Corrupt("the ledger's account has less than stakes and escrow"))?;
        Ok(coins)
    }

    /// The coins of genesis are all still there: every balance, stake and escrow together.
    pub fn check_coins(&self) -> Result<Coins, ChainError> {
        let coins = self.coins()?;
        if coins.total() == self.genesis.supply() {
            Ok(coins)
        } else {
            Err(ChainError::Corrupt("the coins are not those of genesis"))
        }
    }

    /// Makes the next block.
    pub fn build(&self, proposal: &Proposal) -> Result<Built, ChainError> {
        execute::build(&self.genesis, &self.view, &self.header, proposal)
    }

    /// Executes a block that somebody else made.
    pub fn execute(&self, block: &Block) -> Result<Built, ChainError> {
        execute::execute(&self.genesis, &self.view, &self.header, block)
    }
}

/// How the sequencer works.
#[derive(Debug, Clone)]
pub struct Sequencing {
    /// Least time between two blocks, and between a transaction's arrival and its block: ethers believes what it has read for
    /// 250 ms, and wallets that sign a next transaction at once would sign it with an old nonce.
    pub block_time: Duration,
    /// Who gets the tips.
    pub beneficiary: Address,
}

/// A running chain. Dropping the last handle stops the sequencer after the block it is making.
pub struct Chain {
    shared: Arc<Shared>,
    sequencer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Work for the sequencer.
    work: Condvar,
    /// A block was made, or a transaction dropped.
    block: Condvar,
    store: Arc<Store>,
    genesis: Arc<Genesis>,
    listener: OnceLock<Listener>,
}

/// Who hears of transactions.
type Listener = Box<dyn Fn(&[u8]) + Send + Sync>;

struct Inner {
    head: Arc<Head>,
    /// The last blocks before the head.
    recent: VecDeque<Arc<Head>>,
    pool: Pool,
    /// Transactions that wait for inferences: since when, and the last block that they could not be in.
    held: BTreeMap<B256, (Instant, u64)>,
    /// Inferences that are waited for and were not yet asked about.
    missing: BTreeSet<Missing>,
    /// Transactions that were dropped, and why.
    dropped: BTreeMap<B256, String>,
    failed: Option<ChainError>,
    stopping: bool,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Chain at {}", self.head().header.number)
    }
}

impl Chain {
    /// Opens the chain in a folder, or begins it there.
    pub fn open(folder: &Path, genesis: Genesis) -> Result<Self, ChainError> {
        std::fs::create_dir_all(folder)
            .map_err(|e| ChainError::store(format!("{}: {e}", folder.display())))?;
        let store = Store::open(folder)?;
        Self::with_store(store, genesis, Pool::open(folder.join("pool"))?)
    }

    /// Opens the chain in a store; nothing is kept beside it.
    pub fn in_store(store: Store, genesis: Genesis) -> Result<Self, ChainError> {
        Self::with_store(store, genesis, Pool::default())
    }

    fn with_store(store: Store, genesis: Genesis, mut pool: Pool) -> Result<Self, ChainError> {
        genesis.check()?;
        let (store, genesis) = (Arc::new(store), Arc::new(genesis));
        if store.head()?.is_none() {
            store.found(&execute::genesis_block(&genesis, &store.view())?)?;
        }
        let first = store.header(0)?.ok_or(ChainError::Corrupt("there is no first block"))?;
        if first.extra_data[..] != genesis.commitment()[..] {
            let why = "its first block has other parameters or coins; give another --data, or the genesis it was founded with";
            return Err(ChainError::OtherGenesis(why.into()));
        }
        let head = Arc::new(read_head(&store, &genesis)?);
        for sender in pool.senders() {
            pool.overtake(sender, head.nonce(sender)?);
        }
        let inner = Inner {
            head,
            recent: VecDeque::new(),
            pool,
            held: BTreeMap::new(),
            missing: BTreeSet::new(),
            dropped: BTreeMap::new(),
            failed: None,
            stopping: false,
        };
        let shared = Shared {
            inner: Mutex::new(inner),
            work: Condvar::new(),
            block: Condvar::new(),
            store,
            genesis,
            listener: OnceLock::new(),
        };
        Ok(Self { shared: Arc::new(shared), sequencer: Mutex::new(None) })
    }

    /// Starts to make blocks of what waits.
    pub fn sequence(&self, how: Sequencing) -> Result<(), ChainError> {
        let worker = self.shared.clone();
        let thread = std::thread::Builder::new()
            .name("sequencer".into())
            .spawn(move || worker.sequence(&how))
            .map_err(ChainError::store)?;
        *self.sequencer.lock().unwrap_or_else(|e| e.into_inner()) = Some(thread);
        Ok(())
    }

    /// What the chain began with.
    pub fn genesis(&self) -> &Genesis {
        &self.shared.genesis
    }

    /// The last block and the state after it.
    pub fn head(&self) -> Arc<Head> {
        self.shared.lock().head.clone()
    }

    /// A block with the state after it, if it is one of the last 128 (fewer if they changed much) and this process has made it.
    pub fn head_at(&self, number: u64) -> Option<Arc<Head>> {
        let inner = self.shared.lock();
        let mut all = std::iter::once(&inner.head).chain(inner.recent.iter().rev());
        all.find(|h| h.header.number == number).cloned()
    }

    /// Blocks, receipts and ended jobs.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Takes a signed transaction (EIP-2718) into the pool and returns its hash.
    pub fn submit(&self, raw: &[u8]) -> Result<B256, ChainError> {
        let hash = self.take_in(raw)?;
        if let Some(listener) = self.shared.listener.get() {
            listener(raw);
        }
        Ok(hash)
    }

    /// As [`Chain::submit`], for what everybody has heard of already.
    pub fn take_in(&self, raw: &[u8]) -> Result<B256, ChainError> {
        let tx = decode_tx(raw)?;
        let mut inner = self.shared.lock();
        if inner.stopping {
            return Err(ChainError::Stopping);
        }
        if let Some(failed) = &inner.failed {
            return Err(failed.clone());
        }
        let head = inner.head.clone();
        let row = head.row(tx.signer())?;
        let hash =
            inner.pool.add(tx, &row, head.header.base_fee_per_gas.unwrap_or_default(), &head.genesis)?;
        inner.dropped.remove(&hash);
        self.shared.work.notify_one();
        Ok(hash)
    }

    /// Waits until a transaction is in a block on disk; returns the block's number and its place in it.
    pub fn wait_for(&self, hash: B256, timeout: Duration) -> Result<(u64, usize), ChainError> {
        let start = Instant::now();
        let mut inner = self.shared.lock();
        loop {
            if let Some(place) = self.shared.store.tx(hash)? {
                return Ok(place);
            }
            if let Some(why) = inner.dropped.get(&hash) {
                return Err(ChainError::Refused(why.clone()));
            }
            if let Some(failed) = &inner.failed {
                return Err(failed.clone());
            }
            if inner.stopping {
                return Err(ChainError::Stopping);
            }
            let left = timeout.checked_sub(start.elapsed());
            let left = left.ok_or_else(|| ChainError::Refused(format!("transaction {hash} still waits")))?;
            inner = self.shared.block.wait_timeout(inner, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    /// A transaction that waits.
    pub fn waiting(&self, hash: B256) -> Option<Recovered<TxEnvelope>> {
        self.shared.lock().pool.get(hash).cloned()
    }

    /// How many transactions wait.
    pub fn pool_size(&self) -> usize {
        self.shared.lock().pool.len()
    }

    /// The nonce after the transactions of the address that wait.
    pub fn pending_nonce(&self, address: Address) -> Result<u64, ChainError> {
        let inner = self.shared.lock();
        let next = inner.head.nonce(address)?;
        Ok(inner.pool.next_nonce(address, next))
    }

    /// An order signed as the key's next transaction, for at most four times the present price of gas.
    pub fn sign_next(&self, mut order: Order, key: &Key) -> Result<(B256, Bytes), ChainError> {
        order.nonce = self.pending_nonce(key.address())?;
        order.max_fee_per_gas = u128::from(self.head().next_base_fee()) * 4;
        Ok(order.sign(key, self.genesis().params.chain_id))
    }

    /// A job, in progress or ended.
    pub fn job(&self, id: B256) -> Result<Option<Job>, ChainError> {
        match self.head().job(id) {
            Some(job) => Ok(Some(job)),
            None => self.shared.store.job(id),
        }
    }

    /// A receipt by its transaction's place.
    pub fn receipt(&self, (number, at): (u64, usize)) -> Result<Option<ReceiptEnvelope>, ChainError> {
        Ok(self.shared.store.receipts(number)?.into_iter().nth(at))
    }

    /// Waits for a block after `number`, or until the time is over; returns the last block's number then.
    pub fn wait(&self, number: u64, timeout: Duration) -> u64 {
        let inner = self.shared.lock();
        let waiting = |i: &mut Inner| i.head.header.number <= number && !i.stopping && i.failed.is_none();
        let waited = self.shared.block.wait_timeout_while(inner, timeout, waiting);
        waited.unwrap_or_else(|e| e.into_inner()).0.head.header.number
    }

    /// The output of an OpenGradient inference by the id in its event.
    pub fn inference(&self, id: &str) -> Option<crate::abi::IOpenGradient::ModelOutput> {
        let head = self.head();
        crate::opengradient::by_id(&head.view.ledger(&head.genesis.params), id)
    }

    /// Inferences that transactions wait for, each told once. Whoever has them run puts their outputs on the ledger.
    pub fn take_missing(&self) -> Vec<Missing> {
        std::mem::take(&mut self.shared.lock().missing).into_iter().collect()
    }

    /// Makes the next block of what waits, and drops what can be in none.
    pub fn propose(&self, timestamp: u64, beneficiary: Address) -> Result<Built, ChainError> {
        let built = self.shared.propose(timestamp, beneficiary)?;
        self.shared.sort_out(&built.refused);
        Ok(built)
    }

    /// How long after the last block the next one is due; `None` while there is nothing to do.
    pub fn due_in(&self) -> Option<Duration> {
        self.shared.lock().due_in()
    }

    /// Ends the chain: whoever waits for it is told why.
    pub fn fail(&self, why: ChainError) {
        self.shared.lock().failed.get_or_insert(why);
        self.shared.block.notify_all();
    }

    /// Transactions that wait (EIP-2718), at most so many after the first `skip`: what other processes may not have heard of.
    pub fn waiting_raw(&self, skip: usize, most: usize) -> Vec<Bytes> {
        self.shared.lock().pool.raw(skip, most)
    }

    /// Tells whoever listens of each transaction that [`Chain::submit`] takes from now on.
    pub fn on_submit(&self, listener: impl Fn(&[u8]) + Send + Sync + 'static) {
        let _ = self.shared.listener.set(Box::new(listener)); // who comes second hears nothing
    }

    /// Puts a block that was executed on the head onto the disk, and makes it the head.
    pub fn commit(&self, built: &Built) -> Result<(), ChainError> {
        self.shared.commit(built)
    }

    /// Executes every block again from the genesis, in memory, and compares it with what is in the store; returns the last
    /// one's hash. `told` hears the number of each block.
    pub fn replay(&self, told: impl Fn(u64)) -> Result<B256, ChainError> {
        let again = Chain::in_store(Store::in_memory()?, self.genesis().clone())?;
        for number in 1..=self.head().header.number {
            let block = self.store().block(number)?.ok_or_else(|| {
                let why = format!("block {number} was pruned, or is older than the snapshot that this chain came of; only a whole chain can be executed again");
                ChainError::Refused(why)
            })?;
            let built = again.head().execute(&block)?;
            if built.receipts != self.store().receipts(number)? {
                return Err(ChainError::Corrupt("the receipts of a block are not those of executing it"));
            }
            again.commit(&built)?;
            told(number);
        }
        if again.head().hash == self.head().hash && again.head().view.rows()? == self.head().view.rows()? {
            Ok(again.head().hash)
        } else {
            Err(ChainError::Corrupt("the accounts are not those that executing all blocks gives"))
        }
    }

    /// Ends the sequencer after the block it is making.
    pub fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        self.shared.block.notify_all();
        if let Some(thread) = self.sequencer.lock().unwrap_or_else(|e| e.into_inner()).take() {
            let _ = thread.join(); // a panic there has been reported by the thread itself
        }
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        self.stop();
    }
}

fn read_head(store: &Arc<Store>, genesis: &Arc<Genesis>) -> Result<Head, ChainError> {
    let number = store.head()?.ok_or(ChainError::Corrupt("there is no head"))?;
    let header = store.header(number)?.ok_or(ChainError::Corrupt("the head's header is missing"))?;
    let (genesis, hash) = (genesis.clone(), header.hash_slow());
    Ok(Head { genesis, hash, header, view: store.view(), has_posted: OnceLock::new() })
}

impl Inner {
    /// Makes a block the head.
    fn advance(&mut self, head: Arc<Head>) {
        self.recent.push_back(std::mem::replace(&mut self.head, head));
        let bytes = |recent: &VecDeque<Arc<Head>>| recent.iter().map(|h| h.view.last_bytes()).sum::<usize>();
        while self.recent.len() >= RECENT.0 || bytes(&self.recent) > RECENT.1 {
            self.recent.pop_front();
        }
    }

    fn next_nonce(&self, sender: Address) -> u64 {
        self.head.nonce(sender).unwrap_or(0)
    }

    /// Whether a transaction waits for an inference, and cannot be in the next block.
    fn is_held(&self, hash: B256) -> bool {
        let number = self.head.header.number;
        let waits = |(since, at): &(Instant, u64)| *at == number && since.elapsed() <= PATIENCE;
        self.held.get(&hash).is_some_and(waits)
    }

    fn candidates(&self) -> Vec<Recovered<TxEnvelope>> {
        let head = &self.head;
        let (limit, base_fee) = (head.genesis.gas_limit, head.next_base_fee());
        self.pool.best(limit, base_fee, |sender| self.next_nonce(sender), |hash| self.is_held(hash))
    }

    fn has_candidates(&self) -> bool {
        let base_fee = self.head.next_base_fee();
        self.pool.has_any(base_fee, |sender| self.next_nonce(sender), |hash| self.is_held(hash))
    }

    /// How long after the last block the next one is due, if at all.
    fn due_in(&self) -> Option<Duration> {
        // The draw is not waited for.
        if self.has_candidates() || self.head.has_posted() {
            return Some(Duration::ZERO);
        }
        self.head.is_busy().then_some(IDLE_BLOCK)
    }

    /// Those that have waited for an inference for too long.
    fn overdue(&self) -> BTreeSet<B256> {
        self.held.iter().filter(|(_, (since, _))| since.elapsed() > PATIENCE).map(|(hash, _)| *hash).collect()
    }

    /// Remembers why a transaction was dropped.
    fn drop_tx(&mut self, hash: B256, why: String) {
        while self.dropped.len() >= MAX_DROPPED {
            self.dropped.pop_first();
        }
        self.dropped.insert(hash, why);
    }

    /// Drops what can be in no block, and remembers what waits for inferences, after a block or one that was not worth making.
    fn sort_out(&mut self, refused: &[Refused]) {
        for refused in refused.iter().filter(|r| !r.later) {
            self.pool.remove(refused.hash);
            self.drop_tx(refused.hash, refused.why.clone());
        }
        let number = self.head.header.number;
        for r in refused.iter().filter(|r| !r.missing.is_empty()) {
            let since = self.held.get(&r.hash).map_or_else(Instant::now, |h| h.0);
            self.held.insert(r.hash, (since, number));
            if self.missing.len() < MAX_MISSING {
                self.missing.extend(r.missing.iter().cloned());
            }
        }
        let pool = &self.pool;
        self.held.retain(|hash, _| pool.get(*hash).is_some());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn commit(&self, built: &Built) -> Result<(), ChainError> {
        {
            let head = &self.lock().head;
            if built.block.header.parent_hash != head.hash {
                let why = format!("block {} is the head", head.header.number);
                return Err(ChainError::Block { number: built.block.header.number, why });
            }
        }
        let stored = self.store.append(built).and_then(|()| read_head(&self.store, &self.genesis));
        let mut inner = self.lock();
        let head = match stored {
            Ok(head) => Arc::new(head),
            Err(e) => {
                tracing::error!(
                    "block {} was not stored: {e}; the chain stops here",
                    built.block.header.number
                );
                inner.failed = Some(e.clone());
                self.block.notify_all();
                return Err(e);
            }
        };
        let done: BTreeSet<B256> = built.block.txs.iter().map(|tx| *tx.inner().hash()).collect();
        for tx in &built.block.txs {
            let next = head.nonce(tx.signer())?;
            for hash in inner.pool.overtake(tx.signer(), next).into_iter().filter(|h| !done.contains(h)) {
                inner.drop_tx(
                    hash,
                    format!("nonce too low: next nonce {next}; another transaction was faster"),
                );
            }
        }
        inner.pool.compact()?;
        inner.advance(head);
        inner.sort_out(&built.refused);
        self.block.notify_all();
        Ok(())
    }

    fn propose(&self, timestamp: u64, beneficiary: Address) -> Result<Built, ChainError> {
        let inner = self.lock();
        let (head, txs, overdue) = (inner.head.clone(), inner.candidates(), inner.overdue());
        drop(inner);
        head.build(&Proposal { timestamp, beneficiary, txs, overdue })
    }

    fn sort_out(&self, refused: &[Refused]) {
        self.lock().sort_out(refused);
        self.block.notify_all();
    }

    fn sequence(&self, how: &Sequencing) {
        let mut last = Instant::now().checked_sub(how.block_time).unwrap_or_else(Instant::now);
        loop {
            let mut inner = self.lock();
            let mut due = inner.due_in();
            if due != Some(Duration::ZERO) {
                last = Instant::now();
            }
            while due != Some(Duration::ZERO) && !inner.stopping {
                // What waits for an inference becomes due by itself.
                let idle = due.unwrap_or(Duration::from_secs(1));
                let waited = self.work.wait_timeout(inner, idle).unwrap_or_else(|e| e.into_inner());
                inner = waited.0;
                last = Instant::now();
                if due.is_some() && waited.1.timed_out() {
                    break;
                }
                due = inner.due_in();
            }
            let pause = how.block_time.saturating_sub(last.elapsed());
            if !pause.is_zero() && !inner.stopping {
                inner = self
                    .work
                    .wait_timeout_while(inner, pause, |i| !i.stopping)
                    .unwrap_or_else(|e| e.into_inner())
                    .0;
            }
            if inner.stopping {
                return;
            }
            let is_busy = inner.head.is_busy();
            drop(inner);
            last = Instant::now();
            let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            let made = self.propose(timestamp, how.beneficiary).and_then(|built| {
                if built.block.txs.is_empty() && !is_busy {
                    self.sort_out(&built.refused);
                } else {
                    self.commit(&built)?;
                }
                Ok(built)
            });
            match made {
                Ok(built) => {
                    let header = &built.block.header;
                    tracing::debug!(
                        number = header.number,
                        txs = built.block.txs.len(),
                        gas = header.gas_used,
                        "block"
                    );
                }
                Err(e) => {
                    tracing::error!("no block could be made: {e}; the chain stops here");
                    let mut inner = self.lock();
                    inner.failed.get_or_insert(e);
                    self.block.notify_all();
                    return;
                }
            }
        }
    }
}
