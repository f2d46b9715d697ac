use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256};
use isobit_hub::BlobStore;
use isobit_ledger::{Job, Params, SignedTx};
use isobit_tensor::Hash;
use serde::{Deserialize, Serialize};

use crate::{Chain, NodeError};

/// The network as a whole, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Signatures are for this chain.
    pub chain_id: u64,
    /// Height of the last block.
    pub height: u64,
    /// Nodes that can be drawn.
    pub active_nodes: usize,
    /// Models published.
    pub models: usize,
    /// Jobs in progress.
    pub jobs: usize,
    /// Base units in escrow, decimal.
    pub escrow: String,
    /// All coins in base units, decimal.
    pub total_coins: String,
}

/// What a worker or a client needs of the network, wherever it is.
pub trait Gateway: Send + Sync {
    /// What the network agreed on at genesis.
    fn params(&self) -> Result<Params, NodeError>;
    /// The network as a whole.
    fn status(&self) -> Result<Status, NodeError>;
    /// Balance and next nonce of an address.
    fn account(&self, address: Address) -> Result<(u128, u64), NodeError>;
    /// A node's stake, if it has joined.
    fn stake(&self, node: Address) -> Result<Option<u128>, NodeError>;
    /// Puts a transaction into a block.
    fn submit(&self, tx: SignedTx) -> Result<u64, NodeError>;
    /// A job, in progress or ended.
    fn job(&self, id: B256) -> Result<Option<Job>, NodeError>;
    /// Jobs in progress that a node was drawn for.
    fn assigned(&self, node: Address) -> Result<Vec<Job>, NodeError>;
    /// Published models by content address, with their names.
    fn models(&self) -> Result<Vec<(B256, String)>, NodeError>;
    /// Waits for a block after `height`, or until the time is over; returns the height then.
    fn wait(&self, height: u64, timeout: Duration) -> Result<u64, NodeError>;
    /// A blob's bytes, checked against its hash.
    fn blob(&self, hash: &Hash) -> Result<Vec<u8>, NodeError>;
    /// Stores a blob.
    fn put_blob(&self, bytes: &[u8]) -> Result<Hash, NodeError>;
}

/// The network in this process.
#[derive(Debug, Clone)]
pub struct Local {
    /// The chain.
    pub chain: Arc<Chain>,
    /// The hub's blobs.
    pub blobs: BlobStore,
}

impl Gateway for Local {
    fn params(&self) -> Result<Params, NodeError> {
        Ok(self.chain.read(|s| s.params.clone()))
    }

    fn status(&self) -> Result<Status, NodeError> {
        Ok(self.chain.read(|s| Status {
            chain_id: s.params.chain_id,
            height: s.height,
            active_nodes: s
                .nodes
                .keys()
                .filter(|n| s.node_status(**n) == Some(isobit_ledger::NodeStatus::Active))
                .count(),
            models: s.models.len(),
            jobs: s.jobs.len(),
            escrow: s.escrow().to_string(),
            total_coins: s.total_coins().to_string(),
        }))
    }

    fn account(&self, address: Address) -> Result<(u128, u64), NodeError> {
        Ok(self.chain.read(|s| (s.balance(address), s.nonce(address))))
    }

    fn stake(&self, node: Address) -> Result<Option<u128>, NodeError> {
        Ok(self.chain.read(|s| s.nodes.get(&node).map(|n| n.stake)))
    }

    fn submit(&self, tx: SignedTx) -> Result<u64, NodeError> {
        self.chain.submit(tx)
    }

    fn job(&self, id: B256) -> Result<Option<Job>, NodeError> {
        self.chain.job(id)
    }

    fn assigned(&self, node: Address) -> Result<Vec<Job>, NodeError> {
        Ok(self.chain.read(|s| s.jobs.values().filter(|j| j.seat(node).is_some()).cloned().collect()))
    }

    fn models(&self) -> Result<Vec<(B256, String)>, NodeError> {
        Ok(self.chain.read(|s| s.models.iter().map(|(m, e)| (*m, e.name.clone())).collect()))
    }

    fn wait(&self, height: u64, timeout: Duration) -> Result<u64, NodeError> {
        Ok(self.chain.wait(height, timeout))
    }

    fn blob(&self, hash: &Hash) -> Result<Vec<u8>, NodeError> {
        Ok(self.blobs.get(hash)?)
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<Hash, NodeError> {
        Ok(self.blobs.put(bytes)?)
    }
}
