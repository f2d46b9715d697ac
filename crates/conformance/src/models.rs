//! Whole models: what their outputs are.

use isobit_graph::from_onnx_bytes;
use isobit_numerics::rng::Rng;
use isobit_runtime::{Options, RunOptions, Session};
use isobit_tensor::{DType, Hash, Tensor};

use crate::line::Setting;

/// A model, and how its inputs are made: name, extents and what each is like.
type Model = (&'static str, &'static [u8], &'static [(&'static str, &'static [usize], Input)]);

/// What an input is like.
#[derive(Debug, Clone, Copy)]
pub enum Input {
    /// float32, uniform in [-2, 2).
    Floats,
    /// int64, uniform below this.
    Below(usize),
    /// int64, all of them 1.
    Ones,
}

/// The models.
pub static MODELS: [Model; 3] = [
    (
        "digits-cnn",
        include_bytes!("../../../models/digits-cnn/model.onnx"),
        &[("image", &[5, 1, 8, 8], Input::Floats)],
    ),
    (
        "tiny-bert",
        include_bytes!("../models/tiny-bert.onnx"),
        &[("input_ids", &[3, 17], Input::Below(97)), ("attention_mask", &[3, 17], Input::Ones)],
    ),
    ("trees", include_bytes!("../models/trees.onnx"), &[("x", &[257, 12], Input::Floats)]),
];

/// The hash over the roots of a model's outputs.
pub fn model_root(model: &Model, setting: Setting) -> Result<Hash, Box<dyn std::error::Error>> {
    let (name, bytes, inputs) = model;
    let loaded = from_onnx_bytes(bytes)?;
    let session =
        Session::load(loaded.clone(), &Options::default().kernel_set(setting.set).threads(setting.threads))?;
    let mut rng = Rng::new(name.len() as u64, 0);
    let inputs = inputs.iter().map(|(name, shape, input)| {
        let n: usize = shape.iter().product();
        let tensor = match input {
            Input::Floats => Tensor::new(shape, (0..n).map(|_| rng.f32_unit() * 4.0 - 2.0).collect()),
            Input::Below(most) => Tensor::new(shape, (0..n).map(|_| rng.below(*most) as i64).collect()),
            Input::Ones => Tensor::new(shape, vec![1i64; n]),
        };
        Ok(((*name).to_owned(), tensor?))
    });
    let inputs = inputs.collect::<Result<Vec<_>, isobit_tensor::TensorError>>()?;
    let result = session.run(inputs, &RunOptions::default())?;
    let mut hasher = blake3::Hasher::new();
    for (_, output) in &result.outputs {
        debug_assert_ne!(output.dtype(), DType::String);
        hasher.update(output.root().as_bytes());
    }
    Ok(hasher.finalize().into())
}
