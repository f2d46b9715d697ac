use crate::DType;

/// What can be wrong with a tensor that comes from outside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The shape's product does not match the number of elements given.
    #[error("shape {shape:?} needs {expected} elements, got {actual}")]
    Count {
        /// The declared shape.
        shape: Vec<usize>,
        /// Elements the shape needs.
        expected: usize,
        /// Elements given.
        actual: usize,
    },
    /// The shape has too many dimensions, or its product overflows.
    #[error("shape {0:?} has more dimensions or elements than a tensor can hold")]
    TooLarge(Vec<usize>),
    /// The bytes are not a whole number of elements, or not as many as declared.
    #[error("{dtype} tensor of shape {shape:?} needs {expected} bytes, got {actual}")]
    Bytes {
        /// Declared element type.
        dtype: DType,
        /// Declared shape.
        shape: Vec<usize>,
        /// Bytes the shape needs.
        expected: usize,
        /// Bytes given.
        actual: usize,
    },
    /// Another element type was expected.
    #[error("expected a {expected} tensor, got {actual}")]
    Type {
        /// The element type asked for.
        expected: DType,
        /// The element type found.
        actual: DType,
    },
    /// The element type exists in ONNX but has no representation here.
    #[error("element type {0} is not supported")]
    Unsupported(DType),
    /// An encoded tensor is malformed.
    #[error("malformed tensor encoding: {0}")]
    Encoding(&'static str),
}
