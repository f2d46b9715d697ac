//! ONNX's own node cases, run by a session. Every case passes within its tolerance (integers, booleans
//! and strings exactly; chains of 16-bit operators within two steps of the type), or `testdata/onnx-cases.txt` names what it needs that is not implemented.
//! `ISOBIT_UPDATE=1` writes that file anew; a wrong result is never written there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use isobit_graph::{GraphError, Model, from_onnx_bytes};
use isobit_onnx::proto::{ModelProto, TensorProto, TypeValue};
use isobit_onnx::{Limits, NoExternal, tensor_from_proto};
use isobit_ops::{Code, OpError, find};
use isobit_runtime::{LoadError, Options, RunError, RunOptions, Session};
use isobit_tensor::{DType, Data, Tensor};
use prost::Message as _;

const CASES: usize = 1884;

/// Operators whose values no other implementation can reproduce: types and shapes are compared.
const RANDOM: [&str; 5] =
    ["Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniform", "RandomUniformLike"];

/// A case's files, by their path within the case.
type Files = BTreeMap<String, Vec<u8>>;

enum Outcome {
    Pass,
    /// What is missing.
    NotImplemented(String),
    Wrong(String),
}

#[test]
fn every_case_passes_or_needs_what_is_not_implemented() {
    let cases = read_cases();
    assert_eq!(cases.len(), CASES);
    let only = std::env::var("ISOBIT_CASE").ok();
    let mut table: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let (mut missing, mut wrong) = (BTreeMap::new(), BTreeMap::new());
    for (name, files) in cases.iter().filter(|(n, _)| only.as_ref().is_none_or(|o| *n == o)) {
        let row = table.entry(category(files)).or_default();
        row.1 += 1;
        match outcome(files) {
            Outcome::Pass => row.0 += 1,
            Outcome::NotImplemented(what) => drop(missing.insert(name.clone(), what)),
            Outcome::Wrong(how) => drop(wrong.insert(name.clone(), how)),
        }
    }
    for (category, (passed, of)) in &table {
        println!("{passed:5} of {of:5}  {category}");
    }
    let (passed, of) = table.values().fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    println!("{passed:5} of {of:5}  in all; {} need what is not implemented", missing.len());
    for (name, how) in &wrong {
        println!("wrong: {name}: {how}");
    }
    if only.is_none() {
        compare_with_list(&missing);
    }
    assert!(wrong.is_empty(), "{} cases have wrong results", wrong.len());
}

fn compare_with_list(missing: &BTreeMap<String, String>) {
    let path = testdata("onnx-cases.txt");
    let text: String = missing.iter().map(|(name, what)| format!("{name}: {what}\n")).collect();
    if std::env::var_os("ISOBIT_UPDATE").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let listed = std::fs::read_to_string(&path).unwrap();
    let (listed, actual): (BTreeSet<&str>, BTreeSet<&str>) =
        (listed.lines().collect(), text.lines().collect());
    let gone: Vec<_> = listed.difference(&actual).collect();
    let new: Vec<_> = actual.difference(&listed).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "testdata/onnx-cases.txt is out of date (ISOBIT_UPDATE=1 rewrites it)\nno longer so: {gone:#?}\nnot listed: {new:#?}"
    );
}

fn testdata(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(name)
}

/// The node cases, unpacked in memory.
fn read_cases() -> BTreeMap<String, Files> {
    let file = std::fs::File::open(testdata("onnx-conformance-1.23.2.tar.zst")).unwrap();
    let tar = ruzstd::decoding::StreamingDecoder::new(std::io::BufReader::new(file)).unwrap();
    let mut cases: BTreeMap<String, Files> = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        let Some((_, path)) = path.split_once("/node/") else { continue };
        let Some((case, path)) = path.split_once('/') else { continue };
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            cases.entry(case.to_owned()).or_default().insert(path.to_owned(), bytes);
        }
    }
    cases
}

/// The operator a case is about: that of its only node, or that its expansion spells out.
fn category(files: &Files) -> String {
    let proto = ModelProto::decode(&*files["model.onnx"]).unwrap();
    match proto.graph.as_ref().map(|g| g.node.as_slice()) {
        Some([one]) => one.op_type.clone(),
        _ => "(several nodes)".into(),
    }
}

fn outcome(files: &Files) -> Outcome {
    let proto = ModelProto::decode(&*files["model.onnx"]).unwrap();
    if let Some(what) = unsupported_signature(&proto) {
        return Outcome::NotImplemented(what);
    }
    let model = match from_onnx_bytes(&files["model.onnx"]) {
        Ok(model) => model,
        Err(GraphError::Upgrade { node, opset, .. }) => {
            return Outcome::NotImplemented(format!(
                "upgrade of {} from opset {opset}",
                node.trim_end_matches(" ''")
            ));
        }
        Err(e) => return Outcome::Wrong(format!("does not import: {e}")),
    };
    let unknown: BTreeSet<String> = model
        .graph
        .nodes
        .iter()
        .filter(|n| find(&n.domain, &n.op).is_none())
        .map(|n| n.qualified())
        .collect();
    if !unknown.is_empty() {
        let names: Vec<_> = unknown.into_iter().collect();
        return Outcome::NotImplemented(format!("operator {}", names.join(", ")));
    }
    match run(&model, files) {
        Ok(()) => Outcome::Pass,
        Err(e) => e,
    }
}

/// A type in the model's signature that no tensor can have.
fn unsupported_signature(proto: &ModelProto) -> Option<String> {
    let graph = proto.graph.as_ref()?;
    graph.input.iter().chain(&graph.output).find_map(|v| match v.r#type.as_ref()?.value.as_ref()? {
        TypeValue::Tensor(t) => {
            let dtype = DType::from_onnx(t.elem_type)?;
            Tensor::zeros(dtype, &[0]).err().map(|_| format!("element type {dtype}"))
        }
        TypeValue::Sequence(_) => Some("sequence values".into()),
        TypeValue::Optional(_) => Some("optional values".into()),
        TypeValue::Map(_) => Some("map values".into()),
        TypeValue::SparseTensor(_) => Some("sparse tensors".into()),
    })
}

fn run(model: &Model, files: &Files) -> Result<(), Outcome> {
    let refused = |node: String, e: OpError| match e.code {
        Code::UnsupportedOperator | Code::UnsupportedType => {
            Outcome::NotImplemented(format!("{node}: {}", e.message))
        }
        _ => Outcome::Wrong(format!("{node}: {e}")),
    };
    let options = Options::default().threads(1);
    let session = Session::load(model, &options).map_err(|e| match e {
        LoadError::Op { node, source } => refused(node.op, source),
        other => Outcome::Wrong(other.to_string()),
    })?;
    let tolerance: serde_json::Value = serde_json::from_slice(&files["tolerance.json"]).unwrap();
    let tolerance = |key: &str| tolerance[key].as_f64().unwrap();
    let (rtol, atol) = (tolerance("rtol"), tolerance("atol"));
    let graph = &model.graph;
    let inputs = graph.inputs.iter().enumerate().map(|(i, &v)| {
        let tensor = read_tensor(&files[&format!("test_data_set_0/input_{i}.pb")]);
        (graph.value(v).name.clone(), tensor)
    });
    let result = session.run(inputs.collect(), &RunOptions::default()).map_err(|e| match e {
        RunError::Op { node, source } => refused(node.op, source),
        other => Outcome::Wrong(other.to_string()),
    })?;
    let random = graph.nodes.iter().any(|n| RANDOM.contains(&n.op.as_str()));
    for (i, (_, actual)) in result.outputs.iter().enumerate() {
        let expected = read_tensor(&files[&format!("test_data_set_0/output_{i}.pb")]);
        let composite = graph.nodes.len() > 1 || graph.nodes.iter().any(|n| n.op == "Attention");
        let rtol = if composite { rtol.max(2.0 * epsilon(actual.dtype())) } else { rtol };
        compare(actual, &expected, random, rtol, atol)
            .map_err(|how| Outcome::Wrong(format!("output {i}: {how}")))?;
    }
    Ok(())
}

/// The step between 16-bit floats above 1. A case of several nodes rounds to such a type after each, one of Attention only
/// at its end; the expected values were made with roundings at other places, so two such steps are allowed there.
fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 1.0 / 1024.0,
        DType::BF16 => 1.0 / 128.0,
        _ => 0.0,
    }
}

fn read_tensor(bytes: &[u8]) -> Tensor {
    let proto = TensorProto::decode(bytes).unwrap();
    tensor_from_proto(&proto, &NoExternal, &mut Limits::default().tensor_bytes).unwrap()
}

fn compare(actual: &Tensor, expected: &Tensor, random: bool, rtol: f64, atol: f64) -> Result<(), String> {
    let (a, e) = ((actual.dtype(), actual.shape()), (expected.dtype(), expected.shape()));
    if a != e {
        return Err(format!("{} {:?}, expected {} {:?}", a.0, a.1, e.0, e.1));
    }
    if random {
        return Ok(());
    }
    let (Some(a), Some(e)) = (floats(actual), floats(expected)) else {
        return if actual == expected {
            Ok(())
        } else {
            Err(format!("{}, expected {}", excerpt(actual), excerpt(expected)))
        };
    };
    for (i, (&a, &e)) in a.iter().zip(&e).enumerate() {
        let close = a == e || a.is_nan() && e.is_nan() || (a - e).abs() <= atol + rtol * e.abs();
        if !close {
            return Err(format!("element {i} is {a}, expected {e}; {} {:?}", actual.dtype(), actual.shape()));
        }
    }
    Ok(())
}

/// The elements of a float tensor.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.data() {
        Data::F32(b) => Some(b.iter().map(|&v| v.into()).collect()),
        Data::F64(b) => Some(b.to_vec()),
        Data::F16(b) => Some(b.iter().map(|v| v.to_f64()).collect()),
        Data::BF16(b) => Some(b.iter().map(|v| v.to_f64()).collect()),
        _ => None,
    }
}

fn excerpt(tensor: &Tensor) -> String {
    format!("{:?}", tensor.data()).chars().take(200).collect()
}
