//! A network in a test: funded keys, blocks a second apart, conservation asserted after each.

use alloy_primitives::{Address, B256};
use isobit_ledger::{
    Action, BlockContext, COIN, Event, Inputs, Job, Level, Params, Phase, State, TxError, commitment,
};
use isobit_proof::{Key, Outcome, Receipt};
use isobit_tensor::Hash;

pub(crate) const MODEL: B256 = B256::repeat_byte(0xaa);
pub(crate) const STAKE: u128 = 2_000 * COIN;
const SALT: B256 = B256::repeat_byte(9);
const COST: u64 = 1000;

/// Key 0 asks, the last key owns the model, the others are nodes.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) parent: B256,
    pub(crate) keys: Vec<Key>,
    pub(crate) ended: Vec<Job>,
    pub(crate) events: Vec<Event>,
}

impl World {
    pub(crate) fn new(nodes: usize) -> Self {
        let keys: Vec<Key> =
            (0..nodes + 2).map(|i| Key::from_hex(&format!("{:064x}", i + 1)).unwrap()).collect();
        let params = Params { commit_window: 50, reveal_window: 50, unbonding: 100, ..Params::default() };
        let state = State::genesis(params, keys.iter().map(|k| (k.address(), 10_000 * COIN))).unwrap();
        let mut w = Self { state, parent: B256::ZERO, keys, ended: Vec::new(), events: Vec::new() };
        let publish = Action::Publish {
            model: MODEL,
            name: "digits".into(),
            uri: String::new(),
            unit_fee: w.state.params.unit_price / 2,
        };
        let mut actions = vec![(nodes + 1, publish)];
        actions.extend((1..=nodes).map(|i| (i, Action::Join { stake: STAKE, endpoint: "here:1".into() })));
        assert_eq!(w.block(&actions), []);
        w
    }

    /// A block of these actions, each of the key of that number; returns those that are refused. The block's hash, the next
    /// one's beacon, depends on all that is in it.
    pub(crate) fn block(&mut self, actions: &[(usize, Action)]) -> Vec<TxError> {
        self.state.height += 1;
        self.state.time = self.state.height;
        let block = BlockContext { height: self.state.height, time: self.state.time, parent: self.parent };
        let mut refused = Vec::new();
        for (key, action) in actions {
            let before = self.state.clone();
            match self.state.apply(&block, self.keys[*key].address(), action) {
                Ok(events) => self.events.extend(events),
                Err(e) => {
                    assert_eq!(self.state, before, "a refused {action:?} changed the state");
                    refused.push(e);
                }
            }
        }
        let (events, ended) = self.state.tick(&block);
        self.events.extend(events);
        self.ended.extend(ended);
        self.parent = B256::from(Hash::of(format!("{} {actions:?}", self.parent).as_bytes()).0);
        self.state.check_invariants().unwrap();
        refused
    }

    pub(crate) fn act(&mut self, key: usize, action: Action) -> Result<(), TxError> {
        self.block(&[(key, action)]).pop().map_or(Ok(()), Err)
    }

    pub(crate) fn post_action(&self, level: Level) -> Action {
        let inputs = Inputs::Root(B256::repeat_byte(1));
        Action::Post {
            model: MODEL,
            inputs,
            seed: 0,
            level,
            max_fee: 30 * COIN,
            deadline: 0,
            callback_gas: 0,
        }
    }

    /// Posts a job and has its nodes drawn.
    pub(crate) fn post(&mut self, level: Level) -> Job {
        let before: Vec<B256> = self.state.jobs.keys().copied().collect();
        self.act(0, self.post_action(level)).unwrap();
        let id = *self.state.jobs.keys().find(|id| !before.contains(id)).unwrap();
        assert_eq!(self.state.jobs[&id].phase(), Phase::Posted);
        self.wait(1);
        self.state.jobs[&id].clone()
    }

    pub(crate) fn key_of(&self, node: Address) -> usize {
        self.keys.iter().position(|k| k.address() == node).unwrap()
    }

    fn receipt(&self, job: &Job, node: Address, answer: u8) -> Receipt {
        // Answers from 200 on are failures of that code.
        let failed = answer >= 200;
        Receipt {
            chain_id: self.state.params.chain_id,
            job: Hash(job.id.0),
            model: Hash(job.model.0),
            inputs: Hash(job.inputs.0),
            seed: job.seed,
            outcome: if failed {
                Outcome::Failed { code: answer.into() }
            } else {
                Outcome::Ok { outputs: Hash([answer; 32]) }
            },
            cost: if failed { 0 } else { COST },
            node,
        }
    }

    pub(crate) fn commit_action(&self, job: &Job, node: Address, answer: u8) -> Action {
        let digest = self.receipt(job, node, answer).digest();
        Action::Commit { job: job.id, commitment: commitment(node, job.id, digest, SALT) }
    }

    pub(crate) fn reveal_action(&self, job: &Job, node: Address, answer: u8) -> Action {
        let receipt = self.receipt(job, node, answer);
        let cost = receipt.cost;
        let (outputs, failure) = match receipt.outcome {
            Outcome::Ok { outputs } => (B256::from(outputs.0), 0),
            Outcome::Failed { code } => (B256::ZERO, code),
        };
        let receipt = receipt.sign(&self.keys[self.key_of(node)]).signature.as_bytes().to_vec().into();
        Action::Reveal { job: job.id, outputs, failure, cost, receipt, salt: SALT }
    }

    pub(crate) fn commit(&mut self, job: &Job, node: Address, answer: u8) -> Result<(), TxError> {
        self.act(self.key_of(node), self.commit_action(job, node, answer))
    }

    pub(crate) fn reveal(&mut self, job: &Job, node: Address, answer: u8) -> Result<(), TxError> {
        self.act(self.key_of(node), self.reveal_action(job, node, answer))
    }

    /// The given nodes answer as given; `None` stays silent. Returns the job as it is then.
    pub(crate) fn play(&mut self, job: &Job, nodes: &[Address], answers: &[Option<u8>]) -> Job {
        assert_eq!(nodes.len(), answers.len());
        let given = || nodes.iter().zip(answers).filter_map(|(n, a)| a.map(|a| (*n, a)));
        for (node, answer) in given() {
            if self.now(job.id).seat(node).unwrap().commitment.is_zero() {
                self.commit(job, node, answer).unwrap();
            }
        }
        if answers.contains(&None) {
            self.wait(self.state.params.commit_window + 1);
        }
        for (node, answer) in given() {
            if self.now(job.id).phase() == Phase::Committed {
                self.reveal(job, node, answer).unwrap();
            }
        }
        self.now(job.id)
    }

    /// A job, in progress or ended.
    pub(crate) fn now(&self, id: B256) -> Job {
        let ended = || self.ended.iter().find(|j| j.id == id);
        self.state.jobs.get(&id).or_else(ended).expect("it was posted").clone()
    }

    pub(crate) fn wait(&mut self, blocks: u64) {
        for _ in 0..blocks {
            self.block(&[]);
        }
    }
}
