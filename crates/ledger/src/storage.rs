use alloy_primitives::{Address, B256};
use alloy_rlp::{RlpDecodable, RlpEncodable};

use crate::Job;

/// Coins and transaction count of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, RlpEncodable, RlpDecodable)]
pub struct Account {
    /// Base units.
    pub balance: u128,
    /// Transactions so far.
    pub nonce: u64,
}

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
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct NodeEntry {
    /// Base units at stake.
    pub stake: u128,
    /// 0 while active, else the time from which the stake can be withdrawn.
    pub leaves: u64,
    /// Jobs in progress that the node was drawn for.
    pub jobs: u64,
    /// Where it can be reached; may be empty.
    pub endpoint: String,
}

/// Where the rules keep what they know.
///
/// The rules read and write through it alone, so that they are the same over maps in memory ([`crate::State`]) and over the
/// slots of a contract's account. A transaction that is refused has written nothing. Lists are in ascending order of key:
/// the draw depends on it.
pub trait Storage {
    /// An account; zero coins if it was never written.
    fn account(&self, address: Address) -> Account;
    /// Writes an account.
    fn set_account(&mut self, address: Address, account: Account);
    /// A model by its content address.
    fn model(&self, model: B256) -> Option<ModelEntry>;
    /// Writes a model. Models are never removed.
    fn set_model(&mut self, model: B256, entry: ModelEntry);
    /// A node by its address.
    fn node(&self, node: Address) -> Option<NodeEntry>;
    /// Writes a node, or removes it.
    fn set_node(&mut self, node: Address, entry: Option<NodeEntry>);
    /// All nodes, in ascending order of address.
    fn nodes(&self) -> Vec<(Address, NodeEntry)>;
    /// A job in progress by its id.
    fn job(&self, job: B256) -> Option<Job>;
    /// Writes a job in progress, or removes it.
    fn set_job(&mut self, id: B256, job: Option<Job>);
    /// The ids of all jobs in progress, in ascending order.
    fn jobs(&self) -> Vec<B256>;
}
