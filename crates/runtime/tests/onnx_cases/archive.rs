//! The cases in the archives, unpacked in memory.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A case's files, by their path within the case.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

pub(crate) fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// Every case by folder and name, e.g. `node/test_abs`. The models of `light` are files beside one another; each
/// becomes a case of its own.
pub(crate) fn read() -> BTreeMap<String, Files> {
    let mut cases = BTreeMap::new();
    for archive in ["onnx-conformance-1.23.2.tar.zst", "peer-cases.tar.zst", "type-cases.tar.zst"] {
        unpack(archive, &mut cases);
    }
    cases
}

fn unpack(archive: &str, cases: &mut BTreeMap<String, Files>) {
    let file = std::fs::File::open(testdata(archive)).unwrap();
    let tar = ruzstd::decoding::StreamingDecoder::new(std::io::BufReader::new(file)).unwrap();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let Some((_, path)) = path.split_once('/') else { continue };
        let parts: Vec<&str> = path.splitn(3, '/').collect();
        let (case, file) = match parts[..] {
            ["light", file] => match file.split_once("_output_") {
                Some((model, output)) => {
                    (format!("light/{model}"), format!("test_data_set_0/output_{output}"))
                }
                None => (format!("light/{}", file.trim_end_matches(".onnx")), "model.onnx".to_owned()),
            },
            [folder, case, file] => (format!("{folder}/{case}"), file.to_owned()),
            _ => continue,
        };
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        cases.entry(case).or_default().insert(file, bytes);
    }
}
