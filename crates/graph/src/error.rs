use isobit_onnx::OnnxError;

/// A model cannot be turned into a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// The file itself.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// A node is malformed or refers to something that does not exist.
    #[error("node {node}: {message}")]
    Node {
        /// `op 'name'` of the node.
        node: String,
        /// What is wrong.
        message: String,
    },
    /// The graph is malformed.
    #[error("graph '{graph}': {message}")]
    Graph {
        /// Graph name.
        graph: String,
        /// What is wrong.
        message: String,
    },
    /// More nodes or deeper nesting than is allowed.
    #[error("the model exceeds the limit of {limit} {what}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
    },
    /// An old form of an operator that has no equivalent in the pinned operator set.
    #[error("node {node}: its form of opset {opset} cannot be upgraded: {message}")]
    Upgrade {
        /// `op 'name'` of the node.
        node: String,
        /// The operator set version the model imports.
        opset: i64,
        /// Why.
        message: String,
    },
    /// A model object whose parts do not belong together.
    #[error("model object: {0}")]
    Object(String),
}
