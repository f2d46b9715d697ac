//! Whole models: neither threads nor kernel sets nor the neighbours in a batch change a bit.

use isobit_conformance::{MODELS, Setting, model_root};
use isobit_graph::from_onnx_bytes;
use isobit_numerics::rng::Rng;
use isobit_runtime::{KernelSet, Options, RunOptions, Session};
use isobit_tensor::Tensor;

#[test]
fn threads_and_kernel_sets_change_nothing() {
    for model in &MODELS {
        let first = model_root(model, Setting { set: KernelSet::Scalar, threads: 1 }).unwrap();
        for set in KernelSet::available() {
            for threads in [1, 2, 3, 8] {
                let root = model_root(model, Setting { set, threads }).unwrap();
                assert_eq!(root, first, "{} on {set} with {threads} threads", model.0);
            }
        }
    }
}

/// Rows of float32 or int64 inputs, and of outputs, as bytes.
fn rows(t: &Tensor, batch: usize) -> Vec<Vec<u8>> {
    let bytes = t.to_le_bytes();
    bytes.chunks_exact(bytes.len() / batch).map(<[u8]>::to_vec).collect()
}

fn joined(like: &Tensor, rows: &[Vec<u8>]) -> Tensor {
    let mut shape = like.shape().to_vec();
    shape[0] = rows.len();
    Tensor::from_le_bytes(like.dtype(), &shape, &rows.concat()).unwrap()
}

#[test]
fn a_row_does_not_see_its_neighbours() {
    let mut rng = Rng::new(7, 0);
    for (name, bytes, inputs) in &MODELS {
        let model = from_onnx_bytes(bytes).unwrap();
        let session = Session::load(model.clone(), &Options::default().threads(3)).unwrap();
        let batch = inputs[0].1[0];
        let own: Vec<(String, Tensor)> = inputs
            .iter()
            .map(|(name, shape, _)| {
                let n: usize = shape.iter().product();
                let whole = name.contains("ids") || name.contains("mask");
                let t = match whole {
                    true => Tensor::new(
                        shape,
                        (0..n).map(|_| if name.contains("ids") { rng.below(97) as i64 } else { 1 }).collect(),
                    ),
                    false => Tensor::new(shape, (0..n).map(|_| rng.f32_unit() * 2.0 - 1.0).collect()),
                };
                ((*name).to_owned(), t.unwrap())
            })
            .collect();
        let run =
            |inputs: Vec<(String, Tensor)>| session.run(inputs, &RunOptions::default()).map(|r| r.outputs);
        let all = run(own.clone()).unwrap();
        for turn in 1..batch.min(4) {
            // The same rows in another order: each has other neighbours, at another place.
            let turned = own.iter().map(|(n, t)| {
                let mut r = rows(t, batch);
                r.rotate_left(turn);
                (n.clone(), joined(t, &r))
            });
            for ((_, a), (_, b)) in all.iter().zip(run(turned.collect()).unwrap()) {
                let mut expected = rows(a, batch);
                expected.rotate_left(turn);
                assert_eq!(rows(&b, batch), expected, "{name}");
            }
        }
        // Alone, where the model takes any number of rows.
        for i in 0..batch.min(4) {
            let alone = own.iter().map(|(n, t)| (n.clone(), joined(t, &rows(t, batch)[i..=i])));
            let Ok(one) = run(alone.collect()) else { continue };
            for ((_, a), (_, b)) in all.iter().zip(one) {
                assert_eq!(b.to_le_bytes(), rows(a, batch)[i], "{name}, row {i} alone");
            }
        }
    }
}
