//! Random play: whatever is sent, coins are conserved, refusals change nothing and every job ends.

use crate::world::{MODEL, STAKE, World};
use alloy_primitives::B256;
use isobit_ledger::{
    Action, Ballot, BallotKind, BlockContext, COIN, End, Inputs, Level, Phase, SignedBallot, apply, tick,
};
use isobit_numerics::rng::Rng;

fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.below(of.len())]
}

/// Mostly 1, so that there are majorities; else another output, a failure.
fn answer(rng: &mut Rng) -> u8 {
    pick(rng, &[1, 1, 1, 1, 2, 3, 206])
}

/// A sender and something to send: often sensible, sometimes not.
fn random_action(w: &World, rng: &mut Rng) -> (usize, Action) {
    let key = rng.below(w.keys.len());
    let jobs: Vec<_> = w.state.jobs.values().collect();
    let job = (!jobs.is_empty()).then(|| jobs[rng.below(jobs.len())]);
    if let Some(job) = job.filter(|j| !j.seats.is_empty() && rng.below(10) < 8) {
        // Which answer a node gives follows from job and node, so that most commitments can be opened.
        // Mostly a node of which something is expected.
        let open: Vec<_> = job.seats.iter().filter(|s| s.end() == End::Open && s.reveal.is_empty()).collect();
        let any = open.is_empty() || rng.below(10) == 0;
        let node =
            if any { &job.seats[rng.below(job.seats.len())] } else { open[rng.below(open.len())] }.node;
        let mut fixed = Rng::new(u64::from(job.id[0]) << 8 | u64::from(node[0]), 1);
        let usual = answer(&mut fixed);
        let given = if rng.below(20) == 0 { answer(rng) } else { usual };
        let commit = (job.phase() == Phase::Assigned) != (rng.below(20) == 0);
        let key = if rng.below(20) == 0 { key } else { w.key_of(node) };
        let action =
            if commit { w.commit_action(job, node, given) } else { w.reveal_action(job, node, given) };
        return (key, action);
    }
    let action = match rng.below(8) {
        0 => {
            let tensor = isobit_tensor::Tensor::new(&[1], vec![rng.next_u32()]).unwrap();
            let mut tensors = isobit_proof::encode_tensors([("x", &tensor)]);
            tensors.truncate(tensors.len() - rng.below(2));
            Action::Provide { tensors: tensors.into() }
        }
        1 => Action::Publish {
            model: B256::repeat_byte(rng.below(5) as u8),
            name: "n".repeat(rng.below(140)),
            uri: String::new(),
            unit_fee: rng.next_u64().into(),
        },
        2 => Action::Leave,
        3 => Action::Withdraw,
        4 if rng.below(12) == 0 => {
            Action::Validate { stake: STAKE / 4 * rng.below(8) as u128, endpoint: String::new() }
        }
        4 if rng.below(3) == 0 => {
            let mut one = |value: u8| {
                let (kind, validator) = (BallotKind::Prevote, w.keys[key].address());
                let height = w.state.height.saturating_sub(rng.below(9) as u64);
                let ballot = Ballot {
                    kind,
                    height,
                    round: 0,
                    pol_round: -1,
                    value: B256::repeat_byte(value),
                    validator,
                };
                let signature = w.keys[key].sign(ballot.digest(w.state.params.chain_id)).as_bytes();
                SignedBallot { ballot, signature }
            };
            let first = one(1);
            let mut second = one(2);
            second.ballot.height = first.ballot.height;
            second.signature = w.keys[key].sign(second.ballot.digest(w.state.params.chain_id)).as_bytes();
            return (rng.below(w.keys.len()), Action::Accuse { first, second });
        }
        4 => Action::Join { stake: STAKE / 4 * rng.below(8) as u128, endpoint: "e".repeat(rng.below(300)) },
        _ => Action::Post {
            model: pick(rng, &[MODEL, MODEL, MODEL, B256::repeat_byte(2)]),
            inputs: Inputs::Root(B256::repeat_byte(rng.next_u32() as u8)),
            seed: rng.next_u64(),
            level: pick(
                rng,
                &[
                    Level::Signed,
                    Level::Replicated(2),
                    Level::Replicated(3),
                    Level::Replicated(5),
                    Level::Proved,
                ],
            ),
            max_fee: rng.below(40) as u128 * COIN / 10,
            deadline: [0, 0, w.state.height + rng.below(30) as u64][rng.below(3)],
            callback_gas: [0, 100_000, 3_000_000][rng.below(3)],
        },
    };
    (key, action)
}

/// The invariants are checked after every action
/// and every end of a block.
#[test]
fn coins_are_conserved_and_every_job_ends() {
    let (seeds, actions) = (330, 1000);
    let (mut accepted, mut refused, mut callbacks, mut accused) = (0, 0, 0, 0);
    let mut reached = std::collections::BTreeMap::<String, usize>::new();
    for seed in 0..seeds {
        let mut rng = Rng::new(seed, 0);
        let mut w = World::new(4 + rng.below(9));
        let params = w.state.params.clone();
        let total = w.state.supply;
        let (mut posted, mut ended) = (0, 0);
        let mut end_block = |w: &mut World, rng: &mut Rng| {
            let block = BlockContext { height: w.state.height, time: w.state.time, parent: w.parent };
            let (_, over) = tick(&mut w.state, &params, &block);
            for job in &over {
                assert!(job.is_over(), "seed {seed}");
                *reached.entry(format!("{:?} in round {}", job.phase(), job.round)).or_default() += 1;
            }
            w.state.check_invariants().unwrap_or_else(|e| panic!("seed {seed}, end of block: {e}"));
            w.state.height += 1;
            w.state.time += rng.below(5) as u64;
            w.parent = B256::from(isobit_tensor::Hash::of(w.parent.as_slice()).0);
            over.len()
        };
        for _ in 0..actions {
            let (key, action) = random_action(&w, &mut rng);
            let from = w.keys[key].address();
            let block = BlockContext { height: w.state.height, time: w.state.time, parent: w.parent };
            let before = w.state.clone();
            match apply(&mut w.state, &params, &block, from, &action) {
                Ok(events) => {
                    assert!(!events.is_empty());
                    accepted += 1;
                    accused += usize::from(matches!(action, Action::Accuse { .. }));
                    posted += usize::from(matches!(action, Action::Post { .. }));
                }
                Err(_) => {
                    refused += 1;
                    assert_eq!(w.state, before, "seed {seed}: a refused {action:?} changed the state");
                }
            }
            w.state.check_invariants().unwrap_or_else(|e| panic!("seed {seed}, {action:?}: {e}"));
            if rng.below(4) == 0 {
                ended += end_block(&mut w, &mut rng);
            }
        }
        // Two rounds of both windows, a draw before each, and time that moves on.
        let patience = 2 * (params.commit_window + params.reveal_window) + 10;
        for _ in 0..patience {
            w.state.time += 1;
            ended += end_block(&mut w, &mut rng);
        }
        assert!(w.state.jobs.is_empty(), "seed {seed}: a job did not end");
        assert_eq!(ended, posted, "seed {seed}");
        assert_eq!(w.state.answers.len(), posted, "seed {seed}");
        callbacks += w.state.callbacks.len();
        assert_eq!(w.state.total_coins(), total, "seed {seed}");
        assert_eq!(w.state.coins().unwrap().escrow, 0, "seed {seed}");
    }
    // The play is worth something only if it gets everywhere.
    println!("{accepted} accepted, {refused} refused, {accused} accused, {reached:?}");
    assert!(accepted > 80_000 && accused > 30 && refused > 10_000 && callbacks > 1_000);
    for kind in ["Settled in round 0", "Settled in round 1", "Refunded in round 0", "Refunded in round 1"] {
        assert!(reached.get(kind).is_some_and(|&n| n >= 50), "{kind}: {reached:?}");
    }
}
