//! A file of packed weights: whatever it says, what it names lies inside of it.

#![no_main]

use isobit_runtime::packs::places;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for place in places(bytes).into_iter().flatten() {
        assert!(bytes.get(place.start..place.start + place.len).is_some());
    }
});
