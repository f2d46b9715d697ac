/// Bounds on what a model file may ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the protobuf file (protobuf itself allows 2 GiB).
    pub file_bytes: usize,
    /// Bytes of all tensors together, external ones included.
    pub tensor_bytes: u64,
    /// Nodes, subgraphs and inlined functions included.
    pub nodes: usize,
    /// Values: inputs, initializers and results, those of subgraphs included.
    pub values: usize,
    /// Levels of subgraphs and of functions in functions.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 2 << 30, tensor_bytes: 64 << 30, nodes: 1_000_000, values: 4_000_000, depth: 32 }
    }
}
