//! Functions that models write out in many operators: computed as one they have the bits and the cost of the many.

use std::collections::BTreeMap;

use isobit_graph::{Graph, Model, Node, Value, ValueId};
use isobit_kernels::KernelSet;
use isobit_numerics::rng::Rng;
use isobit_runtime::{Options, RunOptions, RunResult, Session};
use isobit_tensor::Tensor;

fn value(graph: &mut Graph) -> ValueId {
    let name = format!("v{}", graph.values.len());
    graph.add_value(Value { name, ..Value::default() })
}

fn node(graph: &mut Graph, op: &str, inputs: &[ValueId]) -> ValueId {
    let y = value(graph);
    let inputs = inputs.iter().map(|&v| Some(v)).collect();
    graph.nodes.push(Node { op: op.into(), inputs, outputs: vec![Some(y)], ..Node::default() });
    y
}

/// GPT-2's gelu_new of a reshaped operand, with these for its numbers; `exchanged`: operands in other places. `watched`: which of
/// the eight operators' results is asked for as well.
fn gelu_new([half, three, factor, root, one]: [f32; 5], exchanged: bool, watched: Option<usize>) -> Model {
    let mut graph = Graph::default();
    let given = value(&mut graph);
    graph.inputs.push(given);
    let mut number = |t: Tensor| {
        let v = value(&mut graph);
        graph.initializers.insert(v, t);
        v
    };
    let target = number(Tensor::vector(vec![-1i64, 4]));
    let [half, three, factor, root, one] =
        [half, three, factor, root, one].map(|n| number(Tensor::new(&[], vec![n]).unwrap()));
    let pair = |a, b| if exchanged { [b, a] } else { [a, b] };
    let g = &mut graph;
    let x = node(g, "Reshape", &[given, target]);
    let halved = node(g, "Mul", &pair(x, half));
    let power = node(g, "Pow", &[x, three]);
    let scaled = node(g, "Mul", &pair(power, factor));
    let sum = node(g, "Add", &pair(x, scaled));
    let inner = node(g, "Mul", &pair(sum, root));
    let tanh = node(g, "Tanh", &[inner]);
    let plus = node(g, "Add", &pair(tanh, one));
    let last = node(g, "Mul", &pair(halved, plus));
    graph.outputs = vec![last];
    let all = [halved, power, scaled, sum, inner, tanh, plus, x];
    graph.outputs.extend(watched.map(|i| all[i]));
    let opsets = BTreeMap::from([(String::new(), 22)]);
    Model { graph, opsets, ir_version: 10, ..Model::default() }
}

#[test]
fn gelu_new_is_seen_and_is_what_its_operators_are() {
    const NUMBERS: [f32; 5] = [0.5, 3.0, 0.044715, 0.797_884_6, 1.0];
    let mut rng = Rng::new(5, 0);
    let elements = |i: usize| if i.is_multiple_of(3) { rng.f32_any() } else { rng.f32_unit() * 12.0 - 6.0 };
    let x = Tensor::vector((0..20_000).map(elements).collect::<Vec<f32>>());
    let run = |model: Model, set: KernelSet, threads: usize| -> RunResult {
        let session = Session::load(model, &Options::default().kernel_set(set).threads(threads)).unwrap();
        let options = RunOptions { profile: true, ..RunOptions::default() };
        session.run(vec![("v0".into(), x.clone())], &options).unwrap()
    };
    let fused = |r: &RunResult| r.steps.iter().filter(|s| s.fused).count();
    for set in KernelSet::available() {
        for threads in [1, 2] {
            for exchanged in [false, true] {
                let one = run(gelu_new(NUMBERS, exchanged, None), set, threads);
                assert_eq!(fused(&one), 8);
                for watched in 0..8 {
                    let many = run(gelu_new(NUMBERS, exchanged, Some(watched)), set, threads);
                    assert!(fused(&many) < 8);
                    assert_eq!(one.outputs[0].1.root(), many.outputs[0].1.root(), "{set}, {watched}");
                    assert_eq!((one.outputs[0].1.shape(), one.cost), (&[5000, 4][..], many.cost));
                }
            }
        }
    }
    // Other numbers are another function.
    for i in 0..5 {
        let mut numbers = NUMBERS;
        numbers[i] *= 1.0 + f32::EPSILON;
        let other = run(gelu_new(numbers, false, None), KernelSet::Scalar, 1);
        let watched = run(gelu_new(numbers, false, Some(0)), KernelSet::Scalar, 1);
        assert!(fused(&other) < 8);
        assert_eq!(other.outputs[0].1.root(), watched.outputs[0].1.root());
    }
}
