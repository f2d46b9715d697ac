use alloy_primitives::{Address, B256};

use crate::Level;

/// Why a transaction is refused. A refused transaction changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TxError {
    /// The signature is not the sender's.
    #[error("the signature is not that of the sender {0}; sign the EIP-712 data for this chain with its key")]
    Signature(Address),
    /// The nonce is not the next one.
    #[error("nonce {got}; the next of {from} is {next}")]
    Nonce {
        /// Sender.
        from: Address,
        /// What it should be.
        next: u64,
        /// What was sent.
        got: u64,
    },
    /// Not enough coins.
    #[error("{from} has {has} base units, {needs} are needed; fund the account first")]
    Balance {
        /// Sender.
        from: Address,
        /// Its balance.
        has: u128,
        /// What the transaction takes.
        needs: u128,
    },
    /// A text is of a wrong length or has control characters.
    #[error("{what} must have {least} to {most} bytes and no control characters")]
    Text {
        /// Which text.
        what: &'static str,
        /// Shortest allowed.
        least: usize,
        /// Longest allowed.
        most: usize,
    },
    /// The model was published before.
    #[error("model {0} is published already")]
    ModelExists(B256),
    /// No such model.
    #[error("model {0} is not published; publish it first")]
    NoModel(B256),
    /// The stake is below the least one.
    #[error("a stake of {stake} base units; the least is {least}")]
    Stake {
        /// What was offered.
        stake: u128,
        /// What is needed.
        least: u128,
    },
    /// The node has joined already.
    #[error("node {0} has joined already")]
    NodeExists(Address),
    /// No such node, or not in the state for this.
    #[error("{0} is no node that can do this: {1}")]
    NoNode(Address, &'static str),
    /// Too few nodes for the level asked for.
    #[error(
        "{wanted} nodes are asked for, {active} are active with enough stake; ask for fewer or wait for more"
    )]
    TooFewNodes {
        /// Replicas asked for.
        wanted: u8,
        /// Nodes that could be drawn.
        active: usize,
    },
    /// A level that this version does not settle.
    #[error("level {0} is not settled by this version; ask for signed or replicated(n)")]
    Level(Level),
    /// Replicas outside what is allowed.
    #[error("replicated({0}); give 2 to {1}, or ask for signed")]
    Replicas(u8, u8),
    /// The fee cannot pay even the base fee of each node.
    #[error("a maximal fee of {fee} base units; the least for these replicas is {least}")]
    Fee {
        /// What was offered.
        fee: u128,
        /// What is needed.
        least: u128,
    },
    /// The deadline has passed.
    #[error("a deadline of height {deadline}; it must be above {height}, or 0 for none")]
    Deadline {
        /// What was asked for.
        deadline: u64,
        /// The block's height.
        height: u64,
    },
    /// No such job in progress.
    #[error("no job {0} is in progress")]
    NoJob(B256),
    /// The node has no seat in the job, or has done this already, or the phase is another.
    #[error("{node} cannot do this in job {job} now: {why}")]
    Job {
        /// The job.
        job: B256,
        /// The node.
        node: Address,
        /// Why not.
        why: &'static str,
    },
}

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {what}: {why}")]
pub struct DecodeError {
    /// What was to be read.
    pub what: &'static str,
    /// Why it is not.
    pub why: String,
}

impl DecodeError {
    pub(crate) fn new(what: &'static str, why: impl ToString) -> Self {
        Self { what, why: why.to_string() }
    }
}

/// Why a block is none of these rules on its parent's state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// Another height than the next.
    #[error("a block of height {got} where {next} is the next")]
    Height {
        /// What it should be.
        next: u64,
        /// What it is.
        got: u64,
    },
    /// Another parent.
    #[error("a block on parent {got} where {head} is the head")]
    Parent {
        /// The head.
        head: B256,
        /// What the block names.
        got: B256,
    },
    /// Before its parent, or absurdly late.
    #[error("timestamp {got}; it must be {least} to 2^48")]
    Timestamp {
        /// The parent's.
        least: u64,
        /// The block's.
        got: u64,
    },
    /// The transactions are not those of the header.
    #[error("the transactions have another root than the header says")]
    TxRoot,
    /// A transaction cannot be read.
    #[error("transaction {index}: {source}")]
    Encoding {
        /// Which.
        index: usize,
        /// Why.
        source: DecodeError,
    },
    /// The rules refuse a transaction.
    #[error("transaction {index}: {source}")]
    Tx {
        /// Which.
        index: usize,
        /// Why.
        source: TxError,
    },
    /// The state after it is not that of the header.
    #[error("the state after the block has root {found}, the header says {claimed}")]
    StateRoot {
        /// What executing it gives.
        found: B256,
        /// What the header says.
        claimed: B256,
    },
}
