use isobit_graph::Node;
use isobit_ops::OpError;
use isobit_tensor::Datum;

use super::{Body, Flow, arity};
use crate::meter::Stop;

/// A body that runs once for each item of a sequence, and yields sequences.
pub(crate) struct SequenceMap {
    body: Body,
    pub(super) results: usize,
}

impl SequenceMap {
    pub(super) fn new(body: Body, node: &Node) -> Result<Self, OpError> {
        arity("inputs", body.inputs(), node.inputs.len())?;
        arity("outputs", body.outputs(), node.outputs.len())?;
        Ok(Self { body, results: node.outputs.len() })
    }

    pub(super) fn run(
        &self,
        flow: &mut Flow<'_, '_>,
        operands: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, Stop> {
        let operands = operands.into_iter().collect::<Option<Vec<Datum>>>();
        let operands = operands.ok_or_else(|| flow.error(OpError::input("an operand is missing")))?;
        let Some(Datum::Sequence(first)) = operands.first() else {
            return Err(flow.error(OpError::input("the first operand must be a sequence")));
        };
        let n = first.len();
        let uneven = |d: &&Datum| matches!(d, Datum::Sequence(items) if items.len() != n);
        if let Some(other) = operands.iter().find(uneven) {
            let message = format!("sequences of {n} and {} items", other.items());
            return Err(flow.error(OpError::shape(message)));
        }
        let mut results: Vec<Vec<Datum>> = vec![Vec::with_capacity(n); self.results];
        for i in 0..n {
            let item = |d: &Datum| match d {
                Datum::Sequence(items) => items[i].clone(),
                other => other.clone(),
            };
            let outputs = flow.body(&self.body, operands.iter().map(item).collect())?;
            for (result, output) in results.iter_mut().zip(outputs) {
                flow.run.hold(&output.clone().into())?;
                result.push(output);
            }
        }
        Ok(results.into_iter().map(Datum::sequence).collect())
    }
}
