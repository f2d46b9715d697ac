//! A validator among others: one thread that decides, and a network that carries what is said.

mod network;
mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_malachitebft_core_types::LinearTimeouts;
pub use arc_malachitebft_network::Multiaddr;
use isobit_chain::{Chain, ChainError, PriceSource};
use isobit_proof::Key;
use tokio::sync::mpsc;

use crate::disk::Disk;
use crate::validator::Validator;
use network::Carrier;
use worker::{In, Worker};

/// How many messages wait for the deciding thread; what comes beyond is dropped, and said again by whoever needs an answer.
const QUEUE: usize = 4_096;

/// Where the others are, and how fast blocks follow each other.
#[derive(Clone)]
pub struct Config {
    /// Address to listen on, as `/ip4/0.0.0.0/tcp/7471`.
    pub listen: Multiaddr,
    /// Addresses of other validators; one that can be reached is enough, as messages are passed on.
    pub peers: Vec<Multiaddr>,
    /// Least time between two blocks. There are none while nothing is to be done.
    pub block_time: Duration,
    /// How long a round's steps are waited for.
    pub timeouts: LinearTimeouts,
    /// Where this validator has prices from, if it has any: asked at each block of a minute of which the chain has none.
    pub prices: Option<PriceSource>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config to listen on {} with {} peers", self.listen, self.peers.len())
    }
}

impl Config {
    /// Listens on an address and knows some peers; rounds wait a second for a block.
    pub fn new(listen: Multiaddr, peers: Vec<Multiaddr>, block_time: Duration) -> Self {
        let ms = Duration::from_millis;
        let timeouts = LinearTimeouts {
            propose: ms(1_000),
            propose_delta: ms(500),
            prevote: ms(500),
            prevote_delta: ms(250),
            precommit: ms(500),
            precommit_delta: ms(250),
            rebroadcast: ms(2_000),
            ..LinearTimeouts::default()
        };
        Self { listen, peers, block_time, timeouts, prices: None }
    }
}

/// A running validator, or a follower if its key is of none. Dropping it stops it.
pub struct Engine {
    inputs: mpsc::Sender<In>,
    deciding: Option<JoinHandle<()>>,
    carrier: Option<Carrier>,
    peers: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine with {} peers", self.peers())
    }
}

impl Engine {
    /// Starts to agree with others on the blocks of a chain.
    pub fn start(key: Key, chain: Arc<Chain>, disk: Disk, config: &Config) -> Result<Self, ChainError> {
        let validator = Validator::new(key.clone(), chain.clone(), disk)?;
        let (inputs, from_network) = mpsc::channel(QUEUE);
        let peers = Arc::new(AtomicUsize::new(0));
        let carrier = Carrier::start(&key, &chain, config, inputs.clone(), peers.clone())?;
        let wake = inputs.clone();
        let outbox = carrier.outbox();
        let heard = outbox.clone();
        chain.on_submit(move |raw| {
            heard.transaction(raw);
            let _ = wake.try_send(In::Wake); // if it is full there is enough to wake it
        });
        let worker = Worker::new(key, validator, outbox, config);
        let deciding = std::thread::Builder::new()
            .name("validator".into())
            .spawn(move || worker.run(from_network))
            .map_err(ChainError::store)?;
        Ok(Self { inputs, deciding: Some(deciding), carrier: Some(carrier), peers })
    }

    /// How many others it is connected with.
    pub fn peers(&self) -> usize {
        self.peers.load(Ordering::Relaxed)
    }

    /// Stops after the message in hand.
    pub fn stop(&mut self) {
        let _ = self.inputs.blocking_send(In::Stop); // it has stopped already if nobody listens
        if let Some(thread) = self.deciding.take() {
            let _ = thread.join(); // a panic there has been reported by the thread itself
        }
        self.carrier = None;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
