//! Damaged files: every outcome but a panic is fine.

use std::path::Path;

use crate::rewrite::Rng;
use isobit_graph::{ModelObject, canonicalize, import, upgrade};
use isobit_onnx::{Limits, NoExternal};

/// The whole way of a file. True if it came through.
fn load(bytes: &[u8]) -> bool {
    let limits = Limits { tensor_bytes: 64 << 20, nodes: 10_000, values: 100_000, ..Limits::default() };
    let Ok(proto) = isobit_onnx::decode(bytes, &limits) else { return false };
    let Ok(mut model) = import(&proto, &NoExternal, &limits) else { return false };
    upgrade(&mut model).is_ok() && canonicalize(&mut model).is_ok()
}

/// The digits model with its weights beside it, so that most bytes are structure.
fn structure() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits-cnn/model.onnx");
    let (mut proto, _) = isobit_onnx::read(&path, &Limits::default()).unwrap();
    for t in &mut proto.graph.as_mut().unwrap().initializer {
        t.dims.iter_mut().for_each(|d| *d = 1);
        t.raw_data.truncate(if t.data_type == 7 { 8 } else { 4 });
    }
    isobit_onnx::encode(&proto)
}

fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(5) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5)],
            2 => {
                // A piece from elsewhere: wire types and lengths that are valid in another place.
                let from = rng.below(bytes.len());
                let len = rng.below(24).min(bytes.len() - from).min(bytes.len() - at);
                bytes.copy_within(from..from + len, at);
            }
            3 => drop(bytes.drain(at..bytes.len().min(at + rng.below(8)))),
            _ => bytes.insert(at, rng.next() as u8),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

#[test]
fn damaged_models_do_not_panic() {
    let original = structure();
    assert!(load(&original));
    let mut through = 0;
    for seed in 0..10_000 {
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut Rng(seed));
        through += usize::from(load(&bytes));
    }
    // Some damage is harmless (names, documentation); were it all refused, nothing behind the decoder would be tried.
    assert!(through > 100 && through < 10_000, "{through}");
}

#[test]
fn damaged_objects_do_not_panic() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits-cnn/model.onnx");
    let good = ModelObject::from_model(&isobit_graph::open(&path).unwrap()).unwrap();
    for seed in 0..2_000 {
        let mut manifest = good.manifest().to_vec();
        mutate(&mut manifest, &mut Rng(seed));
        let model = good.model().to_vec();
        if let Ok(object) = ModelObject::from_parts(manifest, model, good.weights().to_vec()) {
            assert!(object.to_model().is_err() || object == good, "seed {seed}");
        }
    }
}
