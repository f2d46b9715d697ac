//! Bytes of a block, and of a transaction: what is read is written back the same, and executing it ends.

#![no_main]

use std::sync::OnceLock;

use isobit_chain::{Block, Chain, Genesis, Store};
use isobit_ledger::Params;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static CHAIN: OnceLock<Chain> = OnceLock::new();
    let chain = CHAIN.get_or_init(|| {
        let store = Store::in_memory().expect("memory");
        Chain::in_store(store, Genesis::new(Params::default(), [])).expect("a chain")
    });
    if let Ok(block) = Block::decode(bytes) {
        assert_eq!(block.encode(), bytes);
        let _ = chain.head().execute(&block);
    }
    let _ = chain.submit(bytes);
});
