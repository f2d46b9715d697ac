//! Messages and log entries as bytes: a tag and RLP. Whatever is read has been checked for its form alone, not for signatures.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};
use arc_malachitebft_core_consensus::{Input, LivenessMsg, ProposedValue, SignedConsensusMsg};
use arc_malachitebft_core_types::{
    ExtendedCommitCertificate, ExtendedCommitSignature, NilOrVal, PolkaCertificate, PolkaSignature, Round,
    RoundCertificate, RoundCertificateType, RoundSignature, SignedExtension, SignedMessage, Timeout,
    TimeoutKind, Validity, ValueOrigin, VoteType,
};
use isobit_chain::{Block, MAX_PAIRS, PairPrice};

use crate::prices::Prices;
use crate::types::{Addr, BlockId, Height, Proposal, Protocol, SignatureBytes, Vote};
use crate::validator::{Message, Offer};

/// Longest message, in bytes: a block and what travels with it.
pub const MAX_MESSAGE: usize = 17 << 20;

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a consensus message: {0}")]
pub struct WireError(&'static str);

const MALFORMED: WireError = WireError("it is malformed");
const MISPLACED: WireError = WireError("it says prices where none belong");

#[derive(RlpEncodable, RlpDecodable)]
struct PriceRlp {
    pair: String,
    price: u128,
}

#[derive(RlpEncodable, RlpDecodable)]
struct SignedPricesRlp {
    minute: u64,
    prices: Vec<PriceRlp>,
    signature: Bytes,
}

#[derive(RlpEncodable, RlpDecodable)]
#[rlp(trailing(canonical))]
struct SignedVoteRlp {
    kind: u8,
    height: u64,
    round: u64,
    value: B256,
    from: Address,
    signature: Bytes,
    said: Option<SignedPricesRlp>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct SignedProposalRlp {
    height: u64,
    round: u64,
    pol_round: u64,
    value: B256,
    from: Address,
    signature: Bytes,
}

#[derive(RlpEncodable, RlpDecodable)]
#[rlp(trailing(canonical))]
struct SignerRlp {
    from: Address,
    signature: Bytes,
    said: Option<SignedPricesRlp>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct CertificateRlp {
    height: u64,
    round: u64,
    value: B256,
    signers: Vec<SignerRlp>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct RoundCertificateRlp {
    height: u64,
    round: u64,
    is_skip: bool,
    votes: Vec<SignedVoteRlp>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct OfferRlp {
    round: u64,
    valid_round: u64,
    proposer: Address,
    signature: Bytes,
    block: Bytes,
}

#[derive(RlpEncodable, RlpDecodable)]
struct DecidedRlp {
    certificate: CertificateRlp,
    block: Bytes,
}

#[derive(RlpEncodable, RlpDecodable)]
struct ProposedRlp {
    height: u64,
    round: u64,
    valid_round: u64,
    proposer: Address,
    value: B256,
    is_valid: bool,
    is_synced: bool,
}

#[derive(RlpEncodable, RlpDecodable)]
struct TimeoutRlp {
    kind: u8,
    round: u64,
}

/// Kinds of messages and log entries.
mod tag {
    pub(super) const VOTE: u8 = 0;
    pub(super) const PROPOSAL: u8 = 1;
    pub(super) const REPEATED_VOTE: u8 = 2;
    pub(super) const POLKA: u8 = 3;
    pub(super) const ROUND: u8 = 4;
    pub(super) const OFFER: u8 = 5;
    pub(super) const DECIDED: u8 = 6;
    pub(super) const PROPOSED: u8 = 7;
    pub(super) const TIMEOUT: u8 = 8;
    pub(super) const TRANSACTIONS: u8 = 9;
    pub(super) const STATUS: u8 = 10;
}

fn from_round(round: Round) -> u64 {
    round.as_u32().map_or(0, |r| u64::from(r) + 1)
}

fn to_round(round: u64) -> Result<Round, WireError> {
    let round = round.checked_sub(1).map(u32::try_from).transpose().map_err(|_| MALFORMED)?;
    Ok(Round::from(round))
}

fn to_signature(bytes: &[u8]) -> Result<SignatureBytes, WireError> {
    bytes.try_into().map_err(|_| WireError("a signature has 65 bytes"))
}

/// No hash is zero, so zero is no block.
fn from_value(value: &NilOrVal<BlockId>) -> B256 {
    match value {
        NilOrVal::Nil => B256::ZERO,
        NilOrVal::Val(value) => value.0,
    }
}

fn to_value(value: B256) -> NilOrVal<BlockId> {
    if value.is_zero() { NilOrVal::Nil } else { NilOrVal::Val(BlockId(value)) }
}

fn from_kind(kind: VoteType) -> u8 {
    u8::from(kind == VoteType::Precommit)
}

fn to_kind(kind: u8) -> Result<VoteType, WireError> {
    match kind {
        0 => Ok(VoteType::Prevote),
        1 => Ok(VoteType::Precommit),
        _ => Err(WireError("a vote is a prevote or a precommit")),
    }
}

fn from_said(said: Option<&SignedExtension<Protocol>>) -> Option<SignedPricesRlp> {
    let said = said?;
    let one = |p: &PairPrice| PriceRlp { pair: p.pair.clone(), price: p.price };
    Some(SignedPricesRlp {
        minute: said.message.minute,
        prices: said.message.prices.iter().map(one).collect(),
        signature: Bytes::copy_from_slice(&said.signature),
    })
}

fn to_said(said: Option<SignedPricesRlp>) -> Result<Option<SignedExtension<Protocol>>, WireError> {
    let Some(said) = said else { return Ok(None) };
    if said.prices.len() > MAX_PAIRS {
        return Err(WireError("it has too many prices"));
    }
    let prices = said.prices.into_iter().map(|p| PairPrice { pair: p.pair, price: p.price }).collect();
    let prices = Prices { minute: said.minute, prices };
    Ok(Some(SignedMessage::new(prices, to_signature(&said.signature)?)))
}

fn from_vote(vote: &SignedMessage<Protocol, Vote>) -> SignedVoteRlp {
    let message = &vote.message;
    SignedVoteRlp {
        kind: from_kind(message.kind),
        height: message.height.0,
        round: from_round(message.round),
        value: from_value(&message.value),
        from: message.from.0,
        signature: Bytes::copy_from_slice(&vote.signature),
        said: from_said(message.extension.as_ref()),
    }
}

fn to_vote(vote: SignedVoteRlp) -> Result<SignedMessage<Protocol, Vote>, WireError> {
    let message = Vote {
        kind: to_kind(vote.kind)?,
        height: Height(vote.height),
        round: to_round(vote.round)?,
        value: to_value(vote.value),
        from: Addr(vote.from),
        extension: to_said(vote.said)?,
    };
    Ok(SignedMessage::new(message, to_signature(&vote.signature)?))
}

fn from_proposal(proposal: &SignedMessage<Protocol, Proposal>) -> SignedProposalRlp {
    let message = &proposal.message;
    SignedProposalRlp {
        height: message.height.0,
        round: from_round(message.round),
        pol_round: from_round(message.pol_round),
        value: message.value.0,
        from: message.from.0,
        signature: Bytes::copy_from_slice(&proposal.signature),
    }
}

fn to_proposal(proposal: SignedProposalRlp) -> Result<SignedMessage<Protocol, Proposal>, WireError> {
    let message = Proposal {
        height: Height(proposal.height),
        round: to_round(proposal.round)?,
        value: BlockId(proposal.value),
        pol_round: to_round(proposal.pol_round)?,
        from: Addr(proposal.from),
    };
    Ok(SignedMessage::new(message, to_signature(&proposal.signature)?))
}

fn signer(from: Addr, signature: &SignatureBytes) -> SignerRlp {
    SignerRlp { from: from.0, signature: Bytes::copy_from_slice(signature), said: None }
}

fn to_signers<T>(
    signers: &[SignerRlp],
    one: impl Fn(Addr, SignatureBytes) -> T,
) -> Result<Vec<T>, WireError> {
    let one = |s: &SignerRlp| match s.said {
        None => Ok(one(Addr(s.from), to_signature(&s.signature)?)),
        Some(_) => Err(MISPLACED),
    };
    signers.iter().map(one).collect()
}

fn certificate(
    height: Height,
    round: Round,
    value: BlockId,
    signers: impl Iterator<Item = SignerRlp>,
) -> CertificateRlp {
    CertificateRlp { height: height.0, round: from_round(round), value: value.0, signers: signers.collect() }
}

fn from_polka(c: &PolkaCertificate<Protocol>) -> CertificateRlp {
    let signers = c.polka_signatures.iter().map(|s| signer(s.address, &s.signature));
    certificate(c.height, c.round, c.value_id, signers)
}

fn to_polka(c: CertificateRlp) -> Result<PolkaCertificate<Protocol>, WireError> {
    Ok(PolkaCertificate {
        height: Height(c.height),
        round: to_round(c.round)?,
        value_id: BlockId(c.value),
        polka_signatures: to_signers(&c.signers, PolkaSignature::new)?,
    })
}

fn from_commit(c: &ExtendedCommitCertificate<Protocol>) -> CertificateRlp {
    let signers = c
        .commit_signatures
        .iter()
        .map(|s| SignerRlp { said: from_said(s.extension.as_ref()), ..signer(s.address, &s.signature) });
    certificate(c.height, c.round, c.value_id, signers)
}

fn to_commit(c: CertificateRlp) -> Result<ExtendedCommitCertificate<Protocol>, WireError> {
    let one = |s: SignerRlp| {
        let signature = to_signature(&s.signature)?;
        Ok(ExtendedCommitSignature::new(Addr(s.from), signature, to_said(s.said)?))
    };
    Ok(ExtendedCommitCertificate {
        height: Height(c.height),
        round: to_round(c.round)?,
        value_id: BlockId(c.value),
        commit_signatures: c.signers.into_iter().map(one).collect::<Result<_, _>>()?,
    })
}

fn from_round_certificate(c: &RoundCertificate<Protocol>) -> RoundCertificateRlp {
    let votes = c.round_signatures.iter().map(|s| SignedVoteRlp {
        kind: from_kind(s.vote_type),
        height: c.height.0,
        round: from_round(c.round),
        value: from_value(&s.value_id),
        from: s.address.0,
        signature: Bytes::copy_from_slice(&s.signature),
        said: None,
    });
    RoundCertificateRlp {
        height: c.height.0,
        round: from_round(c.round),
        is_skip: c.cert_type == RoundCertificateType::Skip,
        votes: votes.collect(),
    }
}

fn to_round_certificate(c: RoundCertificateRlp) -> Result<RoundCertificate<Protocol>, WireError> {
    let one = |s: &SignedVoteRlp| {
        if (s.height, s.round) != (c.height, c.round) {
            return Err(WireError("a vote of a certificate is of another height or round"));
        }
        if s.said.is_some() {
            return Err(MISPLACED);
        }
        let signature = to_signature(&s.signature)?;
        Ok(RoundSignature::new(to_kind(s.kind)?, to_value(s.value), Addr(s.from), signature))
    };
    Ok(RoundCertificate {
        height: Height(c.height),
        round: to_round(c.round)?,
        cert_type: if c.is_skip { RoundCertificateType::Skip } else { RoundCertificateType::Precommit },
        round_signatures: c.votes.iter().map(one).collect::<Result<_, _>>()?,
    })
}

/// A certificate of a decided block, as it is kept.
pub(crate) fn encode_certificate(c: &ExtendedCommitCertificate<Protocol>) -> Vec<u8> {
    alloy_rlp::encode(from_commit(c))
}

/// Reads what [`encode_certificate`] writes.
pub(crate) fn decode_certificate(bytes: &[u8]) -> Result<ExtendedCommitCertificate<Protocol>, WireError> {
    to_commit(rlp(bytes)?)
}

fn tagged(tag: u8, body: &impl Encodable) -> Vec<u8> {
    let mut bytes = vec![tag];
    body.encode(&mut bytes);
    bytes
}

fn rlp<T: Decodable>(mut bytes: &[u8]) -> Result<T, WireError> {
    let value = T::decode(&mut bytes).map_err(|_| MALFORMED)?;
    if bytes.is_empty() { Ok(value) } else { Err(WireError("there are bytes after it")) }
}

fn to_block(bytes: &[u8]) -> Result<Arc<Block>, WireError> {
    Block::decode(bytes).map(Arc::new).map_err(|_| WireError("its block is malformed"))
}

impl Message {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Consensus(SignedConsensusMsg::Vote(vote)) => tagged(tag::VOTE, &from_vote(vote)),
            Self::Consensus(SignedConsensusMsg::Proposal(p)) => tagged(tag::PROPOSAL, &from_proposal(p)),
            Self::Liveness(LivenessMsg::Vote(vote)) => tagged(tag::REPEATED_VOTE, &from_vote(vote)),
            Self::Liveness(LivenessMsg::PolkaCertificate(c)) => tagged(tag::POLKA, &from_polka(c)),
            Self::Liveness(LivenessMsg::SkipRoundCertificate(c)) => {
                tagged(tag::ROUND, &from_round_certificate(c))
            }
            Self::Offer(offer) => {
                let body = OfferRlp {
                    round: from_round(offer.round),
                    valid_round: from_round(offer.valid_round),
                    proposer: offer.proposer.0,
                    signature: Bytes::copy_from_slice(&offer.signature),
                    block: offer.block.encode().into(),
                };
                tagged(tag::OFFER, &body)
            }
            Self::Decided { block, certificate } => {
                let body = DecidedRlp { certificate: from_commit(certificate), block: block.encode().into() };
                tagged(tag::DECIDED, &body)
            }
        }
    }

    /// Reads what [`Message::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (&tag, body) = bytes.split_first().ok_or(MALFORMED)?;
        if bytes.len() > MAX_MESSAGE {
            return Err(WireError("it is too long"));
        }
        Ok(match tag {
            tag::VOTE => Self::Consensus(SignedConsensusMsg::Vote(to_vote(rlp(body)?)?)),
            tag::PROPOSAL => Self::Consensus(SignedConsensusMsg::Proposal(to_proposal(rlp(body)?)?)),
            tag::REPEATED_VOTE => Self::Liveness(LivenessMsg::Vote(to_vote(rlp(body)?)?)),
            tag::POLKA => Self::Liveness(LivenessMsg::PolkaCertificate(to_polka(rlp(body)?)?)),
            tag::ROUND => {
                Self::Liveness(LivenessMsg::SkipRoundCertificate(to_round_certificate(rlp(body)?)?))
            }
            tag::OFFER => {
                let offer: OfferRlp = rlp(body)?;
                Self::Offer(Offer {
                    round: to_round(offer.round)?,
                    valid_round: to_round(offer.valid_round)?,
                    proposer: Addr(offer.proposer),
                    signature: to_signature(&offer.signature)?,
                    block: to_block(&offer.block)?,
                })
            }
            tag::DECIDED => {
                let decided: DecidedRlp = rlp(body)?;
                Self::Decided {
                    certificate: to_commit(decided.certificate)?,
                    block: to_block(&decided.block)?,
                }
            }
            _ => return Err(WireError("there is no such kind")),
        })
    }
}

/// An entry of the write-ahead log; `None` for what needs no entry.
pub(crate) fn encode_entry(input: &Input<Protocol>) -> Option<Vec<u8>> {
    Some(match input {
        Input::Vote(vote) => tagged(tag::VOTE, &from_vote(vote)),
        Input::Proposal(proposal) => tagged(tag::PROPOSAL, &from_proposal(proposal)),
        Input::PolkaCertificate(c) => tagged(tag::POLKA, &from_polka(c)),
        Input::RoundCertificate(c) => tagged(tag::ROUND, &from_round_certificate(c)),
        Input::ProposedValue(v, origin) => {
            let body = ProposedRlp {
                height: v.height.0,
                round: from_round(v.round),
                valid_round: from_round(v.valid_round),
                proposer: v.proposer.0,
                value: v.value.0,
                is_valid: v.validity.is_valid(),
                is_synced: origin.is_sync(),
            };
            tagged(tag::PROPOSED, &body)
        }
        Input::TimeoutElapsed(timeout) => {
            let kind = match timeout.kind {
                TimeoutKind::Propose => 0,
                TimeoutKind::Prevote => 1,
                TimeoutKind::Precommit => 2,
                TimeoutKind::Rebroadcast => 3,
                TimeoutKind::FinalizeHeight(_) => return None,
            };
            tagged(tag::TIMEOUT, &TimeoutRlp { kind, round: from_round(timeout.round) })
        }
        Input::StartHeight(..) | Input::Propose(_) | Input::SyncValueResponse(_) => return None,
    })
}

/// Reads what [`encode_entry`] writes.
pub(crate) fn decode_entry(bytes: &[u8]) -> Result<Input<Protocol>, WireError> {
    let (&tag, body) = bytes.split_first().ok_or(MALFORMED)?;
    Ok(match tag {
        tag::VOTE => Input::Vote(to_vote(rlp(body)?)?),
        tag::PROPOSAL => Input::Proposal(to_proposal(rlp(body)?)?),
        tag::POLKA => Input::PolkaCertificate(to_polka(rlp(body)?)?),
        tag::ROUND => Input::RoundCertificate(to_round_certificate(rlp(body)?)?),
        tag::PROPOSED => {
            let v: ProposedRlp = rlp(body)?;
            let origin = if v.is_synced { ValueOrigin::Sync } else { ValueOrigin::Consensus };
            let value = ProposedValue {
                height: Height(v.height),
                round: to_round(v.round)?,
                valid_round: to_round(v.valid_round)?,
                proposer: Addr(v.proposer),
                value: BlockId(v.value),
                validity: Validity::from_bool(v.is_valid),
            };
            Input::ProposedValue(value, origin)
        }
        tag::TIMEOUT => {
            let timeout: TimeoutRlp = rlp(body)?;
            let kind = match timeout.kind {
                0 => TimeoutKind::Propose,
                1 => TimeoutKind::Prevote,
                2 => TimeoutKind::Precommit,
                3 => TimeoutKind::Rebroadcast,
                _ => return Err(WireError("there is no such timeout")),
            };
            Input::TimeoutElapsed(Timeout::new(to_round(timeout.round)?, kind))
        }
        _ => return Err(WireError("there is no such kind")),
    })
}

/// Encoded blocks, as they answer who is behind.
#[cfg(feature = "network")]
pub(crate) fn encode_list(items: &[Bytes]) -> Vec<u8> {
    let mut bytes = Vec::new();
    alloy_rlp::encode_list::<Bytes, Bytes>(items, &mut bytes);
    bytes
}

/// Reads what [`encode_list`] writes.
#[cfg(feature = "network")]
pub(crate) fn decode_list(bytes: &[u8]) -> Result<Vec<Bytes>, WireError> {
    rlp(bytes)
}

/// The height from which on blocks are asked for.
#[cfg(feature = "network")]
pub(crate) fn encode_number(number: u64) -> Vec<u8> {
    alloy_rlp::encode(number)
}

/// Reads what [`encode_number`] writes.
#[cfg(feature = "network")]
pub(crate) fn decode_number(bytes: &[u8]) -> Result<u64, WireError> {
    rlp(bytes)
}

/// What is told to everybody.
#[derive(Debug, Clone)]
pub enum Gossip {
    /// A validator's word.
    Consensus(Box<Message>),
    /// Transactions that wait (EIP-2718).
    Transactions(Vec<Bytes>),
    /// The number of the sender's last block.
    Status(u64),
}

impl Gossip {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Consensus(message) => message.encode(),
            Self::Transactions(all) => tagged(tag::TRANSACTIONS, all),
            Self::Status(head) => tagged(tag::STATUS, head),
        }
    }

    /// Reads what [`Gossip::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (&tag, body) = bytes.split_first().ok_or(MALFORMED)?;
        Ok(match tag {
            tag::TRANSACTIONS if bytes.len() <= MAX_MESSAGE => Self::Transactions(rlp(body)?),
            tag::STATUS => Self::Status(rlp(body)?),
            _ => Self::Consensus(Message::decode(bytes)?.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> SignedPricesRlp {
        let price = PriceRlp { pair: "ETH/USD".into(), price: 7 };
        SignedPricesRlp { minute: 5, prices: vec![price], signature: vec![1; 65].into() }
    }

    fn certificate(said: Option<SignedPricesRlp>) -> CertificateRlp {
        let (from, signature) = (Address::repeat_byte(2), vec![3; 65].into());
        CertificateRlp {
            height: 4,
            round: 1,
            value: B256::repeat_byte(5),
            signers: vec![SignerRlp { from, signature, said }],
        }
    }

    /// A vote as bytes, with these bytes after its signature.
    fn vote(after: &[u8]) -> Vec<u8> {
        let (from, signature, value) =
            (Address::repeat_byte(2), Bytes::from(vec![3; 65]), B256::repeat_byte(5));
        let mut body = Vec::new();
        for field in [1u64, 4, 1] {
            field.encode(&mut body);
        }
        value.encode(&mut body);
        from.encode(&mut body);
        signature.encode(&mut body);
        body.extend(after);
        let mut bytes = vec![tag::VOTE];
        alloy_rlp::Header { list: true, payload_length: body.len() }.encode(&mut bytes);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn what_is_read_is_written_back_the_same() {
        for after in [Vec::new(), alloy_rlp::encode(said())] {
            let bytes = vote(&after);
            assert_eq!(Message::decode(&bytes).unwrap().encode(), bytes);
        }
        // Nothing, said in another way.
        assert!(Message::decode(&vote(&[0x80])).is_err());
        let kept = encode_certificate(&to_commit(certificate(Some(said()))).unwrap());
        assert_eq!(kept, alloy_rlp::encode(certificate(Some(said()))));
    }

    #[test]
    fn no_other_certificate_has_prices() {
        assert!(Message::decode(&tagged(tag::POLKA, &certificate(None))).is_ok());
        assert_eq!(Message::decode(&tagged(tag::POLKA, &certificate(Some(said())))).unwrap_err(), MISPLACED);
        let round = |said| {
            let (from, signature, value) =
                (Address::repeat_byte(2), vec![3; 65].into(), B256::repeat_byte(5));
            let vote = SignedVoteRlp { kind: 1, height: 4, round: 1, value, from, signature, said };
            tagged(
                tag::ROUND,
                &RoundCertificateRlp { height: 4, round: 1, is_skip: false, votes: vec![vote] },
            )
        };
        assert!(Message::decode(&round(None)).is_ok());
        assert_eq!(Message::decode(&round(Some(said()))).unwrap_err(), MISPLACED);
    }
}
