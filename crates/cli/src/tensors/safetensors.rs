use std::path::Path;

use anyhow::{Result, bail};
use isobit_tensor::{DType, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use super::Named;

pub(super) fn read(path: &Path) -> Result<Named> {
    parse(&std::fs::read(path)?)
}

/// The tensors of a safetensors file, in name order.
pub(crate) fn parse(bytes: &[u8]) -> Result<Named> {
    let file = SafeTensors::deserialize(bytes)?;
    let mut out = Named::new();
    for (name, view) in file.tensors() {
        let Some(dtype) = from_safetensors(view.dtype()) else {
            bail!("tensor '{name}': element type {:?} is not supported", view.dtype());
        };
        out.push((name, Tensor::from_le_bytes(dtype, view.shape(), view.data())?));
    }
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}

pub(super) fn write(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut parts = Vec::new();
    for (name, t) in tensors {
        let Some(dtype) = to_safetensors(t.dtype()) else {
            bail!("'{name}' is {}, which safetensors cannot hold", t.dtype());
        };
        parts.push((name, dtype, t.shape().to_vec(), t.to_le_bytes()));
    }
    let views = parts
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<Result<Vec<_>>>()?;
    std::fs::write(path, safetensors::serialize(views, None)?)?;
    Ok(())
}

const TYPES: &[(Dtype, DType)] = &[
    (Dtype::BOOL, DType::Bool),
    (Dtype::U8, DType::U8),
    (Dtype::I8, DType::I8),
    (Dtype::U16, DType::U16),
    (Dtype::I16, DType::I16),
    (Dtype::U32, DType::U32),
    (Dtype::I32, DType::I32),
    (Dtype::U64, DType::U64),
    (Dtype::I64, DType::I64),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::F32, DType::F32),
    (Dtype::F64, DType::F64),
    (Dtype::F8_E4M3, DType::F8E4M3FN),
    (Dtype::F8_E5M2, DType::F8E5M2),
    (Dtype::F8_E8M0, DType::F8E8M0),
    (Dtype::F6_E2M3, DType::F6E2M3),
    (Dtype::F6_E3M2, DType::F6E3M2),
    (Dtype::F4, DType::F4E2M1),
    (Dtype::C64, DType::Complex64),
];

fn from_safetensors(t: Dtype) -> Option<DType> {
    TYPES.iter().find(|(s, _)| *s == t).map(|(_, d)| *d)
}

fn to_safetensors(t: DType) -> Option<Dtype> {
    TYPES.iter().find(|(_, d)| *d == t).map(|(s, _)| *s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let tensors = vec![
            ("a".to_owned(), Tensor::new(&[2, 2], vec![1f32, -0.0, 3.5, 1e-45]).unwrap()),
            ("b".to_owned(), Tensor::vector(vec![isobit_tensor::bf16::from_f32(2.5)])),
        ];
        write(&path, &tensors).unwrap();
        assert_eq!(read(&path).unwrap(), tensors);
        assert!(parse(b"no safetensors file").is_err());
    }
}
