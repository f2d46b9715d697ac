//! The thread that decides: it owns the validator, its timers and its pace.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, Bytes};
use arc_malachitebft_core_types::{LinearTimeouts, Timeout};
use arc_malachitebft_network::PeerId;
use isobit_chain::{Chain, ChainError, PairPrice, PriceSource, ledger_order};
use isobit_ledger::{Action, SignedBallot};
use isobit_proof::Key;
use tokio::sync::mpsc::Receiver;

use super::Config;
use super::network::{Outbox, Request};
use crate::prices::Report;
use crate::validator::{Effects, Message, Timer, Validator};
use crate::wire::Gossip;

/// How often it says how far it is, and repeats transactions that wait.
const STATUS: Duration = Duration::from_secs(1);
/// How many waiting transactions are repeated at a time.
const REPEATED: usize = 200;
/// After how long without an answer somebody else is asked.
const ASKED: Duration = Duration::from_secs(5);
/// Most blocks and bytes of an answer.
const ANSWER: (usize, usize) = (256, 4 << 20);
/// Gas of an accusation.
const ACCUSATION_GAS: u64 = 400_000;

/// What the thread hears.
#[derive(Debug)]
pub(super) enum In {
    /// A message of another validator.
    Message(Message),
    /// How far a peer is.
    Status(PeerId, u64),
    /// A peer is behind.
    Asked(Request, u64),
    /// Decided blocks.
    Answer(PeerId, Vec<Message>),
    /// A transaction came.
    Wake,
    /// The end.
    Stop,
}

/// The validator and everything that is not the network.
pub(super) struct Worker {
    validator: Validator,
    hands: Hands,
    block_time: Duration,
    /// When the last block was decided.
    last_block: Instant,
    /// Since when there is something for the next one, and when that is due.
    work_since: Option<Instant>,
    next_block: Option<Instant>,
    /// Who was asked for blocks, and when.
    asked: Option<(PeerId, Instant)>,
    next_status: Instant,
    repeated: usize,
}

/// What the validator's effects touch.
struct Hands {
    key: Key,
    outbox: Outbox,
    limits: LinearTimeouts,
    timers: BTreeMap<String, (Instant, Timeout)>,
    /// Evidence that was not made an accusation of yet.
    evidence: Vec<(SignedBallot, SignedBallot)>,
    accused: BTreeSet<Address>,
    /// Where prices come from.
    source: Option<PriceSource>,
    /// What is to be brought to the chain.
    report: Option<Report>,
}

impl Effects for Hands {
    fn broadcast(&mut self, message: Message) {
        self.outbox.gossip(&Gossip::Consensus(message.into()));
    }

    fn timer(&mut self, timer: Timer) {
        match timer {
            Timer::Set(timeout) => {
                let due = Instant::now() + self.limits.duration_for(timeout);
                self.timers.insert(format!("{timeout:?}"), (due, timeout));
            }
            Timer::Cancel(timeout) => drop(self.timers.remove(&format!("{timeout:?}"))),
            Timer::CancelAll => self.timers.clear(),
        }
    }

    fn lives(&mut self) -> bool {
        true
    }

    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }

    fn evidence(&mut self, first: SignedBallot, second: SignedBallot) {
        if self.accused.insert(first.ballot.validator) {
            self.evidence.push((first, second));
        }
    }

    fn goes_on(&mut self, _: u64) -> bool {
        false
    }

    fn prices(&mut self) -> Vec<PairPrice> {
        self.source.as_ref().map(|prices| prices()).unwrap_or_default()
    }

    fn report(&mut self, report: Report) {
        self.report = Some(report);
    }
}

impl Worker {
    pub(super) fn new(key: Key, validator: Validator, outbox: Outbox, config: &Config) -> Self {
        let now = Instant::now();
        Self {
            validator,
            hands: Hands {
                key,
                outbox,
                limits: config.timeouts,
                timers: BTreeMap::new(),
                evidence: Vec::new(),
                accused: BTreeSet::new(),
                source: config.prices.clone(),
                report: None,
            },
            block_time: config.block_time,
            last_block: now,
            work_since: None,
            next_block: None,
            asked: None,
            next_status: now,
            repeated: 0,
        }
    }

    pub(super) fn run(mut self, mut inputs: Receiver<In>) {
        if let Err(e) = self.work(&mut inputs) {
            tracing::error!("the validator stops here: {e}");
            self.validator.chain().fail(e);
        }
    }

    fn work(&mut self, inputs: &mut Receiver<In>) -> Result<(), ChainError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(ChainError::store)?;
        self.validator.start(&mut self.hands)?;
        loop {
            let wait = self.next_event().saturating_duration_since(Instant::now());
            let heard = runtime.block_on(async { tokio::time::timeout(wait, inputs.recv()).await });
            let height = self.validator.height();
            match heard {
                Ok(Some(In::Stop) | None) => return Ok(()),
                Ok(Some(input)) => self.hear(input)?,
                Err(_) => {}
            }
            self.elapse()?;
            if self.validator.height() > height {
                (self.last_block, self.work_since) = (Instant::now(), None);
            }
            self.next_block = self.block_due();
            if self.next_block.is_some_and(|due| due <= Instant::now()) {
                self.validator.proceed(&mut self.hands)?;
                self.next_block = self.block_due();
            }
            for (first, second) in std::mem::take(&mut self.hands.evidence) {
                self.accuse(first, second);
            }
            if let Some(report) = self.hands.report.take() {
                self.bring(&report);
            }
        }
    }

    /// When something happens though nobody says anything.
    fn next_event(&self) -> Instant {
        let timers = self.hands.timers.values().map(|(due, _)| *due);
        timers.chain([self.next_status]).chain(self.next_block).min().unwrap_or(self.next_status)
    }

    /// When the next block is due, if there is anything to be in it and it has not begun: a block time after the last one, and
    /// after a transaction's arrival, as wallets believe for so long what they have read.
    fn block_due(&mut self) -> Option<Instant> {
        if !self.validator.rests() {
            return None;
        }
        let wait = match self.validator.chain().due_in() {
            None if self.has_news() => Duration::ZERO,
            due => due?,
        };
        if wait.is_zero() {
            self.work_since.get_or_insert_with(Instant::now);
        }
        let since = self.work_since.map_or(self.last_block, |since| since.max(self.last_block));
        Some((self.last_block + wait).max(since + self.block_time))
    }

    /// Whether there are prices of a minute in which there was no block.
    fn has_news(&mut self) -> bool {
        let minute = self.hands.now() / 60;
        let last = self.validator.chain().head().header.timestamp / 60;
        minute > last && !self.hands.prices().is_empty()
    }

    fn elapse(&mut self) -> Result<(), ChainError> {
        let now = Instant::now();
        let due = self.hands.timers.extract_if(.., |_, (due, _)| *due <= now);
        let mut due: Vec<(Instant, Timeout)> = due.map(|(_, timer)| timer).collect();
        due.sort_by_key(|(due, _)| *due);
        for (_, timeout) in due {
            self.validator.elapsed(timeout, &mut self.hands)?;
        }
        if self.next_status <= now {
            self.next_status = now + STATUS;
            self.say_status();
        }
        Ok(())
    }

    fn say_status(&mut self) {
        self.hands.outbox.gossip(&Gossip::Status(self.validator.height() - 1));
        let waiting = self.validator.chain().waiting_raw(self.repeated, REPEATED);
        self.repeated = if waiting.len() < REPEATED { 0 } else { self.repeated + REPEATED };
        waiting.iter().for_each(|raw| self.hands.outbox.transaction(raw));
    }

    fn hear(&mut self, input: In) -> Result<(), ChainError> {
        match input {
            In::Message(message) => self.validator.receive(message, &mut self.hands)?,
            In::Status(peer, head) => self.consider(peer, head),
            In::Asked(request, from) => {
                let answer = self.answer(from)?;
                self.hands.outbox.answer(request, &answer);
            }
            In::Answer(peer, blocks) => {
                self.asked = None;
                let more = !blocks.is_empty();
                for block in blocks {
                    self.validator.receive(block, &mut self.hands)?;
                }
                if more {
                    self.ask(peer); // until it has no more
                }
            }
            In::Wake | In::Stop => {}
        }
        Ok(())
    }

    /// Asks who is further. One block may be on its way, and is waited for.
    fn consider(&mut self, peer: PeerId, head: u64) {
        let height = self.validator.height();
        let is_behind = head > height || (head == height && self.last_block.elapsed() > STATUS);
        let waits = self.asked.is_some_and(|(_, since)| since.elapsed() < ASKED);
        if is_behind && !waits {
            self.ask(peer);
        }
    }

    fn ask(&mut self, peer: PeerId) {
        self.asked = Some((peer, Instant::now()));
        self.hands.outbox.ask(peer, self.validator.height());
    }

    /// Decided blocks from a height on.
    fn answer(&self, from: u64) -> Result<Vec<Bytes>, ChainError> {
        let (mut answer, mut bytes) = (Vec::new(), 0);
        for height in (from.max(1)..self.validator.height()).take(ANSWER.0) {
            let Some(decided) = self.validator.decided(height)? else { break };
            let decided = decided.encode();
            bytes += decided.len();
            answer.push(decided.into());
            if bytes >= ANSWER.1 {
                break;
            }
        }
        Ok(answer)
    }

    /// Brings prices to the chain.
    fn bring(&self, report: &Report) {
        let chain = self.validator.chain();
        let done = report.transaction(chain, &self.hands.key).and_then(|(_, raw)| chain.submit(&raw));
        match done {
            Ok(_) => tracing::debug!("prices of {} pairs are on their way", report.pairs.len()),
            Err(e) => tracing::warn!("prices could not be brought to the chain: {e}"),
        }
    }

    /// Puts what a validator contradicted itself with on the ledger, which pays a share of its stake for it.
    fn accuse(&mut self, first: SignedBallot, second: SignedBallot) {
        let who = first.ballot.validator;
        tracing::warn!("validator {who} contradicted itself at height {}", first.ballot.height);
        if who == self.hands.key.address() {
            return;
        }
        match accusation(self.validator.chain(), &self.hands.key, first, second) {
            Ok(true) => tracing::info!("validator {who} is accused"),
            Ok(false) => {}
            Err(e) => tracing::warn!("validator {who} could not be accused: {e}"),
        }
    }
}

/// Submits an accusation, unless it was punished already.
fn accusation(
    chain: &Chain,
    key: &Key,
    first: SignedBallot,
    second: SignedBallot,
) -> Result<bool, ChainError> {
    if chain.head().node(first.ballot.validator).is_none_or(|n| n.punished) {
        return Ok(false);
    }
    let mut order = ledger_order(&Action::Accuse { first, second }, &chain.genesis().params);
    order.gas = ACCUSATION_GAS;
    chain.submit(&chain.sign_next(order, key)?.1)?;
    Ok(true)
}
