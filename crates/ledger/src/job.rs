use alloy_primitives::{Address, B256, Bytes, Signature};
use alloy_rlp::{BufMut, Decodable, Encodable, RlpDecodable, RlpEncodable};
use isobit_proof::{Outcome, Receipt, SignedReceipt};
use isobit_tensor::Hash;

use crate::{Level, Params};

/// A job in progress, or as it ended.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Job {
    /// Its id, [`job_id`].
    pub id: B256,
    /// Who asked and pays.
    pub requester: Address,
    /// The model's content address.
    pub model: B256,
    /// Root of the inputs.
    pub inputs: B256,
    /// Seed of the run.
    pub seed: u64,
    /// How sure the requester wants to be.
    pub level: Level,
    /// Most the requester pays.
    pub max_fee: u128,
    /// What the model's owner gets for a unit of cost, as it was at posting.
    pub unit_fee: u128,
    /// Height of the block of posting.
    pub posted: u64,
    /// Height after which no commitment is waited for, by the requester's wish; 0 for none.
    pub expires: u64,
    /// Block time after which the present phase is over.
    pub deadline: u64,
    pub(crate) phase: Phase,
    /// 1 after the escalation.
    pub round: u8,
    /// The drawn nodes and what they did, in the order of the draw.
    pub seats: Vec<Seat>,
    /// Gas for the callback at the end; 0 for none.
    pub callback_gas: u64,
    /// What was paid to each agreeing node; 0 until settled.
    pub fee: u128,
    /// What was paid to the model's owner; 0 until settled.
    pub royalty: u128,
}

/// An enum that is an RLP number.
macro_rules! numbered {
    ($name:ident { $($variant:ident),* }) => {
        impl Encodable for $name {
            fn encode(&self, out: &mut dyn BufMut) {
                (*self as u8).encode(out);
            }

            fn length(&self) -> usize {
                (*self as u8).length()
            }
        }

        impl Decodable for $name {
            fn decode(buf: &mut &[u8]) -> alloy_rlp::Result<Self> {
                let number = u8::decode(buf)?;
                $(if number == $name::$variant as u8 { return Ok($name::$variant); })*
                Err(alloy_rlp::Error::Custom("a number without a meaning"))
            }
        }
    };
}

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// In escrow; nodes are drawn at the end of the next block.
    Posted = 0,
    /// Nodes are drawn and run it.
    Assigned = 1,
    /// Commitments are closed; nodes reveal.
    Committed = 2,
    /// Agreed and paid.
    Settled = 3,
    /// Not agreed in time; the requester has everything back.
    Refunded = 4,
}

numbered!(Phase { Posted, Assigned, Committed, Settled, Refunded });

/// A drawn node.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Seat {
    /// Who.
    pub node: Address,
    /// Its commitment; zero while there is none.
    pub commitment: B256,
    /// What it revealed: empty or one.
    pub reveal: Vec<Reveal>,
    pub(crate) end: End,
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

numbered!(End { Open, Paid, Slashed, Silent, Released });

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

/// The commitment of `node` to its receipt for `job`: BLAKE3 of `isobitC2`, node, job, [`Receipt::digest`] and salt. The
/// node's address is in it, so a commitment that is copied cannot be opened by the copier.
pub fn commitment(node: Address, job: B256, receipt: B256, salt: B256) -> B256 {
    let parts: [&[u8]; 5] =
        [b"isobitC2", node.as_slice(), job.as_slice(), receipt.as_slice(), salt.as_slice()];
    B256::from(Hash::of(&parts.concat()).0)
}

/// The id of the job that `requester` posts after `count` others: BLAKE3 of `isobitJ1`, requester and count (u64 little-endian).
pub fn job_id(requester: Address, count: u64) -> B256 {
    B256::from(Hash::of(&[b"isobitJ1", requester.as_slice(), &count.to_le_bytes()].concat()).0)
}

impl Job {
    /// The phase.
    pub fn phase(&self) -> Phase {
        self.phase
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

    /// The most units a run of the job may cost; a run above it fails. It is the same in both rounds.
    pub fn cost_limit(&self, params: &Params) -> u64 {
        params.cost_limit(self.max_fee, self.level.replicas().unwrap_or(1), self.unit_fee)
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
        let mut answers: Vec<_> = self.seats.iter().filter_map(Seat::answer).collect();
        answers.sort();
        answers.chunk_by(|a, b| a == b).find(|c| 2 * c.len() > self.seats.len()).map(|c| c[0])
    }
}

impl Seat {
    /// How the job ended for the node.
    pub fn end(&self) -> End {
        self.end
    }

    /// What the node revealed: outputs, failure and cost.
    pub(crate) fn answer(&self) -> Option<(B256, u16, u64)> {
        self.reveal.first().map(|r| (r.outputs, r.failure, r.cost))
    }

    /// Whether the node did not do its part of a phase whose time is over: commit, and reveal once it could.
    pub(crate) fn failed(&self, phase: Phase) -> bool {
        self.reveal.is_empty() && (phase == Phase::Committed || self.commitment.is_zero())
    }

    /// Whether something is still expected of the node.
    pub(crate) fn is_awaited(&self) -> bool {
        self.end == End::Open && self.reveal.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_is_to_node_job_receipt_and_salt() {
        let (node, other) = (Address::repeat_byte(1), B256::repeat_byte(9));
        let [job, receipt, salt] = [2, 3, 4].map(B256::repeat_byte);
        let mut text = b"isobitC2".to_vec();
        text.extend([1; 20]);
        text.extend([[2; 32], [3; 32], [4; 32]].concat());
        let good = commitment(node, job, receipt, salt);
        assert_eq!(good.0, Hash::of(&text).0);
        for changed in [
            commitment(Address::repeat_byte(9), job, receipt, salt),
            commitment(node, other, receipt, salt),
            commitment(node, job, other, salt),
            commitment(node, job, receipt, other),
        ] {
            assert_ne!(changed, good);
        }
    }
}
