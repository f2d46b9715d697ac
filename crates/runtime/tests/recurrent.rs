//! LSTM, GRU and RNN at random, with batches that threads share by entries and batches that they share step by step: whatever the kernel
//! set and the threads, all results are those of the scalar set on one thread.

use isobit_graph::{Attr, Graph, Model, Node, Value, ValueId};
use isobit_kernels::KernelSet;
use isobit_numerics::rng::Rng;
use isobit_runtime::{Options, RunOptions, Session};
use isobit_tensor::{Hash, Tensor};

fn tensor(rng: &mut Rng, shape: &[usize]) -> Tensor {
    let elements = (0..shape.iter().product()).map(|_| rng.f32_unit() - 0.5).collect();
    Tensor::new::<f32>(shape, elements).unwrap()
}

/// The model, and its input.
fn recurrent(seed: u64) -> (Model, Tensor) {
    let mut rng = Rng::new(seed, 0);
    let (op, gates) = [("LSTM", 4), ("GRU", 3), ("RNN", 1)][rng.below(3)];
    let (direction, d) = [("forward", 1), ("reverse", 1), ("bidirectional", 2)][rng.below(3)];
    let (steps, batch) = (1 + rng.below(5), [1, 2, 5, 8, 13][rng.below(5)]);
    let (hidden, features) = ([7, 90, 270, 600][rng.below(4)], 1 + rng.below(20));
    let batch_first = rng.below(2) == 1;
    let mut graph = Graph::default();
    let value = |graph: &mut Graph| {
        let name = format!("v{}", graph.values.len());
        graph.add_value(Value { name, ..Value::default() })
    };
    let x = value(&mut graph);
    graph.inputs.push(x);
    let mut inputs: Vec<Option<ValueId>> = vec![Some(x)];
    let initial = if batch_first { [batch, d, hidden] } else { [d, batch, hidden] };
    let (rows, given) = (gates * hidden, rng.below(2) == 1);
    let lengths = (0..batch).map(|_| rng.below(steps + 1) as i32).collect();
    let mut constants = vec![
        Some(tensor(&mut rng, &[d, rows, features])),
        Some(tensor(&mut rng, &[d, rows, hidden])),
        (rng.below(2) == 1).then(|| tensor(&mut rng, &[d, 2 * rows])),
        (rng.below(2) == 1).then(|| Tensor::vector::<i32>(lengths)),
        given.then(|| tensor(&mut rng, &initial)),
    ];
    if op == "LSTM" {
        constants.push(given.then(|| tensor(&mut rng, &initial)));
        constants.push((rng.below(2) == 1).then(|| tensor(&mut rng, &[d, 3 * hidden])));
    }
    for constant in constants {
        inputs.push(constant.map(|t| {
            let v = value(&mut graph);
            graph.initializers.insert(v, t);
            v
        }));
    }
    let outputs: Vec<ValueId> = (0..if op == "LSTM" { 3 } else { 2 }).map(|_| value(&mut graph)).collect();
    let mut attrs = vec![
        ("hidden_size", Attr::Int(hidden as i64)),
        ("direction", Attr::String(direction.into())),
        ("layout", Attr::Int(batch_first.into())),
    ];
    if op == "GRU" {
        attrs.push(("linear_before_reset", Attr::Int(rng.below(2) as i64)));
    }
    graph.nodes.push(Node {
        op: op.into(),
        inputs,
        outputs: outputs.iter().map(|&v| Some(v)).collect(),
        attrs: attrs.into_iter().map(|(k, a)| (k.to_owned(), a)).collect(),
        ..Node::default()
    });
    graph.outputs = outputs;
    let shape = if batch_first { [batch, steps, features] } else { [steps, batch, features] };
    (Model { graph, ..Model::default() }, tensor(&mut rng, &shape))
}

fn roots(model: &Model, x: &Tensor, set: KernelSet, threads: usize) -> Vec<Hash> {
    let options = Options::default().kernel_set(set).threads(threads);
    let session = Session::load(model.clone(), &options).unwrap();
    let result = session.run(vec![("v0".into(), x.clone())], &RunOptions::default()).unwrap();
    result.outputs.iter().map(|(_, t)| t.root()).collect()
}

#[test]
fn entries_and_steps_are_shared_without_a_trace() {
    for seed in 0..40 {
        let (model, x) = recurrent(seed);
        let expected = roots(&model, &x, KernelSet::Scalar, 1);
        for set in KernelSet::available() {
            for threads in [1, 2, 3] {
                assert_eq!(
                    roots(&model, &x, set, threads),
                    expected,
                    "seed {seed}, {set}, {threads} threads"
                );
            }
        }
    }
}

/// A long sequence, whose input is projected in several parts, is its steps one at a time.
#[test]
fn a_long_sequence_is_its_steps() {
    let (steps, batch, hidden, features) = (30, 8, 600, 5);
    let mut rng = Rng::new(3, 0);
    let mut graph = Graph::default();
    let values: Vec<ValueId> =
        (0..8).map(|i| graph.add_value(Value { name: format!("v{i}"), ..Value::default() })).collect();
    let [x, h, c, w, r, y, last_h, last_c] = values[..] else { unreachable!() };
    graph.inputs = vec![x, h, c];
    graph.outputs = vec![y, last_h, last_c];
    graph.initializers.insert(w, tensor(&mut rng, &[1, 4 * hidden, features]));
    graph.initializers.insert(r, tensor(&mut rng, &[1, 4 * hidden, hidden]));
    graph.nodes.push(Node {
        op: "LSTM".into(),
        inputs: vec![Some(x), Some(w), Some(r), None, None, Some(h), Some(c)],
        outputs: graph.outputs.iter().map(|&v| Some(v)).collect(),
        attrs: [("hidden_size".to_owned(), Attr::Int(hidden as i64))].into_iter().collect(),
        ..Node::default()
    });
    let model = Model { graph, ..Model::default() };
    let given = tensor(&mut rng, &[steps, batch, features]);
    let states = [0, 1].map(|_| tensor(&mut rng, &[1, batch, hidden]));
    for set in KernelSet::available() {
        for threads in [1, 2] {
            let options = Options::default().kernel_set(set).threads(threads);
            let session = Session::load(model.clone(), &options).unwrap();
            let run = |x: Tensor, [h, c]: [Tensor; 2]| {
                let inputs = vec![("v0".into(), x), ("v1".into(), h), ("v2".into(), c)];
                session.run(inputs, &RunOptions::default()).unwrap().outputs
            };
            let bits =
                |t: &Tensor| t.as_slice::<f32>().unwrap().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let whole = run(given.clone(), states.clone());
            let (mut outputs, mut states) = (Vec::new(), states.clone());
            for x in given.as_slice::<f32>().unwrap().chunks_exact(batch * features) {
                let step = run(Tensor::new::<f32>(&[1, batch, features], x.to_vec()).unwrap(), states);
                outputs.extend(bits(&step[0].1));
                states = [step[1].1.clone(), step[2].1.clone()];
            }
            assert!(bits(&whole[0].1) == outputs, "{set}, {threads} threads");
            assert!(bits(&whole[1].1) == bits(&states[0]) && bits(&whole[2].1) == bits(&states[1]));
        }
    }
}
