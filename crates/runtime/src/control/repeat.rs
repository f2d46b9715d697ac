use isobit_graph::{Node, ValueId};
use isobit_ops::{Fact, OpError};
use isobit_tensor::{DType, Datum, Tensor};

use super::{Body, Flow, arity, carried, int64, scalar, truth};
use crate::meter::Stop;

/// A body that runs a number of times, or until it says so.
pub(crate) struct Loop {
    body: Body,
    /// Values carried from one iteration to the next.
    states: usize,
}

impl Loop {
    pub(super) fn new(body: Body, node: &Node) -> Result<Self, OpError> {
        let states = node.inputs.len().saturating_sub(2);
        arity("inputs", body.inputs(), 2 + states)?;
        arity("outputs", body.outputs(), 1 + node.outputs.len())?;
        if node.outputs.len() < states {
            return Err(OpError::input(format!(
                "{} results for {states} values carried",
                node.outputs.len()
            )));
        }
        Ok(Self { body, states })
    }

    /// Facts of the carried values and of the body's other outputs.
    fn facts(
        &self,
        states: Vec<Fact>,
        body: &dyn Fn(Vec<Fact>) -> Result<Vec<Fact>, OpError>,
    ) -> Result<(Vec<Fact>, Vec<Fact>), OpError> {
        carried(states, 1, &|states| body([&[scalar(DType::I64), scalar(DType::Bool)], states].concat()))
    }

    pub(super) fn infer(
        &self,
        operands: &[Option<Fact>],
        captured: &dyn Fn(ValueId) -> Fact,
    ) -> Result<Vec<Fact>, OpError> {
        let states = operands.iter().skip(2).map(|f| f.clone().unwrap_or_default()).collect();
        let (mut facts, outputs) = self.facts(states, &|inputs| self.body.infer(inputs, captured))?;
        facts.extend(outputs[1 + self.states..].iter().map(|part| {
            let shape = part.shape.as_ref().map(|s| [&[None], s.as_slice()].concat());
            Fact::new(part.dtype, shape)
        }));
        Ok(facts)
    }

    pub(super) fn run(
        &self,
        flow: &mut Flow<'_, '_>,
        mut operands: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, Stop> {
        let states = operands.split_off(operands.len().min(2));
        let trips = match operands.first().and_then(Option::as_ref) {
            Some(m) => Some(trips(m).map_err(|e| flow.error(e))?),
            None => None,
        };
        let mut go = match operands.get(1).and_then(Option::as_ref) {
            Some(c) => truth(Some(c), "the condition").map_err(|e| flow.error(e))?,
            None => true,
        };
        let states = states.into_iter().collect::<Option<Vec<Datum>>>();
        let mut states = states.ok_or_else(|| flow.error(OpError::input("a carried value is missing")))?;
        let parts = self.body.outputs() - 1 - self.states;
        let mut stacks: Vec<Vec<Tensor>> = vec![Vec::new(); parts];
        let mut i = 0;
        while go && trips.is_none_or(|m| i < m) {
            let mut inputs = vec![int64(i), Tensor::scalar(go).into()];
            inputs.append(&mut states);
            let mut outputs = flow.body(&self.body, inputs)?;
            go = truth(outputs.first(), "the body's condition").map_err(|e| flow.error(e))?;
            let tails = outputs.split_off(1 + self.states);
            states = outputs.split_off(1);
            for (stack, tail) in stacks.iter_mut().zip(tails) {
                flow.run.hold(&tail.clone().into())?;
                stack.push(tail.into_tensor().map_err(|d| {
                    flow.error(OpError::input(format!("{} where iterations yield tensors", d.kind())))
                })?);
            }
            i += 1;
        }
        let mut results = states;
        if i == 0 && parts > 0 {
            let facts = results.iter().map(Fact::of).collect();
            let known = |inputs: Vec<Fact>| flow.facts(&self.body, &inputs).map_err(Stop::into_error);
            let (_, outputs) = self.facts(facts, &known).map_err(|e| flow.error(e))?;
            for fact in &outputs[1 + self.states..] {
                results.push(flow.empty(fact, 0)?.into());
            }
            return Ok(results);
        }
        for stack in stacks {
            results.push(flow.stack(&stack, 0)?.into());
            stack.into_iter().for_each(|t| flow.run.release(&t.into()));
        }
        Ok(results)
    }
}

fn trips(m: &Datum) -> Result<i64, OpError> {
    match m.as_tensor().and_then(|t| t.as_slice::<i64>().ok()) {
        Some([m]) => Ok(*m),
        _ => Err(OpError::input("the trip count must be one int64")),
    }
}
