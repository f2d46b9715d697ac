use isobit_graph::{Node, ValueId};
use isobit_ops::{Fact, OpError};
use isobit_tensor::Datum;

use super::{Body, Flow, arity, either, truth};
use crate::meter::Stop;

/// One of two bodies runs.
pub(crate) struct If {
    then_branch: Body,
    else_branch: Body,
}

impl If {
    pub(super) fn new(then_branch: Body, else_branch: Body, node: &Node) -> Result<Self, OpError> {
        for body in [&then_branch, &else_branch] {
            arity("inputs", body.inputs(), 0)?;
            arity("outputs", body.outputs(), node.outputs.len())?;
        }
        Ok(Self { then_branch, else_branch })
    }

    pub(super) fn infer(
        &self,
        operands: &[Option<Fact>],
        captured: &dyn Fn(ValueId) -> Fact,
    ) -> Result<Vec<Fact>, OpError> {
        let condition = operands.first().cloned().flatten().and_then(|f| f.value);
        let taken = condition.and_then(|t| t.as_slice::<bool>().ok().and_then(|b| b.first().copied()));
        match taken {
            Some(true) => self.then_branch.infer(Vec::new(), captured),
            Some(false) => self.else_branch.infer(Vec::new(), captured),
            None => {
                let a = self.then_branch.infer(Vec::new(), captured)?;
                let b = self.else_branch.infer(Vec::new(), captured)?;
                Ok(a.iter().zip(&b).map(|(a, b)| either(a, b)).collect())
            }
        }
    }

    pub(super) fn run(
        &self,
        flow: &mut Flow<'_, '_>,
        operands: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, Stop> {
        let condition = operands.first().and_then(Option::as_ref);
        let taken = truth(condition, "the condition").map_err(|e| flow.error(e))?;
        flow.body(if taken { &self.then_branch } else { &self.else_branch }, Vec::new())
    }
}
