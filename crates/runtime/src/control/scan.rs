use isobit_graph::{Attr, Node, ValueId};
use isobit_ops::{Fact, OpError};
use isobit_tensor::{Datum, Tensor};

use super::{Body, Flow, arity, carried};
use crate::meter::Stop;

/// A body that runs once for each position along an axis of its scanned operands.
pub(crate) struct Scan {
    body: Body,
    states: usize,
    input_axes: Vec<i64>,
    /// Whether a scanned operand is read from its end.
    input_reverse: Vec<bool>,
    output_axes: Vec<i64>,
    /// Whether a stacked result is written from its end.
    output_reverse: Vec<bool>,
}

impl Scan {
    pub(super) fn new(body: Body, node: &Node) -> Result<Self, OpError> {
        let scanned = match node.attrs.get("num_scan_inputs") {
            Some(Attr::Int(n)) => usize::try_from(*n).ok().filter(|&n| n > 0 && n <= node.inputs.len()),
            _ => None,
        };
        let scanned = scanned.ok_or_else(|| {
            OpError::attribute("num_scan_inputs must be at least 1 and at most the number of operands")
        })?;
        let states = node.inputs.len() - scanned;
        arity("inputs", body.inputs(), node.inputs.len())?;
        arity("outputs", body.outputs(), node.outputs.len())?;
        let stacked = node.outputs.len().checked_sub(states);
        let stacked = stacked.ok_or_else(|| OpError::input("fewer results than states"))?;
        let list = |name: &str, n: usize| match node.attrs.get(name) {
            None => Ok(vec![0; n]),
            Some(Attr::Ints(v)) if v.len() == n => Ok(v.clone()),
            Some(_) => Err(OpError::attribute(format!("{name} must be a list of {n} ints"))),
        };
        let directions = |name: &str, n: usize| -> Result<Vec<bool>, OpError> {
            let one = |d: i64| match d {
                0 | 1 => Ok(d == 1),
                _ => Err(OpError::attribute(format!("{name} has {d}; it takes 0 and 1"))),
            };
            list(name, n)?.into_iter().map(one).collect()
        };
        Ok(Self {
            body,
            states,
            input_axes: list("scan_input_axes", scanned)?,
            input_reverse: directions("scan_input_directions", scanned)?,
            output_axes: list("scan_output_axes", stacked)?,
            output_reverse: directions("scan_output_directions", stacked)?,
        })
    }

    /// Facts of the states and of the body's other outputs.
    fn facts(
        &self,
        states: Vec<Fact>,
        parts: &[Fact],
        body: &dyn Fn(Vec<Fact>) -> Result<Vec<Fact>, OpError>,
    ) -> Result<(Vec<Fact>, Vec<Fact>), OpError> {
        carried(states, 0, &|states| body([states, parts].concat()))
    }

    pub(super) fn infer(
        &self,
        operands: &[Option<Fact>],
        captured: &dyn Fn(ValueId) -> Fact,
    ) -> Result<Vec<Fact>, OpError> {
        let mut facts: Vec<Fact> = operands.iter().map(|f| f.clone().unwrap_or_default()).collect();
        let scanned = facts.split_off(self.states.min(facts.len()));
        let mut length = None;
        let mut parts = Vec::with_capacity(scanned.len());
        for (fact, &axis) in scanned.iter().zip(&self.input_axes) {
            let shape = match &fact.shape {
                Some(shape) => {
                    let mut shape = shape.clone();
                    length = length.or(shape.remove(self::axis(axis, shape.len())?));
                    Some(shape)
                }
                None => None,
            };
            parts.push(Fact::new(fact.dtype, shape));
        }
        let (mut facts, outputs) = self.facts(facts, &parts, &|inputs| self.body.infer(inputs, captured))?;
        for (part, &axis) in outputs[self.states..].iter().zip(&self.output_axes) {
            let shape = match &part.shape {
                Some(shape) => {
                    let mut shape = shape.clone();
                    shape.insert(self::axis(axis, shape.len() + 1)?, length);
                    Some(shape)
                }
                None => None,
            };
            facts.push(Fact::new(part.dtype, shape));
        }
        Ok(facts)
    }

    pub(super) fn run(
        &self,
        flow: &mut Flow<'_, '_>,
        operands: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, Stop> {
        let operands = operands.into_iter().collect::<Option<Vec<Datum>>>();
        let mut states = operands.ok_or_else(|| flow.error(OpError::input("an operand is missing")))?;
        let scanned = states.split_off(self.states);
        let (scanned, axes, length) = self.scanned(scanned).map_err(|e| flow.error(e))?;
        let mut stacks: Vec<Vec<Tensor>> = vec![Vec::with_capacity(length); self.output_axes.len()];
        for i in 0..length {
            let mut inputs = std::mem::take(&mut states);
            for ((tensor, &axis), &reverse) in scanned.iter().zip(&axes).zip(&self.input_reverse) {
                let at = if reverse { length - 1 - i } else { i };
                inputs.push(tensor.index(axis, at).into());
            }
            let mut outputs = flow.body(&self.body, inputs)?;
            let tails = outputs.split_off(self.states);
            states = outputs;
            for (stack, tail) in stacks.iter_mut().zip(tails) {
                flow.run.hold(&tail.clone().into())?;
                stack.push(tail.into_tensor().map_err(|d| {
                    flow.error(OpError::input(format!("{} where iterations yield tensors", d.kind())))
                })?);
            }
        }
        if length == 0 {
            return self.nothing(flow, states, &scanned, &axes);
        }
        let mut results = states;
        for ((mut stack, &axis), &reverse) in
            stacks.into_iter().zip(&self.output_axes).zip(&self.output_reverse)
        {
            if reverse {
                stack.reverse();
            }
            let rank = stack.first().map_or(0, Tensor::rank) + 1;
            let axis = self::axis(axis, rank).map_err(|e| flow.error(e))?;
            results.push(flow.stack(&stack, axis)?.into());
            stack.into_iter().for_each(|t| flow.run.release(&t.into()));
        }
        Ok(results)
    }

    /// The scanned operands, their axes from the front and their common extent there.
    fn scanned(&self, data: Vec<Datum>) -> Result<(Vec<Tensor>, Vec<usize>, usize), OpError> {
        let tensor =
            |d: Datum| d.into_tensor().map_err(|d| OpError::input(format!("{} cannot be scanned", d.kind())));
        let tensors = data.into_iter().map(tensor).collect::<Result<Vec<_>, _>>()?;
        let axes = tensors.iter().zip(&self.input_axes).map(|(t, &a)| axis(a, t.rank()));
        let axes = axes.collect::<Result<Vec<_>, _>>()?;
        let mut lengths = tensors.iter().zip(&axes).map(|(t, &a)| t.shape()[a]);
        let length = lengths.next().unwrap_or(0);
        match lengths.find(|&l| l != length) {
            Some(other) => {
                Err(OpError::shape(format!("operands scanned over {length} and {other} positions")))
            }
            None => Ok((tensors, axes, length)),
        }
    }

    fn nothing(
        &self,
        flow: &mut Flow<'_, '_>,
        states: Vec<Datum>,
        scanned: &[Tensor],
        axes: &[usize],
    ) -> Result<Vec<Datum>, Stop> {
        let parts: Vec<Fact> = scanned
            .iter()
            .zip(axes)
            .map(|(t, &a)| Fact::fixed(t.dtype(), &[&t.shape()[..a], &t.shape()[a + 1..]].concat()))
            .collect();
        let facts = states.iter().map(Fact::of).collect();
        let known = |inputs: Vec<Fact>| flow.facts(&self.body, &inputs).map_err(Stop::into_error);
        let (_, outputs) = self.facts(facts, &parts, &known).map_err(|e| flow.error(e))?;
        let mut results = states;
        for (fact, &axis) in outputs[self.states..].iter().zip(&self.output_axes) {
            let axis = self::axis(axis, fact.rank().unwrap_or(0) + 1).map_err(|e| flow.error(e))?;
            results.push(flow.empty(fact, axis)?.into());
        }
        Ok(results)
    }
}

/// `axis` counted from the front.
fn axis(axis: i64, rank: usize) -> Result<usize, OpError> {
    let n = rank as i64;
    match axis {
        a if (-n..n).contains(&a) => Ok(a.rem_euclid(n) as usize),
        a => Err(OpError::index(format!("axis {a} of a rank-{rank} tensor"))),
    }
}
