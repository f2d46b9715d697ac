//! What the votes are about, as Malachite wants it described.

use std::fmt;

use alloy_primitives::{Address, B256};
use arc_malachitebft_core_types as core;
use arc_malachitebft_core_types::{LinearTimeouts, NilOrVal, Round, SignedExtension, VoteType, VotingPower};
use isobit_chain::{ChainError, Head};
use isobit_ledger::{Ballot, BallotKind};
use isobit_proof::Key;
use isobit_tensor::Hash;

use crate::prices::Prices;

/// The protocol of one chain: signatures are for it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocol {
    /// The chain's id.
    pub chain_id: u64,
}

/// A validator's Ethereum address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Addr(pub Address);

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::Address for Addr {}

/// A block's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Height(pub u64);

impl fmt::Display for Height {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::Height for Height {
    const ZERO: Self = Self(0);
    const INITIAL: Self = Self(1);

    fn increment_by(&self, n: u64) -> Self {
        Self(self.0 + n)
    }

    fn decrement_by(&self, n: u64) -> Option<Self> {
        self.0.checked_sub(n).map(Self)
    }

    fn as_u64(&self) -> u64 {
        self.0
    }
}

/// A block's hash: what is agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockId(pub B256);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::Value for BlockId {
    type Id = Self;

    fn id(&self) -> Self {
        *self
    }
}

/// A block travels in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part;

impl core::ProposalPart<Protocol> for Part {
    fn is_first(&self) -> bool {
        true
    }

    fn is_last(&self) -> bool {
        true
    }
}

/// A block proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The block's number.
    pub height: Height,
    /// The attempt.
    pub round: Round,
    /// The block's hash.
    pub value: BlockId,
    /// The attempt in which it had a majority of prevotes, or none.
    pub pol_round: Round,
    /// The proposer.
    pub from: Addr,
}

impl core::Proposal<Protocol> for Proposal {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &BlockId {
        &self.value
    }

    fn take_value(self) -> BlockId {
        self.value
    }

    fn pol_round(&self) -> Round {
        self.pol_round
    }

    fn validator_address(&self) -> &Addr {
        &self.from
    }
}

/// A vote for a block or for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Prevote or precommit.
    pub kind: VoteType,
    /// The block's number.
    pub height: Height,
    /// The attempt.
    pub round: Round,
    /// The block's hash.
    pub value: NilOrVal<BlockId>,
    /// Who votes.
    pub from: Addr,
    /// What is said along with it.
    pub extension: Option<SignedExtension<Protocol>>,
}

impl core::Vote<Protocol> for Vote {
    fn height(&self) -> Height {
        self.height
    }

    fn round(&self) -> Round {
        self.round
    }

    fn value(&self) -> &NilOrVal<BlockId> {
        &self.value
    }

    fn take_value(self) -> NilOrVal<BlockId> {
        self.value
    }

    fn vote_type(&self) -> VoteType {
        self.kind
    }

    fn validator_address(&self) -> &Addr {
        &self.from
    }

    fn extension(&self) -> Option<&SignedExtension<Protocol>> {
        self.extension.as_ref()
    }

    fn take_extension(&mut self) -> Option<SignedExtension<Protocol>> {
        self.extension.take()
    }

    fn extend(self, extension: SignedExtension<Protocol>) -> Self {
        Self { extension: Some(extension), ..self }
    }
}

/// A validator and its weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its address, which is its public key too: signatures are recoverable.
    pub address: Addr,
    /// Its weight.
    pub power: VotingPower,
}

impl core::Validator<Protocol> for Member {
    fn address(&self) -> &Addr {
        &self.address
    }

    fn public_key(&self) -> &Addr {
        &self.address
    }

    fn voting_power(&self) -> VotingPower {
        self.power
    }
}

/// The validators of a height, in ascending order of address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members(Vec<Member>);

impl Members {
    /// Validators with their weights; those without weight are left out. There must be at least one.
    pub fn new(members: impl IntoIterator<Item = (Address, VotingPower)>) -> Self {
        let mut members: Vec<Member> = members
            .into_iter()
            .filter(|m| m.1 > 0)
            .map(|(address, power)| Member { address: Addr(address), power })
            .collect();
        members.sort_by_key(|m| m.address);
        members.dedup_by_key(|m| m.address);
        assert!(!members.is_empty(), "somebody must validate");
        Self(members)
    }

    /// Those who vote on the block after this one.
    pub fn after(head: &Head) -> Result<Self, ChainError> {
        let members = head.validators();
        if members.is_empty() {
            let why = "its genesis has no validators; run it without --p2p, or found one with validators";
            return Err(ChainError::OtherGenesis(why.into()));
        }
        Ok(Self::new(members))
    }
}

impl core::ValidatorSet<Protocol> for Members {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn total_voting_power(&self) -> VotingPower {
        self.0.iter().map(|m| m.power).sum()
    }

    fn get_by_address(&self, address: &Addr) -> Option<&Member> {
        self.0.iter().find(|m| m.address == *address)
    }

    fn get_by_index(&self, index: usize) -> Option<&Member> {
        self.0.get(index)
    }
}

/// Recoverable secp256k1 signatures, as Ethereum's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheme;

/// 65 bytes: r, s, v.
pub(crate) type SignatureBytes = [u8; 65];

impl core::SigningScheme for Scheme {
    type DecodingError = String;
    type Signature = SignatureBytes;
    type PublicKey = Addr;
    type PrivateKey = Key;

    fn decode_signature(bytes: &[u8]) -> Result<SignatureBytes, String> {
        bytes.try_into().map_err(|_| "a signature has 65 bytes".to_owned())
    }

    fn encode_signature(signature: &SignatureBytes) -> Vec<u8> {
        signature.to_vec()
    }

    fn decode_public_key(bytes: &[u8]) -> Result<Addr, String> {
        Address::try_from(bytes).map(Addr).map_err(|_| "an address has 20 bytes".to_owned())
    }

    fn encode_public_key(key: &Addr) -> Vec<u8> {
        key.0.to_vec()
    }
}

impl core::Context for Protocol {
    type Address = Addr;
    type Height = Height;
    type ProposalPart = Part;
    type Proposal = Proposal;
    type Validator = Member;
    type ValidatorSet = Members;
    type Timeouts = LinearTimeouts;
    type Value = BlockId;
    type Vote = Vote;
    type Extension = Prices;
    type SigningScheme = Scheme;

    /// Each with a chance in proportion to its weight, by a hash of height and round.
    fn select_proposer<'a>(&self, members: &'a Members, height: Height, round: Round) -> &'a Member {
        let seed = [b"isobitP1".as_slice(), &height.0.to_le_bytes(), &round.as_i64().to_le_bytes()].concat();
        let hash = Hash::of(&seed);
        let random = u128::from_le_bytes(hash.0[..16].try_into().expect("sixteen bytes"));
        let total: u128 = members.0.iter().map(|m| u128::from(m.power)).sum();
        let mut at = random % total;
        let chosen = members.0.iter().find(|m| {
            let here = at < u128::from(m.power);
            at = at.saturating_sub(m.power.into());
            here
        });
        chosen.expect("the remainder is below the total")
    }

    fn new_proposal(
        &self,
        height: Height,
        round: Round,
        value: BlockId,
        pol_round: Round,
        from: Addr,
    ) -> Proposal {
        Proposal { height, round, value, pol_round, from }
    }

    fn new_prevote(&self, height: Height, round: Round, value: NilOrVal<BlockId>, from: Addr) -> Vote {
        Vote { kind: VoteType::Prevote, height, round, value, from, extension: None }
    }

    fn new_precommit(&self, height: Height, round: Round, value: NilOrVal<BlockId>, from: Addr) -> Vote {
        Vote { kind: VoteType::Precommit, height, round, value, from, extension: None }
    }
}

impl Vote {
    /// What is signed. The extension is signed by itself.
    pub fn ballot(&self) -> Ballot {
        let kind = match self.kind {
            VoteType::Prevote => BallotKind::Prevote,
            VoteType::Precommit => BallotKind::Precommit,
        };
        let value = match self.value {
            NilOrVal::Nil => B256::ZERO,
            NilOrVal::Val(value) => value.0,
        };
        let (height, round) = (self.height.0, self.round.as_i64());
        Ballot { kind, height, round, pol_round: -1, value, validator: self.from.0 }
    }
}

impl Proposal {
    /// What is signed.
    pub fn ballot(&self) -> Ballot {
        let (height, round, pol_round) = (self.height.0, self.round.as_i64(), self.pol_round.as_i64());
        let (value, validator) = (self.value.0, self.from.0);
        Ballot { kind: BallotKind::Proposal, height, round, pol_round, value, validator }
    }
}

/// A block offered in a round: what its proposer signs, so that nobody else can have blocks executed. BLAKE3 of `isobitB2`, the
/// chain's id, height, round, the round of its majority or -1, and its hash; numbers are little-endian.
pub(crate) fn offer_digest(chain_id: u64, height: u64, rounds: [Round; 2], block: B256) -> B256 {
    let [round, valid_round] = rounds.map(|r| r.as_i64().to_le_bytes());
    let parts: [&[u8]; 6] =
        [b"isobitB2", &chain_id.to_le_bytes(), &height.to_le_bytes(), &round, &valid_round, block.as_slice()];
    B256::from(Hash::of(&parts.concat()).0)
}

pub(crate) fn sign(key: &Key, digest: B256) -> SignatureBytes {
    key.sign(digest).as_bytes()
}
