//! Bytes of an ONNX file, all the way to the canonical form: no panic, bounded memory; what comes through is a fixed
//! point of its own export.

#![no_main]

use isobit_graph::{ModelObject, canonicalize, import, upgrade};
use isobit_onnx::{Limits, NoExternal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits {
        file_bytes: 1 << 20,
        tensor_bytes: 64 << 20,
        nodes: 10_000,
        values: 100_000,
        ..Limits::default()
    };
    let Ok(proto) = isobit_onnx::decode(bytes, &limits) else { return };
    let Ok(mut model) = import(&proto, &NoExternal, &limits) else { return };
    if upgrade(&mut model).is_err() || canonicalize(&mut model).is_err() {
        return;
    }
    let object = ModelObject::from_model(&model).expect("canonical models have an object");
    object.to_model().expect("an object opens");
});
