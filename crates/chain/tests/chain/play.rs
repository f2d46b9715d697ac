//! Random transactions over many blocks: coins are conserved, blocks replay, changed blocks are refused, roots are those of
//! all accounts at once, and the pool refuses what no block could have.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::TrieAccount;
use alloy_trie::proof::verify_proof;
use isobit_chain::{Block, ChainError, Order};
use isobit_ledger::{Action, COIN, Level};
use isobit_numerics::rng::Rng;

use crate::world::{MODEL, World};

fn transfer(to: Address, value: u128) -> Order {
    Order {
        nonce: 0,
        gas: 21_000,
        max_fee_per_gas: 0,
        tip: 0,
        to: to.into(),
        value,
        data: Default::default(),
    }
}

fn random(w: &mut World, rng: &mut Rng) {
    let key = rng.below(w.keys.len());
    let action = match rng.below(8) {
        0 | 1 => {
            let to = Address::repeat_byte(rng.below(40) as u8 + 0x20);
            // More than there is is refused, and nothing comes of it.
            let _ = w.order(key, transfer(to, COIN * rng.below(3_000) as u128 * rng.below(9) as u128));
            return;
        }
        2 => [Action::Leave, Action::Withdraw][rng.below(2)].clone(),
        3 => Action::Join { stake: COIN * 100 * rng.below(30) as u128, endpoint: "e".repeat(rng.below(60)) },
        4 => Action::Publish {
            model: [MODEL, B256::repeat_byte(rng.next_u32() as u8)][rng.below(2)],
            name: format!("m{}", rng.below(9)),
            uri: String::new(),
            unit_fee: 3,
        },
        _ => w.post_action([Level::Signed, Level::Replicated(2), Level::Replicated(3)][rng.below(3)]),
    };
    let params = w.chain.genesis().params.clone();
    let _ = w.order(key, isobit_chain::ledger_order(&action, &params));
}

#[test]
fn random_blocks_conserve_coins_and_replay() {
    for seed in 0..6 {
        let mut rng = Rng::new(seed, 0);
        let mut w = World::new(4);
        for _ in 0..50 {
            for _ in 0..rng.below(6) {
                random(&mut w, &mut rng);
            }
            let built = w.block();
            for job in built.ended {
                assert!(job.is_over());
            }
            let jobs = w.chain.head().jobs();
            let fresh = |job: &&isobit_ledger::Job| {
                !job.seats.is_empty() && job.seats.iter().all(|s| s.commitment.is_zero())
            };
            if let Some(job) = jobs.iter().find(fresh).filter(|_| rng.below(2) == 0) {
                w.answer(job.id, &|_| B256::repeat_byte(7));
            }
        }
        // Every job ends: two rounds of both windows at most.
        for _ in 0..230 {
            w.block();
        }
        assert_eq!(w.chain.head().open_jobs(), 0, "seed {seed}");
        assert_eq!(w.chain.head().coins().unwrap().escrow, 0);
        w.replay();
    }
}

/// The root against proofs of every account that was touched, checked by the library alone.
#[test]
fn every_account_is_proved_by_the_root() {
    let mut w = World::new(3);
    let mut rng = Rng::new(3, 0);
    for _ in 0..30 {
        for _ in 0..4 {
            random(&mut w, &mut rng);
        }
        w.block();
        let head = w.chain.head();
        for byte in 0..=0xffu8 {
            for address in [Address::repeat_byte(byte), w.keys[usize::from(byte) % w.keys.len()].address()] {
                let proof = head.proof(address, &[B256::ZERO]).unwrap();
                let (nonce, balance, code_hash, storage_root) = proof.account;
                let account = TrieAccount { nonce, balance: U256::from(balance), storage_root, code_hash };
                let exists = nonce > 0 || balance > 0;
                let key = alloy_trie::Nibbles::unpack(keccak256(address));
                let value = exists.then(|| alloy_rlp::encode(account));
                verify_proof(head.header.state_root, key, value, &proof.proof).unwrap();
            }
        }
    }
}

/// A block that differs in anything from what was made is refused.
#[test]
fn changed_blocks_are_refused() {
    let mut w = World::new(3);
    w.send(0, &w.post_action(Level::Signed));
    w.block();
    w.send(0, &w.post_action(Level::Replicated(2)));
    w.order(1, transfer(Address::repeat_byte(9), 5)).unwrap();
    let head = w.chain.head();
    let good = w.block().block;
    assert!(good.txs.len() == 3, "two of users, one of its own");
    assert_eq!(head.execute(&good).unwrap().block, good);
    type Change = fn(&mut Block);
    let cases: [(&str, Change); 14] = [
        ("number", |b| b.header.number += 1),
        ("parent", |b| b.header.parent_hash = B256::ZERO),
        ("time before the parent's", |b| b.header.timestamp = 0),
        ("state root", |b| b.header.state_root = B256::ZERO),
        ("receipts root", |b| b.header.receipts_root = B256::ZERO),
        ("transactions root", |b| b.header.transactions_root = B256::ZERO),
        ("gas used", |b| b.header.gas_used += 1),
        ("gas limit", |b| b.header.gas_limit += 1),
        ("base fee", |b| b.header.base_fee_per_gas = Some(0)),
        ("randomness", |b| b.header.mix_hash = B256::ZERO),
        ("bloom", |b| b.header.logs_bloom = Default::default()),
        ("order", |b| b.txs.swap(0, 1)),
        ("a transaction less", |b| drop(b.txs.remove(0))),
        ("without its own transaction", |b| drop(b.txs.pop())),
    ];
    for (what, change) in cases {
        let mut block = good.clone();
        change(&mut block);
        block.hash = block.header.hash_slow();
        let error = head.execute(&block).expect_err(what);
        assert!(matches!(error, ChainError::Block { .. }), "{what}: {error}");
    }
}

/// Changed bytes of a block: an error, or the same bytes again; never a panic.
#[test]
fn decoding_is_total() {
    let mut w = World::new(3);
    w.send(0, &w.post_action(Level::Signed));
    let block = w.block().block.encode();
    let mut rng = Rng::new(7, 0);
    for _ in 0..3_000 {
        let mut bytes = block.clone();
        for _ in 0..=rng.below(3) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.next_u32() as u8;
        }
        if rng.below(4) == 0 {
            bytes.truncate(rng.below(bytes.len()));
        }
        if let Ok(decoded) = Block::decode(&bytes) {
            assert_eq!(decoded.encode(), bytes);
            let _ = w.chain.head().execute(&decoded); // refused or not, it returns
        }
        let _ = w.chain.submit(&bytes);
    }
}

/// What the pool refuses, in the words that Ethereum's clients look for; and what waits comes in order of nonce and price.
#[test]
fn the_pool() {
    let mut w = World::new(3);
    let (key, chain_id) = (w.keys[0].clone(), 1729);
    let to = Address::repeat_byte(9);
    let base = Order { max_fee_per_gas: 2_000_000_000, ..transfer(to, 1) };
    let send =
        |w: &World, order: Order| w.chain.submit(&order.sign(&key, chain_id).1).map_err(|e| e.to_string());
    type Case<'a> = (Order, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (Order { nonce: 9_999, ..base.clone() }, "nonce too high"),
        (Order { gas: 20_999, ..base.clone() }, "intrinsic gas too low"),
        (Order { gas: 60_000_001, ..base.clone() }, "exceeds block gas limit"),
        (Order { value: u128::MAX, ..base.clone() }, "insufficient funds"),
        (Order { max_fee_per_gas: 1, ..base.clone() }, "underpriced"),
        (Order { tip: 3_000_000_000, ..base.clone() }, "max priority fee per gas higher than max fee"),
    ];
    for (order, why) in cases {
        let error = send(&w, order).expect_err(why);
        assert!(error.contains(why), "{error}");
    }
    assert!(
        w.chain.submit(&base.clone().sign(&key, 1).1).unwrap_err().to_string().contains("invalid chain id")
    );
    assert!(w.chain.submit(&[2; 100]).is_err());
    assert!(w.chain.submit(&vec![2; 200 << 10]).unwrap_err().to_string().contains("128 KiB"));

    // A gap waits; filled, both go. A replacement must offer more.
    send(&w, Order { nonce: 1, ..base.clone() }).unwrap();
    assert!(w.block().block.txs.is_empty());
    assert_eq!(w.chain.pending_nonce(key.address()).unwrap(), 0);
    send(&w, base.clone()).unwrap();
    assert_eq!(w.chain.pending_nonce(key.address()).unwrap(), 2);
    assert!(
        send(&w, Order { value: 2, ..base.clone() })
            .unwrap_err()
            .contains("replacement transaction underpriced")
    );
    assert!(send(&w, base.clone()).unwrap_err().contains("already known"));
    let dearer = Order { value: 2, max_fee_per_gas: 3_000_000_000, ..base.clone() };
    send(&w, dearer).unwrap();
    assert_eq!(w.block().block.txs.len(), 2);
    assert_eq!(w.chain.head().balance(to).unwrap(), 3);
    assert!(send(&w, base).unwrap_err().contains("nonce too low"));
    assert_eq!(w.chain.pool_size(), 0);

    // Better paid first, each sender's in order.
    for (key, tip) in [(1, 10), (2, 30), (3, 20)] {
        for _ in 0..2 {
            w.order(key, Order { tip, ..transfer(to, 1) }).unwrap();
        }
    }
    let senders: Vec<usize> = w.block().block.txs.iter().map(|tx| w.key_of(tx.signer())).collect();
    assert_eq!(senders, [2, 2, 3, 3, 1, 1]);

    // As many as fit: the rest stays for later blocks, and none is lost.
    let mut by_block = BTreeMap::new();
    for _ in 0..40 {
        let gas = 10_000_000;
        w.order(1, Order { gas, ..transfer(to, 1) }).unwrap();
    }
    while w.chain.pool_size() > 0 {
        let built = w.block();
        by_block.insert(built.block.header.number, built.block.txs.len());
    }
    assert_eq!(by_block.values().sum::<usize>(), 40);
}

/// The states of the last blocks are kept as they were, whatever has gone to the database since.
#[test]
fn the_last_states_can_be_asked_for() {
    let mut w = World::new(1);
    let to = Address::repeat_byte(0x99);
    let first = w.chain.head().header.number;
    for _ in 0..200 {
        w.order(0, transfer(to, 1)).unwrap();
        w.block();
    }
    let last = w.chain.head().header.number;
    for number in 0..=last {
        let head = w.chain.head_at(number);
        assert_eq!(head.is_some(), number > last - 128, "{number}");
        let Some(head) = head else { continue };
        assert_eq!(head.hash, w.chain.store().header(number).unwrap().unwrap().hash_slow());
        assert_eq!(head.balance(to).unwrap(), u128::from(number - first));
        let proof = head.proof(to, &[]).unwrap();
        let account = TrieAccount { balance: U256::from(number - first), ..TrieAccount::default() };
        let leaf = alloy_rlp::encode(account);
        verify_proof(
            head.header.state_root,
            alloy_trie::Nibbles::unpack(keccak256(to)),
            Some(leaf),
            &proof.proof,
        )
        .unwrap();
    }
    assert!(w.chain.head_at(last + 1).is_none());
}

/// A block that has no room for one of a sender's transactions may have room for a smaller one after it, which waits then.
#[test]
fn a_full_block_loses_nothing() {
    let mut w = World::new(1);
    let endless = Order {
        gas: 40_000_000,
        to: alloy_primitives::TxKind::Create,
        data: vec![0x5b, 0x60, 0x00, 0x56].into(),
        ..transfer(Address::ZERO, 0)
    };
    let to = Address::repeat_byte(0x98);
    let sent = [endless.clone(), endless, transfer(to, 5), transfer(to, 6)].map(|o| w.order(0, o).unwrap());
    let hashes = |built: &isobit_chain::Built| -> Vec<B256> {
        built.block.txs.iter().map(|tx| *tx.inner().hash()).collect()
    };
    assert_eq!(hashes(&w.block()), sent[..1]);
    assert_eq!(w.chain.pool_size(), 3);
    assert_eq!(hashes(&w.block()), sent[1..]);
    assert_eq!(w.chain.head().balance(to).unwrap(), 11);
}
