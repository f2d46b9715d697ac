use std::collections::BTreeMap;

use isobit_graph::Model;
use isobit_ops::{Code, OpError};

use crate::{NodeRef, infer};

/// One reason why a model is not executable here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// Which node.
    pub node: NodeRef,
    /// What is wrong with it.
    pub error: OpError,
}

impl Issue {
    /// The agreed kind.
    pub fn code(&self) -> Code {
        self.error.code
    }
}

/// Whether every step of the model can run here: every unsupported operator, element type and
/// contradiction in types or shapes, all at once, in graph order. Empty means executable.
pub fn check(model: &Model) -> Vec<Issue> {
    infer(model, &BTreeMap::new())
        .errors
        .into_iter()
        .map(|(step, error)| Issue { node: NodeRef::new(model, step, &model.graph.nodes[step]), error })
        .collect()
}
