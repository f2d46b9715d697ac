//! Snapshots: whoever restores one goes on as whoever made it, and nothing that was changed in it is believed.

use alloy_primitives::{Address, B256};
use isobit_chain::{Chain, Store};
use isobit_ledger::{COIN, Level};
use isobit_numerics::rng::Rng;

use crate::world::{World, genesis, memory};

/// A chain with jobs, a contract and more blocks than a snapshot has headers.
fn world() -> World {
    let mut w = World::new(4);
    w.create(0, crate::world::bytecode("DigitReader", crate::world::MODEL.as_slice()));
    w.send(0, &w.post_action(Level::Replicated(3)));
    w.block();
    w.block();
    for i in 0..260u64 {
        w.call(0, Address::from_word(B256::with_last_byte(i as u8)), COIN, Vec::new());
        w.block();
    }
    w
}

fn snapshot(chain: &Chain) -> (B256, Vec<u8>) {
    let mut bytes = Vec::new();
    let hash = chain.snapshot(&mut bytes, |_| {}).unwrap();
    assert_eq!(hash, chain.head().hash);
    (hash, bytes)
}

fn restore(w: &World, hash: B256, bytes: &[u8]) -> Result<Store, String> {
    let store = memory();
    store.restore(&genesis(&w.keys), hash, &mut &bytes[..]).map_err(|e| e.to_string())?;
    Ok(store)
}

#[test]
fn whoever_restores_goes_on_as_whoever_made_it() {
    let mut w = world();
    let (hash, bytes) = snapshot(&w.chain);
    let restored = Chain::in_store(restore(&w, hash, &bytes).unwrap(), genesis(&w.keys)).unwrap();
    assert_eq!(restored.head().hash, hash);
    restored.head().check_coins().unwrap();
    for key in &w.keys {
        let proofs = [&w.chain, &restored].map(|c| c.head().proof(key.address(), &[]).unwrap());
        assert_eq!(proofs[0].proof, proofs[1].proof);
    }
    // The job that was in progress, and everything else, goes on.
    for _ in 0..60 {
        w.call(1, Address::repeat_byte(9), 1, Vec::new());
        let block = w.block().block;
        let built = restored.head().execute(&block).unwrap();
        restored.commit(&built).unwrap();
        assert_eq!(restored.head().hash, w.chain.head().hash);
    }
    assert_eq!(snapshot(&restored).1, snapshot(&w.chain).1);
    // It cannot be executed again from the beginning, and says so; nor restored over a chain.
    assert!(restored.replay(|_| {}).unwrap_err().to_string().contains("snapshot"));
    let again = restored.store().restore(&genesis(&w.keys), hash, &mut &bytes[..]);
    assert!(again.unwrap_err().to_string().contains("another --data"));
}

#[test]
fn what_was_changed_is_refused() {
    let w = world();
    let (hash, bytes) = snapshot(&w.chain);
    assert!(restore(&w, B256::repeat_byte(1), &bytes).unwrap_err().contains("another block"));
    let other = isobit_chain::Genesis { timestamp: 1, ..genesis(&w.keys) };
    assert!(memory().restore(&other, hash, &mut &bytes[..]).unwrap_err().to_string().contains("genesis"));
    let mut rng = Rng::new(1, 0);
    for _ in 0..400 {
        let mut bad = bytes.clone();
        match rng.below(3) {
            0 => bad.truncate(rng.below(bytes.len())),
            1 => {
                let at = rng.below(bytes.len());
                bad[at] ^= 1 << rng.below(8);
            }
            _ => {
                let at = rng.below(bytes.len());
                bad.drain(at..bytes.len().min(at + 1 + rng.below(200)));
            }
        }
        assert!(restore(&w, hash, &bad).is_err(), "a change was believed");
    }
}

#[test]
fn pruned_blocks_are_gone_and_nothing_else() {
    let mut w = world();
    let (last, before) = (w.chain.head().header.number, snapshot(&w.chain).1);
    let old = *w.blocks[2].txs[0].inner().hash();
    assert_eq!(w.chain.prune(10).unwrap(), last - 10);
    assert_eq!(w.chain.prune(10).unwrap(), 0);
    for number in 1..=last {
        assert_eq!(w.chain.store().block(number).unwrap().is_some(), number > last - 10, "{number}");
        assert!(w.chain.store().header(number).unwrap().is_some());
    }
    assert_eq!(w.chain.store().tx(old).unwrap(), None);
    assert_eq!(snapshot(&w.chain).1, before);
    w.call(1, Address::repeat_byte(9), 1, Vec::new());
    w.block();
}
