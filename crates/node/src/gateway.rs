use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::{SolCall, SolEvent};
use isobit_chain::abi::IIsobit::{self, Posted};
use isobit_chain::{Call, CallError, Chain, ChainError, LEDGER, Order};
use isobit_hub::BlobStore;
use isobit_ledger::{Job, Params};
use isobit_tensor::Hash;
use serde::{Deserialize, Serialize};

use crate::{NodeError, store_tensors};

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
    /// Coins of stakes and escrow together, in base units, decimal.
    pub locked: String,
    /// Base fee of the next block.
    pub base_fee: u64,
}

/// An account as its owner needs it to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Account {
    /// Coins at hand, in base units.
    pub balance: u128,
    /// Nonce of the next transaction, after those that wait.
    pub nonce: u64,
    /// Coins at stake, if it is a node.
    pub stake: Option<u128>,
    /// Jobs posted so far.
    pub posted: u64,
    /// Base fee of the next block.
    pub base_fee: u64,
}

/// A transaction in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Height of the block.
    pub height: u64,
    /// Whether it did what it was to do.
    pub succeeded: bool,
}

/// What a worker or a client needs of the network, wherever it is.
pub trait Gateway: Send + Sync {
    /// What the network agreed on at genesis.
    fn params(&self) -> Result<Params, NodeError>;
    /// The network as a whole.
    fn status(&self) -> Result<Status, NodeError>;
    /// Who votes on the next block, and with what weight; nobody in a network of one sequencer.
    fn validators(&self) -> Result<Vec<(Address, u64)>, NodeError>;
    /// What a job of a model is to be paid with, so that so many nodes can run so many units of cost.
    fn price(&self, model: B256, cost: u64, replicas: u8) -> Result<u128, NodeError> {
        let level = isobit_ledger::Level::of(replicas);
        let call = IIsobit::quoteCall { model, cost, level: level.code(), callbackGas: 0 };
        let returned = self.eth_call(LEDGER, call.abi_encode().into())?;
        let value = IIsobit::quoteCall::abi_decode_returns(&returned);
        value
            .ok()
            .and_then(|v| v.try_into().ok())
            .ok_or_else(|| NodeError::Malformed("the quote is no amount".into()))
    }
    /// What a call of a contract returns in the next block.
    fn eth_call(&self, to: Address, data: Bytes) -> Result<Bytes, NodeError>;
    /// An account.
    fn account(&self, address: Address) -> Result<Account, NodeError>;
    /// The gas that an order of `from` needs, or why it would fail.
    fn estimate(&self, from: Address, order: &Order) -> Result<u64, NodeError>;
    /// Hands a signed transaction in, and does not wait for its block.
    fn submit(&self, raw: &[u8]) -> Result<B256, NodeError>;
    /// Waits until a transaction is in a block on disk.
    fn wait_for(&self, hash: B256) -> Result<Sent, NodeError>;
    /// A job, in progress or ended.
    fn job(&self, id: B256) -> Result<Option<Job>, NodeError>;
    /// A model's manifest, if it is on the ledger.
    fn manifest(&self, model: B256) -> Result<Option<Vec<u8>>, NodeError>;
    /// Whether a set of tensors is on the ledger.
    fn is_provided(&self, root: B256) -> Result<bool, NodeError>;
    /// Jobs in progress that a node was drawn for.
    fn assigned(&self, node: Address) -> Result<Vec<Job>, NodeError>;
    /// Published models by content address, with their names.
    fn models(&self) -> Result<Vec<(B256, String)>, NodeError>;
    /// The model that a name stands for.
    fn model_named(&self, name: &str) -> Result<Option<B256>, NodeError>;
    /// Waits for a block after `height`, or until the time is over; returns the height then.
    fn wait(&self, height: u64, timeout: Duration) -> Result<u64, NodeError>;
    /// A blob's bytes, checked against its hash.
    fn blob(&self, hash: &Hash) -> Result<Vec<u8>, NodeError>;
    /// Stores a blob.
    fn put_blob(&self, bytes: &[u8]) -> Result<Hash, NodeError>;
}

/// How long a transaction is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn refused(e: ChainError) -> NodeError {
    match e {
        ChainError::Refused(why) => NodeError::Refused(why),
        ChainError::Stopping => NodeError::Stopping,
        e => e.into(),
    }
}

/// The network in this process.
#[derive(Debug, Clone)]
pub struct Local {
    /// The chain.
    pub chain: Arc<Chain>,
    /// The hub's blobs.
    pub blobs: BlobStore,
}

impl Local {
    /// Stores the inputs of a job that came with its posting as blobs.
    fn keep_inputs(&self, job: &Job) -> Result<(), NodeError> {
        if self.blobs.contains(&Hash(job.inputs.0)) {
            return Ok(());
        }
        let receipts = self.chain.store().receipts(job.posted)?;
        let logs = receipts.iter().flat_map(|r| r.logs()).filter(|log| log.address == LEDGER);
        let posted = logs.filter_map(|log| Posted::decode_log_data(&log.data).ok());
        for posted in posted.filter(|p| p.job == job.id && !p.tensors.is_empty()) {
            let set = isobit_proof::decode_tensors(&posted.tensors);
            store_tensors(self, &set.map_err(|e| NodeError::Malformed(e.to_string()))?)?;
        }
        Ok(())
    }
}

impl Local {
    /// The job that a transaction in a block has posted, itself or through a contract.
    pub(crate) fn posted_by(&self, transaction: B256) -> Result<B256, NodeError> {
        let absent = || NodeError::absent("the job of transaction", transaction);
        let receipt = self.chain.receipt(self.chain.store().tx(transaction)?.ok_or_else(absent)?)?;
        let logs = receipt.iter().flat_map(|r| r.logs().iter()).filter(|l| l.address == LEDGER);
        let posted = logs.filter_map(|l| Posted::decode_log_data(&l.data).ok()).next();
        posted.map(|p| p.job).ok_or_else(absent)
    }
}

impl Gateway for Local {
    fn params(&self) -> Result<Params, NodeError> {
        Ok((*self.chain.genesis().params).clone())
    }

    fn status(&self) -> Result<Status, NodeError> {
        let head = self.chain.head();
        let params = &head.genesis.params;
        Ok(Status {
            chain_id: params.chain_id,
            height: head.header.number,
            active_nodes: head.nodes().iter().filter(|(_, n)| n.is_active(params)).count(),
            models: head.models().len(),
            jobs: head.open_jobs() as usize,
            locked: head.balance(LEDGER)?.to_string(),
            base_fee: head.next_base_fee(),
        })
    }

    fn validators(&self) -> Result<Vec<(Address, u64)>, NodeError> {
        Ok(self.chain.head().validators())
    }

    fn eth_call(&self, to: Address, data: Bytes) -> Result<Bytes, NodeError> {
        let request = Call { to: Some(to), data, ..Call::default() };
        self.chain.head().call(&request).map_err(|e| NodeError::Refused(e.to_string()))
    }

    fn account(&self, address: Address) -> Result<Account, NodeError> {
        let head = self.chain.head();
        Ok(Account {
            balance: head.balance(address)?,
            nonce: self.chain.pending_nonce(address)?,
            stake: head.node(address).map(|n| n.stake),
            posted: head.posted(address),
            base_fee: head.next_base_fee(),
        })
    }

    fn estimate(&self, from: Address, order: &Order) -> Result<u64, NodeError> {
        let call = Call {
            from,
            to: order.to.to().copied(),
            value: U256::from(order.value),
            data: order.data.clone(),
            ..Call::default()
        };
        self.chain.head().estimate(&call).map_err(|e| match e {
            CallError::Chain(e) => e.into(),
            e => NodeError::Refused(e.to_string().trim_start_matches("execution reverted: ").to_owned()),
        })
    }

    fn submit(&self, raw: &[u8]) -> Result<B256, NodeError> {
        self.chain.submit(raw).map_err(refused)
    }

    fn wait_for(&self, hash: B256) -> Result<Sent, NodeError> {
        let place = self.chain.wait_for(hash, PATIENCE).map_err(refused)?;
        let receipt = self.chain.receipt(place)?;
        Ok(Sent { height: place.0, succeeded: receipt.is_some_and(|r| r.status()) })
    }

    fn job(&self, id: B256) -> Result<Option<Job>, NodeError> {
        Ok(self.chain.job(id)?)
    }

    fn manifest(&self, model: B256) -> Result<Option<Vec<u8>>, NodeError> {
        Ok(self.chain.head().manifest(model).map(|m| m.to_vec()))
    }

    fn is_provided(&self, root: B256) -> Result<bool, NodeError> {
        Ok(self.chain.head().tensors(root).is_some())
    }

    fn assigned(&self, node: Address) -> Result<Vec<Job>, NodeError> {
        let jobs: Vec<Job> =
            self.chain.head().jobs().into_iter().filter(|j| j.seat(node).is_some()).collect();
        for job in &jobs {
            self.keep_inputs(job)?;
        }
        Ok(jobs)
    }

    fn models(&self) -> Result<Vec<(B256, String)>, NodeError> {
        Ok(self.chain.head().models().into_iter().map(|(m, e)| (m, e.name)).collect())
    }

    fn model_named(&self, name: &str) -> Result<Option<B256>, NodeError> {
        Ok(self.chain.head().model_named(name))
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
