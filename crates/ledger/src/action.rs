use alloy_primitives::{B256, Bytes};

use crate::{Level, SignedBallot};

/// What a sender wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Registers a model.
    Publish {
        /// Its content address.
        model: B256,
        /// Name for people, `owner/name` or any text of 1 to 128 bytes.
        name: String,
        /// Where to read about it or fetch it, at most 512 bytes; may be empty.
        uri: String,
        /// What the sender gets for a unit of metered cost of each settled job, in base units.
        unit_fee: u128,
    },
    /// Becomes a node, with this stake, which comes with the action.
    Join {
        /// Base units.
        stake: u128,
        /// Where the node can be reached, at most 256 bytes; may be empty.
        endpoint: String,
    },
    /// Becomes a validator, with this stake, which comes with the action and is its weight in the next block's votes.
    Validate {
        /// Base units.
        stake: u128,
        /// Where the validator can be reached, at most 256 bytes; may be empty.
        endpoint: String,
    },
    /// Stops being drawn, or validating; the stake comes back after the unbonding time.
    Leave,
    /// Shows two contradicting ballots of a validator.
    Accuse {
        /// One.
        first: SignedBallot,
        /// The other.
        second: SignedBallot,
    },
    /// Takes the stake back.
    Withdraw,
    /// Asks for an inference.
    Post {
        /// The model's content address.
        model: B256,
        /// The inputs.
        inputs: Inputs,
        /// Seed of the run.
        seed: u64,
        /// How sure the sender wants to be.
        level: Level,
        /// Most the sender pays in all; goes to escrow.
        max_fee: u128,
        /// Height of the last block in which commitments are waited for; 0 for none. The windows of the network's
        /// parameters bound a job in any case.
        deadline: u64,
        /// Gas for telling the sender, a contract, how the job ended; 0 for no callback. It is paid on top of `max_fee`.
        callback_gas: u64,
    },
    /// Puts a set of tensors on the ledger, where contracts can read it by its root.
    Provide {
        /// [`isobit_proof::encode_tensors`].
        tensors: Bytes,
    },
    /// Puts the manifest of a published model on the ledger, where contracts can read what the model takes and gives.
    Describe {
        /// Its bytes; their BLAKE3 is the model's address.
        manifest: Bytes,
    },
    /// Commits a drawn node to its receipt.
    Commit {
        /// The job.
        job: B256,
        /// [`crate::commitment`].
        commitment: B256,
    },
    /// Opens a commitment.
    Reveal {
        /// The job.
        job: B256,
        /// Root of the outputs; zero for a failure.
        outputs: B256,
        /// The failure's code; 0 for none.
        failure: u16,
        /// Metered cost.
        cost: u64,
        /// The receipt's signature.
        receipt: Bytes,
        /// What the commitment was salted with.
        salt: B256,
    },
}
/// Inputs of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// Their root; the tensors are blobs of the hub.
    Root(B256),
    /// Themselves, as [`isobit_proof::encode_tensors`]: small ones, of senders that cannot compute a root.
    Tensors(Bytes),
}
