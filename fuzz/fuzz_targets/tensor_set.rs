//! Bytes of a set of named tensors: what is read is written back the same.

#![no_main]

use isobit_proof::{decode_set, encode_set};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(set) = decode_set(bytes) {
        assert_eq!(encode_set(set.iter().map(|(name, root)| (name.as_str(), *root))), bytes);
    }
});
