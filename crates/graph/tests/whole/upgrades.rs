//! An old form of an operator is the same model as its current form.

use isobit_graph::{GraphError, ModelObject, import};
use isobit_onnx::proto::*;
use isobit_onnx::{Limits, NoExternal, tensor_to_proto};
use isobit_tensor::{Hash, Tensor};

use crate::address::{info, node};

fn address(version: i64, nodes: Vec<NodeProto>, constants: &[(&str, Tensor)]) -> Result<Hash, GraphError> {
    let proto = ModelProto {
        ir_version: Some(3),
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version }],
        graph: Some(GraphProto {
            input: vec![info("x", 1, &[2, 3, 4, 5]), info("s", 1, &[3]), info("b", 1, &[3])],
            output: vec![ValueInfoProto { name: "y".into(), ..ValueInfoProto::default() }],
            initializer: constants.iter().map(|(name, t)| tensor_to_proto(name, t)).collect(),
            node: nodes,
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    let model = import(&proto, &NoExternal, &Limits::default())?;
    Ok(ModelObject::from_model(&model)?.address())
}

fn attr(name: &str) -> AttributeProto {
    AttributeProto { name: name.into(), ..AttributeProto::default() }
}

fn int(name: &str, v: i64) -> AttributeProto {
    AttributeProto { i: Some(v), r#type: AttributeType::Int as i32, ..attr(name) }
}

fn float(name: &str, v: f32) -> AttributeProto {
    AttributeProto { f: Some(v), r#type: AttributeType::Float as i32, ..attr(name) }
}

fn text(name: &str, v: &str) -> AttributeProto {
    AttributeProto { s: Some(v.into()), r#type: AttributeType::String as i32, ..attr(name) }
}

fn ints(name: &str, v: &[i64]) -> AttributeProto {
    AttributeProto { ints: v.to_vec(), r#type: AttributeType::Ints as i32, ..attr(name) }
}

fn floats(name: &str, v: &[f32]) -> AttributeProto {
    AttributeProto { floats: v.to_vec(), r#type: AttributeType::Floats as i32, ..attr(name) }
}

fn i64s(v: &[i64]) -> Tensor {
    Tensor::vector(v.to_vec())
}

fn f32s(v: &[f32]) -> Tensor {
    Tensor::vector(v.to_vec())
}

type Form = (i64, Vec<NodeProto>, Vec<(&'static str, Tensor)>);

fn one(opset: i64, op: &str, inputs: &[&str], attrs: Vec<AttributeProto>) -> Form {
    (opset, vec![node(op, inputs, &["y"], attrs)], vec![])
}

fn with(mut form: Form, constants: &[(&'static str, Tensor)]) -> Form {
    form.2 = constants.to_vec();
    form
}

#[test]
fn old_forms_become_current_ones() {
    let resize = |nearest: &str, mode: &str| {
        vec![
            text("coordinate_transformation_mode", "asymmetric"),
            text("nearest_mode", nearest),
            text("mode", mode),
        ]
    };
    let table: Vec<(&str, Form, Form)> = vec![
        (
            "Squeeze",
            one(11, "Squeeze", &["x"], vec![ints("axes", &[0])]),
            with(one(23, "Squeeze", &["x", "a"], vec![]), &[("a", i64s(&[0]))]),
        ),
        (
            "ReduceMean",
            one(17, "ReduceMean", &["x"], vec![ints("axes", &[1, 2]), int("keepdims", 0)]),
            with(one(23, "ReduceMean", &["x", "a"], vec![int("keepdims", 0)]), &[("a", i64s(&[1, 2]))]),
        ),
        (
            "Clip, one bound",
            one(6, "Clip", &["x"], vec![float("max", 6.0)]),
            with(one(23, "Clip", &["x", "", "m"], vec![]), &[("m", Tensor::scalar(6f32))]),
        ),
        (
            "Pad with zero",
            one(9, "Pad", &["x"], vec![ints("pads", &[0; 8]), float("value", 0.0)]),
            with(one(23, "Pad", &["x", "p"], vec![]), &[("p", i64s(&[0; 8]))]),
        ),
        (
            "Slice without axes",
            one(9, "Slice", &["x"], vec![ints("starts", &[1]), ints("ends", &[2])]),
            with(one(23, "Slice", &["x", "s0", "e0"], vec![]), &[("s0", i64s(&[1])), ("e0", i64s(&[2]))]),
        ),
        (
            "Upsample",
            one(
                7,
                "Upsample",
                &["x"],
                vec![floats("scales", &[1.0, 1.0, 2.0, 2.0]), text("mode", "bilinear")],
            ),
            with(
                one(23, "Resize", &["x", "", "k"], resize("floor", "linear")),
                &[("k", f32s(&[1.0, 1.0, 2.0, 2.0]))],
            ),
        ),
        (
            "Resize that shrinks",
            with(
                one(10, "Resize", &["x", "k"], vec![text("mode", "nearest")]),
                &[("k", f32s(&[1.0, 1.0, 0.6, 0.5]))],
            ),
            with(
                one(23, "Resize", &["x", "", "k"], resize("ceil", "nearest")),
                &[("k", f32s(&[1.0, 1.0, 0.6, 0.5]))],
            ),
        ),
        (
            "Resize by sizes",
            with(
                one(11, "Resize", &["x", "r", "k", "z"], vec![]),
                &[("r", f32s(&[])), ("k", f32s(&[])), ("z", i64s(&[2, 3, 8, 9]))],
            ),
            with(one(23, "Resize", &["x", "", "", "z"], vec![]), &[("z", i64s(&[2, 3, 8, 9]))]),
        ),
        (
            "Add along an axis",
            one(6, "Add", &["x", "s"], vec![int("broadcast", 1), int("axis", 1)]),
            (
                23,
                vec![
                    node("Unsqueeze", &["s", "a"], &["u"], vec![]),
                    node("Add", &["x", "u"], &["y"], vec![]),
                ],
                vec![("a", i64s(&[1, 2]))],
            ),
        ),
        (
            "Softmax on the last axis",
            one(11, "Softmax", &["x"], vec![int("axis", -1)]),
            one(23, "Softmax", &["x"], vec![int("axis", -1)]),
        ),
        (
            "Softmax of a matrix",
            one(9, "Softmax", &["x"], vec![]),
            (
                23,
                vec![
                    node("Flatten", &["x"], &["f"], vec![int("axis", 1)]),
                    node("Softmax", &["f"], &["p"], vec![int("axis", -1)]),
                    node("Shape", &["x"], &["n"], vec![]),
                    node("Reshape", &["p", "n"], &["y"], vec![int("allowzero", 1)]),
                ],
                vec![],
            ),
        ),
        (
            "trailing operands left out by an empty name",
            one(23, "Clip", &["x", "", ""], vec![]),
            one(23, "Clip", &["x"], vec![]),
        ),
    ];
    for (name, old, new) in table {
        let [old, new] =
            [old, new].map(|(opset, nodes, constants)| address(opset, nodes, &constants).unwrap());
        assert_eq!(old, new, "{name}");
    }
}

#[test]
fn forms_without_an_equivalent_are_refused_by_name() {
    let table = [
        one(6, "BatchNormalization", &["x", "s", "b", "s", "b"], vec![int("spatial", 0)]),
        one(8, "BatchNormalization", &["x", "s", "b", "s"], vec![int("spatial", 0)]),
        one(8, "Scan", &["", "x"], vec![]),
        one(8, "MeanVarianceNormalization", &["x"], vec![]),
        one(10, "Resize", &["x"], vec![]),
        one(5, "Tile", &["x", "s"], vec![]),
    ];
    for (opset, nodes, constants) in table {
        let op = nodes[0].op_type.clone();
        let error = address(opset, nodes, &constants).unwrap_err();
        assert!(matches!(&error, GraphError::Upgrade { node, .. } if node.contains(&op)), "{op}: {error}");
    }
    assert!(address(99, vec![node("Neg", &["x"], &["y"], vec![])], &[]).is_err());
}
