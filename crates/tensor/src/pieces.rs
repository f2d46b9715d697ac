//! A tensor cut along an axis, and tensors put together along a new one.

use crate::{Element, Tensor, TensorError, with_data};

impl Tensor {
    /// The part at `index` of `axis`, without that axis. Both must be in range.
    pub fn index(&self, axis: usize, index: usize) -> Self {
        fn pick<T: Element>(data: &[T], outer: usize, n: usize, inner: usize, index: usize) -> Vec<T> {
            (0..outer)
                .flat_map(|o| {
                    let at = (o * n + index) * inner;
                    data[at..at + inner].iter().cloned()
                })
                .collect()
        }
        let shape = self.shape();
        let (n, outer): (usize, usize) = (shape[axis], shape[..axis].iter().product());
        let inner = shape[axis + 1..].iter().product();
        let rest = [&shape[..axis], &shape[axis + 1..]].concat();
        with_data!(self.data(), b => {
            Tensor::new(&rest, pick(b, outer, n, inner, index)).expect("an element for each of the rest")
        })
    }

    /// Tensors of one type and shape, one after another along a new axis, which is at most their rank.
    /// Without any, there is nothing to say which type: `parts` must not be empty.
    pub fn stack(parts: &[Tensor], axis: usize) -> Result<Self, TensorError> {
        fn join<T: Element>(parts: &[Tensor], outer: usize, inner: usize) -> Result<Vec<T>, TensorError> {
            let parts = parts.iter().map(Tensor::as_slice::<T>).collect::<Result<Vec<_>, _>>()?;
            let rows = (0..outer).flat_map(|o| parts.iter().map(move |p| &p[o * inner..(o + 1) * inner]));
            Ok(rows.flat_map(|row| row.iter().cloned()).collect())
        }
        let Some(first) = parts.first() else { return Err(TensorError::Encoding("no tensors to stack")) };
        let shape = first.shape();
        if let Some(other) = parts.iter().find(|p| p.shape() != shape) {
            let (expected, actual) = (first.len(), other.len());
            return Err(TensorError::Count { shape: shape.to_vec(), expected, actual });
        }
        let (outer, inner) = (shape[..axis].iter().product(), shape[axis..].iter().product());
        let full = [&shape[..axis], &[parts.len()], &shape[axis..]].concat();
        if crate::numel(&full).is_none() {
            return Err(TensorError::TooLarge(full));
        }
        with_data!(first.data(), b => {
            fn typed<T: Element>(_: &crate::Buf<T>, parts: &[Tensor], outer: usize, inner: usize, full: &[usize]) -> Result<Tensor, TensorError> {
                Tensor::new(full, join::<T>(parts, outer, inner)?)
            }
            typed(b, parts, outer, inner, &full)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_and_stacking_are_inverse() {
        let t = Tensor::new(&[2, 3, 2], (0..12i64).collect()).unwrap();
        assert_eq!(t.index(1, 2), Tensor::new(&[2, 2], vec![4i64, 5, 10, 11]).unwrap());
        for axis in 0..3 {
            let parts: Vec<Tensor> = (0..t.shape()[axis]).map(|i| t.index(axis, i)).collect();
            assert_eq!(Tensor::stack(&parts, axis).unwrap(), t);
        }
    }

    #[test]
    fn unequal_parts_are_refused() {
        let (a, b) = (Tensor::vector(vec![1f32]), Tensor::vector(vec![1f32, 2.0]));
        assert!(Tensor::stack(&[a.clone(), b], 0).is_err());
        assert!(Tensor::stack(&[a, Tensor::vector(vec![1i64])], 0).is_err());
        assert!(Tensor::stack(&[], 0).is_err());
    }
}
