//! The rules: every path of a job, and every refusal.

use crate::world::{MODEL, STAKE, World};
use alloy_primitives::{Address, B256};
use isobit_ledger::{
    Action, Answer, Ballot, BallotKind, COIN, Callback, End, Event, Inputs, Level, Phase, SignedBallot,
    State, Storage, TxError,
};

fn nodes(job: &isobit_ledger::Job) -> Vec<Address> {
    job.seats.iter().map(|s| s.node).collect()
}

fn ends(job: &isobit_ledger::Job) -> Vec<End> {
    job.seats.iter().map(|s| s.end()).collect()
}

#[test]
fn agreement_is_paid_and_the_rest_refunded() {
    let mut w = World::new(4);
    let (requester, owner) = (w.keys[0].address(), w.keys[5].address());
    let before = w.state.balance(requester);
    let job = w.post(Level::Replicated(3));
    assert_eq!(w.state.escrow(), 30 * COIN);
    let ended = w.play(&job, &nodes(&job), &[Some(7); 3]);
    assert_eq!(ended.phase(), Phase::Settled);
    let (fee, royalty) = (w.state.params.node_fee(1000), 1000 * w.state.params.unit_price / 2);
    assert_eq!((ended.fee, ended.royalty), (fee, royalty));
    assert_eq!(w.state.balance(requester), before - 3 * fee - royalty);
    assert_eq!(w.state.balance(owner), 10_000 * COIN + royalty);
    for seat in &ended.seats {
        assert_eq!(seat.end(), End::Paid);
        assert_eq!(w.state.balance(seat.node), 8_000 * COIN + fee);
    }
    let receipts = ended.receipts(w.state.params.chain_id);
    assert!(receipts.len() == 3 && receipts.iter().all(|r| r.is_signed_by_node()));
    assert!(w.state.jobs.is_empty() && w.state.escrow() == 0);
    let settled =
        Event::Settled { job: job.id, paid: 3 * fee + royalty, returned: 30 * COIN - 3 * fee - royalty };
    assert_eq!(w.events.last(), Some(&settled));
}

/// Level, nodes there are, answers of the first round, answers of the escalation, and how it ends.
#[test]
fn outcomes() {
    use End::{Paid, Released, Silent, Slashed};
    const A: Option<u8> = Some(1);
    const B: Option<u8> = Some(2);
    const C: Option<u8> = Some(3);
    const F: Option<u8> = Some(206);
    type Case<'a> = (u8, usize, &'a [Option<u8>], &'a [Option<u8>], Phase, &'a [End]);
    let cases: &[Case<'_>] = &[
        (1, 3, &[A], &[], Phase::Settled, &[Paid]),
        (1, 3, &[None], &[], Phase::Refunded, &[Silent]),
        (1, 3, &[F], &[], Phase::Settled, &[Paid]),
        (2, 2, &[A, A], &[], Phase::Settled, &[Paid, Paid]),
        (2, 2, &[A, B], &[], Phase::Refunded, &[Released, Released]),
        (3, 3, &[A, A, B], &[], Phase::Settled, &[Paid, Paid, Slashed]),
        (3, 3, &[F, F, F], &[], Phase::Settled, &[Paid, Paid, Paid]),
        (3, 3, &[F, A, F], &[], Phase::Settled, &[Paid, Slashed, Paid]),
        (3, 3, &[A, None, A], &[], Phase::Settled, &[Paid, Silent, Paid]),
        (3, 3, &[A, B, C], &[], Phase::Refunded, &[Released; 3]),
        // Who has committed and is never asked to reveal has done all it could.
        (3, 3, &[A, None, None], &[], Phase::Refunded, &[Released, Silent, Silent]),
        (
            3,
            7,
            &[A, None, None],
            &[A, A, A, A, A],
            Phase::Settled,
            &[Paid, Silent, Silent, Paid, Paid, Paid, Paid],
        ),
        (
            3,
            7,
            &[A, None, None],
            &[A, B, B, B, B],
            Phase::Settled,
            &[Slashed, Silent, Silent, Paid, Paid, Paid, Paid],
        ),
        (3, 6, &[A, B, C], &[], Phase::Refunded, &[Released; 3]),
        (2, 5, &[A, B], &[A, A, A], Phase::Settled, &[Paid, Slashed, Paid, Paid, Paid]),
        (2, 5, &[A, B], &[C, C, C], Phase::Settled, &[Slashed, Slashed, Paid, Paid, Paid]),
        (2, 5, &[A, B], &[A, B, C], Phase::Refunded, &[Released; 5]),
        (2, 5, &[None, None], &[A, A, A], Phase::Settled, &[Silent, Silent, Paid, Paid, Paid]),
        (2, 5, &[A, B], &[A, None, A], Phase::Settled, &[Paid, Slashed, Paid, Silent, Paid]),
        (
            3,
            7,
            &[A, B, C],
            &[B, B, B, None],
            Phase::Settled,
            &[Slashed, Paid, Slashed, Paid, Paid, Paid, Silent],
        ),
    ];
    for (at, &(n, there, first, second, phase, expected)) in cases.iter().enumerate() {
        let mut w = World::new(there);
        let requester = w.keys[0].address();
        let before = w.state.balance(requester);
        let job = w.post(Level::of(n));
        let mut now = w.play(&job, &nodes(&job), first);
        if !second.is_empty() {
            assert_eq!((now.phase(), now.round), (Phase::Assigned, 1), "case {at}");
            let open = now.seats.iter().filter(|s| s.end() == End::Open && s.reveal.is_empty());
            let open: Vec<Address> = open.map(|s| s.node).collect();
            now = w.play(&now, &open, second);
        }
        assert_eq!(now.phase(), phase, "case {at}");
        assert_eq!(ends(&now), expected, "case {at}");
        if phase == Phase::Refunded {
            assert!(w.state.balance(requester) >= before, "case {at}");
        }
        for seat in &now.seats {
            let lost = match seat.end() {
                Slashed => STAKE,
                Silent => w.state.params.silence_penalty,
                _ => 0,
            };
            assert_eq!(w.state.nodes[&seat.node].stake, STAKE - lost, "case {at}");
            let fee = if seat.end() == Paid { now.fee } else { 0 };
            assert_eq!(w.state.balance(seat.node), 10_000 * COIN - STAKE + fee, "case {at}");
        }
        assert!(w.state.jobs.is_empty() && w.state.nodes.values().all(|n| n.jobs == 0), "case {at}");
    }
}

#[test]
fn a_slashed_stake_is_split_and_its_owner_not_drawn_again() {
    let mut w = World::new(4);
    let before = w.state.balance(w.keys[0].address());
    let job = w.post(Level::Replicated(3));
    let ended = w.play(&job, &nodes(&job), &[Some(7), Some(8), Some(7)]);
    let p = w.state.params.clone();
    assert_eq!(w.state.balance(p.treasury), STAKE / 2);
    assert_eq!(w.state.balance(p.burn), STAKE / 10 * 3);
    assert_eq!(w.state.balance(w.keys[0].address()), before + STAKE / 5 - 2 * ended.fee - ended.royalty);
    let job = w.post(Level::Replicated(3));
    assert!(job.seat(ended.seats[1].node).is_none());
    assert_eq!(
        w.act(0, w.post_action(Level::Replicated(4))),
        Err(TxError::TooFewNodes { wanted: 4, active: 3 })
    );
}

#[test]
fn the_fee_is_capped_by_what_the_requester_offered() {
    let mut w = World::new(3);
    let p = w.state.params.clone();
    let max_fee = 3 * p.base_fee + 300 * p.unit_price; // 100 units a node; the answers claim 1,000
    let Action::Post { model, inputs, seed, level, deadline, callback_gas, .. } =
        w.post_action(Level::Replicated(3))
    else {
        panic!()
    };
    w.act(0, Action::Post { model, inputs, seed, level, max_fee, deadline, callback_gas }).unwrap();
    w.wait(1);
    let job = w.state.jobs.values().next().unwrap().clone();
    assert_eq!(job.cost_limit(&p), 300 * 2 / 7, "three nodes at 1 and the owner at 1/2 a unit");
    let ended = w.play(&job, &nodes(&job), &[Some(7); 3]);
    assert_eq!((ended.fee, ended.royalty), (max_fee / 3, 0));
}

#[test]
fn the_draw_is_by_stake_without_repetition_and_unknown_at_posting() {
    let mut counts = std::collections::BTreeMap::<Address, usize>::new();
    let mut w = World::new(4);
    let rich = w.keys[1].address();
    w.act(1, Action::Leave).unwrap();
    w.wait(w.state.params.unbonding);
    w.act(1, Action::Withdraw).unwrap();
    w.act(1, Action::Join { stake: 3 * STAKE, endpoint: String::new() }).unwrap();
    for _ in 0..300 {
        let job = w.post(Level::Signed);
        *counts.entry(job.seats[0].node).or_default() += 1;
        w.play(&job, &nodes(&job), &[Some(1)]);
    }
    // Half of the stake: 150 expected, standard deviation 8.7.
    assert!((110..190).contains(&counts[&rich]), "{counts:?}");
    assert_eq!(counts.len(), 4);
    let mut all = nodes(&w.post(Level::Replicated(4)));
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4);

    // The same posting in another block is drawn differently: the beacon is the hash of the block that it is in.
    let draws = (0..10u64).map(|i| {
        let mut w = World::new(4);
        let tensor = isobit_tensor::Tensor::new(&[], vec![i]).unwrap();
        let tensors = isobit_proof::encode_tensors([("noise", &tensor)]).into();
        w.block(&[(0, w.post_action(Level::Replicated(2))), (5, Action::Provide { tensors })]);
        w.wait(1);
        nodes(w.state.jobs.values().next().unwrap())
    });
    let draws: std::collections::BTreeSet<_> = draws.collect();
    assert!(draws.len() > 1);
}

#[test]
fn too_few_nodes_at_the_draw_wait_and_then_refund() {
    for comes in [true, false] {
        let mut w = World::new(2);
        let before = w.state.balance(w.keys[0].address());
        let (post, leave) = ((0, w.post_action(Level::Replicated(2))), (1, Action::Leave));
        assert_eq!(w.block(&[post, leave]), []);
        w.wait(3);
        assert_eq!(w.state.jobs.values().next().unwrap().phase(), Phase::Posted);
        if comes {
            w.act(3, Action::Join { stake: STAKE, endpoint: String::new() }).unwrap();
            assert_eq!(w.state.jobs.values().next().unwrap().seats.len(), 2);
        } else {
            w.wait(w.state.params.commit_window);
            assert_eq!(w.ended[0].phase(), Phase::Refunded);
            assert_eq!(w.state.balance(w.keys[0].address()), before);
        }
    }
}

#[test]
fn a_deadline_of_the_requester_ends_the_wait_and_penalises_nobody() {
    // Who has committed by the deadline, and what becomes of the job.
    for (committed, phase) in [(0, Phase::Refunded), (1, Phase::Refunded), (2, Phase::Settled)] {
        let mut w = World::new(7);
        let Action::Post { model, inputs, seed, level, max_fee, callback_gas, .. } =
            w.post_action(Level::Replicated(3))
        else {
            panic!()
        };
        let deadline = w.state.height + 6;
        w.act(0, Action::Post { model, inputs, seed, level, max_fee, deadline, callback_gas }).unwrap();
        w.wait(1);
        let job = w.state.jobs.values().next().unwrap().clone();
        for node in &nodes(&job)[..committed] {
            w.commit(&job, *node, 7).unwrap();
        }
        w.wait(deadline + 1 - w.state.height);
        if phase == Phase::Settled {
            for node in &nodes(&job)[..committed] {
                w.reveal(&job, *node, 7).unwrap();
            }
        }
        let ended = w.now(job.id);
        assert_eq!(ended.phase(), phase);
        if phase == Phase::Refunded {
            assert_eq!(ends(&ended), [End::Released; 3]);
            assert!(w.state.nodes.values().all(|n| n.stake == STAKE));
        }
    }
}

/// Every refusal, by its error; the state is the same after it as before, apart from the block.
#[test]
fn refusals_change_nothing() {
    let mut w = World::new(6);
    let job = w.post(Level::Replicated(3));
    let seats = nodes(&job);
    let outsider = (1..7).map(|i| w.keys[i].address()).find(|a| job.seat(*a).is_none()).unwrap();
    let post = |model, level, max_fee, deadline| Action::Post {
        model,
        inputs: Inputs::Root(B256::ZERO),
        seed: 0,
        level,
        max_fee,
        deadline,
        callback_gas: 0,
    };
    let publish = |name: &str, uri: &str| Action::Publish {
        model: B256::repeat_byte(3),
        name: name.into(),
        uri: uri.into(),
        unit_fee: 0,
    };
    let two = Level::Replicated(2);
    let nobody = B256::repeat_byte(0xee);
    type Is = fn(&TxError) -> bool;
    let cases: Vec<(usize, Action, Is)> = vec![
        (0, Action::Provide { tensors: vec![1, 2].into() }, |e| matches!(e, TxError::Tensors(_))),
        (
            0,
            Action::Post {
                model: MODEL,
                inputs: Inputs::Tensors(b"isobitV1\x01".to_vec().into()),
                seed: 0,
                level: two,
                max_fee: COIN,
                deadline: 0,
                callback_gas: 0,
            },
            |e| matches!(e, TxError::Tensors(_)),
        ),
        (
            0,
            Action::Post {
                model: MODEL,
                inputs: Inputs::Root(B256::ZERO),
                seed: 0,
                level: two,
                max_fee: COIN,
                deadline: 0,
                callback_gas: 1 << 40,
            },
            |e| matches!(e, TxError::CallbackGas { .. }),
        ),
        (0, Action::Publish { model: nobody, name: "digits".into(), uri: String::new(), unit_fee: 0 }, |e| {
            matches!(e, TxError::NameTaken(_))
        }),
        (0, Action::Publish { model: MODEL, name: "x".into(), uri: String::new(), unit_fee: 0 }, |e| {
            matches!(e, TxError::ModelExists(_))
        }),
        (0, publish("", ""), |e| matches!(e, TxError::Text { .. })),
        (0, publish("a\nb", ""), |e| matches!(e, TxError::Text { .. })),
        (0, publish(&"x".repeat(129), ""), |e| matches!(e, TxError::Text { most: 128, .. })),
        (0, publish("x", &"u".repeat(513)), |e| matches!(e, TxError::Text { most: 512, .. })),
        (0, Action::Join { stake: STAKE, endpoint: "e".repeat(257) }, |e| matches!(e, TxError::Text { .. })),
        (1, Action::Join { stake: STAKE, endpoint: String::new() }, |e| matches!(e, TxError::NodeExists(_))),
        (0, Action::Join { stake: COIN, endpoint: String::new() }, |e| matches!(e, TxError::Stake { .. })),
        (0, Action::Join { stake: 90_000 * COIN, endpoint: String::new() }, |e| {
            matches!(e, TxError::Balance { .. })
        }),
        (0, Action::Leave, |e| matches!(e, TxError::NoNode(..))),
        (0, Action::Withdraw, |e| matches!(e, TxError::NoNode(..))),
        (1, Action::Withdraw, |e| matches!(e, TxError::NoNode(_, "it must leave first"))),
        (0, post(nobody, two, COIN, 0), |e| matches!(e, TxError::NoModel(_))),
        (0, post(MODEL, two, 1, 0), |e| matches!(e, TxError::Fee { .. })),
        (0, post(MODEL, two, 90_000 * COIN, 0), |e| matches!(e, TxError::Balance { .. })),
        (0, post(MODEL, two, COIN, 1), |e| matches!(e, TxError::Deadline { deadline: 1, .. })),
        (0, post(MODEL, Level::Replicated(7), COIN, 0), |e| matches!(e, TxError::TooFewNodes { .. })),
        (0, post(MODEL, Level::Replicated(0), COIN, 0), |e| matches!(e, TxError::Replicas(0, 15))),
        (0, post(MODEL, Level::Replicated(1), COIN, 0), |e| matches!(e, TxError::Replicas(1, 15))),
        (0, post(MODEL, Level::Replicated(16), COIN, 0), |e| matches!(e, TxError::Replicas(16, 15))),
        (0, post(MODEL, Level::Optimistic, COIN, 0), |e| matches!(e, TxError::Level(Level::Optimistic))),
        (0, post(MODEL, Level::Attested, COIN, 0), |e| matches!(e, TxError::Level(Level::Attested))),
        (0, post(MODEL, Level::Proved, COIN, 0), |e| e.to_string().contains("ask for signed or replicated")),
        (1, Action::Commit { job: nobody, commitment: nobody }, |e| matches!(e, TxError::NoJob(_))),
        (w.key_of(outsider), w.commit_action(&job, outsider, 7), |e| matches!(e, TxError::Job { .. })),
        (w.key_of(seats[0]), Action::Commit { job: job.id, commitment: B256::ZERO }, |e| {
            matches!(e, TxError::Job { .. })
        }),
        (w.key_of(seats[0]), w.reveal_action(&job, seats[0], 7), |e| matches!(e, TxError::Job { .. })),
    ];
    let refused = |w: &mut World, key: usize, action: Action, is: fn(&TxError) -> bool| {
        let before = w.state.clone();
        let error = w.act(key, action.clone()).expect_err("it is refused");
        assert!(is(&error), "{action:?}: {error}");
        let after = State { height: before.height, time: before.time, ..w.state.clone() };
        assert_eq!(after, before, "{action:?}");
    };
    for (key, action, is) in cases {
        refused(&mut w, key, action, is);
    }

    // Committing twice; a copied commitment, which cannot be opened by the copier.
    let (key, copy) = (w.key_of(seats[0]), w.commit_action(&job, seats[1], 7));
    w.act(key, copy.clone()).unwrap();
    refused(&mut w, key, copy, |e| matches!(e, TxError::Job { why: "it has committed already", .. }));
    for node in &seats[1..] {
        w.commit(&job, *node, 7).unwrap();
    }
    let not_this = |e: &TxError| matches!(e, TxError::Job { why: "this is not what it committed to", .. });
    let action = w.reveal_action(&job, seats[0], 7);
    refused(&mut w, key, action, not_this);
    let stolen = w.reveal_action(&job, seats[1], 7);
    refused(&mut w, key, stolen, not_this);
    // Another answer than the committed one, changed fields, a foreign or malformed receipt signature.
    let key = w.key_of(seats[1]);
    let action = w.reveal_action(&job, seats[1], 8);
    refused(&mut w, key, action, not_this);
    let Action::Reveal { job: id, outputs, failure, cost, receipt, salt } =
        w.reveal_action(&job, seats[1], 7)
    else {
        panic!()
    };
    let Action::Reveal { receipt: foreign, .. } = w.reveal_action(&job, seats[2], 7) else { panic!() };
    let any = |e: &TxError| matches!(e, TxError::Job { .. });
    let reveal = |outputs, failure, cost, receipt, salt| Action::Reveal {
        job: id,
        outputs,
        failure,
        cost,
        receipt,
        salt,
    };
    for action in [
        reveal(outputs, 1, cost, receipt.clone(), salt),
        reveal(B256::ZERO, 0, cost, receipt.clone(), salt),
        reveal(B256::ZERO, 3, 1, receipt.clone(), salt),
        reveal(outputs, failure, cost + 1, receipt.clone(), salt),
        reveal(outputs, failure, cost, receipt.clone(), B256::ZERO),
        reveal(outputs, failure, cost, foreign, salt),
        reveal(outputs, failure, cost, vec![1; 64].into(), salt),
        reveal(outputs, failure, cost, vec![0xff; 65].into(), salt),
    ] {
        refused(&mut w, key, action, any);
    }
    w.reveal(&job, seats[1], 7).unwrap();
    let action = w.reveal_action(&job, seats[1], 7);
    refused(&mut w, key, action, any);
}

/// A node that was penalised for its silence cannot come back in the escalation, nor be penalised twice.
#[test]
fn a_silent_node_is_out() {
    let mut w = World::new(5);
    let job = w.post(Level::Replicated(2));
    let (first, silent) = (job.seats[0].node, job.seats[1].node);
    w.commit(&job, first, 1).unwrap();
    w.wait(w.state.params.commit_window + 1);
    let now = w.now(job.id);
    assert_eq!((now.round, now.seats.len(), now.seats[1].end()), (1, 5, End::Silent));
    let missed = TxError::Job { job: job.id, node: silent, why: "it missed its round" };
    assert_eq!(w.commit(&job, silent, 1), Err(missed));
    for seat in &now.seats[2..] {
        w.commit(&job, seat.node, 1).unwrap();
    }
    assert!(matches!(w.reveal(&job, silent, 1), Err(TxError::Job { .. })));
    for seat in now.seats.iter().filter(|s| s.node != silent) {
        w.reveal(&job, seat.node, 1).unwrap();
    }
    assert_eq!(w.now(job.id).phase(), Phase::Settled);
    assert_eq!(w.state.nodes[&silent].stake, STAKE - w.state.params.silence_penalty);
}

/// Inputs that come with the posting, the answer that stays, and the callback that is due.
#[test]
fn a_contracts_job_leaves_an_answer_and_a_callback() {
    let mut w = World::new(4);
    let tensor = isobit_tensor::Tensor::new(&[2], vec![1.0f32, 2.0]).unwrap();
    let set = isobit_proof::encode_tensors([("x", &tensor)]);
    let root = B256::from(isobit_proof::tensors_root([("x", &tensor)]).0);
    let (from, treasury) = (w.keys[0].address(), w.state.params.treasury);
    let before = w.state.balance(from);
    let post = Action::Post {
        model: MODEL,
        inputs: Inputs::Tensors(set.clone().into()),
        seed: 0,
        level: Level::Replicated(3),
        max_fee: COIN,
        deadline: 0,
        callback_gas: 100_000,
    };
    w.act(0, post).unwrap();
    let fee = w.state.params.callback_fee(100_000);
    assert!(fee > 0);
    assert_eq!((w.state.balance(from), w.state.balance(treasury)), (before - COIN - fee, fee));
    w.wait(1);
    let job = w.state.jobs.values().next().unwrap().clone();
    assert_eq!(job.inputs, root);
    let posted = Event::Posted {
        job: job.id,
        requester: from,
        model: MODEL,
        inputs: root,
        tensors: set.clone().into(),
    };
    assert!(w.events.contains(&posted));
    w.act(1, Action::Provide { tensors: set.clone().into() }).unwrap();
    assert_eq!(w.state.tensors[&root], set);
    let ended = w.play(&job, &nodes(&job), &[Some(7); 3]);
    let paid = 3 * ended.fee + ended.royalty;
    let answer = Answer { settled: true, outputs: B256::repeat_byte(7), failure: 0, cost: 1000, paid };
    assert_eq!(w.state.answers[&job.id], answer);
    assert_eq!(w.state.callbacks, [Callback { job: job.id, to: from, gas: 100_000 }]);
    assert_eq!(w.state.balance(from), before - paid - fee);
}

/// A name stands for its owner's last model; nobody else can take it, and only so many jobs are kept.
#[test]
fn names_and_the_limit_of_jobs() {
    let mut w = World::new(3);
    let (second, owner) = (B256::repeat_byte(0x55), w.keys.len() - 1);
    let publish =
        || Action::Publish { model: second, name: "digits".into(), uri: String::new(), unit_fee: 0 };
    assert_eq!(w.act(0, publish()), Err(TxError::NameTaken("digits".into())));
    w.act(owner, publish()).unwrap();
    assert_eq!(w.state.names["digits"], second);
    w.state.params.max_jobs = 2;
    let post = (0, w.post_action(Level::Signed));
    assert_eq!(w.block(&[post.clone(), post.clone(), post]), [TxError::Busy(2)]);
}

#[test]
fn leaving_gives_the_stake_back_after_the_unbonding_time_and_the_last_job() {
    let mut w = World::new(2);
    let job = w.post(Level::Replicated(2));
    w.act(1, Action::Leave).unwrap();
    assert!(matches!(w.act(1, Action::Leave), Err(TxError::NoNode(_, "it is leaving already"))));
    assert_eq!(w.state.coins().unwrap().unbonding, STAKE);
    assert!(matches!(w.act(1, Action::Withdraw), Err(TxError::NoNode(_, "its stake is still unbonding"))));
    // A node on its way out is still slashed for a job it was drawn for.
    w.wait(w.state.params.commit_window + 2);
    assert!(w.state.jobs.is_empty());
    assert_eq!(w.state.nodes[&w.keys[1].address()].stake, STAKE - w.state.params.silence_penalty);
    w.wait(w.state.params.unbonding);
    w.act(1, Action::Withdraw).unwrap();
    assert_eq!(w.state.balance(w.keys[1].address()), 10_000 * COIN - w.state.params.silence_penalty);
    assert_eq!(w.now(job.id).phase(), Phase::Refunded);
}

#[test]
fn invariants_see_a_broken_state() {
    let mut w = World::new(3);
    let job = w.post(Level::Replicated(2));
    let node = job.seats[0].node;
    let good = w.state.clone();
    let breaks: [&dyn Fn(&mut State); 6] = [
        &|s| *s.accounts.get_mut(&node).unwrap() += 1,
        &|s| *s.accounts.get_mut(&node).unwrap() = u128::MAX,
        &|s| s.nodes.get_mut(&node).unwrap().jobs = 0,
        &|s| s.models.clear(),
        &|s| drop(s.jobs.get_mut(&job.id).unwrap().seats.pop()),
        &|s| s.jobs.get_mut(&job.id).unwrap().seats[1].node = node,
    ];
    for (at, change) in breaks.into_iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        assert!(bad.check_invariants().is_err(), "case {at}");
    }
}

fn ballot(w: &World, key: usize, kind: BallotKind, height: u64, round: i64, value: u8) -> SignedBallot {
    let validator = w.keys[key].address();
    let value = B256::repeat_byte(value);
    let ballot = Ballot { kind, height, round, pol_round: -1, value, validator };
    let signature = w.keys[key].sign(ballot.digest(w.state.params.chain_id)).as_bytes();
    SignedBallot { ballot, signature }
}

#[test]
fn validators_weigh_by_stake_and_are_not_drawn() {
    let mut w = World::new(3);
    assert_eq!(w.act(0, Action::Validate { stake: 1, endpoint: String::new() }), {
        let least = w.state.params.min_stake;
        Err(TxError::Stake { stake: 1, least })
    });
    w.act(0, Action::Validate { stake: 3_000 * COIN, endpoint: "there".into() }).unwrap();
    let me = w.keys[0].address();
    let validators = w.state.validators();
    assert_eq!(validators.iter().map(|(a, n)| (*a, n.weight())).collect::<Vec<_>>(), [(me, 3_000)]);
    assert_eq!(w.act(0, Action::Leave), Err(TxError::LastValidator(me)));
    // Nobody is both, and the three nodes are the only ones drawn.
    let both = Action::Join { stake: STAKE, endpoint: String::new() };
    assert_eq!(w.act(0, both), Err(TxError::NodeExists(me)));
    let four = w.act(0, w.post_action(Level::Replicated(4)));
    assert_eq!(four, Err(TxError::TooFewNodes { wanted: 4, active: 3 }));
    w.act(4, Action::Validate { stake: STAKE, endpoint: String::new() }).unwrap();
    w.act(0, Action::Leave).unwrap();
    assert_eq!(w.state.validators().len(), 1);
    w.wait(w.state.params.unbonding);
    w.act(0, Action::Withdraw).unwrap();
    assert_eq!(w.state.balance(me), 10_000 * COIN);
}

#[test]
fn who_contradicts_itself_pays_whoever_shows_it() {
    use BallotKind::{Precommit, Prevote, Proposal};
    let mut w = World::new(2);
    for key in [0, 3] {
        w.act(key, Action::Validate { stake: STAKE, endpoint: String::new() }).unwrap();
    }
    let (liar, since) = (w.keys[0].address(), w.state.nodes[&w.keys[0].address()].since);
    w.wait(5);
    let height = since + 2;
    let good = ballot(&w, 0, Precommit, height, 1, 7);
    let nothing = |w: &mut World, first: SignedBallot, second: SignedBallot| {
        let before = w.state.clone();
        w.act(1, Action::Accuse { first, second }).unwrap_err();
        assert_eq!(before.nodes, w.state.nodes);
    };
    // The same, another round, kind, height, of another, older than the stake, of a block to come, an honest node's.
    let others = [
        ballot(&w, 0, Precommit, height, 1, 7),
        ballot(&w, 0, Precommit, height, 2, 8),
        ballot(&w, 0, Prevote, height, 1, 8),
        ballot(&w, 0, Precommit, height + 1, 1, 8),
        ballot(&w, 3, Precommit, height, 1, 8),
    ];
    others.into_iter().for_each(|other| nothing(&mut w, good, other));
    for (key, at) in [(0, since), (0, w.state.height + 50), (1, height)] {
        let pair = [7, 8].map(|v| ballot(&w, key, Precommit, at, 1, v));
        nothing(&mut w, pair[0], pair[1]);
    }
    // A signature of somebody else, of another chain, and the same one in another form.
    let mut forged = ballot(&w, 3, Precommit, height, 1, 8);
    forged.ballot.validator = liar;
    nothing(&mut w, good, forged);
    let mut other_chain = ballot(&w, 0, Precommit, height, 1, 8);
    other_chain.signature = w.keys[0].sign(other_chain.ballot.digest(1)).as_bytes();
    nothing(&mut w, good, other_chain);
    let mut malleated = ballot(&w, 0, Precommit, height, 1, 8);
    malleated.signature[64] ^= 1;
    nothing(&mut w, good, malleated);

    let before = [1, 0].map(|k| w.state.balance(w.keys[k].address()));
    let (first, second) = (ballot(&w, 0, Proposal, height, 0, 1), ballot(&w, 0, Proposal, height, 0, 2));
    w.act(1, Action::Accuse { first, second }).unwrap();
    let taken = STAKE / 20;
    assert_eq!(w.state.balance(w.keys[1].address()) - before[0], taken / 5);
    let node = &w.state.nodes[&liar];
    assert!(node.punished && node.leaves > 0 && node.stake == STAKE - taken);
    assert_eq!(w.state.validators().len(), 1);
    // Once is enough; what is left comes back after the unbonding time.
    let other = ballot(&w, 0, Precommit, height, 1, 8);
    nothing(&mut w, good, other);
    w.wait(w.state.params.unbonding);
    w.act(0, Action::Withdraw).unwrap();
    assert_eq!(w.state.balance(liar) - before[1], STAKE - taken);
    // The old word does not hurt a new stake.
    w.act(0, Action::Validate { stake: STAKE, endpoint: String::new() }).unwrap();
    let other = ballot(&w, 0, Precommit, height, 1, 8);
    nothing(&mut w, good, other);

    // The last validator pays and stays.
    let mut w = World::new(2);
    w.act(0, Action::Validate { stake: STAKE, endpoint: String::new() }).unwrap();
    w.wait(3);
    let pair = [1, 2].map(|v| ballot(&w, 0, Prevote, 4, 0, v));
    w.act(1, Action::Accuse { first: pair[0], second: pair[1] }).unwrap();
    assert_eq!(w.state.validators()[0].1.stake, STAKE - taken);
}
