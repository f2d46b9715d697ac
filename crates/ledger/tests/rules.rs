//! The rules: every path of a job, every refusal that costs somebody money, conservation of coins under random play.

use alloy_primitives::{Address, B256};
use isobit_ledger::{
    Action, Block, COIN, End, Executed, Job, Params, Phase, SignedTx, State, Tx, TxError, commitment,
};
use isobit_numerics::rng::Rng;
use isobit_proof::{Key, Outcome, Receipt};
use isobit_tensor::Hash;

const MODEL: B256 = B256::repeat_byte(0xaa);

struct World {
    state: State,
    parent: B256,
    blocks: Vec<Block>,
    genesis: State,
    keys: Vec<Key>,
    total: u128,
    ended: usize,
}

impl World {
    /// `n` funded keys; all but the first join as nodes.
    fn new(n: usize) -> Self {
        let keys: Vec<Key> = (0..n).map(|i| Key::from_hex(&format!("{:064x}", i + 1)).unwrap()).collect();
        let params = Params { commit_window: 50, reveal_window: 50, unbonding: 100, ..Params::default() };
        let genesis = State::genesis(params, keys.iter().map(|k| (k.address(), 10_000 * COIN)));
        let total = genesis.total_coins();
        let mut w = Self {
            state: genesis.clone(),
            parent: B256::ZERO,
            blocks: Vec::new(),
            genesis,
            keys,
            total,
            ended: 0,
        };
        let mut txs = vec![w.tx(0, Action::Publish { model: MODEL, name: "digits".into() })];
        txs.extend((1..n).map(|i| w.tx(i, Action::Join { stake: 2_000 * COIN })));
        assert!(w.block(&txs).refused.is_empty());
        w
    }

    fn tx(&self, key: usize, action: Action) -> SignedTx {
        let key = &self.keys[key];
        let from = key.address();
        Tx { from, nonce: self.state.nonce(from), action }.sign(key, self.state.params.chain_id)
    }

    fn block(&mut self, txs: &[SignedTx]) -> Executed {
        // A second a block.
        let now = self.state.height + 1;
        let executed = Block::build(&mut self.state, self.parent, now, txs);
        self.parent = executed.block.hash();
        self.blocks.push(executed.block.clone());
        self.ended += executed.ended.len();
        assert_eq!(self.state.total_coins(), self.total, "coins were created or lost");
        executed
    }

    fn act(&mut self, key: usize, action: Action) -> Result<Vec<Job>, TxError> {
        let tx = self.tx(key, action);
        let mut executed = self.block(&[tx]);
        match executed.refused.pop() {
            Some((_, e)) => Err(e),
            None => Ok(executed.ended),
        }
    }

    fn post(&mut self, replicas: u8) -> Job {
        let action = Action::Post {
            model: MODEL,
            inputs: B256::repeat_byte(1),
            seed: 0,
            replicas,
            max_fee: 30 * COIN,
        };
        self.act(0, action).unwrap();
        self.state.jobs.values().next_back().unwrap().clone()
    }

    fn key_of(&self, node: Address) -> usize {
        self.keys.iter().position(|k| k.address() == node).unwrap()
    }

    fn commit(&mut self, job: &Job, node: Address, answer: u8) -> Result<Vec<Job>, TxError> {
        let outputs = B256::repeat_byte(answer);
        let commitment = commitment(job.id, node, outputs, 0, 1000, B256::repeat_byte(9));
        self.act(self.key_of(node), Action::Commit { job: job.id, commitment })
    }

    fn reveal_action(&self, job: &Job, node: Address, answer: u8) -> Action {
        let receipt = Receipt {
            chain_id: self.state.params.chain_id,
            job: Hash(job.id.0),
            model: Hash(job.model.0),
            inputs: Hash(job.inputs.0),
            seed: job.seed,
            outcome: Outcome::Ok { outputs: Hash([answer; 32]) },
            cost: 1000,
            node,
        };
        let signed = receipt.sign(&self.keys[self.key_of(node)]);
        Action::Reveal {
            job: job.id,
            outputs: B256::repeat_byte(answer),
            failure: 0,
            cost: 1000,
            receipt: signed.signature.as_bytes().to_vec().into(),
            salt: B256::repeat_byte(9),
        }
    }

    fn reveal(&mut self, job: &Job, node: Address, answer: u8) -> Result<Vec<Job>, TxError> {
        let action = self.reveal_action(job, node, answer);
        self.act(self.key_of(node), action)
    }

    /// Every node of the job answers as given, in seat order.
    fn play(&mut self, job: &Job, answers: &[u8]) -> Job {
        let mut ended = Vec::new();
        for (seat, &answer) in job.seats.iter().zip(answers) {
            ended.extend(self.commit(job, seat.node, answer).unwrap());
        }
        for (seat, &answer) in job.seats.iter().zip(answers) {
            ended.extend(self.reveal(job, seat.node, answer).unwrap());
        }
        ended.pop().expect("the job ends with the last reveal")
    }

    fn wait(&mut self, blocks: u64) -> Vec<Job> {
        (0..blocks).flat_map(|_| self.block(&[]).ended).collect()
    }
}

#[test]
fn agreement_is_paid_and_the_rest_refunded() {
    let mut w = World::new(5);
    let before = w.state.balance(w.keys[0].address());
    let job = w.post(3);
    assert_eq!(w.state.escrow(), 30 * COIN);
    assert_eq!(job.seats.len(), 3);
    let ended = w.play(&job, &[7, 7, 7]);
    assert_eq!(ended.phase(), Phase::Settled);
    let fee = w.state.params.node_fee(1000);
    assert_eq!(ended.fee, fee);
    assert_eq!(w.state.balance(w.keys[0].address()), before - 3 * fee);
    for seat in &ended.seats {
        assert_eq!(seat.end(), End::Paid);
        assert_eq!(w.state.balance(seat.node), 8_000 * COIN + fee);
    }
    let receipts = ended.receipts(w.state.params.chain_id);
    assert!(receipts.len() == 3 && receipts.iter().all(|r| r.is_signed_by_node()));
    assert!(w.state.jobs.is_empty() && w.state.escrow() == 0);
}

#[test]
fn a_liar_loses_its_stake_and_the_job_still_settles() {
    let mut w = World::new(5);
    let job = w.post(3);
    let ended = w.play(&job, &[7, 8, 7]);
    assert_eq!(ended.phase(), Phase::Settled);
    assert_eq!(ended.seats[1].end(), End::Slashed);
    assert_eq!(w.state.nodes[&job.seats[1].node].stake, 0);
    assert_eq!(w.state.balance(w.state.params.treasury), 2_000 * COIN);
    // It is not drawn again: three others are left.
    let job = w.post(3);
    assert!(job.seats.iter().all(|s| s.node != ended.seats[1].node));
    assert!(matches!(
        w.act(0, Action::Post { model: MODEL, inputs: B256::ZERO, seed: 0, replicas: 4, max_fee: 30 * COIN }),
        Err(TxError::TooFewNodes { wanted: 4, active: 3 })
    ));
}

#[test]
fn without_a_majority_the_requester_gets_everything_back() {
    let mut w = World::new(4);
    let before = w.state.balance(w.keys[0].address());
    let job = w.post(3);
    let ended = w.play(&job, &[1, 2, 3]);
    assert_eq!(ended.phase(), Phase::Refunded);
    assert_eq!(w.state.balance(w.keys[0].address()), before);
    assert!(ended.seats.iter().all(|s| s.end() == End::Released));
}

#[test]
fn silence_is_penalised_and_two_of_three_still_settle() {
    let mut w = World::new(4);
    let job = w.post(3);
    for seat in &job.seats[..2] {
        w.commit(&job, seat.node, 7).unwrap();
    }
    assert!(w.wait(w.state.params.commit_window + 1).is_empty());
    for seat in &job.seats[..2] {
        w.reveal(&job, seat.node, 7).unwrap_or_default();
    }
    assert!(w.ended == 1 && w.state.jobs.is_empty(), "the job ends with the second reveal");
    assert_eq!(w.state.nodes[&job.seats[2].node].stake, 1_990 * COIN);
}

#[test]
fn nobody_answers_and_the_job_ends_by_itself() {
    let mut w = World::new(4);
    let before = w.state.balance(w.keys[0].address());
    w.post(3);
    let ended = w.wait(w.state.params.commit_window + 2);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].phase(), Phase::Refunded);
    assert_eq!(w.state.balance(w.keys[0].address()), before);
}

#[test]
fn committed_but_not_revealed() {
    let mut w = World::new(4);
    let job = w.post(3);
    for seat in &job.seats {
        w.commit(&job, seat.node, 7).unwrap();
    }
    w.reveal(&job, job.seats[0].node, 7).unwrap();
    let ended = w.wait(w.state.params.reveal_window + 2);
    assert_eq!(ended[0].phase(), Phase::Refunded);
    assert_eq!(ended[0].seats[1].end(), End::Silent);
}

#[test]
fn refusals_change_nothing() {
    let mut w = World::new(4);
    let job = w.post(3);
    let outsider = w.keys.iter().map(|k| k.address()).find(|a| job.seat(*a).is_none()).unwrap();
    let node = job.seats[0].node;
    let before = (w.state.accounts.clone(), w.state.nodes.clone());
    let copy = commitment(job.id, job.seats[1].node, B256::repeat_byte(7), 0, 1000, B256::repeat_byte(9));
    assert!(w.commit(&job, outsider, 7).is_err());
    assert!(w.reveal(&job, node, 7).is_err(), "nobody has committed");
    assert!(w.act(0, Action::Transfer { to: node, amount: u128::MAX }).is_err());
    assert!(w.act(0, Action::Publish { model: MODEL, name: "again".into() }).is_err());
    assert!(w.act(1, Action::Join { stake: 2_000 * COIN }).is_err());
    assert!(w.act(1, Action::Withdraw).is_err());
    assert!(w.act(0, Action::Leave).is_err());
    assert_eq!((w.state.accounts.clone(), w.state.nodes.clone()), before);

    // A copied commitment cannot be opened by the copier.
    w.act(w.key_of(node), Action::Commit { job: job.id, commitment: copy }).unwrap();
    for seat in &job.seats[1..] {
        w.commit(&job, seat.node, 7).unwrap();
    }
    assert!(w.reveal(&job, node, 7).is_err());
    // A foreign signature, a wrong nonce, a receipt signed by somebody else.
    let mut tx = w.tx(0, Action::Leave);
    tx.tx.from = node;
    assert!(matches!(w.block(&[tx]).refused[0].1, TxError::Signature(_)));
    let mut tx = w.tx(0, Action::Leave).tx;
    tx.nonce += 1;
    let tx = tx.sign(&w.keys[0], w.state.params.chain_id);
    assert!(matches!(w.block(&[tx]).refused[0].1, TxError::Nonce { .. }));
    let node = job.seats[1].node;
    let Action::Reveal { job, outputs, failure, cost, salt, .. } = w.reveal_action(&job, node, 7) else {
        panic!()
    };
    let receipt = vec![27; 65].into();
    assert!(w.act(w.key_of(node), Action::Reveal { job, outputs, failure, cost, receipt, salt }).is_err());
}

#[test]
fn leaving_gives_the_stake_back_after_the_unbonding_time() {
    let mut w = World::new(3);
    w.act(1, Action::Leave).unwrap();
    assert!(w.act(1, Action::Withdraw).is_err());
    w.wait(w.state.params.unbonding);
    w.act(1, Action::Withdraw).unwrap();
    assert_eq!(w.state.balance(w.keys[1].address()), 10_000 * COIN);
}

/// Thousands of random transactions: after each block the sum of coins is the same ([`World::block`] asserts it), every
/// job ends, the state survives its encoding, and a replay from genesis gives the same roots.
#[test]
fn random_play() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed, 0);
        let mut w = World::new(6);
        let mut posted = 0;
        for _ in 0..120 {
            let key = rng.below(w.keys.len());
            let jobs: Vec<Job> = w.state.jobs.values().cloned().collect();
            let job = (!jobs.is_empty()).then(|| jobs[rng.below(jobs.len())].clone());
            let answer = [7, 7, 7, 8][rng.below(4)];
            // What the rules refuse is part of the play.
            let _ = match (rng.below(8), job) {
                (0, _) => {
                    let to = w.keys[rng.below(w.keys.len())].address();
                    let amount = u128::from(rng.next_u64()) * 1000;
                    w.act(key, Action::Transfer { to, amount })
                }
                (1, _) => {
                    let (replicas, max_fee) = (rng.below(5) as u8, rng.below(40) as u128 * COIN);
                    let inputs = B256::repeat_byte(rng.next_u32() as u8);
                    let r = w.act(0, Action::Post { model: MODEL, inputs, seed: 1, replicas, max_fee });
                    posted += usize::from(r.is_ok());
                    r
                }
                (2, _) => w.act(key, if rng.below(2) == 0 { Action::Leave } else { Action::Withdraw }),
                (3, _) => w.act(key, Action::Join { stake: (500 + rng.below(2000)) as u128 * COIN }),
                (4, _) => Ok(w.wait(rng.below(20) as u64)),
                (_, Some(job)) => {
                    let node = job.seats[rng.below(job.seats.len())].node;
                    if job.phase() == Phase::Assigned {
                        w.commit(&job, node, answer)
                    } else {
                        w.reveal(&job, node, answer)
                    }
                }
                _ => Ok(Vec::new()),
            };
        }
        w.wait(w.state.params.commit_window + w.state.params.reveal_window + 4);
        assert!(w.state.jobs.is_empty(), "seed {seed}: a job did not end");
        assert_eq!(w.ended, posted, "seed {seed}");
        assert_eq!(State::decode(w.state.params.clone(), &w.state.encode()), Some(w.state.clone()));
        let mut replayed = w.genesis.clone();
        for block in &w.blocks {
            let block = Block::decode(&block.encode()).unwrap();
            assert!(block.replay(&mut replayed).is_some(), "seed {seed}, block {}", block.height);
        }
        assert_eq!(replayed, w.state);
    }
}
