//! Validators of this process: one among others elsewhere, or all of a network for development.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use isobit_chain::{Chain, PriceSource};
use isobit_proof::Key;

use crate::NodeError;

/// Who makes the blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocks {
    /// Whoever the genesis says, if that can be done with the keys that are here: without validators this process alone.
    AsFounded,
    /// So many validators, all in this process; a new network is founded with them.
    Here(u8),
    /// This process and others: a validator if its key is one's, and a follower otherwise.
    WithPeers {
        /// Address to listen on, as `/ip4/0.0.0.0/tcp/7471`.
        listen: String,
        /// Addresses of others.
        peers: Vec<String>,
    },
}

/// How blocks are made.
#[derive(Clone)]
pub struct Making {
    /// By whom.
    pub blocks: Blocks,
    /// Least time between two blocks. There is one whenever there is something to be in it.
    pub block_time: Duration,
    /// Where the validators of this process have prices from, to say along with their votes.
    pub prices: Option<PriceSource>,
}

impl Making {
    /// Blocks as founded, and no prices.
    pub fn as_founded(block_time: Duration) -> Self {
        Self { blocks: Blocks::AsFounded, block_time, prices: None }
    }
}

impl std::fmt::Debug for Making {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} every {:?}", self.blocks, self.block_time)
    }
}

/// Running validators.
#[derive(Debug, Default)]
pub(crate) struct Validators {
    #[cfg(feature = "bft")]
    engines: Vec<isobit_consensus::Engine>,
}

#[cfg(feature = "bft")]
mod running {
    use isobit_consensus::{Config, Disk, Engine, Multiaddr};

    use super::{Arc, Chain, Key, Making, NodeError, Path, Validators};

    fn address(text: &str) -> Result<Multiaddr, NodeError> {
        text.parse().map_err(|e| {
            NodeError::Malformed(format!("{text} is no address: {e}; give one as /ip4/127.0.0.1/tcp/7471"))
        })
    }

    /// A port that nobody listens on now.
    fn free_port() -> Result<u16, NodeError> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0");
        let address = listener.and_then(|l| l.local_addr()).map_err(|e| NodeError::Store(e.to_string()))?;
        Ok(address.port())
    }

    fn configure(listen: Multiaddr, peers: Vec<Multiaddr>, how: &Making) -> Config {
        Config { prices: how.prices.clone(), ..Config::new(listen, peers, how.block_time) }
    }

    fn start(folder: &Path, key: &Key, chain: &Arc<Chain>, config: &Config) -> Result<Engine, NodeError> {
        let disk = Disk::open(&folder.join("consensus.redb"))?;
        Ok(Engine::start(key.clone(), chain.clone(), disk, config)?)
    }

    impl Validators {
        /// One among others.
        pub(crate) fn with_peers(
            folder: &Path,
            key: &Key,
            chain: &Arc<Chain>,
            (listen, peers): (&str, &[String]),
            how: &Making,
        ) -> Result<Self, NodeError> {
            let peers = peers.iter().map(|p| address(p)).collect::<Result<_, _>>()?;
            let config = configure(address(listen)?, peers, how);
            Ok(Self { engines: vec![start(folder, key, chain, &config)?] })
        }

        /// All of a network, each with its own chain on its own disk.
        pub(crate) fn all_here(
            all: &[(std::path::PathBuf, Key, Arc<Chain>)],
            how: &Making,
        ) -> Result<Self, NodeError> {
            let ports = all.iter().map(|_| free_port()).collect::<Result<Vec<_>, _>>()?;
            let addresses: Vec<Multiaddr> = ports
                .iter()
                .map(|p| address(&format!("/ip4/127.0.0.1/tcp/{p}")))
                .collect::<Result<_, _>>()?;
            let one = |(i, (folder, key, chain)): (usize, &(std::path::PathBuf, Key, Arc<Chain>))| {
                let config = configure(addresses[i].clone(), addresses[..i].to_vec(), how);
                start(folder, key, chain, &config)
            };
            Ok(Self { engines: all.iter().enumerate().map(one).collect::<Result<_, _>>()? })
        }

        /// How many others the first one is connected with.
        pub(crate) fn peers(&self) -> usize {
            self.engines.first().map_or(0, Engine::peers)
        }

        pub(crate) fn stop(&mut self) {
            self.engines.iter_mut().for_each(Engine::stop);
        }
    }
}

#[cfg(not(feature = "bft"))]
mod running {
    use super::{Arc, Chain, Key, Making, NodeError, Path, Validators};

    const WITHOUT: &str = "this program was built without validators; build it with `--features bft`";

    impl Validators {
        pub(crate) fn with_peers(
            _: &Path,
            _: &Key,
            _: &Arc<Chain>,
            _: (&str, &[String]),
            _: &Making,
        ) -> Result<Self, NodeError> {
            Err(NodeError::Refused(WITHOUT.into()))
        }

        pub(crate) fn all_here(
            _: &[(std::path::PathBuf, Key, Arc<Chain>)],
            _: &Making,
        ) -> Result<Self, NodeError> {
            Err(NodeError::Refused(WITHOUT.into()))
        }

        pub(crate) fn peers(&self) -> usize {
            0
        }

        pub(crate) fn stop(&mut self) {}
    }
}
