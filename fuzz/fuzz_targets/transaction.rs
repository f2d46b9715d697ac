//! Bytes of a signed transaction: what is read is written back the same.

#![no_main]

use isobit_ledger::SignedTx;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tx) = SignedTx::decode(bytes) {
        let _ = tx.is_signed(1);
        assert_eq!(tx.encode(), bytes);
    }
});
