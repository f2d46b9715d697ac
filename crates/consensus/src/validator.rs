//! One validator: the core's effects carried out on a chain, a write-ahead log and a store of blocks. Messages and timers are for
//! its owner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arc_malachitebft_core_consensus::{
    ConsensusMsg, Effect, Error, Input, LivenessMsg, LocallyProposedValue, Params, PeerId, ProposedValue,
    Resumable, Resume, SignedConsensusMsg, State, ThresholdParams, process,
};
use arc_malachitebft_core_types::{
    CertificateError, CommitSignature, Context, ExtendedCommitCertificate, NilOrVal, PolkaSignature, Round,
    SignedMessage, ThresholdParam, Timeout, ValidatorSet, Validity, Value as _, ValueOrigin, ValuePayload,
    ValueResponse, VoteExtensionPolicy, VoteExtensions, VoteType,
};
use isobit_chain::{Block, Chain, ChainError, Proposal as BlockProposal};
use isobit_proof::Key;

use crate::types::{Addr, BlockId, Height, Members, Protocol, Vote, sign, verify};

/// How many inputs of later heights are kept, and how many of one height.
const QUEUE: (usize, usize) = (10, 1_000);

/// What validators send each other.
#[derive(Debug, Clone)]
pub enum Message {
    /// A vote or a proposal.
    Consensus(SignedConsensusMsg<Protocol>),
    /// What helps those who are behind in a height.
    Liveness(LivenessMsg<Protocol>),
    /// A proposed block itself, for its round.
    Block {
        /// The round that it is proposed in.
        round: Round,
        /// The round of its majority of prevotes, or none.
        valid_round: Round,
        /// Who proposes it.
        proposer: Addr,
        /// The block.
        block: Arc<Block>,
    },
    /// A decided block with the votes that decided it, for those who are behind.
    Decided {
        /// The block.
        block: Arc<Block>,
        /// The votes.
        certificate: ExtendedCommitCertificate<Protocol>,
    },
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
    /// Two conflicting signed messages of a validator were seen.
    fn evidence(&mut self, of: Addr);
}

/// What survives a crash: the chain, the log of the present height, blocks, and what was decided.
struct Disk {
    chain: Chain,
    log: Vec<Input<Protocol>>,
    blocks: BTreeMap<BlockId, Arc<Block>>,
    /// Blocks built for (height, round): a validator that is asked again proposes the same.
    built: BTreeMap<(u64, i64), Arc<Block>>,
    decided: BTreeMap<u64, (Arc<Block>, ExtendedCommitCertificate<Protocol>)>,
}

/// One validator.
pub struct Validator {
    protocol: Protocol,
    key: Key,
    members: Members,
    state: State<Protocol>,
    disk: Disk,
    inputs: VecDeque<Input<Protocol>>,
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
    /// A validator of a chain, which begins with [`Validator::start`].
    pub fn new(key: Key, members: Members, chain: Chain) -> Self {
        let protocol = Protocol { chain_id: chain.genesis().params.chain_id };
        let state = new_state(protocol, &key, &members, chain.head().header.number + 1);
        let disk = Disk {
            chain,
            log: Vec::new(),
            blocks: BTreeMap::new(),
            built: BTreeMap::new(),
            decided: BTreeMap::new(),
        };
        Self { protocol, key, members, state, disk, inputs: VecDeque::new() }
    }

    /// Its address.
    pub fn address(&self) -> Addr {
        Addr(self.key.address())
    }

    /// Its chain.
    pub fn chain(&self) -> &Chain {
        &self.disk.chain
    }

    /// The height that it works on.
    pub fn height(&self) -> u64 {
        self.state.height().0
    }

    /// A decided block with its votes, to send to who is behind.
    pub fn decided(&self, height: u64) -> Option<Message> {
        let (block, certificate) = self.disk.decided.get(&height)?;
        Some(Message::Decided { block: block.clone(), certificate: certificate.clone() })
    }

    /// Begins, or begins again after a crash: what is not on disk is forgotten, and the log is played again.
    pub fn start(&mut self, effects: &mut dyn Effects) -> Result<(), ChainError> {
        let height = self.disk.chain.head().header.number + 1;
        self.state = new_state(self.protocol, &self.key, &self.members, height);
        self.inputs.clear();
        let at = |input: &Input<Protocol>| match input {
            Input::Vote(v) => v.message.height.0,
            Input::Proposal(p) => p.message.height.0,
            Input::ProposedValue(v, _) => v.height.0,
            _ => height,
        };
        self.disk.log.retain(|input| at(input) == height);
        let log = self.disk.log.clone();
        self.state.index_wal_entries(&log);
        let restarts = !log.is_empty();
        self.inputs.push_back(self.start_height(height, restarts));
        self.run(effects)?;
        for input in log {
            self.inputs.push_back(input);
            self.run(effects)?;
        }
        self.state.reset_entries_index();
        self.run(effects)
    }

    fn start_height(&self, height: u64, restarts: bool) -> Input<Protocol> {
        let policy = VoteExtensionPolicy::Disabled;
        Input::StartHeight(Height(height), self.members.clone(), restarts, None, policy)
    }

    /// A message of another validator.
    pub fn receive(&mut self, message: Message, effects: &mut dyn Effects) -> Result<(), ChainError> {
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
            Message::Block { round, valid_round, proposer, block } => {
                let height = block.header.number;
                let current = self.disk.chain.head().header.number + 1;
                if height != current {
                    return Ok(()); // who is behind asks for decided blocks
                }
                let value = BlockId(block.hash);
                let validity = self.judge(&block);
                self.disk.blocks.insert(value, block);
                let value =
                    ProposedValue { height: Height(height), round, valid_round, proposer, value, validity };
                self.inputs.push_back(Input::ProposedValue(value, ValueOrigin::Consensus));
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

    /// A timer that it had set.
    pub fn elapsed(&mut self, timeout: Timeout, effects: &mut dyn Effects) -> Result<(), ChainError> {
        self.inputs.push_back(Input::TimeoutElapsed(timeout));
        self.run(effects)
    }

    /// A block is valid if executing it gives what it says.
    fn judge(&self, block: &Block) -> Validity {
        Validity::from_bool(self.disk.chain.head().execute(block).is_ok())
    }

    fn run(&mut self, effects: &mut dyn Effects) -> Result<(), ChainError> {
        let mut failed = None;
        while let Some(input) = self.inputs.pop_front() {
            if !effects.lives() {
                break;
            }
            let Self { protocol, key, members, state, disk, inputs } = self;
            let mut worker = Worker { protocol: *protocol, key, members, disk, inputs, effects };
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
    members: &'a Members,
    disk: &'a mut Disk,
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
                let signature = sign(self.key, vote.digest(chain_id));
                r.resume_with(SignedMessage::new(vote, signature))
            }
            Effect::SignProposal(proposal, r) => {
                let signature = sign(self.key, proposal.digest(chain_id));
                r.resume_with(SignedMessage::new(proposal, signature))
            }
            Effect::VerifySignature(message, by, r) => {
                let digest = match &message.message {
                    ConsensusMsg::Vote(vote) => vote.digest(chain_id),
                    ConsensusMsg::Proposal(proposal) => proposal.digest(chain_id),
                };
                r.resume_with(verify(digest, &message.signature, by))
            }
            Effect::VerifyCommitCertificate(c, members, thresholds, r) => {
                let votes = c.commit_signatures.iter().map(|s| {
                    (self.precommit(c.height, c.round, c.value_id, s.address), s.signature, s.address)
                });
                r.resume_with(self.certified(votes, &members, thresholds.quorum, |address, signature| {
                    CertificateError::InvalidCommitSignature(CommitSignature::new(address, signature))
                }))
            }
            Effect::VerifyExtendedCommitCertificate(c, members, thresholds, _, r) => {
                let votes = c.commit_signatures.iter().map(|s| {
                    (self.precommit(c.height, c.round, c.value_id, s.address), s.signature, s.address)
                });
                r.resume_with(self.certified(votes, &members, thresholds.quorum, |address, signature| {
                    CertificateError::InvalidCommitSignature(CommitSignature::new(address, signature))
                }))
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
            Effect::ExtendVote(_, _, _, _, r) => r.resume_with(None),
            Effect::VerifyVoteExtension(_, _, _, _, _, _, r) => r.resume_with(Ok(())),
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
            Effect::PublishConsensusMsg(message, _) => self.effects.broadcast(Message::Consensus(message)),
            Effect::PublishLivenessMsg(message, _) => self.effects.broadcast(Message::Liveness(message)),
            Effect::RepublishVote(vote, _) => {
                self.effects.broadcast(Message::Liveness(LivenessMsg::Vote(vote)));
            }
            Effect::RepublishRoundCertificate(c, _) => {
                self.effects.broadcast(Message::Liveness(LivenessMsg::SkipRoundCertificate(c)));
            }
            Effect::GetValue(height, round, _, _) => self.propose(height, round)?,
            Effect::RestreamProposal(_, round, valid_round, proposer, value, _) => {
                if let Some(block) = self.disk.blocks.get(&value).cloned() {
                    self.effects.broadcast(Message::Block { round, valid_round, proposer, block });
                }
            }
            Effect::CertVerifiedSyncValue(response, proposer, _) => self.synced(response, proposer),
            Effect::CertRejectedSyncValue(_, height, e, _) => {
                tracing::warn!("a certificate for height {height} was refused: {e}");
            }
            Effect::WalAppend(_, input, _) => self.disk.log.push(input),
            Effect::Decide(certificate, extensions, _) => self.decide(certificate, extensions)?,
            Effect::Finalize(certificate, _, evidence, _) => {
                let voters: BTreeSet<Addr> = (&evidence.votes).into_iter().map(|(a, _)| *a).collect();
                let proposers: BTreeSet<Addr> = (&evidence.proposals).into_iter().map(|(a, _)| *a).collect();
                voters.union(&proposers).for_each(|a| self.effects.evidence(*a));
                let next = Height(certificate.height.0 + 1);
                let policy = VoteExtensionPolicy::Disabled;
                self.inputs.push_back(Input::StartHeight(next, self.members.clone(), false, None, policy));
            }
            _ => {}
        }
        Ok(())
    }

    fn precommit(&self, height: Height, round: Round, value: BlockId, from: Addr) -> Vote {
        self.protocol.new_precommit(height, round, NilOrVal::Val(value), from)
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
            if !verify(vote.digest(self.protocol.chain_id), &signature, address) {
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
        let place = (height.0, round.as_i64());
        let block = match self.disk.built.get(&place) {
            Some(block) => block.clone(),
            None => {
                let proposal = BlockProposal {
                    timestamp: self.effects.now(),
                    beneficiary: self.key.address(),
                    txs: self.disk.chain.candidates(),
                    overdue: BTreeSet::new(),
                };
                let block = Arc::new(self.disk.chain.head().build(&proposal)?.block);
                self.disk.built.insert(place, block.clone());
                self.disk.blocks.insert(BlockId(block.hash), block.clone());
                block
            }
        };
        let value = BlockId(block.hash);
        self.inputs.push_back(Input::Propose(LocallyProposedValue::new(height, round, value.id())));
        let proposer = Addr(self.key.address());
        self.effects.broadcast(Message::Block { round, valid_round: Round::Nil, proposer, block });
        Ok(())
    }

    /// A decided block from another validator, whose votes are good.
    fn synced(&mut self, response: ValueResponse<Protocol>, proposer: Addr) {
        let certificate = response.certificate;
        let block =
            Block::decode(&response.value_bytes).ok().filter(|b| BlockId(b.hash) == certificate.value_id);
        let Some(block) = block else { return };
        let validity = Validity::from_bool(self.disk.chain.head().execute(&block).is_ok());
        let value = BlockId(block.hash);
        self.disk.blocks.insert(value, Arc::new(block));
        let (height, round) = (certificate.height, certificate.round);
        let value = ProposedValue { height, round, valid_round: Round::Nil, proposer, value, validity };
        self.inputs.push_back(Input::ProposedValue(value, ValueOrigin::Sync));
    }

    /// Puts a decided block on the chain, and its votes beside it.
    fn decide(
        &mut self,
        certificate: arc_malachitebft_core_types::CommitCertificate<Protocol>,
        extensions: VoteExtensions<Protocol>,
    ) -> Result<(), ChainError> {
        let (height, value) = (certificate.height.0, certificate.value_id);
        let block = self.disk.blocks.get(&value).cloned();
        let block = block.ok_or(ChainError::Corrupt("a block was decided that is not there"))?;
        if self.disk.chain.head().header.number + 1 == height {
            let built = self.disk.chain.head().execute(&block)?;
            self.disk.chain.commit(&built)?;
        }
        let certificate =
            ExtendedCommitCertificate::from_commit_certificate_and_extensions(certificate, extensions);
        self.disk.decided.insert(height, (block, certificate));
        self.disk.log.clear();
        self.disk.built.retain(|(h, _), _| *h > height);
        self.disk.blocks.retain(|_, b| b.header.number >= height);
        Ok(())
    }
}
