//! A whole network in a folder: hub, chain and nodes, with their keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use isobit_chain::{Chain, Genesis, Sequencing};
use isobit_hub::BlobStore;
use isobit_ledger::{Action, COIN, Params};
use isobit_proof::Key;
use isobit_runtime::{KernelSet, Options};

use crate::broker::Broker;
use crate::{Client, Gateway, Honest, Local, NodeError, Run, Worker};

/// Coins of the wallet of a new network, in base units.
const WALLET: u128 = 1_000_000 * COIN;
/// Coins that a node needs beside its stake, to send transactions.
const GAS_MONEY: u128 = COIN;
/// The file that says what the network began with.
const GENESIS: &str = "genesis.json";
/// Most that is paid for an inference that a transaction waits for.
const SPONSORED: u128 = COIN;
/// Coins of the account that pays for them.
const BROKER: u128 = 1_000 * COIN;
/// Coins of each node of a new network.
const NODE: u128 = 2_000 * COIN;

/// A running network. Dropping it stops its workers and its chain.
pub struct Network {
    local: Local,
    wallet: Key,
    nodes: Vec<(Key, KernelSet)>,
    dir: PathBuf,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Network in {} with {} nodes", self.dir.display(), self.nodes.len())
    }
}

impl Network {
    /// Opens the network in a folder, or founds one there: a wallet with a million coins, and a node with a stake for
    /// each kernel set given, unless there is a `genesis.json` that says otherwise. There is a block whenever transactions
    /// wait, and `block_time` since the last one has passed. Keys are in `keys/`, readable by their owner alone, new ones
    /// encrypted if there is a password.
    pub fn open(
        dir: &Path,
        sets: &[KernelSet],
        block_time: Duration,
        password: Option<&str>,
    ) -> Result<Self, NodeError> {
        let keys = dir.join("keys");
        std::fs::create_dir_all(&keys).map_err(|e| NodeError::Store(format!("{}: {e}", keys.display())))?;
        let wallet = Self::key(&keys, "wallet", password)?;
        let nodes = sets
            .iter()
            .enumerate()
            .map(|(i, &set)| Ok((Self::key(&keys, &format!("node-{}", i + 1), password)?, set)))
            .collect::<Result<Vec<_>, NodeError>>()?;
        let path = dir.join(GENESIS);
        if !path.exists() {
            let mut alloc = vec![(wallet.address(), WALLET)];
            alloc.extend(nodes.iter().map(|(k, _)| (k.address(), NODE)));
            let text = format!("{:#}\n", Genesis::new(Params::default(), alloc).to_json());
            let next = dir.join("genesis.new");
            let written = std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, &path));
            written.map_err(|e| NodeError::Store(format!("{}: {e}", path.display())))?;
        }
        let chain = Arc::new(Self::chain(dir)?);
        chain.sequence(Sequencing { block_time, beneficiary: wallet.address() })?;
        let local = Local { chain, blobs: BlobStore::open(&dir.join("blobs"))? };
        let stop = Arc::new(AtomicBool::new(false));
        let mut network =
            Self { local, wallet, nodes: Vec::new(), dir: dir.to_owned(), stop, workers: Vec::new() };
        network.broker(Self::key(&keys, "broker", password)?)?;
        for (key, set) in nodes {
            network.add_node(key, set, Box::new(Honest))?;
        }
        Ok(network)
    }

    /// The chain of the network in a folder, which does not run.
    pub fn chain(dir: &Path) -> Result<Chain, NodeError> {
        let path = dir.join(GENESIS);
        let fail = |e: &dyn std::fmt::Display| NodeError::Store(format!("{}: {e}", path.display()));
        let text = std::fs::read(&path).map_err(|e| fail(&e))?;
        let json = serde_json::from_slice(&text).map_err(|e| fail(&e))?;
        Ok(Chain::open(&dir.join("chain"), Genesis::from_json(&json).map_err(|e| fail(&e))?)?)
    }

    fn key(folder: &Path, name: &str, password: Option<&str>) -> Result<Key, NodeError> {
        let path = folder.join(format!("{name}.key"));
        Key::load_or_generate(&path, password).map_err(|e| NodeError::Store(e.to_string()))
    }

    /// Starts to have the inferences run that transactions wait for, from an account that the wallet fills up.
    fn broker(&mut self, key: Key) -> Result<(), NodeError> {
        let has = self.local.account(key.address())?.balance;
        let client = Client::new(&self.local, self.wallet.clone())?;
        let affords = self.local.account(self.wallet.address())?.balance > 2 * BROKER;
        if has < BROKER / 10 && affords {
            client.transfer(key.address(), BROKER - has)?;
        }
        let mut broker = Broker::new(self.local.clone(), key, SPONSORED);
        let stop = self.stop.clone();
        let thread = std::thread::Builder::new()
            .name("broker".into())
            .spawn(move || broker.work(&stop))
            .map_err(|e| NodeError::Store(e.to_string()))?;
        self.workers.push(thread);
        Ok(())
    }

    /// Starts a node: it joins with the least stake if it has not joined before (from its own coins, which the wallet
    /// tops up if need be).
    pub fn add_node(&mut self, key: Key, set: KernelSet, run: Box<dyn Run>) -> Result<(), NodeError> {
        let least = self.local.params()?.min_stake;
        let account = self.local.account(key.address())?;
        if account.stake.is_none() {
            let needs = least + GAS_MONEY;
            if account.balance < needs {
                let client = Client::new(&self.local, self.wallet.clone())?;
                client.transfer(key.address(), needs - account.balance)?;
            }
            Client::new(&self.local, key.clone())?
                .act(Action::Join { stake: least, endpoint: String::new() })?;
        }
        let options = Options::default().kernel_set(set);
        let mut worker = Worker::new(Arc::new(self.local.clone()), key.clone(), options)?.with_run(run);
        let stop = self.stop.clone();
        let thread = std::thread::Builder::new()
            .name(format!("node-{}", self.nodes.len() + 1))
            .spawn(move || worker.work(&stop))
            .map_err(|e| NodeError::Store(e.to_string()))?;
        self.workers.push(thread);
        self.nodes.push((key, set));
        Ok(())
    }

    /// The network, to act on.
    pub fn gateway(&self) -> &Local {
        &self.local
    }

    /// The wallet's key.
    pub fn wallet(&self) -> &Key {
        &self.wallet
    }

    /// The nodes that run here.
    pub fn nodes(&self) -> &[(Key, KernelSet)] {
        &self.nodes
    }

    /// Stops the workers after what they are doing, then the chain after its block.
    pub fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            let _ = worker.join(); // a panic there has been reported by the thread itself
        }
        self.local.chain.stop();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}
