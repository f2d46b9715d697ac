//! Bytes of a slice with its proof: nothing but the blob's own bytes is ever accepted.

#![no_main]

use isobit_hub::verify_slice;
use isobit_tensor::Hash;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u16, u16, Vec<u8>)| {
    let blob: Vec<u8> = (0..5000u32).map(|i| (i * 7) as u8).collect();
    let (start, end) = (u64::from(input.0), u64::from(input.1));
    if let Some(bytes) = verify_slice(&Hash::of(&blob), blob.len() as u64, start, end, &input.2) {
        assert_eq!(bytes, blob[start as usize..end as usize]);
    }
});
