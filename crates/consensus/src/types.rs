//! What the votes are about, as Malachite wants it described.

use std::fmt;

use alloy_primitives::{Address, B256, Signature};
use arc_malachitebft_core_types as core;
use arc_malachitebft_core_types::{LinearTimeouts, NilOrVal, Round, SignedExtension, VoteType, VotingPower};
use isobit_proof::Key;
use isobit_tensor::Hash;

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
    type Extension = ();
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

/// What is signed: BLAKE3 of `isobitB1`, the chain's id, the kind (0 prevote, 1 precommit, 2 proposal), height, round, the round of
/// the majority (a proposal's; -1 otherwise), whether there is a block, its hash, and who signs. Numbers are little-endian.
fn digest(
    chain_id: u64,
    kind: u8,
    height: Height,
    rounds: [Round; 2],
    value: Option<BlockId>,
    from: Addr,
) -> B256 {
    let [round, pol] = rounds.map(|r| r.as_i64().to_le_bytes());
    let parts: [&[u8]; 9] = [
        b"isobitB1",
        &chain_id.to_le_bytes(),
        &[kind],
        &height.0.to_le_bytes(),
        &round,
        &pol,
        &[u8::from(value.is_some())],
        &value.map_or(B256::ZERO, |v| v.0)[..],
        from.0.as_slice(),
    ];
    B256::from(Hash::of(&parts.concat()).0)
}

impl Vote {
    /// What is signed. The extension is signed by itself.
    pub fn digest(&self, chain_id: u64) -> B256 {
        let value = match self.value {
            NilOrVal::Nil => None,
            NilOrVal::Val(value) => Some(value),
        };
        let kind = u8::from(self.kind == VoteType::Precommit);
        digest(chain_id, kind, self.height, [self.round, Round::Nil], value, self.from)
    }
}

impl Proposal {
    /// What is signed.
    pub fn digest(&self, chain_id: u64) -> B256 {
        digest(chain_id, 2, self.height, [self.round, self.pol_round], Some(self.value), self.from)
    }
}

pub(crate) fn sign(key: &Key, digest: B256) -> SignatureBytes {
    key.sign(digest).as_bytes()
}

/// Whether this is the signature of that address; each has one form only (low s).
pub(crate) fn verify(digest: B256, signature: &SignatureBytes, by: Addr) -> bool {
    let Ok(signature) = Signature::from_raw(signature) else { return false };
    signature.normalize_s().is_none()
        && signature.recover_address_from_prehash(&digest).is_ok_and(|signer| signer == by.0)
}
