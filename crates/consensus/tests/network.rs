//! Validators over the real network, on this machine: libp2p, threads and clocks. What they decide under faults is the simulation's
//! affair (`simulation.rs`), and that of processes in namespaces (`bench/validators.py`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_primitives::Address;
use isobit_chain::{Chain, Genesis, Order, PRICES, PairPrice, Store};
use isobit_consensus::{Config, Disk, Engine, Multiaddr};
use isobit_ledger::{COIN, Params};
use isobit_proof::Key;

/// What each validator says; with equal stakes the median of the first three, and of all four, is 30.
const PRICES_SAID: [u128; 4] = [90, 30, 20, 30];

struct Member {
    chain: Arc<Chain>,
    engine: Engine,
}

fn keys(n: usize) -> Vec<Key> {
    (0..n).map(|i| Key::from_hex(&format!("{:064x}", i + 1)).unwrap()).collect()
}

fn addresses(n: usize) -> Vec<Multiaddr> {
    let listeners: Vec<_> = (0..n).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports = listeners.iter().map(|l| l.local_addr().unwrap().port());
    ports.map(|p| format!("/ip4/127.0.0.1/tcp/{p}").parse().unwrap()).collect()
}

/// The validator with this key says that a pair is worth so much.
fn start(key: &Key, genesis: &Genesis, me: Multiaddr, peers: Vec<Multiaddr>, price: u128) -> Member {
    let memory = redb::backends::InMemoryBackend::new;
    let chain = Chain::in_store(Store::in_memory().unwrap(), genesis.clone()).unwrap();
    let (chain, disk) = (Arc::new(chain), Disk::with_backend(memory()).unwrap());
    let prices = move || vec![PairPrice { pair: "ETH/USD".into(), price }];
    let config =
        Config { prices: Some(Arc::new(prices)), ..Config::new(me, peers, Duration::from_millis(20)) };
    let engine = Engine::start(key.clone(), chain.clone(), disk, &config).unwrap();
    Member { chain, engine }
}

fn wait(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn transfer(chain: &Chain, key: &Key, to: Address) {
    let order = Order {
        nonce: chain.pending_nonce(key.address()).unwrap(),
        gas: 21_000,
        max_fee_per_gas: 1_000_000_000,
        tip: 1,
        to: to.into(),
        value: 7,
        data: Default::default(),
    };
    chain.submit(&order.sign(key, 1729).1).unwrap();
}

#[test]
fn four_agree_three_go_on_and_a_late_one_catches_up() {
    let (keys, user) = (keys(4), Key::from_hex(&format!("{:064x}", 99)).unwrap());
    let funded = keys.iter().chain([&user]).map(|k| (k.address(), 1_000 * COIN));
    let mut genesis = Genesis::new(Params::default(), funded);
    genesis.validators = keys.iter().map(|k| (k.address(), 10_000 * COIN)).collect();
    let all = addresses(4);
    // The fourth is not there at first; three have enough weight.
    let mut members: Vec<Member> = (0..3)
        .map(|i| start(&keys[i], &genesis, all[i].clone(), all[..i].to_vec(), PRICES_SAID[i]))
        .collect();
    wait("connections", || members.iter().all(|m| m.engine.peers() >= 1));
    // Nobody has asked for a block: there are prices of a minute that the chain has not.
    wait("prices", || members.iter().all(|m| m.chain.head().prices_minute().unwrap() > 0));
    for i in 0..10u8 {
        let to = Address::repeat_byte(i + 1);
        transfer(&members[usize::from(i) % 3].chain, &user, to);
        wait("a transfer", || members.iter().all(|m| m.chain.head().balance(to).unwrap() == 7));
    }
    members.push(start(&keys[3], &genesis, all[3].clone(), all[..3].to_vec(), PRICES_SAID[3]));
    let there =
        |m: &[Member]| m.iter().all(|m| m.chain.head().balance(Address::repeat_byte(10)).unwrap() == 7);
    wait("catching up", || there(&members));
    transfer(&members[3].chain, &user, Address::repeat_byte(77));
    wait("a transfer through the late one", || {
        members.iter().all(|m| m.chain.head().balance(Address::repeat_byte(77)).unwrap() == 7)
    });
    let height = members.iter().map(|m| m.chain.head().header.number).min().unwrap();
    for number in 1..=height {
        let hashes: std::collections::BTreeSet<_> =
            members.iter().map(|m| m.chain.store().block(number).unwrap().unwrap().hash).collect();
        assert_eq!(hashes.len(), 1, "a fork at {number}");
    }
    let receipts = (1..=height).flat_map(|number| members[0].chain.store().receipts(number).unwrap());
    let logs: Vec<_> = receipts.flat_map(|r| r.logs().to_vec()).filter(|l| l.address == PRICES).collect();
    // While there are three, all are needed.
    assert!(!logs.is_empty() && logs.iter().all(|l| l.data.data[63] == 30), "{logs:?}");
    for member in &mut members {
        member.engine.stop();
        member.chain.head().check_coins().unwrap();
        assert_eq!(member.chain.replay(|_| {}).unwrap(), member.chain.head().hash);
    }
}

/// Another chain's validators are not even talked to.
#[test]
fn chains_do_not_mix() {
    let (keys, all) = (keys(2), addresses(2));
    let mut genesis = Genesis::new(Params::default(), []);
    genesis.validators = [(keys[0].address(), 10_000 * COIN)].into();
    let other = Genesis { timestamp: 1, ..genesis.clone() };
    let one = start(&keys[0], &genesis, all[0].clone(), Vec::new(), 1);
    let two = start(&keys[0], &other, all[1].clone(), vec![all[0].clone()], 1);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((one.engine.peers(), two.engine.peers()), (0, 0));
}
