//! What a block costs with 10^4, 10^5 and 10^6 accounts: transfers of 1,000 senders to random accounts, built, checked as another
//! validator would, and put on disk; beside it the root of all accounts at once.
//!
//! `cargo run --release -p isobit-chain --example state_root`, with `-- 300` for blocks 300 milliseconds apart, as a network makes
//! them; without they follow each other at once.

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_trie::TrieAccount;
use alloy_trie::root::state_root_unsorted;
use isobit_chain::{Chain, Genesis, Order, Proposal, decode_tx};
use isobit_ledger::{COIN, Params};
use isobit_proof::Key;

const SENDERS: usize = 1_000;
const BLOCKS: u64 = 64;

fn account(i: u64) -> Address {
    Address::from_slice(&keccak256(i.to_be_bytes())[12..])
}

/// Median and longest.
fn summary(mut times: Vec<Duration>) -> String {
    times.sort();
    let [middle, last] = [times[times.len() / 2], times[times.len() - 1]].map(|t| t.as_secs_f64() * 1e3);
    format!("{middle:.1} / {last:.1}")
}

fn main() {
    let pause = std::env::args().nth(1).map_or(0, |ms| ms.parse().expect("milliseconds between blocks"));
    let pause = Duration::from_millis(pause);
    println!("milliseconds, median and longest of {BLOCKS} blocks, {pause:?} apart");
    println!(
        "accounts   transfers           build           check          commit  build + commit  all at once  genesis s"
    );
    let keys: Vec<Key> =
        (0..SENDERS).map(|i| Key::from_hex(&format!("{:064x}", i + 1)).expect("a key")).collect();
    for accounts in [10_000u64, 100_000, 1_000_000] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rich = keys.iter().map(|k| (k.address(), COIN));
        let alloc = (0..accounts - SENDERS as u64).map(|i| (account(i), COIN)).chain(rich);
        let genesis = Genesis::new(Params::default(), alloc);
        let start = Instant::now();
        let chain = Chain::open(folder.path(), genesis).expect("a chain");
        let opened = start.elapsed();
        let (mut build, mut check, mut commit, mut block) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for n in 0..BLOCKS {
            let txs = keys.iter().enumerate().map(|(i, key)| {
                let to = account((n * 7_919 + i as u64 * 104_729) % (2 * accounts));
                let order = Order {
                    nonce: n,
                    gas: 21_000,
                    max_fee_per_gas: 2_000_000_000,
                    tip: 0,
                    to: to.into(),
                    value: 1,
                    data: Default::default(),
                };
                decode_tx(&order.sign(key, 1729).1).expect("a transaction")
            });
            let proposal = Proposal {
                timestamp: n,
                beneficiary: Address::ZERO,
                txs: txs.collect(),
                overdue: Default::default(),
            };
            let start = Instant::now();
            let built = chain.head().build(&proposal).expect("a block");
            build.push(start.elapsed());
            assert_eq!(built.block.txs.len(), SENDERS);
            let start = Instant::now();
            chain.head().execute(&built.block).expect("the same block");
            check.push(start.elapsed());
            let start = Instant::now();
            chain.commit(&built).expect("on disk");
            commit.push(start.elapsed());
            block.push(build[n as usize] + commit[n as usize]);
            std::thread::sleep(pause.saturating_sub(block[n as usize]));
        }
        let all: Vec<(B256, TrieAccount)> = (0..accounts)
            .map(|i| {
                let account_of = TrieAccount { balance: U256::from(COIN), ..TrieAccount::default() };
                (keccak256(account(i)), account_of)
            })
            .collect();
        let start = Instant::now();
        std::hint::black_box(state_root_unsorted(all));
        let whole = start.elapsed().as_secs_f64() * 1e3;
        println!(
            "{accounts:>8}   {SENDERS:>9}  {:>14}  {:>14}  {:>14}  {:>14}  {whole:>11.1}  {:>9.1}",
            summary(build),
            summary(check),
            summary(commit),
            summary(block),
            opened.as_secs_f64()
        );
    }
}
