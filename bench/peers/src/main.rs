//! Times a model with one of the peers and prints one line of JSON.
//!
//! `isobit-bench-peers rten|tract MODEL.onnx INPUTS.npz REPEAT`. One thread, or as many as `RTEN_NUM_THREADS` says (tract has
//! one).

use std::time::Instant;

use npyz::NpyFile;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// An input by name.
struct Input {
    name: String,
    shape: Vec<usize>,
    data: Data,
}

enum Data {
    F32(Vec<f32>),
    I64(Vec<i64>),
}

fn read(path: &str) -> Result<Vec<Input>> {
    let mut npz = npyz::npz::NpzArchive::open(path)?;
    let names: Vec<String> = npz.array_names().map(str::to_owned).collect();
    let mut inputs = Vec::new();
    for name in names {
        let npy = npz.by_name(&name)?.ok_or("no such array")?;
        let shape = npy.shape().iter().map(|&d| d as usize).collect();
        let float = npy.dtype().descr().contains("f4");
        let data = if float { Data::F32(vec(npy)?) } else { Data::I64(vec(npy)?) };
        inputs.push(Input { name, shape, data });
    }
    Ok(inputs)
}

fn vec<T: npyz::Deserialize>(npy: NpyFile<impl std::io::Read>) -> Result<Vec<T>> {
    Ok(npy.into_vec()?)
}

fn rten(path: &str, inputs: &[Input], repeat: usize) -> Result<(f64, Vec<f64>)> {
    use rten::{Model, Value, ValueOrView};
    use rten_tensor::Tensor;
    let start = Instant::now();
    let model = Model::load_file(path)?;
    let load = start.elapsed().as_secs_f64() * 1e3;
    let mut times = Vec::new();
    for _ in 0..repeat {
        let mut values: Vec<(rten::NodeId, ValueOrView)> = Vec::new();
        for input in inputs {
            let value: Value = match &input.data {
                Data::F32(x) => Tensor::from_data(&input.shape, x.clone()).into(),
                Data::I64(x) => {
                    Tensor::from_data(&input.shape, x.iter().map(|&v| v as i32).collect::<Vec<_>>()).into()
                }
            };
            values.push((model.node_id(&input.name)?, value.into()));
        }
        let start = Instant::now();
        let outputs = model.run(values, model.output_ids(), None)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        drop(outputs);
    }
    Ok((load, times))
}

fn tract(path: &str, inputs: &[Input], repeat: usize) -> Result<(f64, Vec<f64>)> {
    use tract_onnx::prelude::*;
    let start = Instant::now();
    let mut model = tract_onnx::onnx().model_for_path(path)?;
    let order: Vec<String> =
        model.input_outlets()?.iter().map(|o| model.node(o.node).name.clone()).collect();
    let mut values = TVec::new();
    for (i, name) in order.iter().enumerate() {
        let input = inputs.iter().find(|x| &x.name == name).ok_or("an input is missing")?;
        let tensor: Tensor = match &input.data {
            Data::F32(x) => Tensor::from_shape(&input.shape, x)?,
            Data::I64(x) => Tensor::from_shape(&input.shape, x)?,
        };
        model.set_input_fact(i, InferenceFact::dt_shape(tensor.datum_type(), tensor.shape()))?;
        values.push(tensor.into_tvalue());
    }
    let model = model.into_optimized()?.into_runnable()?;
    let load = start.elapsed().as_secs_f64() * 1e3;
    let mut times = Vec::new();
    for _ in 0..repeat {
        let values = values.clone();
        let start = Instant::now();
        let outputs = model.run(values)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        drop(outputs);
    }
    Ok((load, times))
}

/// The most memory this process has held, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:"));
    line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [peer, model, inputs, repeat] = &args[..] else {
        return Err("give: rten|tract MODEL.onnx INPUTS.npz REPEAT".into());
    };
    let (inputs, repeat) = (read(inputs)?, repeat.parse()?);
    let (load, times) = match &peer[..] {
        "rten" => rten(model, &inputs, repeat)?,
        "tract" => tract(model, &inputs, repeat)?,
        other => return Err(format!("no peer '{other}'").into()),
    };
    println!("{{\"load_ms\": {load}, \"times_ms\": {times:?}, \"peak_kib\": {}}}", peak());
    Ok(())
}
