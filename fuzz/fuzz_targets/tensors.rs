//! Bytes of a set of tensors: what is read is written back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(set) = isobit_proof::decode_tensors(bytes) {
        let again = isobit_proof::encode_tensors(set.iter().map(|(name, t)| (name.as_str(), t)));
        assert_eq!(again, bytes);
    }
});
