//! Sparse tensors of a model file, which are made dense when it is read.

use isobit_onnx::proto::SparseTensorProto;
use isobit_onnx::{External, OnnxError, tensor_from_proto};
use isobit_tensor::{DType, Element, Tensor, numel, with_data};

use crate::GraphError;

/// The tensor with zeros where the message holds nothing. `budget` is lowered by the dense size.
pub(crate) fn dense(
    s: &SparseTensorProto,
    external: &dyn External,
    budget: &mut u64,
) -> Result<Tensor, GraphError> {
    let name = s.values.as_ref().map(|v| v.name.clone()).unwrap_or_default();
    let error = |message: &str| GraphError::Graph {
        graph: format!("sparse tensor '{name}'"),
        message: message.to_owned(),
    };
    let values = s.values.as_ref().ok_or_else(|| error("it has no values"))?;
    let indices = s.indices.as_ref().ok_or_else(|| error("it has no indices"))?;
    let values = tensor_from_proto(values, external, budget)?;
    let indices = tensor_from_proto(indices, external, budget)?;
    let shape = s.dims.iter().map(|&d| usize::try_from(d)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| error("an extent is negative"))?;
    let n = numel(&shape).ok_or_else(|| error("its shape is too large"))?;
    let bytes = (n as u64).saturating_mul(values.dtype().bits().max(8) as u64 / 8);
    if bytes > *budget {
        return Err(OnnxError::Limit { what: "bytes of all tensors", actual: bytes, limit: *budget }.into());
    }
    *budget -= bytes;
    let at =
        offsets(&indices, &shape, n).ok_or_else(|| error("an index is outside of it, or not an int64"))?;
    if values.rank() != 1 || at.len() != values.len() {
        return Err(error("it has not one index for each value"));
    }
    if at.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err(error("its indices are not in ascending order"));
    }
    if values.dtype() == DType::String {
        return Err(error("its values are strings"));
    }
    fn scatter<T: Element>(values: &[T], at: &[usize], n: usize) -> Vec<T> {
        let mut out = vec![T::default(); n];
        at.iter().zip(values).for_each(|(&i, v)| out[i] = v.clone());
        out
    }
    with_data!(values.data(), b => Tensor::new(&shape, scatter(b, &at, n))).map_err(|e| error(&e.to_string()))
}

/// Where each value goes: indices are linear, or a row of coordinates for each.
fn offsets(indices: &Tensor, shape: &[usize], n: usize) -> Option<Vec<usize>> {
    let values = indices.as_slice::<i64>().ok()?;
    match indices.shape() {
        [_] => values.iter().map(|&i| usize::try_from(i).ok().filter(|&i| i < n)).collect(),
        [_, rank] if *rank == shape.len() && *rank > 0 => values
            .chunks_exact(*rank)
            .map(|row| {
                row.iter().zip(shape).try_fold(0usize, |at, (&i, &d)| {
                    let i = usize::try_from(i).ok().filter(|&i| i < d)?;
                    Some(at * d + i)
                })
            })
            .collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use isobit_onnx::{NoExternal, tensor_to_proto};

    use super::*;

    fn sparse(indices: Tensor, dims: &[i64]) -> Result<Tensor, GraphError> {
        let values = Tensor::vector(vec![1f32, 2.0]);
        let s = SparseTensorProto {
            values: Some(tensor_to_proto("w", &values)),
            indices: Some(tensor_to_proto("", &indices)),
            dims: dims.to_vec(),
        };
        dense(&s, &NoExternal, &mut 1000)
    }

    #[test]
    fn both_forms_of_indices_are_read() {
        let expected = Tensor::new(&[2, 3], vec![0f32, 1.0, 0.0, 0.0, 0.0, 2.0]).unwrap();
        assert_eq!(sparse(Tensor::vector(vec![1i64, 5]), &[2, 3]).unwrap(), expected);
        let rows = Tensor::new(&[2, 2], vec![0i64, 1, 1, 2]).unwrap();
        assert_eq!(sparse(rows, &[2, 3]).unwrap(), expected);
    }

    #[test]
    fn lies_are_refused() {
        for (indices, dims) in [
            (vec![1i64, 6], vec![2, 3]),
            (vec![5, 1], vec![2, 3]),
            (vec![1], vec![2, 3]),
            (vec![-1, 1], vec![2, 3]),
            (vec![0, 1], vec![1 << 40]),
            (vec![0, 1], vec![-1]),
        ] {
            assert!(sparse(Tensor::vector(indices.clone()), &dims).is_err(), "{indices:?} {dims:?}");
        }
    }
}
