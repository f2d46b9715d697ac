//! What flows on an edge of a graph: nearly always a tensor, seldom a sequence, an optional or a map.

use std::sync::Arc;

use crate::{DType, Hash, Tensor};

/// A value at run time. Cloning is a reference count.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    /// A tensor.
    Tensor(Tensor),
    /// Values of one type, in order.
    Sequence(Arc<Vec<Datum>>),
    /// A value, or none.
    Optional(Option<Arc<Datum>>),
    /// Values by key.
    Map(Arc<Map>),
}

/// Values by key: the keys are unique, integers or strings.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// The keys, a vector.
    pub keys: Tensor,
    /// For each key, its value.
    pub values: Vec<Datum>,
}

impl Datum {
    /// A sequence of these values.
    pub fn sequence(items: Vec<Datum>) -> Self {
        Datum::Sequence(Arc::new(items))
    }

    /// What kind of value it is, in ONNX's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Datum::Tensor(_) => "a tensor",
            Datum::Sequence(_) => "a sequence",
            Datum::Optional(_) => "an optional",
            Datum::Map(_) => "a map",
        }
    }

    /// The tensor, where it is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Datum::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// The tensor, where it is one, else `self` back.
    pub fn into_tensor(self) -> Result<Tensor, Self> {
        match self {
            Datum::Tensor(t) => Ok(t),
            other => Err(other),
        }
    }

    /// How many values a container holds; 1 for a tensor.
    pub fn items(&self) -> usize {
        match self {
            Datum::Tensor(_) => 1,
            Datum::Sequence(items) => items.len(),
            Datum::Optional(value) => value.iter().len(),
            Datum::Map(m) => m.values.len(),
        }
    }

    /// Bytes of all tensors in it; saturates.
    pub fn byte_len(&self) -> usize {
        self.fold(&|t| t.byte_len())
    }

    fn fold(&self, of: &dyn Fn(&Tensor) -> usize) -> usize {
        match self {
            Datum::Tensor(t) => of(t),
            Datum::Sequence(items) => items.iter().map(|d| d.fold(of)).fold(0, usize::saturating_add),
            Datum::Optional(value) => value.as_ref().map_or(0, |d| d.fold(of)),
            Datum::Map(m) => m.values.iter().map(|d| d.fold(of)).fold(of(&m.keys), usize::saturating_add),
        }
    }

    /// The commitment. Of a tensor: its root. Of the others: BLAKE3 of a tag of eight bytes, the number of
    /// parts (u64, little-endian) and the roots of the parts: `isobitS1` and the items; `isobitO1` and the value,
    /// if any; `isobitM1`, the keys and each value.
    pub fn root(&self) -> Hash {
        fn parts(tag: &[u8; 8], roots: Vec<Hash>) -> Hash {
            let mut bytes = tag.to_vec();
            bytes.extend_from_slice(&(roots.len() as u64).to_le_bytes());
            roots.iter().for_each(|r| bytes.extend_from_slice(r.as_bytes()));
            Hash::of(&bytes)
        }
        match self {
            Datum::Tensor(t) => t.root(),
            Datum::Sequence(items) => parts(b"isobitS1", items.iter().map(Datum::root).collect()),
            Datum::Optional(value) => parts(b"isobitO1", value.iter().map(|d| d.root()).collect()),
            Datum::Map(m) => {
                let values = m.values.iter().map(Datum::root);
                parts(b"isobitM1", std::iter::once(m.keys.root()).chain(values).collect())
            }
        }
    }

    /// The element type of the tensors in it, as far as the first one says.
    pub fn dtype(&self) -> Option<DType> {
        match self {
            Datum::Tensor(t) => Some(t.dtype()),
            Datum::Sequence(items) => items.first()?.dtype(),
            Datum::Optional(value) => value.as_ref()?.dtype(),
            Datum::Map(m) => m.values.first()?.dtype(),
        }
    }
}

impl From<Tensor> for Datum {
    fn from(t: Tensor) -> Self {
        Datum::Tensor(t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_tell_kinds_and_nesting_apart() {
        let t = || Datum::from(Tensor::scalar(1f32));
        let some = |d: Datum| Datum::Optional(Some(Arc::new(d)));
        let mut roots = vec![
            t().root(),
            Datum::sequence(vec![]).root(),
            Datum::sequence(vec![t()]).root(),
            Datum::sequence(vec![t(), t()]).root(),
            Datum::sequence(vec![Datum::sequence(vec![t()])]).root(),
            Datum::Optional(None).root(),
            some(t()).root(),
            some(Datum::sequence(vec![t()])).root(),
        ];
        let n = roots.len();
        roots.sort();
        roots.dedup();
        assert_eq!(roots.len(), n);
    }

    #[test]
    fn sizes_add_up() {
        let t = Tensor::vector(vec![1f32; 3]);
        assert_eq!(Datum::sequence(vec![t.clone().into(), t.into()]).byte_len(), 24);
    }
}
