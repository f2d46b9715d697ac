//! Templates of operators for which ONNX has no case.

use std::collections::BTreeMap;
use std::sync::Arc;

use isobit_graph::{Attr, Graph, Model, Node, Type, Value};
use isobit_tensor::{DType, Datum, Map, Tensor};

use crate::templates::{Template, Templates};

/// Adds them.
pub(crate) fn add(all: &mut Templates) {
    let x = || floats(&[2, 3]);
    let image = || floats(&[1, 2, 4, 5]);
    let sequence = || Datum::sequence(vec![x(), x(), x()]);
    let at = |i: i64| Datum::from(Tensor::scalar(i));
    let mut add = |op: &str, attrs: &[(&str, Attr)], inputs: Vec<Datum>| {
        all.entry(op.to_owned()).or_default().push(template(op, attrs, inputs));
    };
    let kernel = ("kernel_shape", Attr::Ints(vec![2, 2]));
    for p in [1, 2, 3] {
        add("GlobalLpPool", &[("p", Attr::Int(p))], vec![image()]);
    }
    let rois = Tensor::new(&[2, 5], vec![0.0f32, 0.0, 0.0, 3.0, 2.0, 0.0, 1.0, 1.0, 4.0, 3.0]);
    let rois = rois.expect("ten elements");
    let scale = ("spatial_scale", Attr::Float(0.75));
    let pooled = ("pooled_shape", kernel.1.clone());
    add("MaxRoiPool", &[pooled, scale], vec![image(), rois.into()]);
    add("Mish", &[], vec![image()]);
    for dtype in [DType::I32, DType::I64] {
        let attrs = [("sample_size", Attr::Int(3)), ("dtype", Attr::Int(dtype.onnx().into()))];
        add("Multinomial", &attrs, vec![x()]);
    }
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        let attrs = [("dtype", Attr::Int(dtype.onnx().into())), ("shape", Attr::Ints(vec![2, 3]))];
        for op in ["RandomNormal", "RandomUniform"] {
            add(op, &attrs, vec![]);
            add(&format!("{op}Like"), &attrs[..1], vec![x()]);
        }
    }
    for op in ["RandomNormalLike", "RandomUniformLike"] {
        add(op, &[], vec![x()]);
    }

    add("Optional", &[], vec![x()]);
    add("Optional", &[], vec![sequence()]);
    add("SequenceConstruct", &[], vec![x(), x()]);
    add("SequenceEmpty", &[("dtype", Attr::Int(DType::F32.onnx().into()))], vec![]);
    add("SequenceLength", &[], vec![sequence()]);
    add("SequenceErase", &[], vec![sequence()]);
    for i in [-1, 0, 2] {
        add("SequenceAt", &[], vec![sequence(), at(i)]);
        add("SequenceErase", &[], vec![sequence(), at(i)]);
    }
    for (axis, new) in [(0, 0), (1, 0), (-1, 1), (0, 1)] {
        let attrs = [("axis", Attr::Int(axis)), ("new_axis", Attr::Int(new))];
        add("ConcatFromSequence", &attrs, vec![sequence()]);
    }

    let texts = |t: &[&str]| Attr::Strings(t.iter().map(|t| t.as_bytes().to_vec()).collect());
    let words = || Datum::from(Tensor::vector(["a", "b", "", "Isobit"].map(String::from).to_vec()));
    let category = [
        ("cats_int64s", Attr::Ints(vec![3, 5, 7])),
        ("cats_strings", texts(&["a", "é", "Isobit"])),
        ("default_int64", Attr::Int(-2)),
    ];
    add("ai.onnx.ml::CategoryMapper", &category, vec![words()]);
    let numbers = Tensor::vector(vec![3i64, 4, 5, 7]);
    add("ai.onnx.ml::CategoryMapper", &category, vec![numbers.into()]);
    let by_number = || map(Tensor::vector(vec![0i64, 2, 3]), &[1.5f32, -2.0, 0.25]);
    for cast_to in ["TO_FLOAT", "TO_INT64", "TO_STRING"] {
        let dense = ("cast_to", Attr::String(cast_to.into()));
        let sparse = [dense.clone(), ("map_form", Attr::String("SPARSE".into())), ("max_map", Attr::Int(5))];
        add("ai.onnx.ml::CastMap", &[dense], vec![by_number()]);
        add("ai.onnx.ml::CastMap", &sparse, vec![by_number()]);
    }
    let vocabulary = ("int64_vocabulary", Attr::Ints(vec![3, 1, 0]));
    add("ai.onnx.ml::DictVectorizer", &[vocabulary], vec![by_number()]);
    let keys = Tensor::vector(["a", "c"].map(String::from).to_vec());
    let vocabulary = ("string_vocabulary", texts(&["a", "b", "c"]));
    add("ai.onnx.ml::DictVectorizer", &[vocabulary], vec![map(keys, &[0.5f32, 4.0])]);
    add("ai.onnx.ml::ZipMap", &[("classlabels_int64s", Attr::Ints(vec![1, 4, 9]))], vec![x()]);
    add("ai.onnx.ml::ZipMap", &[("classlabels_strings", texts(&["a", "b", "c"]))], vec![x()]);
}

fn floats(shape: &[usize]) -> Datum {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| i as f32 * 0.25 - 1.0).collect())
        .expect("as many as the shape has")
        .into()
}

fn map(keys: Tensor, values: &[f32]) -> Datum {
    Datum::Map(Arc::new(Map { keys, values: values.iter().map(|&v| Tensor::scalar(v).into()).collect() }))
}

/// The type of a template's operand, with element types left open.
fn container(d: &Datum) -> Option<Type> {
    let open = || Box::new(Type::Tensor { dtype: None, shape: None });
    match d {
        Datum::Sequence(_) => Some(Type::Sequence(open())),
        Datum::Map(m) => Some(Type::Map { key: m.keys.dtype(), value: open() }),
        _ => None,
    }
}

fn template(op: &str, attrs: &[(&str, Attr)], inputs: Vec<Datum>) -> Template {
    let (domain, op) = op.split_once("::").unwrap_or(("", op));
    let mut graph = Graph { name: op.to_owned(), ..Graph::default() };
    for (i, input) in inputs.iter().enumerate() {
        let name = format!("x{i}");
        let id = graph.add_value(Value { name, container: container(input), ..Value::default() });
        graph.inputs.push(id);
    }
    let y = graph.add_value(Value { name: "y".into(), ..Value::default() });
    graph.outputs.push(y);
    graph.nodes.push(Node {
        domain: domain.to_owned(),
        op: op.to_owned(),
        inputs: graph.inputs.iter().map(|&v| Some(v)).collect(),
        outputs: vec![Some(y)],
        attrs: attrs.iter().map(|(name, a)| ((*name).to_owned(), a.clone())).collect(),
        ..Node::default()
    });
    let opsets = BTreeMap::from([(String::new(), 28), ("ai.onnx.ml".to_owned(), 5)]);
    Template { model: Model { graph, opsets, ir_version: 13, ..Model::default() }, inputs }
}
