//! A whole network in a folder: hub, chain and nodes, with their keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use isobit_chain::{Chain, Genesis, Sequencing};
use isobit_hub::BlobStore;
use isobit_ledger::{Action, COIN, Params};
use isobit_proof::Key;
use isobit_runtime::{KernelSet, Options};

use crate::broker::Broker;
use crate::keeper::Keeper;
use crate::validators::{Blocks, Making, Validators};
use crate::{Client, Gateway, Honest, Local, ModelHub, NodeError, Run, Till, Worker};

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
/// Stake of each validator of a new network.
const VALIDATOR: u128 = 10_000 * COIN;
/// Coins of each node of a new network.
const NODE: u128 = 2_000 * COIN;

/// A running network. Dropping it stops its workers and its chain.
pub struct Network {
    local: Local,
    wallet: Key,
    validators: Validators,
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
    /// each kernel set given, unless there is a `genesis.json` that says otherwise. Keys are in `keys/`, readable by their owner
    /// alone, new ones encrypted if there is a password.
    pub fn open(
        dir: &Path,
        sets: &[KernelSet],
        how: &Making,
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
        if !dir.join(GENESIS).exists() {
            let wanted = if let Blocks::Here(n) = how.blocks { n } else { 0 };
            let validators = (1..=wanted)
                .map(|i| Self::key(&keys, &format!("validator-{i}"), password))
                .collect::<Result<Vec<_>, _>>()?;
            let own = nodes.iter().map(|(k, _)| (k.address(), NODE));
            let gas_money = validators.iter().map(|k| (k.address(), GAS_MONEY));
            let alloc = own.chain(gas_money).chain([(wallet.address(), WALLET)]);
            let mut genesis = Genesis::new(Params::default(), alloc);
            genesis.price_operator = wallet.address();
            genesis.validators = validators.iter().map(|k| (k.address(), VALIDATOR)).collect();
            write_genesis(dir, &genesis)?;
        }
        let chain = Arc::new(Self::chain(dir)?);
        let validators = Self::make_blocks(dir, &chain, how, &wallet, password)?;
        let local = Local { chain, blobs: BlobStore::open(&dir.join("blobs"))? };
        let stop = Arc::new(AtomicBool::new(false));
        let mut network = Self {
            local,
            wallet,
            validators,
            nodes: Vec::new(),
            dir: dir.to_owned(),
            stop,
            workers: Vec::new(),
        };
        network.broker(Self::key(&keys, "broker", password)?)?;
        for (key, set) in nodes {
            network.add_node(key, set, Box::new(Honest))?;
        }
        Ok(network)
    }

    /// Starts whoever makes the blocks.
    fn make_blocks(
        dir: &Path,
        chain: &Arc<Chain>,
        how: &Making,
        wallet: &Key,
        password: Option<&str>,
    ) -> Result<Validators, NodeError> {
        let (keys, folder) = (dir.join("keys"), dir.join("chain"));
        let founded = chain.genesis().validators.len();
        let refuse = |why: String| Err(NodeError::Refused(why));
        if how.prices.is_some() && founded == 0 {
            return refuse(
                "prices are said by validators, and this network was founded without; its price operator can post candles (docs/operating.md)"
                    .into(),
            );
        }
        match &how.blocks {
            Blocks::WithPeers { .. } if founded == 0 => refuse(
                "this network was founded with one sequencer, and has no validators; run it without --p2p"
                    .into(),
            ),
            Blocks::WithPeers { listen, peers } => {
                let key = Self::key(&keys, "validator", password)?;
                Validators::with_peers(&folder, &key, chain, (listen, peers), how)
            }
            Blocks::Here(n) if usize::from(*n) != founded => refuse(format!(
                "this network was founded with {founded} validators; run it without --validators, or give another --data"
            )),
            _ if founded == 0 => {
                chain.sequence(Sequencing { block_time: how.block_time, beneficiary: wallet.address() })?;
                Ok(Validators::default())
            }
            _ => {
                let mut all = Vec::new();
                for i in 1..=founded {
                    let name = format!("validator-{i}");
                    if !keys.join(format!("{name}.key")).exists() {
                        return refuse(
                            "this network's validators are elsewhere; give --p2p and --peer".into(),
                        );
                    }
                    let key = Self::key(&keys, &name, password)?;
                    // The first one's chain is what the rest of the process sees.
                    all.push(match i {
                        1 => (folder.clone(), key, chain.clone()),
                        _ => {
                            let folder = dir.join("validators").join(i.to_string());
                            let chain = Chain::open(&folder, chain.genesis().clone())?;
                            (folder, key, Arc::new(chain))
                        }
                    });
                }
                Validators::all_here(&all, how)
            }
        }
    }

    /// The chain of the network in a folder, which does not run.
    pub fn chain(dir: &Path) -> Result<Chain, NodeError> {
        Ok(Chain::open(&dir.join("chain"), read_genesis(&dir.join(GENESIS))?)?)
    }

    fn key(folder: &Path, name: &str, password: Option<&str>) -> Result<Key, NodeError> {
        let path = folder.join(format!("{name}.key"));
        Key::load_or_generate(&path, password).map_err(|e| NodeError::Store(e.to_string()))
    }

    /// Starts a thread that works until the network stops.
    fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> Result<(), NodeError> {
        let stop = self.stop.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || work(&stop));
        self.workers.push(thread.map_err(|e| NodeError::Store(e.to_string()))?);
        Ok(())
    }

    /// Gives an account that pays for others coins of the wallet, if it has few and the wallet has enough.
    fn fill_up(&self, key: &Key) -> Result<(), NodeError> {
        let has = self.local.account(key.address())?.balance;
        let client = Client::new(&self.local, self.wallet.clone())?;
        let affords = self.local.account(self.wallet.address())?.balance > 2 * BROKER;
        if has < BROKER / 10 && affords {
            client.transfer(key.address(), BROKER - has)?;
        }
        Ok(())
    }

    /// How models are loaded that run beside this network: packed weights are kept in its folder.
    pub fn options(&self) -> Options {
        Options::default().packed(self.dir.join("packed"))
    }

    /// A till that settles payments by signature, from an account that the wallet fills up.
    pub fn till(&self, password: Option<&str>) -> Result<Till, NodeError> {
        let key = Self::key(&self.dir.join("keys"), "till", password)?;
        self.fill_up(&key)?;
        Ok(Till::new(key))
    }

    /// The model hub of this folder, which publishes from an account that the wallet fills up.
    pub fn hub(&self, password: Option<&str>) -> Result<ModelHub, NodeError> {
        let key = Self::key(&self.dir.join("keys"), "hub", password)?;
        self.fill_up(&key)?;
        ModelHub::open(&self.dir.join("hub"), key)
    }

    /// Starts to run workflows that are due, from an account that the wallet fills up.
    pub fn keep(&mut self, password: Option<&str>) -> Result<(), NodeError> {
        let key = Self::key(&self.dir.join("keys"), "keeper", password)?;
        self.fill_up(&key)?;
        let mut keeper = Keeper::new(self.local.clone(), key);
        self.spawn("keeper".into(), move |stop| keeper.work(stop))
    }

    /// Starts to have the inferences run that transactions wait for, from an account that the wallet fills up.
    fn broker(&mut self, key: Key) -> Result<(), NodeError> {
        self.fill_up(&key)?;
        let mut broker = Broker::new(self.local.clone(), key, SPONSORED);
        self.spawn("broker".into(), move |stop| broker.work(stop))
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
        let options = self.options().kernel_set(set);
        let mut worker = Worker::new(Arc::new(self.local.clone()), key.clone(), options)?.with_run(run);
        self.spawn(format!("node-{}", self.nodes.len() + 1), move |stop| worker.work(stop))?;
        self.nodes.push((key, set));
        Ok(())
    }

    /// How many other processes it is connected with.
    pub fn peers(&self) -> usize {
        self.validators.peers()
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
        self.validators.stop();
        self.local.chain.stop();
    }
}

/// Writes what a network in this folder begins with; an existing file is never overwritten.
pub fn write_genesis(dir: &Path, genesis: &Genesis) -> Result<(), NodeError> {
    let path = dir.join(GENESIS);
    let fail = |e: &dyn std::fmt::Display| NodeError::Store(format!("{}: {e}", path.display()));
    if path.exists() {
        return Err(fail(&"there is a network already"));
    }
    let next = dir.join("genesis.new");
    let text = format!("{:#}\n", genesis.to_json());
    std::fs::write(&next, text).and_then(|()| std::fs::rename(&next, &path)).map_err(|e| fail(&e))
}

/// Reads a genesis file.
pub fn read_genesis(path: &Path) -> Result<Genesis, NodeError> {
    let fail = |e: &dyn std::fmt::Display| NodeError::Store(format!("{}: {e}", path.display()));
    let text = std::fs::read(path).map_err(|e| fail(&e))?;
    let json = serde_json::from_slice(&text).map_err(|e| fail(&e))?;
    Genesis::from_json(&json).map_err(|e| fail(&e))
}

impl Drop for Network {
    fn drop(&mut self) {
        self.stop();
    }
}
