use isobit_tensor::TensorError;

/// A model file cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The file system said no.
    #[error("cannot read {path}: {message}")]
    Io {
        /// Which file.
        path: String,
        /// The system's words.
        message: String,
    },
    /// Not a protobuf message of this kind.
    #[error("not an ONNX file: {0}")]
    Protobuf(String),
    /// More than is allowed here.
    #[error("{what}: {actual} is above the limit of {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// How much there is.
        actual: u64,
        /// How much is allowed.
        limit: u64,
    },
    /// A tensor's data does not fit its declaration.
    #[error("tensor '{name}': {source}")]
    Tensor {
        /// Tensor name.
        name: String,
        /// What is wrong.
        source: TensorError,
    },
    /// A tensor is declared in a way that has no meaning.
    #[error("tensor '{name}': {message}")]
    Declaration {
        /// Tensor name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// External data that is missing or outside the model's folder.
    #[error("tensor '{name}': external data: {message}")]
    External {
        /// Tensor name.
        name: String,
        /// What is wrong.
        message: String,
    },
}
