use alloy_primitives::{Address, B256};

/// Why a transaction is refused. A refused transaction changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TxError {
    /// The signature is not the sender's.
    #[error("the signature is not that of the sender {0}")]
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
    /// A text is too long or empty.
    #[error("{what} must have 1 to {most} bytes")]
    Text {
        /// Which text.
        what: &'static str,
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
    #[error("{wanted} nodes are asked for, {active} are active with enough stake")]
    TooFewNodes {
        /// Replicas asked for.
        wanted: u8,
        /// Nodes that could be drawn.
        active: usize,
    },
    /// Replicas outside what is allowed.
    #[error("{0} replicas; give 1 to {1}")]
    Replicas(u8, u8),
    /// The fee cannot pay even the base fee of each node.
    #[error("a maximal fee of {fee} base units; the least for these replicas is {least}")]
    Fee {
        /// What was offered.
        fee: u128,
        /// What is needed.
        least: u128,
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
