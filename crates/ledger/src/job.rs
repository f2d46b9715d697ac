use alloy_primitives::{Address, B256, Bytes, Signature};
use alloy_rlp::{RlpDecodable, RlpEncodable};
use isobit_proof::{Outcome, Receipt, SignedReceipt};
use isobit_tensor::Hash;

/// A job in progress, or as it ended.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Job {
    /// Its id: BLAKE3 of requester and nonce of the posting transaction.
    pub id: B256,
    /// Who asked and pays.
    pub requester: Address,
    /// The model's content address.
    pub model: B256,
    /// Root of the inputs.
    pub inputs: B256,
    /// Seed of the run.
    pub seed: u64,
    /// Most the requester pays.
    pub max_fee: u128,
    /// Block of posting.
    pub posted: u64,
    /// Block time after which the present phase is over.
    pub deadline: u64,
    /// [`Phase`] as a number.
    pub phase: u8,
    /// The drawn nodes and what they did.
    pub seats: Vec<Seat>,
    /// What was paid to each agreeing node; 0 until settled.
    pub fee: u128,
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nodes are drawn and run it.
    Assigned = 0,
    /// Commitments are in; nodes reveal.
    Committed = 1,
    /// Agreed and paid.
    Settled = 2,
    /// Not agreed in time; the requester has everything back.
    Refunded = 3,
}

/// A drawn node.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Seat {
    /// Who.
    pub node: Address,
    /// Its commitment; zero while there is none.
    pub commitment: B256,
    /// What it revealed: empty or one.
    pub reveal: Vec<Reveal>,
    /// [`End`] as a number.
    pub end: u8,
}

/// How a job ended for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// Not yet.
    Open = 0,
    /// Paid.
    Paid = 1,
    /// Lost the whole stake: it revealed something else than the majority.
    Slashed = 2,
    /// Lost a part of the stake: it did not commit or reveal.
    Silent = 3,
    /// Neither paid nor punished: the job was refunded.
    Released = 4,
}

/// An opened commitment.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Reveal {
    /// Root of the outputs; zero for a failure.
    pub outputs: B256,
    /// The failure's code; 0 for none.
    pub failure: u16,
    /// Metered cost.
    pub cost: u64,
    /// The receipt's signature.
    pub receipt: Bytes,
}

/// The commitment of `node` to its answer in `job`: BLAKE3 of `isobitC1`, job, node, outputs, failure (u16 little-endian), cost
/// (u64 little-endian) and salt. The node's address is in it, so an answer cannot be copied.
pub fn commitment(job: B256, node: Address, outputs: B256, failure: u16, cost: u64, salt: B256) -> B256 {
    let parts: [&[u8]; 7] = [
        b"isobitC1",
        job.as_slice(),
        node.as_slice(),
        outputs.as_slice(),
        &failure.to_le_bytes(),
        &cost.to_le_bytes(),
        salt.as_slice(),
    ];
    B256::from(Hash::of(&parts.concat()).0)
}

impl Job {
    /// The phase.
    pub fn phase(&self) -> Phase {
        match self.phase {
            0 => Phase::Assigned,
            1 => Phase::Committed,
            2 => Phase::Settled,
            _ => Phase::Refunded,
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.phase(), Phase::Settled | Phase::Refunded)
    }

    /// The seat of a node.
    pub fn seat(&self, node: Address) -> Option<&Seat> {
        self.seats.iter().find(|s| s.node == node)
    }

    /// The receipt of each node that revealed.
    pub fn receipts(&self, chain_id: u64) -> Vec<SignedReceipt> {
        let of = |s: &Seat| s.reveal.first().and_then(|r| self.receipt(chain_id, s.node, r));
        self.seats.iter().filter_map(of).collect()
    }

    /// The receipt that a revealed answer stands for.
    pub(crate) fn receipt(&self, chain_id: u64, node: Address, r: &Reveal) -> Option<SignedReceipt> {
        let outcome = match r.failure {
            0 => Outcome::Ok { outputs: Hash(r.outputs.0) },
            code => Outcome::Failed { code },
        };
        let receipt = Receipt {
            chain_id,
            job: Hash(self.id.0),
            model: Hash(self.model.0),
            inputs: Hash(self.inputs.0),
            seed: self.seed,
            outcome,
            cost: r.cost,
            node,
        };
        Some(SignedReceipt { receipt, signature: Signature::from_raw(&r.receipt).ok()? })
    }

    /// The answer that more than half of the drawn nodes revealed.
    pub fn agreed(&self) -> Option<(B256, u16, u64)> {
        let answers =
            self.seats.iter().filter_map(|s| s.reveal.first()).map(|r| (r.outputs, r.failure, r.cost));
        let mut answers: Vec<_> = answers.collect();
        answers.sort();
        answers.chunk_by(|a, b| a == b).find(|c| 2 * c.len() > self.seats.len()).map(|c| c[0])
    }
}

impl Seat {
    /// How the job ended for the node.
    pub fn end(&self) -> End {
        match self.end {
            0 => End::Open,
            1 => End::Paid,
            2 => End::Slashed,
            3 => End::Silent,
            _ => End::Released,
        }
    }
}
