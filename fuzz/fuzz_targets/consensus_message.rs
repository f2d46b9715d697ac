//! Bytes that a peer sends: what is read is written back the same.

#![no_main]

use isobit_consensus::Gossip;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(gossip) = Gossip::decode(bytes) {
        assert_eq!(gossip.encode(), bytes);
    }
});
