//! A snapshot of an empty chain with changes in it: restoring it ends, and only what was not changed is believed.

#![no_main]

use std::sync::OnceLock;

use isobit_chain::{Chain, Genesis, Store};
use isobit_ledger::Params;
use libfuzzer_sys::fuzz_target;

fn memory() -> Store {
    Store::in_memory().expect("memory")
}

fuzz_target!(|changes: &[u8]| {
    static GOOD: OnceLock<(isobit_chain::Head, Vec<u8>)> = OnceLock::new();
    let genesis = Genesis::new(Params::default(), [([7; 20].into(), 1u128)]);
    let (head, good) = GOOD.get_or_init(|| {
        let chain = Chain::in_store(memory(), genesis.clone()).expect("a chain");
        let mut bytes = Vec::new();
        chain.snapshot(&mut bytes, |_| {}).expect("a snapshot");
        ((*chain.head()).clone(), bytes)
    });
    let mut bytes = good.clone();
    for change in changes.chunks_exact(5) {
        let at = u32::from_le_bytes([change[0], change[1], change[2], change[3]]) as usize % bytes.len();
        match change[4] {
            0 => bytes.truncate(at.max(1)),
            1 => bytes.insert(at, change[0]),
            b => bytes[at] ^= b,
        }
    }
    let restored = memory().restore(&genesis, head.hash, &mut &bytes[..]);
    // Bytes after the end are not read.
    assert_eq!(restored.is_ok(), bytes.starts_with(good));
});
