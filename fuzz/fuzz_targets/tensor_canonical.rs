//! Bytes of a canonical tensor: what is read is written back the same.

#![no_main]

use isobit_tensor::{Hash, Tensor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tensor) = Tensor::from_canonical(bytes) {
        assert_eq!(tensor.to_canonical(), bytes);
        assert_eq!(tensor.root(), Hash::of(bytes));
    }
});
