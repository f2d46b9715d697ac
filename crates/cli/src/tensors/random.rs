use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail};
use isobit_graph::{Dim, Graph};
use isobit_numerics::rng::Rng;
use isobit_tensor::{DType, Tensor, numel};

use super::{Named, shape_text};

/// Random inputs for a model: floats uniform in [0, 1), integers and booleans 0 or 1 (so that they
/// are valid as token ids and masks alike). Symbolic extents are 1 unless bound in `dims`.
pub(crate) fn random_inputs(graph: &Graph, seed: u64, dims: &BTreeMap<String, usize>) -> Result<Named> {
    let mut out = Named::new();
    for (stream, &v) in graph.inputs.iter().enumerate() {
        let value = graph.value(v);
        let name = &value.name;
        let dtype = value.dtype.ok_or_else(|| anyhow!("input '{name}' declares no element type"))?;
        let shape = value
            .shape
            .as_ref()
            .with_context(|| format!("input '{name}' declares no shape; give it as a file with --input"))?;
        let shape: Vec<usize> = shape
            .iter()
            .map(|d| match d {
                Dim::Known(n) => *n,
                Dim::Symbol(s) => dims.get(s).copied().unwrap_or(1),
                Dim::Unknown => 1,
            })
            .collect();
        let n = numel(&shape)
            .filter(|&n| n <= 1 << 31)
            .ok_or_else(|| anyhow!("input '{name}' of shape {} is too large", shape_text(value)))?;
        let mut rng = Rng::new(seed, stream as u64);
        out.push((name.clone(), elements(dtype, &shape, n, &mut rng)?));
    }
    Ok(out)
}

fn elements(dtype: DType, shape: &[usize], n: usize, rng: &mut Rng) -> Result<Tensor> {
    macro_rules! fill {
        ($f:expr) => {
            Tensor::new(shape, (0..n).map(|_| $f).collect::<Vec<_>>())?
        };
    }
    Ok(match dtype {
        DType::F32 => fill!(rng.f32_unit()),
        DType::F64 => fill!(f64::from(rng.f32_unit())),
        DType::F16 => fill!(half::f16::from_f32(rng.f32_unit())),
        DType::BF16 => fill!(half::bf16::from_f32(rng.f32_unit())),
        DType::I8 => fill!((rng.next_u32() & 1) as i8),
        DType::I16 => fill!((rng.next_u32() & 1) as i16),
        DType::I32 => fill!((rng.next_u32() & 1) as i32),
        DType::I64 => fill!(i64::from(rng.next_u32() & 1)),
        DType::U8 => fill!((rng.next_u32() & 1) as u8),
        DType::U16 => fill!((rng.next_u32() & 1) as u16),
        DType::U32 => fill!(rng.next_u32() & 1),
        DType::U64 => fill!(u64::from(rng.next_u32() & 1)),
        DType::Bool => fill!(rng.next_u32() & 1 == 1),
        other => bail!("cannot make random {other} tensors; give a file with --input"),
    })
}
