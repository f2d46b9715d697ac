//! One model, one address, however its file is written.

use std::path::{Path, PathBuf};

use crate::rewrite::{Rng, rewrite};
use isobit_graph::{ModelObject, export_external, import};
use isobit_onnx::proto::*;
use isobit_onnx::{External, Limits, Memory, NoExternal};
use isobit_tensor::{Hash, Tensor};

fn object(proto: &ModelProto, external: &dyn External) -> ModelObject {
    ModelObject::from_model(&import(proto, external, &Limits::default()).unwrap()).unwrap()
}

fn address(proto: &ModelProto) -> Hash {
    object(proto, &NoExternal).address()
}

fn digits() -> ModelProto {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/digits-cnn/model.onnx");
    isobit_onnx::read(&path, &Limits::default()).unwrap().0
}

pub(crate) fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: inputs.iter().map(|&s| s.into()).collect(),
        output: outputs.iter().map(|&s| s.into()).collect(),
        attribute,
        ..NodeProto::default()
    }
}

pub(crate) fn body(name: &str, g: GraphProto) -> AttributeProto {
    let r#type = AttributeType::Graph as i32;
    AttributeProto { name: name.into(), r#type, g: Some(g), ..AttributeProto::default() }
}

pub(crate) fn info(name: &str, dtype: i32, dims: &[i64]) -> ValueInfoProto {
    let dim = |&d: &i64| Dimension { value: Some(DimensionValue::Value(d)), ..Dimension::default() };
    let shape = Some(TensorShapeProto { dim: dims.iter().map(dim).collect() });
    let value = Some(TypeValue::Tensor(TensorType { elem_type: dtype, shape }));
    let r#type = Some(TypeProto { value, ..TypeProto::default() });
    ValueInfoProto { name: name.into(), r#type, ..ValueInfoProto::default() }
}

/// If inside If, each branch with captures of both enclosing graphs, constants, and names like canonical ones.
fn branching() -> ModelProto {
    let weights = |name: &str, scale: f32| {
        let t = Tensor::new(&[2, 2], (0..4).map(|i| i as f32 * scale).collect::<Vec<_>>()).unwrap();
        isobit_onnx::tensor_to_proto(name, &t)
    };
    let inner = |op: &str, out: &str| GraphProto {
        node: vec![
            node("MatMul", &["sum", "w2"], &[&format!("{out}m")], vec![]),
            node(op, &[&format!("{out}m"), "v1"], &[out], vec![]),
        ],
        output: vec![info(out, 1, &[2, 2])],
        ..GraphProto::default()
    };
    let outer = |op: &str, out: &str| GraphProto {
        node: vec![
            node("Sub", &["w1", "sum"], &[&format!("{out}a")], vec![]),
            node(
                "If",
                &["cond"],
                &[&format!("{out}b")],
                vec![
                    body("then_branch", inner(op, &format!("{out}t"))),
                    body("else_branch", inner("Div", &format!("{out}e"))),
                ],
            ),
            node("Add", &[&format!("{out}a"), &format!("{out}b")], &[out], vec![]),
        ],
        output: vec![info(out, 1, &[2, 2])],
        ..GraphProto::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: 17 }],
        graph: Some(GraphProto {
            name: "branching".into(),
            input: vec![info("v1", 1, &[2, 2]), info("cond", 9, &[])],
            output: vec![info("bv2", 1, &[2, 2])],
            initializer: vec![weights("w1", 0.5), weights("w2", -3.0)],
            node: vec![
                node("Add", &["v1", "w1"], &["sum"], vec![]),
                node(
                    "If",
                    &["cond"],
                    &["bv2"],
                    vec![body("then_branch", outer("Mul", "x")), body("else_branch", outer("Add", "y"))],
                ),
            ],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    }
}

#[test]
fn every_way_of_writing_a_model_has_one_address() {
    for (name, model) in [("digits", digits()), ("branching", branching())] {
        let expected = address(&model);
        for seed in 0..100 {
            let other = rewrite(&model, &mut Rng(seed));
            assert_eq!(address(&other), expected, "{name}, seed {seed}");
        }
    }
}

#[test]
fn weights_inside_or_beside_the_file_are_the_same_weights() {
    let model = digits();
    let imported = import(&model, &NoExternal, &Limits::default()).unwrap();
    let (proto, bytes) = export_external(&imported, "w.bin");
    assert!(bytes.len() > 10_000);
    let external = Memory([("w.bin".to_owned(), &bytes[..])].into());
    assert_eq!(object(&proto, &external).address(), address(&model));
}

#[test]
fn what_matters_changes_the_address() {
    let change = |f: &dyn Fn(&mut GraphProto)| {
        let mut model = branching();
        f(model.graph.as_mut().unwrap());
        address(&model)
    };
    let mut all = vec![
        change(&|_| ()),
        change(&|g| g.node[0].op_type = "Sub".into()),
        change(&|g| g.node[0].input.swap(0, 1)),
        change(&|g| {
            let mut bytes = g.initializer[0].raw_data.to_vec();
            bytes[0] ^= 1;
            g.initializer[0].raw_data = bytes.into();
        }),
        change(&|g| g.output[0] = info("bv2", 1, &[2, 3])),
        change(&|g| g.node[1].attribute[0].g.as_mut().unwrap().node[0].input.swap(0, 1)),
        change(&|g| {
            g.output[0].name = "out".into();
            g.node[1].output[0] = "out".into();
        }),
    ];
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn an_object_is_its_own_canonical_form() {
    for model in [digits(), branching()] {
        let first = object(&model, &NoExternal);
        let again = ModelObject::from_model(&first.to_model().unwrap()).unwrap();
        assert_eq!(again, first);
        let dir = tempfile::tempdir().unwrap();
        first.write_dir(dir.path()).unwrap();
        assert_eq!(ModelObject::open_dir(dir.path()).unwrap(), first);
        // The object's ONNX file is a model like any other, with the same address.
        let (proto, folder) = isobit_onnx::read(&dir.path().join("model.onnx"), &Limits::default()).unwrap();
        assert_eq!(object(&proto, &folder), first);
    }
}

#[test]
fn a_type_declared_in_part_survives() {
    for elem_type in [0, 1, 27] {
        let mut model = branching();
        model.graph.as_mut().unwrap().output[0] = info("bv2", elem_type, &[2, 2]);
        object(&model, &NoExternal).to_model().unwrap();
    }
}

#[test]
fn a_changed_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let good = object(&digits(), &NoExternal);
    for file in ["model.onnx", "weights.bin", "manifest.json"] {
        good.write_dir(dir.path()).unwrap();
        let path = dir.path().join(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let changed = ModelObject::open_dir(dir.path());
        assert!(changed.is_err() || changed.unwrap().address() != good.address(), "{file}");
    }
}

/// For models too large to commit: `ISOBIT_MODELS=folder cargo test --release -- --ignored`.
#[test]
#[ignore = "needs a folder of models"]
fn every_model_of_a_folder_has_one_address() {
    let folder = PathBuf::from(std::env::var_os("ISOBIT_MODELS").expect("ISOBIT_MODELS names a folder"));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let (proto, external) = isobit_onnx::read(&file, &Limits::default()).unwrap();
        let expected = object(&proto, &external);
        for seed in 0..3 {
            let other = rewrite(&proto, &mut Rng(seed));
            assert_eq!(object(&other, &external).address(), expected.address(), "{file:?}, seed {seed}");
        }
        println!("{} {}", expected.address(), file.display());
        if let Some(out) = std::env::var_os("ISOBIT_OBJECTS") {
            expected.write_dir(&PathBuf::from(out).join(file.file_stem().unwrap())).unwrap();
        }
    }
}
