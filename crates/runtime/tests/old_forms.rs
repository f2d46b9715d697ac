//! Old forms of operators that have no case of ONNX's, run, and compared with what they are worked out to be.

use std::collections::BTreeMap;

use isobit_graph::{Attr, Graph, Model, Node, Value, ValueId, upgrade};
use isobit_runtime::{Options, RunOptions, Session};
use isobit_tensor::Tensor;

/// A graph of one operator, every operand an input.
fn graph(op: &str, inputs: usize, outputs: usize, attrs: &[(&str, Attr)]) -> Graph {
    let mut g = Graph::default();
    let values = |g: &mut Graph, kind: &str, n: usize| -> Vec<ValueId> {
        let value = |i| Value { name: format!("{kind}{i}"), ..Value::default() };
        (0..n).map(|i| g.add_value(value(i))).collect()
    };
    (g.inputs, g.outputs) = (values(&mut g, "x", inputs), values(&mut g, "y", outputs));
    g.nodes.push(Node {
        op: op.into(),
        inputs: g.inputs.iter().map(|&v| Some(v)).collect(),
        outputs: g.outputs.iter().map(|&v| Some(v)).collect(),
        attrs: attrs.iter().map(|(k, a)| ((*k).to_owned(), a.clone())).collect(),
        ..Node::default()
    });
    g
}

fn model(opset: i64, graph: Graph) -> Model {
    let opsets = BTreeMap::from([(String::new(), opset)]);
    let mut model = Model { graph, opsets, ir_version: 3, ..Model::default() };
    upgrade(&mut model).unwrap();
    model
}

fn run(opset: i64, graph: Graph, inputs: Vec<Tensor>) -> Vec<Tensor> {
    let model = model(opset, graph);
    let names: Vec<String> = model.graph.inputs.iter().map(|&v| model.graph.value(v).name.clone()).collect();
    let session = Session::load(model, &Options::default().threads(1)).unwrap();
    let result = session.run(names.into_iter().zip(inputs).collect(), &RunOptions::default()).unwrap();
    result.outputs.into_iter().map(|(_, t)| t).collect()
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).unwrap()
}

fn ramp(shape: &[usize]) -> Tensor {
    floats(shape, &(0..shape.iter().product::<usize>()).map(|i| i as f32).collect::<Vec<_>>())
}

#[test]
fn tile_1_repeats_along_one_axis() {
    for (axis, expected) in [(1, [0., 1., 0., 1., 2., 3., 2., 3.]), (0, [0., 1., 2., 3., 0., 1., 2., 3.])] {
        let operands = vec![ramp(&[2, 2]), Tensor::vector(vec![2i64]), Tensor::vector(vec![axis])];
        let y = run(5, graph("Tile", 3, 1, &[]), operands).remove(0);
        assert_eq!(y.as_slice::<f32>().unwrap(), expected);
    }
}

#[test]
fn batch_normalization_by_position() {
    let attrs = [("spatial", Attr::Int(0)), ("epsilon", Attr::Float(0.0))];
    let x = ramp(&[2, 2, 2]);
    let own = |v: [f32; 4]| floats(&[2, 2], &v);
    let operands = vec![
        x,
        own([1., 2., 3., 4.]),
        own([0., 1., 0., -1.]),
        own([1., 0., 2., 5.]),
        own([4., 1., 16., 0.25]),
    ];
    let y = run(7, graph("BatchNormalization", 5, 1, &attrs), operands).remove(0);
    let expected = [-0.5, 3., 0., -17., 1.5, 11., 3., 15.];
    assert_eq!(y.as_slice::<f32>().unwrap(), expected);
}

#[test]
fn batch_normalization_that_trains() {
    // Channels of 0, 1, 4, 5 and 2, 3, 6, 7: means 2.5 and 4.5, variance 4.25.
    let attrs = [("epsilon", Attr::Float(0.0)), ("momentum", Attr::Float(0.5))];
    let channels = |a: f32, b: f32| floats(&[2], &[a, b]);
    let operands = || {
        vec![ramp(&[2, 2, 2]), channels(1., 1.), channels(0., 0.), channels(0.5, 0.5), channels(0.75, 1.75)]
    };
    let results = run(9, graph("BatchNormalization", 5, 3, &attrs), operands());
    assert_eq!(results[1].as_slice::<f32>().unwrap(), [1.5, 2.5]);
    assert_eq!(results[2].as_slice::<f32>().unwrap(), [2.5, 3.0]);
    let deviation = 4.25f32.sqrt();
    for (y, d) in
        results[0].as_slice::<f32>().unwrap().iter().zip([-2.5, -1.5, -2.5, -1.5, 1.5, 2.5, 1.5, 2.5])
    {
        assert!((y - d / deviation).abs() < 1e-6);
    }
    // Before version 7 training needed no word, and a test did.
    let old = run(6, graph("BatchNormalization", 5, 1, &attrs), operands());
    assert_eq!(old[0].root(), results[0].root());
    let test = [&attrs[..], &[("is_test", Attr::Int(1))]].concat();
    let old = run(6, graph("BatchNormalization", 5, 1, &test), operands());
    assert_eq!(old[0].root(), run(15, graph("BatchNormalization", 5, 1, &attrs), operands())[0].root());
}

#[test]
fn resize_10_grows_one_axis_and_shrinks_another() {
    let scales = floats(&[4], &[1., 1., 2., 0.6]);
    let operands = vec![ramp(&[1, 1, 2, 5]), scales];
    let y = run(10, graph("Resize", 2, 1, &[]), operands).remove(0);
    assert_eq!(y.shape(), [1, 1, 4, 3]);
    // Rows floor(i / 2); columns ceil(i / 0.6): 0, 2, 4.
    let expected = [0., 2., 4., 0., 2., 4., 5., 7., 9., 5., 7., 9.];
    assert_eq!(y.as_slice::<f32>().unwrap(), expected);
}

#[test]
fn scan_8_of_sequences_of_different_lengths() {
    // The body adds an element to the sum so far, and hands the sum on.
    let mut body = graph("Add", 2, 1, &[]);
    body.outputs.push(body.outputs[0]);
    let attrs = |reverse: i64| {
        let directions = Attr::Ints(vec![reverse]);
        let body = Attr::Graph(Box::new(body.clone()));
        [("body", body), ("num_scan_inputs", Attr::Int(1)), ("directions", directions)]
    };
    let operands = || {
        let x = floats(&[2, 3, 1], &[1., 2., 3., 4., 5., 6.]);
        vec![Tensor::vector(vec![3i64, 2]), floats(&[2, 1], &[10., 20.]), x]
    };
    let y = run(8, graph("Scan", 3, 2, &attrs(0)), operands());
    assert_eq!(y[0].as_slice::<f32>().unwrap(), [16., 29.]);
    assert_eq!(
        (y[1].shape(), y[1].as_slice::<f32>().unwrap()),
        (&[2, 3, 1][..], &[11., 13., 16., 24., 29., 0.][..])
    );
    let y = run(8, graph("Scan", 3, 2, &attrs(1)), operands());
    assert_eq!(y[0].as_slice::<f32>().unwrap(), [16., 29.]);
    assert_eq!(y[1].as_slice::<f32>().unwrap(), [13., 15., 16., 25., 29., 0.]);
}

#[test]
fn quantised_products_by_row_and_column() {
    let a = Tensor::new(&[2, 3], vec![1i8, 2, 3, -4, 5, 6]).unwrap();
    let b = Tensor::new(&[3, 2], vec![1i8, 0, 2, -1, 0, 3]).unwrap();
    let (a_zero, b_zero) = (Tensor::vector(vec![1i8, 2]), Tensor::vector(vec![0i8, 1]));
    let (a_scale, b_scale) = (floats(&[2], &[0.5, 2.0]), floats(&[2], &[1.0, 0.25]));
    let (y_scale, y_zero) = (floats(&[2], &[0.25, 4.0]), Tensor::vector(vec![3i8, -1]));
    let operands = vec![a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero];
    let y = run(21, graph("QLinearMatMul", 8, 1, &[]), operands).remove(0);
    // Rows less zeros: (0, 1, 2) and (-6, 3, 4); columns (1, 2, 0) and (-1, -2, 2): sums 2, 2 and 0, 8;
    // times 0.5 * (1, 0.25) / 0.25 and 2 * (1, 0.25) / 4: 4, 1 and 0, 1; plus 3 and -1.
    assert_eq!(y.as_slice::<i8>().unwrap(), [7, 4, -1, 0]);
}

/// Nothing but float64 is normalised in float64, whatever the node says: it is refused, not computed otherwise.
#[test]
fn a_stash_type_of_float64_is_for_float64() {
    for (op, groups) in
        [("LayerNormalization", None), ("RMSNormalization", None), ("GroupNormalization", Some(1))]
    {
        let mut attrs = vec![("stash_type", Attr::Int(11))];
        attrs.extend(groups.map(|n| ("num_groups", Attr::Int(n))));
        let n = if op == "RMSNormalization" { 2 } else { 3 };
        let graph = graph(op, n, 1, &attrs);
        let session = Session::load(model(23, graph), &Options::default().threads(1)).unwrap();
        let operands = [ramp(&[1, 2]), ramp(&[2]), ramp(&[2])];
        let names = ["x0", "x1", "x2"].map(String::from);
        let inputs = names.into_iter().zip(operands).take(n).collect();
        let error = session.run(inputs, &RunOptions::default()).unwrap_err();
        assert!(error.to_string().contains("stash_type"), "{op}: {error}");
    }
}
