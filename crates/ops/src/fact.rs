use isobit_tensor::{DType, Datum, Tensor, numel};

/// What is known of a value before anything runs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Fact {
    /// Element type, where known.
    pub dtype: Option<DType>,
    /// Extents, where the rank is known; an extent may still be unknown.
    pub shape: Option<Vec<Option<usize>>>,
    /// The content, where it is a constant (or computed from shapes alone).
    pub value: Option<Tensor>,
}

impl Fact {
    /// Nothing is known.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// A known type, nothing else.
    pub fn typed(dtype: Option<DType>) -> Self {
        Self { dtype, ..Self::default() }
    }

    /// Type and extents.
    pub fn new(dtype: Option<DType>, shape: Option<Vec<Option<usize>>>) -> Self {
        Self { dtype, shape, value: None }
    }

    /// Type and extents, all known.
    pub fn fixed(dtype: DType, shape: &[usize]) -> Self {
        Self::new(Some(dtype), Some(shape.iter().map(|&d| Some(d)).collect()))
    }

    /// A constant.
    pub fn constant(tensor: Tensor) -> Self {
        Self { value: Some(tensor.clone()), ..Self::fixed(tensor.dtype(), tensor.shape()) }
    }

    /// What is known of a value at hand, for the meter: a container counts as a row of its items.
    pub fn of(datum: &Datum) -> Self {
        match datum {
            Datum::Tensor(t) => Self::fixed(t.dtype(), t.shape()),
            other => Self::new(None, Some(vec![Some(other.items())])),
        }
    }

    /// The extents where all are known.
    pub fn known_shape(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().copied().collect()
    }

    /// The number of dimensions, where known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The number of elements, where all extents are known.
    pub fn numel(&self) -> Option<usize> {
        numel(&self.known_shape()?)
    }
}
