use alloy_primitives::{Address, B256, Bytes};
use alloy_rlp::{RlpDecodable, RlpEncodable};

use crate::{Job, Params, TxError};

/// A published model.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct ModelEntry {
    /// Who published it.
    pub owner: Address,
    /// Name for people.
    pub name: String,
    /// Where to read about it or fetch it; may be empty. The address alone says what it is.
    pub uri: String,
    /// What the owner gets for a unit of metered cost of a settled job, in base units.
    pub unit_fee: u128,
}

/// A node's stake and standing.
#[derive(Debug, Clone, PartialEq, Eq, Default, RlpEncodable, RlpDecodable)]
pub struct NodeEntry {
    /// Base units at stake.
    pub stake: u128,
    /// 0 while active, else the time from which the stake can be withdrawn.
    pub leaves: u64,
    /// Jobs in progress that the node was drawn for.
    pub jobs: u64,
    /// Where it can be reached; may be empty.
    pub endpoint: String,
    /// It votes on blocks and is not drawn for jobs; otherwise the other way round.
    pub validates: bool,
    /// Height of the block in which it joined: its ballots of earlier ones are another stake's.
    pub since: u64,
    /// It has contradicted itself, and cannot be punished for it again.
    pub punished: bool,
}

impl NodeEntry {
    /// Whether it can be drawn.
    pub fn is_active(&self, params: &Params) -> bool {
        !self.validates && self.leaves == 0 && self.stake >= params.min_stake
    }

    /// Whether it votes on blocks.
    pub fn votes(&self) -> bool {
        self.validates && self.leaves == 0
    }

    /// Its weight in votes: whole coins at stake, and at least 1.
    pub fn weight(&self) -> u64 {
        u64::try_from(self.stake / crate::COIN).unwrap_or(u64::MAX >> 16).clamp(1, u64::MAX >> 16)
    }
}

/// How a job ended, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, RlpEncodable, RlpDecodable)]
pub struct Answer {
    /// Agreed and paid; otherwise the requester has everything back.
    pub settled: bool,
    /// Root of the outputs; zero for a failure or a refund.
    pub outputs: B256,
    /// The failure's agreed code; 0 for none.
    pub failure: u16,
    /// Metered cost.
    pub cost: u64,
    /// What it cost the requester in all, in base units.
    pub paid: u128,
}

/// A contract that is to be told how its job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Callback {
    /// The job.
    pub job: B256,
    /// The contract.
    pub to: Address,
    /// Gas it may use.
    pub gas: u64,
}

/// Where the rules keep what they know, and the coins.
///
/// The rules read and write through it alone, so that they are the same over maps in memory ([`crate::State`]) and over the
/// slots of a contract's account. An action that is refused has written nothing. Lists are in ascending order of key:
/// the draw depends on it.
pub trait Storage {
    /// Takes coins of the sender into the ledger's keeping: of its balance, or of what came with the call. The last thing
    /// that can refuse an action.
    fn take(&mut self, from: Address, amount: u128) -> Result<(), TxError>;
    /// Gives coins out of the ledger's keeping.
    fn give(&mut self, to: Address, amount: u128);
    /// A model by its content address.
    fn model(&self, model: B256) -> Option<ModelEntry>;
    /// Writes a model. Models are never removed.
    fn set_model(&mut self, model: B256, entry: ModelEntry);
    /// The model that a name stands for.
    fn named(&self, name: &str) -> Option<B256>;
    /// Makes a name stand for a model.
    fn set_named(&mut self, name: &str, model: B256);
    /// A node by its address.
    fn node(&self, node: Address) -> Option<NodeEntry>;
    /// Writes a node, or removes it.
    fn set_node(&mut self, node: Address, entry: Option<NodeEntry>);
    /// All nodes, in ascending order of address.
    fn nodes(&self) -> Vec<(Address, NodeEntry)>;
    /// Those that vote on blocks, in ascending order of address.
    fn validators(&self) -> Vec<(Address, NodeEntry)>;
    /// How many nodes can be drawn.
    fn active_nodes(&self, params: &Params) -> usize;
    /// How many jobs a requester has posted before; counts one more.
    fn count_job(&mut self, requester: Address) -> u64;
    /// A job in progress by its id.
    fn job(&self, job: B256) -> Option<Job>;
    /// Writes a job in progress, or removes it.
    fn set_job(&mut self, id: B256, job: Option<Job>);
    /// The ids of all jobs in progress, in ascending order.
    fn jobs(&self) -> Vec<B256>;
    /// How many jobs are in progress.
    fn open_jobs(&self) -> u64;
    /// Writes how a job ended.
    fn set_answer(&mut self, job: &Job, answer: Answer);
    /// Writes a set of tensors by its root. Sets are never removed.
    fn set_tensors(&mut self, root: B256, tensors: Bytes);
    /// Writes a model's manifest.
    fn set_manifest(&mut self, model: B256, manifest: Bytes);
    /// Puts a callback at the end of the queue.
    fn push_callback(&mut self, callback: Callback);
}
