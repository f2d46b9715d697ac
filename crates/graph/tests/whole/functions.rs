//! A call of a function is the same model as its body in the call's place.

use isobit_graph::{GraphError, ModelObject, import};
use isobit_onnx::proto::*;
use isobit_onnx::{Limits, NoExternal};
use isobit_tensor::Hash;

use crate::address::{body, info, node};

fn address(proto: &ModelProto, limits: &Limits) -> Result<Hash, GraphError> {
    Ok(ModelObject::from_model(&import(proto, &NoExternal, limits)?)?.address())
}

fn opset(domain: &str, version: i64) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: domain.into(), version }
}

fn call(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    NodeProto { domain: "own".into(), ..node(op, inputs, outputs, attribute) }
}

fn alpha(value: f32) -> AttributeProto {
    let (name, r#type) = ("alpha".into(), AttributeType::Float as i32);
    AttributeProto { name, r#type, f: Some(value), ..AttributeProto::default() }
}

fn alpha_from(reference: &str) -> AttributeProto {
    AttributeProto { ref_attr_name: reference.into(), f: None, ..alpha(0.0) }
}

fn function(name: &str, input: &[&str], output: &[&str], node: Vec<NodeProto>) -> FunctionProto {
    FunctionProto {
        name: name.into(),
        domain: "own".into(),
        input: input.iter().map(|&s| s.into()).collect(),
        output: output.iter().map(|&s| s.into()).collect(),
        attribute: vec!["slope".into()],
        opset_import: vec![opset("", 17), opset("own", 1)],
        node,
        ..FunctionProto::default()
    }
}

fn model(node: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("own", 1)],
        graph: Some(GraphProto {
            input: vec![info("x", 1, &[3]), info("yes", 9, &[])],
            output: vec![info("y", 1, &[3])],
            node,
            ..GraphProto::default()
        }),
        functions,
        ..ModelProto::default()
    }
}

/// An If whose branches capture `a` and `b`.
fn choice(a: &str, b: &str, to: &str) -> NodeProto {
    let branch = |op| GraphProto {
        node: vec![node(op, &[a, b], &["r"], vec![])],
        output: vec![info("r", 1, &[3])],
        ..GraphProto::default()
    };
    let branches = vec![body("then_branch", branch("Add")), body("else_branch", branch("Mul"))];
    node("If", &["yes"], &[to], branches)
}

#[test]
fn a_call_is_its_body() {
    let lean = function(
        "Lean",
        &["a", "yes", "lower"],
        &["r", "again"],
        vec![
            node("LeakyRelu", &["a"], &["t"], vec![alpha_from("slope")]),
            node("Clip", &["t", "lower"], &["c"], vec![]),
            choice("c", "a", "r"),
            node("Identity", &["a"], &["again"], vec![]),
        ],
    );
    let twice = function(
        "Twice",
        &["a", "yes"],
        &["r"],
        vec![
            call(
                "Lean",
                &["a", "yes"],
                &["t", "a2"],
                vec![AttributeProto { name: "slope".into(), ..alpha_from("slope") }],
            ),
            call("Lean", &["t", "yes", "a2"], &["r"], vec![]),
        ],
    );
    let slope = AttributeProto { name: "slope".into(), ..alpha(0.25) };
    let called = model(vec![call("Twice", &["x", "yes"], &["y"], vec![slope])], vec![lean, twice]);
    let spelled = model(
        vec![
            node("LeakyRelu", &["x"], &["t1"], vec![alpha(0.25)]),
            node("Clip", &["t1", ""], &["c1"], vec![]),
            choice("c1", "x", "r1"),
            node("LeakyRelu", &["r1"], &["t2"], vec![]),
            node("Clip", &["t2", "x"], &["c2"], vec![]),
            choice("c2", "r1", "y"),
        ],
        vec![],
    );
    let limits = Limits::default();
    assert_eq!(address(&called, &limits).unwrap(), address(&spelled, &limits).unwrap());
}

#[test]
fn recursion_and_explosion_are_refused() {
    let ping = function("Ping", &["a"], &["r"], vec![call("Pong", &["a"], &["r"], vec![])]);
    let pong = function("Pong", &["a"], &["r"], vec![call("Ping", &["a"], &["r"], vec![])]);
    let calls = |op: &str| vec![call(op, &["x"], &["y"], vec![])];
    let error = address(&model(calls("Ping"), vec![ping, pong]), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("calls itself"), "{error}");

    // Each level calls the next twice: 2^30 nodes from 31 short functions.
    let level = |i: usize| {
        let next = format!("F{}", i + 1);
        let twice = vec![call(&next, &["a"], &["m"], vec![]), call(&next, &["m"], &["r"], vec![])];
        function(&format!("F{i}"), &["a"], &["r"], twice)
    };
    let mut functions: Vec<FunctionProto> = (0..30).map(level).collect();
    functions.push(function("F30", &["a"], &["r"], vec![node("Neg", &["a"], &["r"], vec![])]));
    let limits = Limits { nodes: 10_000, ..Limits::default() };
    let error = address(&model(calls("F0"), functions), &limits).unwrap_err();
    assert!(matches!(error, GraphError::Limit { .. }), "{error}");
}

#[test]
fn a_body_does_not_see_the_names_around_its_call() {
    let leak = function("Leak", &["a"], &["r"], vec![node("Add", &["a", "x"], &["r"], vec![])]);
    let error = address(&model(vec![call("Leak", &["x"], &["y"], vec![])], vec![leak]), &Limits::default());
    assert!(error.unwrap_err().to_string().contains("'x', which is defined nowhere"));
}
