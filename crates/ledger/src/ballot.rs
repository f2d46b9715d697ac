//! What a validator signs when it votes on blocks. It is here and not with the votes, as the rules judge who contradicts itself.

use alloy_primitives::{Address, B256, Signature};
use isobit_tensor::Hash;

/// Which of the three things that are said about a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum BallotKind {
    /// First vote.
    Prevote = 0,
    /// Second vote.
    Precommit = 1,
    /// The block of a round.
    Proposal = 2,
}

impl BallotKind {
    /// The kind of a number.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Prevote, Self::Precommit, Self::Proposal].into_iter().find(|k| *k as u8 == code)
    }
}

/// A vote or a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ballot {
    /// Which.
    pub kind: BallotKind,
    /// The block's height.
    pub height: u64,
    /// The attempt.
    pub round: i64,
    /// A proposal's: the attempt in which the block had a majority of prevotes; -1 for none, and for votes.
    pub pol_round: i64,
    /// The block's hash; zero for a vote for none.
    pub value: B256,
    /// Who says it.
    pub validator: Address,
}

impl Ballot {
    /// What is signed: BLAKE3 of `isobitB1`, the chain's id, kind, height, round, the proposal's other round, whether there is a
    /// block, its hash, and who signs. Numbers are little-endian.
    pub fn digest(&self, chain_id: u64) -> B256 {
        let parts: [&[u8]; 9] = [
            b"isobitB1",
            &chain_id.to_le_bytes(),
            &[self.kind as u8],
            &self.height.to_le_bytes(),
            &self.round.to_le_bytes(),
            &self.pol_round.to_le_bytes(),
            &[u8::from(!self.value.is_zero())],
            self.value.as_slice(),
            self.validator.as_slice(),
        ];
        B256::from(Hash::of(&parts.concat()).0)
    }
}

/// A ballot with its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedBallot {
    /// What is said.
    pub ballot: Ballot,
    /// Recoverable secp256k1, r, s, v; s in the lower half.
    pub signature: [u8; 65],
}

impl SignedBallot {
    /// Whether the validator named has signed it. Each ballot has one valid signature's form only.
    pub fn is_valid(&self, chain_id: u64) -> bool {
        is_signed(self.ballot.digest(chain_id), &self.signature, self.ballot.validator)
    }

    /// Whether both are the same validator's word on the same vote, and not the same word.
    pub(crate) fn contradicts(&self, other: &Self, chain_id: u64) -> Result<(), &'static str> {
        let (a, b) = (&self.ballot, &other.ballot);
        if (a.validator, a.kind, a.height, a.round) != (b.validator, b.kind, b.height, b.round) {
            return Err("they are of two validators, kinds, heights or rounds");
        }
        if (a.value, a.pol_round) == (b.value, b.pol_round) {
            return Err("they say the same");
        }
        if !self.is_valid(chain_id) || !other.is_valid(chain_id) {
            return Err("a signature is not the validator's");
        }
        Ok(())
    }
}

/// Whether this is that address' signature of a digest, with s in the lower half.
pub fn is_signed(digest: B256, signature: &[u8; 65], by: Address) -> bool {
    let Ok(signature) = Signature::from_raw(signature) else { return false };
    isobit_proof::recover(digest, &signature) == Some(by)
}
