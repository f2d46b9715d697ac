use alloy_primitives::{Address, B256};

use crate::Level;

/// Why a transaction is refused. A refused transaction changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TxError {
    /// Not enough coins.
    #[error("{from} offers {has} base units, {needs} are needed; send them with the call")]
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
    /// The name is another model's.
    #[error("the name '{0}' belongs to another owner's model; choose another name")]
    NameTaken(String),
    /// Not a set of tensors.
    #[error("these bytes are no set of tensors: {0}")]
    Tensors(String),
    /// More gas for a callback than a block has.
    #[error("{gas} gas for a callback; at most {most} can be had")]
    CallbackGas {
        /// What was asked for.
        gas: u64,
        /// What can be had.
        most: u64,
    },
    /// As many jobs are in progress as the network keeps.
    #[error("{0} jobs are in progress, which is all the network keeps; try again when some have ended")]
    Busy(u64),
    /// A manifest that is too long for the ledger.
    #[error("a manifest of {0} bytes; the ledger takes at most {1}")]
    Manifest(usize, usize),
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
    /// As many validators as the network has.
    #[error("there are {0} validators, which is all the network has; one must leave first")]
    TooManyValidators(u16),
    /// Without it there would be nobody to make blocks.
    #[error("{0} is the last validator; another must join before it leaves")]
    LastValidator(Address),
    /// Two ballots that show nothing.
    #[error("these ballots do not show that {0} contradicted itself: {1}")]
    NoContradiction(Address, &'static str),
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
