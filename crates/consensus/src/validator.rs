//! One validator: the core's effects carried out on a chain, a write-ahead log and a store of blocks. Messages and timers are for
//! its owner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use alloy_primitives::B256;
use arc_malachitebft_core_consensus::{
    ConsensusMsg, Effect, Error, Input, LivenessMsg, LocallyProposedValue, Params, PeerId, ProposedValue,
    Resumable, Resume, SignedConsensusMsg, State, ThresholdParams, VoteExtensionError, process,
};
use arc_malachitebft_core_types::{
    CertificateError, CommitCertificate, CommitSignature, Context, ExtendedCommitCertificate, NilOrVal,
    PolkaSignature, Round, SignedMessage, ThresholdParam, Timeout, ValidatorSet, Validity, ValueOrigin,
    ValuePayload, ValueResponse, VoteExtensionPolicy, VoteExtensions, VoteType,
};
use isobit_chain::{Block, Built, Chain, ChainError, Minute, PairPrice};
use isobit_ledger::{SignedBallot, is_signed};
use isobit_proof::Key;

use crate::book::Book;
use crate::disk::Disk;
use crate::prices::{self, Prices, Report};
use crate::types::{Addr, BlockId, Height, Members, Protocol, SignatureBytes, Vote, offer_digest, sign};

/// How many inputs of later heights are kept, and how many of one height.
const QUEUE: (usize, usize) = (10, 1_000);

/// Rounds ahead of the present one whose blocks are executed.
const ROUNDS_AHEAD: i64 = 2;
/// Most blocks of one round that are executed, so that who proposes in it keeps nobody from looking at other rounds' blocks.
const OFFERS_A_ROUND: usize = 4;
/// How far a block's time may be ahead of the validator's clock, in seconds.
const MAX_DRIFT: u64 = 15;

/// A block proposed in a round, signed by who proposes it there.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The round.
    pub round: Round,
    /// The round of its majority of prevotes, or none.
    pub valid_round: Round,
    /// Who proposes it.
    pub proposer: Addr,
    /// Its signature.
    pub signature: SignatureBytes,
    /// The block.
    pub block: Arc<Block>,
}

impl Offer {
    /// Signs it.
    pub fn sign(&mut self, key: &Key, chain_id: u64) {
        self.signature = sign(key, self.digest(chain_id));
    }

    fn digest(&self, chain_id: u64) -> B256 {
        let height = self.block.header.number;
        offer_digest(chain_id, height, [self.round, self.valid_round], self.block.hash)
    }
}

/// What validators send each other.
#[derive(Debug, Clone)]
pub enum Message {
    /// A vote or a proposal.
    Consensus(SignedConsensusMsg<Protocol>),
    /// What helps those who are behind in a height.
    Liveness(LivenessMsg<Protocol>),
    /// A proposed block itself.
    Offer(Offer),
    /// A decided block with the votes that decided it, for those who are behind.
    Decided {
        /// The block.
        block: Arc<Block>,
        /// The votes.
        certificate: ExtendedCommitCertificate<Protocol>,
    },
}

impl Message {
    /// The height that it is about.
    pub fn height(&self) -> u64 {
        match self {
            Self::Consensus(SignedConsensusMsg::Vote(vote)) | Self::Liveness(LivenessMsg::Vote(vote)) => {
                vote.message.height.0
            }
            Self::Consensus(SignedConsensusMsg::Proposal(proposal)) => proposal.message.height.0,
            Self::Liveness(LivenessMsg::PolkaCertificate(c)) => c.height.0,
            Self::Liveness(LivenessMsg::SkipRoundCertificate(c)) => c.height.0,
            Self::Offer(offer) => offer.block.header.number,
            Self::Decided { certificate, .. } => certificate.height.0,
        }
    }
}

/// What a validator asks its owner to do.
#[derive(Debug)]
pub enum Timer {
    /// Tell it when this time is over.
    Set(Timeout),
    /// Do not.
    Cancel(Timeout),
    /// None of all.
    CancelAll,
}

/// Where a validator's wishes go, and where its durable writes may be cut off.
pub trait Effects {
    /// Sends to all others.
    fn broadcast(&mut self, message: Message);
    /// Sets or cancels a timer.
    fn timer(&mut self, timer: Timer);
    /// Asked before each effect: whether the process still lives. If not, none of the rest of what it would do happens.
    fn lives(&mut self) -> bool;
    /// Seconds since 1970.
    fn now(&self) -> u64;
    /// Two contradicting ballots of a validator were seen.
    fn evidence(&mut self, first: SignedBallot, second: SignedBallot);
    /// Whether to work on the next height at once. If not, [`Validator::proceed`] does, or a message about it.
    fn goes_on(&mut self, height: u64) -> bool;
    /// What is known of prices now.
    fn prices(&mut self) -> Vec<PairPrice>;
    /// The validators agree on prices, and it is this one's turn to bring them to the chain.
    fn report(&mut self, report: Report);
}

/// A block of the present height, and what executing it came to.
struct Known {
    block: Arc<Block>,
    built: Option<Built>,
}

/// One validator.
pub struct Validator {
    protocol: Protocol,
    key: Key,
    chain: Arc<Chain>,
    disk: Disk,
    state: State<Protocol>,
    blocks: BTreeMap<BlockId, Known>,
    offered: Offered,
    book: Book,
    inputs: VecDeque<Input<Protocol>>,
    /// The last height is over, and the next one has not begun.
    rests: bool,
}

/// The blocks that were executed because they were offered at a height, by round.
#[derive(Debug, Default)]
struct Offered {
    height: u64,
    rounds: BTreeMap<i64, BTreeSet<BlockId>>,
}

impl Offered {
    /// Whether a block that is not known to be valid is to be executed; `None` where it was, and is not valid.
    fn admit(&mut self, height: u64, round: i64, block: BlockId) -> Option<bool> {
        if self.height != height {
            *self = Self { height, rounds: BTreeMap::new() };
        }
        let seen = self.rounds.entry(round).or_default();
        if seen.contains(&block) {
            return None;
        }
        Some(seen.len() < OFFERS_A_ROUND && seen.insert(block))
    }
}

impl std::fmt::Debug for Validator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Validator {} at {}", self.key.address(), self.state.height())
    }
}

/// Whose answer it was does not matter here: certificates are checked, whoever sends them.
fn nobody() -> PeerId {
    PeerId::from_bytes(&[0, 0]).expect("an empty identity")
}

fn new_state(protocol: Protocol, key: &Key, members: &Members, height: u64) -> State<Protocol> {
    let params = Params {
        address: Addr(key.address()),
        threshold_params: ThresholdParams::default(),
        value_payload: ValuePayload::ProposalAndParts,
        enabled: true,
    };
    State::new(protocol, Height(height), members.clone(), params, QUEUE.0, QUEUE.1)
}

impl Validator {
    /// A validator of a chain, which begins with [`Validator::start`]. If the key is of no validator it follows the others.
    pub fn new(key: Key, chain: Arc<Chain>, disk: Disk) -> Result<Self, ChainError> {
        let protocol = Protocol { chain_id: chain.genesis().params.chain_id };
        let head = chain.head();
        let state = new_state(protocol, &key, &Members::after(&head)?, head.header.number + 1);
        Ok(Self {
            protocol,
            key,
            chain,
            disk,
            state,
            blocks: BTreeMap::new(),
            offered: Offered::default(),
            book: Book::default(),
            inputs: VecDeque::new(),
            rests: false,
        })
    }

    /// Its address.
    pub fn address(&self) -> Addr {
        Addr(self.key.address())
    }

    /// Its chain.
    pub fn chain(&self) -> &Arc<Chain> {
        &self.chain
    }

    /// The height that it works on, or would.
    pub fn height(&self) -> u64 {
        self.chain.head().header.number + 1
    }

    /// A decided block with its votes, to send to who is behind.
    pub fn decided(&self, height: u64) -> Result<Option<Message>, ChainError> {
        let Some(certificate) = self.disk.certificate(height)? else { return Ok(None) };
        let block = self.chain.store().block(height)?;
        let block = block.filter(|b| BlockId(b.hash) == certificate.value_id).map(Arc::new);
        Ok(block.map(|block| Message::Decided { block, certificate }))
    }

    /// Begins, or begins again after a crash: what is not on disk is forgotten, and the log is played again.
    pub fn start(&mut self, effects: &mut dyn Effects) -> Result<(), ChainError> {
        self.disk.reopen()?;
        self.inputs.clear();
        self.book = Book::default();
        self.finish_decided()?;
        let head = self.chain.head();
        let height = head.header.number + 1;
        self.disk.forget(height - 1)?;
        let members = Members::after(&head)?;
        self.state = new_state(self.protocol, &self.key, &members, height);
        let blocks = self.disk.blocks(height)?;
        self.blocks =
            blocks.into_iter().map(|b| (BlockId(b.hash), Known { block: b, built: None })).collect();
        let log = self.disk.replay(height)?;
        self.state.index_wal_entries(&log);
        self.rests = false;
        self.inputs.push_back(start_height(height, members, !log.is_empty()));
        self.run(effects)?;
        // What was said along with a vote is said again.
        self.state.record_recovered_own_precommit_extensions(&log);
        for input in log {
            self.inputs.push_back(input);
            self.run(effects)?;
        }
        self.state.reset_entries_index();
        self.disk.end_replay();
        self.run(effects)
    }

    /// A block that was decided, and not put on the chain before the crash.
    fn finish_decided(&self) -> Result<(), ChainError> {
        let head = self.chain.head();
        let height = head.header.number + 1;
        let Some(certificate) = self.disk.certificate(height)? else { return Ok(()) };
        let block = self.disk.blocks(height)?.into_iter().find(|b| BlockId(b.hash) == certificate.value_id);
        let block = block.ok_or(ChainError::Corrupt("a decided block is missing"))?;
        self.chain.commit(&head.execute(&block)?)
    }

    /// Begins with the next height, if it has not.
    pub fn proceed(&mut self, effects: &mut dyn Effects) -> Result<(), ChainError> {
        self.begin_next()?;
        self.run(effects)
    }

    /// Whether the next height waits for [`Validator::proceed`].
    pub fn rests(&self) -> bool {
        self.rests
    }

    fn begin_next(&mut self) -> Result<(), ChainError> {
        if std::mem::take(&mut self.rests) {
            let head = self.chain.head();
            self.inputs.push_back(start_height(head.header.number + 1, Members::after(&head)?, false));
        }
        Ok(())
    }

    /// A message from another validator.
    pub fn receive(&mut self, message: Message, effects: &mut dyn Effects) -> Result<(), ChainError> {
        if self.rests && message.height() == self.height() && self.is_members_word(&message)? {
            self.begin_next()?;
        }
        self.see_late(&message, effects);
        match message {
            Message::Consensus(SignedConsensusMsg::Vote(vote)) => self.inputs.push_back(Input::Vote(vote)),
            Message::Consensus(SignedConsensusMsg::Proposal(p)) => self.inputs.push_back(Input::Proposal(p)),
            Message::Liveness(LivenessMsg::Vote(vote)) => self.inputs.push_back(Input::Vote(vote)),
            Message::Liveness(LivenessMsg::PolkaCertificate(c)) => {
                self.inputs.push_back(Input::PolkaCertificate(c));
            }
            Message::Liveness(LivenessMsg::SkipRoundCertificate(c)) => {
                self.inputs.push_back(Input::RoundCertificate(c));
            }
            Message::Offer(offer) => {
                self.run(effects)?; // the height's beginning, so that its round is known
                self.consider(offer, effects.now());
            }
            Message::Decided { block, certificate } => {
                if certificate.height.0 == self.height() {
                    let bytes = block.encode().into();
                    let response = ValueResponse::new(nobody(), bytes, certificate);
                    self.inputs.push_back(Input::SyncValueResponse(response));
                }
            }
        }
        self.run(effects)
    }

    /// What is said of a height that is decided is of no use to the core, and may contradict what was said in time.
    fn see_late(&mut self, message: &Message, effects: &mut dyn Effects) {
        let decided = self.height() - 1;
        let Some(signed) = ballot_of(message).filter(|s| s.ballot.height <= decided) else { return };
        let b = &signed.ballot;
        let is_good = Book::covers(b.height, b.round, decided) && signed.is_valid(self.protocol.chain_id);
        let votes = is_good
            && b.validator != self.key.address()
            && self.chain.head().node(b.validator).is_some_and(|n| n.validates);
        if let Some(first) = votes.then(|| self.book.see(signed, decided)).flatten() {
            effects.evidence(first, signed);
        }
    }

    /// Whether a message is reason enough to begin with a height: a member's, or votes that decided it. Otherwise anybody could
    /// have blocks made of nothing.
    fn is_members_word(&self, message: &Message) -> Result<bool, ChainError> {
        let chain_id = self.protocol.chain_id;
        let (by, is_signed) = match (ballot_of(message), message) {
            (Some(signed), _) => (Addr(signed.ballot.validator), signed.is_valid(chain_id)),
            (None, Message::Offer(offer)) => {
                let digest = offer.digest(chain_id);
                (offer.proposer, is_signed(digest, &offer.signature, offer.proposer.0))
            }
            (None, Message::Decided { .. }) => return Ok(true),
            (None, _) => return Ok(false),
        };
        Ok(is_signed && Members::after(&self.chain.head())?.get_by_address(&by).is_some())
    }

    /// A timer that it had set.
    pub fn elapsed(&mut self, timeout: Timeout, effects: &mut dyn Effects) -> Result<(), ChainError> {
        self.inputs.push_back(Input::TimeoutElapsed(timeout));
        self.run(effects)
    }

    /// Executes an offered block, if it is one that can be voted on now, and of who may offer it. It is valid if executing it
    /// gives what it says. Who is behind does not look at it, and asks for decided blocks.
    fn consider(&mut self, offer: Offer, now: u64) {
        let (height, rounds) = (offer.block.header.number, [offer.round, offer.valid_round]);
        let [round, valid_round] = rounds.map(|r| r.as_i64());
        let is_due = height == self.height()
            && (0..=self.state.round().as_i64().max(0) + ROUNDS_AHEAD).contains(&round)
            && valid_round < round;
        if !is_due {
            return;
        }
        let Ok(members) = Members::after(&self.chain.head()) else { return };
        let proposer = self.protocol.select_proposer(&members, Height(height), offer.round).address;
        let digest = offer.digest(self.protocol.chain_id);
        if proposer != offer.proposer || !is_signed(digest, &offer.signature, proposer.0) {
            return;
        }
        let value = BlockId(offer.block.hash);
        let executed = || match self.chain.head().execute(&offer.block) {
            Ok(built) => Some(built),
            Err(e) => {
                tracing::warn!("{} offers a block that is not valid: {e}", offer.proposer);
                None
            }
        };
        let built = match self.blocks.get_mut(&value) {
            Some(known) => known.built.take().or_else(executed),
            None if offer.block.header.timestamp > now + MAX_DRIFT => None,
            None => match self.offered.admit(height, round, value) {
                Some(true) => executed(),
                Some(false) => return,
                None => None,
            },
        };
        let validity = Validity::from_bool(built.is_some());
        if built.is_some() {
            self.disk.keep(offer.block.clone());
            self.blocks.insert(value, Known { block: offer.block, built });
        }
        let height = Height(height);
        let (round, valid_round, proposer) = (offer.round, offer.valid_round, offer.proposer);
        let value = ProposedValue { height, round, valid_round, proposer, value, validity };
        self.inputs.push_back(Input::ProposedValue(value, ValueOrigin::Consensus));
    }

    fn run(&mut self, effects: &mut dyn Effects) -> Result<(), ChainError> {
        let mut failed = None;
        while let Some(input) = self.inputs.pop_front() {
            if !effects.lives() {
                break;
            }
            let Self { protocol, key, chain, disk, state, blocks, book, inputs, rests, .. } = self;
            let mut worker =
                Worker { protocol: *protocol, key, chain, disk, blocks, book, inputs, rests, effects };
            let done: Result<(), Error<Protocol>> = process!(
                input: input,
                state: state,
                metrics: &(),
                with: effect => Ok::<_, ()>(worker.perform(effect, &mut failed))
            );
            match done {
                Ok(()) => {}
                // It would say something else than it has said: better to stop than to vote twice.
                Err(e @ Error::ReplayDivergence(..)) => {
                    failed.get_or_insert(ChainError::Refused(format!("the write-ahead log: {e}")));
                }
                Err(e) => tracing::debug!("an input was refused: {e}"),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// What an effect may touch.
struct Worker<'a> {
    protocol: Protocol,
    key: &'a Key,
    chain: &'a Chain,
    disk: &'a mut Disk,
    blocks: &'a mut BTreeMap<BlockId, Known>,
    book: &'a mut Book,
    rests: &'a mut bool,
    inputs: &'a mut VecDeque<Input<Protocol>>,
    effects: &'a mut dyn Effects,
}

impl Worker<'_> {
    fn perform(&mut self, effect: Effect<Protocol>, failed: &mut Option<ChainError>) -> Resume<Protocol> {
        let lives = self.effects.lives();
        let chain_id = self.protocol.chain_id;
        match effect {
            // These give an answer that the core waits for, and change nothing.
            Effect::SignVote(vote, r) => {
                let signature = sign(self.key, vote.ballot().digest(chain_id));
                r.resume_with(SignedMessage::new(vote, signature))
            }
            Effect::SignProposal(proposal, r) => {
                let signature = sign(self.key, proposal.ballot().digest(chain_id));
                r.resume_with(SignedMessage::new(proposal, signature))
            }
            Effect::VerifySignature(message, by, r) => {
                let ballot = match &message.message {
                    ConsensusMsg::Vote(vote) => vote.ballot(),
                    ConsensusMsg::Proposal(proposal) => proposal.ballot(),
                };
                let signed = SignedBallot { ballot, signature: message.signature };
                let is_good = ballot.validator == by.0 && signed.is_valid(chain_id);
                // Its own word is verified before it is said, and may never be.
                let seen = is_good && by.0 != self.key.address();
                let decided = self.chain.head().header.number;
                if let Some(first) = seen.then(|| self.book.see(signed, decided)).flatten() {
                    self.effects.evidence(first, signed);
                }
                r.resume_with(is_good)
            }
            Effect::VerifyCommitCertificate(c, members, thresholds, r) => {
                let by = c.commit_signatures.iter().map(|s| (s.address, s.signature));
                r.resume_with(self.decided((c.height, c.round, c.value_id), by, &members, thresholds.quorum))
            }
            Effect::VerifyExtendedCommitCertificate(c, members, thresholds, _, r) => {
                // Who has nothing to say along with a vote may say nothing; what is said must be theirs.
                let forged = c.commit_signatures.iter().find(|s| {
                    s.extension.as_ref().is_some_and(|said| {
                        !prices::is_said(said, (c.height, c.value_id), s.address, self.protocol)
                    })
                });
                let by = c.commit_signatures.iter().map(|s| (s.address, s.signature));
                r.resume_with(match forged {
                    Some(s) => Err(CertificateError::InvalidVoteExtension(s.address)),
                    None => self.decided((c.height, c.round, c.value_id), by, &members, thresholds.quorum),
                })
            }
            Effect::VerifyPolkaCertificate(c, members, thresholds, r) => {
                let votes = c.polka_signatures.iter().map(|s| {
                    let value = NilOrVal::Val(c.value_id);
                    (self.protocol.new_prevote(c.height, c.round, value, s.address), s.signature, s.address)
                });
                r.resume_with(self.certified(votes, &members, thresholds.quorum, |address, signature| {
                    CertificateError::InvalidPolkaSignature(PolkaSignature::new(address, signature))
                }))
            }
            Effect::VerifyRoundCertificate(c, members, thresholds, r) => {
                use arc_malachitebft_core_types::{RoundCertificateType, RoundSignature};
                let needed = match c.cert_type {
                    RoundCertificateType::Precommit => thresholds.quorum,
                    RoundCertificateType::Skip => thresholds.honest,
                };
                let votes = c.round_signatures.iter().map(|s| {
                    let vote = match s.vote_type {
                        VoteType::Prevote => {
                            self.protocol.new_prevote(c.height, c.round, s.value_id, s.address)
                        }
                        VoteType::Precommit => {
                            self.protocol.new_precommit(c.height, c.round, s.value_id, s.address)
                        }
                    };
                    (vote, s.signature, s.address)
                });
                r.resume_with(self.certified(votes, &members, needed, |address, signature| {
                    let (kind, value) = (VoteType::Precommit, NilOrVal::Nil);
                    CertificateError::InvalidRoundSignature(RoundSignature::new(
                        kind, value, address, signature,
                    ))
                }))
            }
            Effect::ExtendVote(height, _, value, _, r) => {
                r.resume_with(Some(self.prices(value).sign((height, value), self.key, self.protocol)))
            }
            Effect::VerifyVoteExtension(height, _, value, by, said, _, r) => {
                let is_said = prices::is_said(&said, (height, value), by, self.protocol);
                r.resume_with(is_said.then_some(()).ok_or(VoteExtensionError::InvalidVoteExtension))
            }
            // Whatever else it is, the core only waits until it is done.
            effect if lives => {
                if let Err(e) = self.act(effect) {
                    failed.get_or_insert(e);
                }
                Resume::Continue
            }
            _ => Resume::Continue,
        }
    }

    /// What changes something, here or with others.
    fn act(&mut self, effect: Effect<Protocol>) -> Result<(), ChainError> {
        match effect {
            Effect::CancelAllTimeouts(_) => self.effects.timer(Timer::CancelAll),
            Effect::CancelTimeout(timeout, _) => self.effects.timer(Timer::Cancel(timeout)),
            Effect::ScheduleTimeout(timeout, _) => self.effects.timer(Timer::Set(timeout)),
            Effect::PublishConsensusMsg(message, _) => self.say(Message::Consensus(message))?,
            Effect::PublishLivenessMsg(message, _) => self.say(Message::Liveness(message))?,
            Effect::RepublishVote(vote, _) => self.say(Message::Liveness(LivenessMsg::Vote(vote)))?,
            Effect::RepublishRoundCertificate(c, _) => {
                self.say(Message::Liveness(LivenessMsg::SkipRoundCertificate(c)))?;
            }
            Effect::GetValue(height, round, _, _) => self.propose(height, round)?,
            Effect::RestreamProposal(_, round, valid_round, _, value, _) => {
                if let Some(known) = self.blocks.get(&value) {
                    let block = known.block.clone();
                    self.offer(round, valid_round, block)?;
                }
            }
            Effect::CertVerifiedSyncValue(response, proposer, _) => self.synced(response, proposer),
            Effect::CertRejectedSyncValue(_, height, e, _) => {
                tracing::warn!("a certificate for height {height} was refused: {e}");
            }
            Effect::WalAppend(height, input, _) => self.disk.append(height.0, &input),
            Effect::Decide(certificate, extensions, _) => self.decide(certificate, extensions)?,
            Effect::Finalize(certificate, ..) => {
                let next = certificate.height.0 + 1;
                if self.effects.goes_on(next) {
                    let members = Members::after(&self.chain.head())?;
                    self.inputs.push_back(start_height(next, members, false));
                } else {
                    *self.rests = true;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What is to be said of prices along with a vote for a block: once a minute, unless the chain has them.
    fn prices(&mut self, value: BlockId) -> Prices {
        let Some(known) = self.blocks.get(&value) else { return Prices::default() };
        let minute = known.block.header.timestamp / 60;
        match self.chain.head().prices_minute() {
            Ok(reported) if minute > reported => Prices::of(minute, self.effects.prices()),
            _ => Prices::default(),
        }
    }

    /// Tells the others, after what it rests on is on disk.
    fn say(&mut self, message: Message) -> Result<(), ChainError> {
        self.disk.flush()?;
        if self.effects.lives() {
            self.effects.broadcast(message);
        }
        Ok(())
    }

    fn offer(&mut self, round: Round, valid_round: Round, block: Arc<Block>) -> Result<(), ChainError> {
        let proposer = Addr(self.key.address());
        let mut offer = Offer { round, valid_round, proposer, signature: [0; 65], block };
        offer.sign(self.key, self.protocol.chain_id);
        self.say(Message::Offer(offer))
    }

    /// Whether these members' precommits decide a block.
    fn decided(
        &self,
        (height, round, value): (Height, Round, BlockId),
        by: impl Iterator<Item = (Addr, SignatureBytes)>,
        members: &Members,
        quorum: ThresholdParam,
    ) -> Result<(), CertificateError<Protocol>> {
        let vote = |from| self.protocol.new_precommit(height, round, NilOrVal::Val(value), from);
        let votes = by.map(|(address, signature)| (vote(address), signature, address));
        self.certified(votes, members, quorum, |address, signature| {
            CertificateError::InvalidCommitSignature(CommitSignature::new(address, signature))
        })
    }

    /// Whether votes are signed by different members that together have the weight needed.
    fn certified(
        &self,
        votes: impl Iterator<Item = (Vote, [u8; 65], Addr)>,
        members: &Members,
        needed: ThresholdParam,
        invalid: impl Fn(Addr, [u8; 65]) -> CertificateError<Protocol>,
    ) -> Result<(), CertificateError<Protocol>> {
        let (mut signed, mut seen) = (0, BTreeSet::new());
        for (vote, signature, address) in votes {
            let member =
                members.get_by_address(&address).ok_or(CertificateError::UnknownValidator(address))?;
            if !seen.insert(address) {
                return Err(CertificateError::DuplicateVote(address));
            }
            let vote = SignedBallot { ballot: vote.ballot(), signature };
            if !vote.is_valid(self.protocol.chain_id) {
                return Err(invalid(address, signature));
            }
            signed += member.power;
        }
        let total = members.total_voting_power();
        if needed.is_met(signed, total) {
            Ok(())
        } else {
            let expected = needed.min_expected(total);
            Err(CertificateError::NotEnoughVotingPower { signed, total, expected })
        }
    }

    /// Builds a block for this height and round, once; it is on disk before anybody hears of it.
    fn propose(&mut self, height: Height, round: Round) -> Result<(), ChainError> {
        let before = self.disk.built(height.0)?.remove(&round.as_i64());
        let block = match before.and_then(|hash| self.blocks.get(&BlockId(hash))) {
            Some(known) => known.block.clone(),
            None => {
                let built = self.chain.propose(self.effects.now(), self.key.address())?;
                let block = Arc::new(built.block.clone());
                self.disk.keep_own(height.0, round, block.clone());
                let known = Known { block: block.clone(), built: Some(built) };
                self.blocks.insert(BlockId(block.hash), known);
                block
            }
        };
        let value = LocallyProposedValue::new(height, round, BlockId(block.hash));
        self.inputs.push_back(Input::Propose(value));
        self.offer(round, Round::Nil, block)
    }

    /// A decided block from another validator, whose votes are good.
    fn synced(&mut self, response: ValueResponse<Protocol>, proposer: Addr) {
        let certificate = response.certificate;
        let block =
            Block::decode(&response.value_bytes).ok().filter(|b| BlockId(b.hash) == certificate.value_id);
        let Some(block) = block else { return };
        let value = BlockId(block.hash);
        let block = Arc::new(block);
        let built = self.chain.head().execute(&block).ok();
        let validity = Validity::from_bool(built.is_some());
        self.disk.keep(block.clone());
        self.blocks.insert(value, Known { block, built });
        let (height, round) = (certificate.height, certificate.round);
        let value = ProposedValue { height, round, valid_round: Round::Nil, proposer, value, validity };
        self.inputs.push_back(Input::ProposedValue(value, ValueOrigin::Sync));
    }

    /// Puts the votes for a decided block on disk, then the block on the chain: after a crash in between the votes tell.
    fn decide(
        &mut self,
        certificate: CommitCertificate<Protocol>,
        extensions: VoteExtensions<Protocol>,
    ) -> Result<(), ChainError> {
        let (height, value) = (certificate.height.0, certificate.value_id);
        let known = self.blocks.remove(&value);
        let known = known.ok_or(ChainError::Corrupt("a block was decided that is not there"))?;
        let certificate =
            ExtendedCommitCertificate::from_commit_certificate_and_extensions(certificate, extensions);
        self.disk.decide(&certificate)?;
        if !self.effects.lives() {
            return Ok(());
        }
        let head = self.chain.head();
        if head.header.number + 1 == height {
            let built = match known.built {
                Some(built) => built,
                None => head.execute(&known.block)?,
            };
            self.chain.commit(&built)?;
            self.report(&known.block, &certificate)?;
        }
        self.blocks.clear();
        self.book.forget(height);
        Ok(())
    }

    /// Has what the validators agree on of prices brought to the chain, if this one is to propose the next block, and there is
    /// nothing so late yet.
    fn report(
        &mut self,
        block: &Block,
        votes: &ExtendedCommitCertificate<Protocol>,
    ) -> Result<(), ChainError> {
        let head = self.chain.head();
        let height = block.header.number;
        let at = Minute { height, block: block.hash, minute: block.header.timestamp / 60 };
        let members = Members::after(&head)?;
        let next = self.protocol.select_proposer(&members, Height(height + 1), Round::new(0));
        if next.address.0 == self.key.address()
            && at.minute > head.prices_minute()?
            && let Some(report) = Report::of(at, votes, &members)
        {
            self.effects.report(report);
        }
        Ok(())
    }
}

/// The ballot in a message, if it is one.
fn ballot_of(message: &Message) -> Option<SignedBallot> {
    match message {
        Message::Consensus(SignedConsensusMsg::Vote(v)) | Message::Liveness(LivenessMsg::Vote(v)) => {
            Some(SignedBallot { ballot: v.message.ballot(), signature: v.signature })
        }
        Message::Consensus(SignedConsensusMsg::Proposal(p)) => {
            Some(SignedBallot { ballot: p.message.ballot(), signature: p.signature })
        }
        _ => None,
    }
}

fn start_height(height: u64, members: Members, restarts: bool) -> Input<Protocol> {
    Input::StartHeight(Height(height), members, restarts, None, VoteExtensionPolicy::Required)
}
