use std::fmt;

use isobit_graph::{Model, Node};
use isobit_ops::{Code, OpError};

/// Which step of the graph an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRef {
    /// Index in the graph's order.
    pub step: usize,
    /// `domain::op`, or just the operator for `ai.onnx`.
    pub op: String,
    /// The node's own name; may be empty.
    pub name: String,
    /// Operator set version the model imports for the domain; 0 when it does not.
    pub opset: i64,
}

impl NodeRef {
    pub(crate) fn new(model: &Model, step: usize, node: &Node) -> Self {
        let opset = model.opsets.get(&node.domain).copied().unwrap_or(0);
        Self { step, op: node.qualified(), name: node.name.clone(), opset }
    }
}

impl fmt::Display for NodeRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} ({}", self.step, self.op)?;
        if !self.name.is_empty() {
            write!(f, " '{}'", self.name)?;
        }
        write!(f, ", opset {})", self.opset)
    }
}

/// A model cannot be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// An operator cannot be built here.
    #[error("{node}: {source}")]
    Op {
        /// Where.
        node: NodeRef,
        /// Why.
        source: OpError,
    },
    /// A node uses a value that no earlier node, input or initializer defines.
    #[error("{node}: operand {operand} is not defined before it is used")]
    Undefined {
        /// Where.
        node: NodeRef,
        /// Operand position.
        operand: usize,
    },
    /// A graph output that nothing defines.
    #[error("graph output '{0}' is never computed")]
    NoOutput(String),
    /// The options ask for something this machine does not have.
    #[error("kernel set {0} is not available on this machine")]
    KernelSet(isobit_kernels::KernelSet),
    /// Threads outside 1 to 1024, or the operating system refused to start them.
    #[error("cannot run with {threads} threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// Why not.
        reason: String,
    },
}

/// A run failed. With the same model, inputs, seed and limits it fails with the same [`Code`]
/// everywhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The inputs are not what the model's signature asks for.
    #[error("input '{name}': {message}")]
    Input {
        /// Input name.
        name: String,
        /// What is wrong and what would be accepted.
        message: String,
    },
    /// A step failed.
    #[error("{node}: {source}")]
    Op {
        /// Where.
        node: NodeRef,
        /// Why.
        source: OpError,
    },
    /// A limit of the run is reached.
    #[error("the run exceeds its limit of {limit} {what}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// An output is no tensor, and the caller asked for tensors.
    #[error("output '{name}' is {kind}; only models whose outputs are tensors can be run here")]
    Output {
        /// Output name.
        name: String,
        /// What it is.
        kind: &'static str,
    },
}

impl RunError {
    /// The agreed kind of failure.
    pub fn code(&self) -> Code {
        match self {
            RunError::Input { .. } => Code::InvalidInput,
            RunError::Op { source, .. } => source.code,
            RunError::Limit { .. } => Code::LimitExceeded,
            RunError::Output { .. } => Code::UnsupportedType,
        }
    }
}
