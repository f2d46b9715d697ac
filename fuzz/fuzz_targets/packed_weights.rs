//! A file of packed weights: whatever it says, what it names lies inside of it. And one of known roots, which has what was written or
//! nothing.

#![no_main]

use isobit_runtime::packs::places;
use isobit_tensor::known::entries;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for place in places(bytes).into_iter().flatten() {
        assert!(bytes.get(place.start..place.start + place.len).is_some());
    }
    if let Some(roots) = entries(bytes) {
        assert!(roots.len() <= bytes.len() / 64);
    }
});
