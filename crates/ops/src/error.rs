use isobit_tensor::{DType, TensorError};

/// What went wrong, as every node of the network must agree: the same input gives the same code.
/// The text beside it is for people and is not part of the semantics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[repr(u16)]
pub enum Code {
    /// The operator, or the form of it that an attribute asks for, is not implemented.
    UnsupportedOperator = 1,
    /// The operator has no implementation for this element type.
    UnsupportedType = 2,
    /// An attribute has a value the operator does not take, or a required one is missing.
    InvalidAttribute = 3,
    /// Too few or too many inputs, or one of another element type than the standard allows.
    InvalidInput = 4,
    /// Shapes do not fit together.
    ShapeMismatch = 5,
    /// An index or axis is out of range.
    IndexOutOfRange = 6,
    /// Integer division by zero.
    DivisionByZero = 7,
    /// A limit on metered cost or memory is reached.
    LimitExceeded = 8,
}

impl Code {
    /// Its name, as printed and stored: `SHAPE_MISMATCH`.
    pub fn name(self) -> &'static str {
        match self {
            Code::UnsupportedOperator => "UNSUPPORTED_OPERATOR",
            Code::UnsupportedType => "UNSUPPORTED_TYPE",
            Code::InvalidAttribute => "INVALID_ATTRIBUTE",
            Code::InvalidInput => "INVALID_INPUT",
            Code::ShapeMismatch => "SHAPE_MISMATCH",
            Code::IndexOutOfRange => "INDEX_OUT_OF_RANGE",
            Code::DivisionByZero => "DIVISION_BY_ZERO",
            Code::LimitExceeded => "LIMIT_EXCEEDED",
        }
    }
}

/// An operator cannot be built or run. The runtime adds which node it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct OpError {
    /// The agreed kind.
    pub code: Code,
    /// What exactly, with the values involved, and what would be accepted.
    pub message: String,
}

impl OpError {
    /// An error of this kind.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Shapes that do not fit.
    pub fn shape(message: impl Into<String>) -> Self {
        Self::new(Code::ShapeMismatch, message)
    }

    /// A missing or wrong input.
    pub fn input(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidInput, message)
    }

    /// A missing or wrong attribute.
    pub fn attribute(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidAttribute, message)
    }

    /// An index or axis out of range.
    pub fn index(message: impl Into<String>) -> Self {
        Self::new(Code::IndexOutOfRange, message)
    }

    /// A form of the operator without an implementation.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(Code::UnsupportedOperator, message)
    }

    /// An element type without an implementation.
    pub fn unsupported_type(dtype: DType) -> Self {
        Self::new(Code::UnsupportedType, format!("no implementation for element type {dtype}"))
    }
}

impl From<TensorError> for OpError {
    fn from(e: TensorError) -> Self {
        match e {
            TensorError::Count { .. } => Self::shape(e.to_string()),
            TensorError::TooLarge(_) => Self::new(Code::LimitExceeded, e.to_string()),
            TensorError::Unsupported(dtype) => Self::unsupported_type(dtype),
            _ => Self::input(e.to_string()),
        }
    }
}
