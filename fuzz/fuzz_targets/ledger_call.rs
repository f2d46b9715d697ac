//! Calls of the ledger's and OpenGradient's precompiles with any input: they return, or revert with a reason.

#![no_main]

use std::sync::OnceLock;

use isobit_chain::{Call, Chain, Genesis, HUB, LEDGER, PRECOMPILE, Store};
use isobit_ledger::{COIN, Params};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    static CHAIN: OnceLock<Chain> = OnceLock::new();
    let from = alloy_primitives::Address::repeat_byte(1);
    let chain = CHAIN.get_or_init(|| {
        let store = Store::in_memory().expect("memory");
        Chain::in_store(store, Genesis::new(Params::default(), [(from, 1_000_000 * COIN)])).expect("a chain")
    });
    let Some((&first, data)) = bytes.split_first() else { return };
    let to = [LEDGER, HUB, PRECOMPILE][usize::from(first % 3)];
    let value = alloy_primitives::U256::from(u128::from(first / 3) * COIN / 10);
    let call = Call { from, to: Some(to), value, data: data.to_vec().into(), ..Call::default() };
    let _ = chain.head().call(&call);
});
