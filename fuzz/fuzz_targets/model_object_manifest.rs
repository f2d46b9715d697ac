//! Bytes of a manifest: no panic, and whatever is accepted names its files by a hash that is checked.

#![no_main]

use isobit_graph::{Manifest, ModelObject};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let (empty, other) = (vec![], vec![1]);
        let object = ModelObject::from_parts(bytes.to_vec(), empty.clone(), empty);
        assert!(object.is_err() || manifest.model.bytes == 0 && manifest.weights.bytes == 0);
        let object = ModelObject::from_parts(bytes.to_vec(), other.clone(), other);
        assert!(object.is_err() || manifest.model.bytes == 1 && manifest.weights.bytes == 1);
    }
});
