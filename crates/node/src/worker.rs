//! A worker: it watches for jobs its node was drawn for, runs them, commits and reveals.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use isobit_ledger::{Action, Job, Params, Phase, commitment};
use isobit_proof::{Key, Outcome, Receipt};
use isobit_runtime::{Limits, Options, RunOptions};
use isobit_tensor::{Hash, Tensor};

use crate::objects::encoded_tensors;
use crate::sessions::Sessions;
use crate::{Client, Gateway, NodeError, fetch_tensors, store_tensors};

/// Longest outputs that are put on the ledger for a contract, in bytes.
const MAX_PROVIDED: usize = 24 << 10;
/// The step of putting them there, among those of a job's phases.
const PROVIDED: u8 = u8::MAX;

/// How long a transaction is waited for before it is sent again.
const PATIENCE: Duration = Duration::from_secs(10);

/// How outputs come about: everything between the run and the commitment.
pub trait Run: Send {
    /// What the node will answer, from what the model gave.
    fn answer(&mut self, outputs: Vec<(String, Tensor)>) -> Vec<(String, Tensor)>;
}

/// Answers what the model gave.
#[derive(Debug, Clone, Copy, Default)]
pub struct Honest;

impl Run for Honest {
    fn answer(&mut self, outputs: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
        outputs
    }
}

/// A node's worker.
pub struct Worker {
    gateway: Arc<dyn Gateway>,
    key: Key,
    params: Params,
    run: Box<dyn Run>,
    sessions: Sessions,
    /// Answers not yet revealed.
    answers: BTreeMap<B256, Answer>,
    /// When something was last sent about a job in this phase.
    sent: BTreeMap<(B256, u8), Instant>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Worker({}, {:?})", self.key.address(), self.sessions)
    }
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    outcome: Outcome,
    cost: u64,
    salt: B256,
}

impl Answer {
    fn fields(&self) -> (B256, u16) {
        match self.outcome {
            Outcome::Ok { outputs } => (B256::from(outputs.0), 0),
            Outcome::Failed { code } => (B256::ZERO, code),
        }
    }
}

impl Worker {
    /// A worker for the node of this key.
    pub fn new(gateway: Arc<dyn Gateway>, key: Key, options: Options) -> Result<Self, NodeError> {
        let params = gateway.params()?;
        let (answers, sent) = (BTreeMap::new(), BTreeMap::new());
        let sessions = Sessions::new(options);
        Ok(Self { gateway, key, params, run: Box::new(Honest), sessions, answers, sent })
    }

    /// The same worker with another way of answering.
    pub fn with_run(mut self, run: Box<dyn Run>) -> Self {
        self.run = run;
        self
    }

    /// Works until `stop` is set. What fails is logged and tried again with the next block.
    pub fn work(&mut self, stop: &AtomicBool) {
        let mut height = 0;
        while !stop.load(Ordering::Relaxed) {
            match self.round() {
                Ok(()) => {}
                Err(NodeError::Stopping) => return,
                Err(e) => {
                    tracing::warn!(node = %self.key.address(), "{e}");
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
            match self.gateway.wait(height, Duration::from_millis(500)) {
                Ok(h) => height = h,
                Err(_) => std::thread::sleep(Duration::from_millis(500)),
            }
        }
    }

    /// Does what can be done now for each job the node was drawn for.
    pub fn round(&mut self) -> Result<(), NodeError> {
        let node = self.key.address();
        let jobs = self.gateway.assigned(node)?;
        self.answers.retain(|id, _| jobs.iter().any(|j| j.id == *id));
        self.sent.retain(|(id, _), at| jobs.iter().any(|j| j.id == *id) && at.elapsed() < PATIENCE);
        for job in jobs {
            let Some(seat) = job.seat(node) else { continue };
            let step = (job.id, job.phase() as u8);
            if self.sent.contains_key(&step) {
                continue; // it waits for a block
            }
            let action = match job.phase() {
                Phase::Assigned if seat.commitment.is_zero() => {
                    let answer = self.answer(&job)?;
                    let digest = self.receipt(&job, answer).digest();
                    let commitment = commitment(node, job.id, digest, answer.salt);
                    Action::Commit { job: job.id, commitment }
                }
                Phase::Committed if seat.reveal.is_empty() && !seat.commitment.is_zero() => {
                    let answer = self.answer(&job)?;
                    let (outputs, failure) = answer.fields();
                    if job.callback_gas > 0 && failure == 0 && !self.provide(&job, outputs)? {
                        continue; // the contract is told of the outputs if they are there before the job ends
                    }
                    let signed = self.receipt(&job, answer).sign(&self.key);
                    let receipt = signed.signature.as_bytes().to_vec().into();
                    Action::Reveal {
                        job: job.id,
                        outputs,
                        failure,
                        cost: answer.cost,
                        receipt,
                        salt: answer.salt,
                    }
                }
                _ => continue,
            };
            match Client::new(&*self.gateway, self.key.clone())?.send(&action) {
                Ok(_) => {}
                // The phase has changed since the job was looked at; the next round sees how it stands.
                Err(NodeError::Refused(why)) => tracing::debug!(job = %job.id, "{why}"),
                Err(e) => return Err(e),
            }
            self.sent.insert(step, Instant::now());
        }
        Ok(())
    }

    /// Sees to it that small outputs of a job are on the ledger before its end; false while that waits for a block.
    fn provide(&mut self, job: &Job, outputs: B256) -> Result<bool, NodeError> {
        let step = (job.id, PROVIDED);
        if self.gateway.is_provided(outputs)? {
            return Ok(true);
        }
        if self.sent.contains_key(&step) {
            return Ok(false);
        }
        let tensors = encoded_tensors(&*self.gateway, outputs)?;
        if tensors.len() > MAX_PROVIDED {
            return Ok(true);
        }
        Client::new(&*self.gateway, self.key.clone())?.send(&Action::Provide { tensors })?;
        self.sent.insert(step, Instant::now());
        Ok(false)
    }

    fn receipt(&self, job: &Job, answer: Answer) -> Receipt {
        Receipt {
            chain_id: self.params.chain_id,
            job: Hash(job.id.0),
            model: Hash(job.model.0),
            inputs: Hash(job.inputs.0),
            seed: job.seed,
            outcome: answer.outcome,
            cost: answer.cost,
            node: self.key.address(),
        }
    }

    /// The node's answer. Running is exact and the salt is derived, so a worker that was restarted between commitment and
    /// reveal comes to the same answer again.
    fn answer(&mut self, job: &Job) -> Result<Answer, NodeError> {
        if let Some(answer) = self.answers.get(&job.id) {
            return Ok(*answer);
        }
        let session = self.sessions.get(&*self.gateway, &Hash(job.model.0))?;
        let inputs = fetch_tensors(&*self.gateway, &Hash(job.inputs.0))?;
        let cost = job.cost_limit(&self.params);
        let limits = Limits { cost, ..Limits::default() };
        let (outcome, cost) =
            match session.run(inputs, &RunOptions { seed: job.seed, limits, profile: false }) {
                Ok(result) => {
                    let outputs = self.run.answer(result.outputs);
                    (Outcome::Ok { outputs: store_tensors(&*self.gateway, &outputs)? }, result.cost)
                }
                Err(e) => {
                    tracing::info!(job = %job.id, "the run failed, which is a result: {e}");
                    (Outcome::Failed { code: e.code() as u16 }, 0)
                }
            };
        // Nobody else can compute it: it takes the key to sign.
        let secret = self.key.sign(B256::from(Hash::of(&[b"isobitS1", job.id.as_slice()].concat()).0));
        let salt = B256::from(Hash::of(&secret.as_bytes()).0);
        let answer = Answer { outcome, cost, salt };
        self.answers.insert(job.id, answer);
        Ok(answer)
    }
}
