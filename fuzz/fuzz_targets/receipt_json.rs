//! Bytes of a receipt file: what is read is written and read back the same.

#![no_main]

use isobit_proof::SignedReceipt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(receipt) = SignedReceipt::from_json(bytes) {
        let _ = receipt.signer();
        assert_eq!(SignedReceipt::from_json(receipt.to_json().as_bytes()), Ok(receipt));
    }
});
