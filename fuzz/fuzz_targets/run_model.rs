//! Bytes of a model: where it is one, the definition, the fastest kernels and three threads give the same outputs or the same code.

#![no_main]

use isobit_graph::{Dim, from_onnx_bytes};
use isobit_numerics::rng::Rng;
use isobit_runtime::{KernelSet, Limits, Options, RunError, RunOptions, Session};
use isobit_tensor::{DType, Hash, Tensor};
use libfuzzer_sys::fuzz_target;

fn inputs(model: &isobit_graph::Model) -> Option<Vec<(String, Tensor)>> {
    let mut rng = Rng::new(model.graph.nodes.len() as u64, 0);
    let make = |v: &isobit_graph::ValueId| {
        let value = model.graph.value(*v);
        let dims = value.shape.as_deref().unwrap_or_default().iter();
        let shape: Vec<usize> = dims.map(|d| if let Dim::Known(n) = d { *n } else { 2 }).collect();
        let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= 4096)?;
        let tensor = match value.dtype? {
            DType::F32 => Tensor::new(&shape, (0..n).map(|_| rng.f32_any()).collect()).ok()?,
            DType::I64 => Tensor::new(&shape, (0..n).map(|_| rng.below(5) as i64 - 1).collect()).ok()?,
            other => Tensor::zeros(other, &shape).ok()?,
        };
        Some((value.name.clone(), tensor))
    };
    model.graph.inputs.iter().map(make).collect()
}

fn outcome(model: &isobit_graph::Model, set: KernelSet, threads: usize) -> Option<Result<Vec<Hash>, String>> {
    let session = match Session::load(model.clone(), &Options::default().kernel_set(set).threads(threads)) {
        Ok(session) => session,
        Err(e) => return Some(Err(e.to_string())),
    };
    let limits = Limits { cost: 1 << 20, steps: 1 << 10, iterations: 1 << 8, tensor_bytes: 1 << 20, held_bytes: 1 << 24 };
    let options = RunOptions { limits, seed: 1, ..RunOptions::default() };
    Some(match session.run_data(inputs(model)?.into_iter().map(|(n, t)| (n, t.into())).collect(), &options) {
        Ok(result) => Ok(result.outputs.iter().map(|(_, d)| d.root()).collect()),
        Err(RunError::Op { source, .. }) => Err(source.code.name().to_owned()),
        Err(RunError::Limit { what, .. }) => Err(what.to_owned()),
        Err(other) => Err(other.to_string()),
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(model) = from_onnx_bytes(bytes) else { return };
    let reference = outcome(&model, KernelSet::Scalar, 1);
    assert_eq!(reference, outcome(&model, KernelSet::best(), 1));
    assert_eq!(reference, outcome(&model, KernelSet::best(), 3));
});
