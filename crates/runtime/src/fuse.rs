//! Which steps the step before them may do on its result ([`isobit_ops::Op::run_tail`]).
//!
//! Fusing changes no result and no account: a step that was done already passes its operand on, is charged what it costs,
//! and its result counts as held, as if it had run by itself.

use isobit_graph::{Graph, ValueId};
use isobit_kernels::math::Unary;
use isobit_ops::Stage;

use crate::program::Step;

/// Part of a tail.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    /// What is to be done.
    pub(crate) action: Action,
    /// The steps that are done by it, and the operand that each then passes on.
    pub(crate) steps: Vec<(usize, usize)>,
}

/// One thing to do with a result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Action {
    /// Adds another value.
    Add(ValueId),
    /// Applies a function.
    Unary(Unary),
}

/// The tail of every step; empty for most.
pub(crate) fn tails(graph: &Graph, steps: &[Step], folded: &[Option<u64>], uses: &Uses) -> Vec<Vec<Link>> {
    (0..steps.len()).map(|step| tail(graph, steps, folded, uses, step)).collect()
}

/// Who uses each value.
pub(crate) struct Uses {
    /// `(step, operand)`.
    by: Vec<Vec<(usize, usize)>>,
    /// Also used elsewhere: by the caller or by a body.
    elsewhere: Vec<bool>,
    /// The step that defines it.
    defined: Vec<Option<usize>>,
}

impl Uses {
    pub(crate) fn new(graph: &Graph) -> Self {
        let n = graph.values.len();
        let mut uses = Self { by: vec![Vec::new(); n], elsewhere: vec![false; n], defined: vec![None; n] };
        for &v in &graph.outputs {
            uses.elsewhere[v.0 as usize] = true;
        }
        for (step, node) in graph.nodes.iter().enumerate() {
            for (operand, v) in node.inputs.iter().enumerate() {
                if let Some(v) = v {
                    uses.by[v.0 as usize].push((step, operand));
                }
            }
            for v in node.captured() {
                uses.elsewhere[v.0 as usize] = true;
            }
            for v in node.outputs.iter().flatten() {
                uses.defined[v.0 as usize] = Some(step);
            }
        }
        uses
    }

    /// The step that defines a value.
    pub(crate) fn defined(&self, v: ValueId) -> Option<usize> {
        self.defined[v.0 as usize]
    }

    /// The operands that a value is, where nobody else needs it.
    pub(crate) fn of(&self, v: ValueId) -> &[(usize, usize)] {
        if self.elsewhere[v.0 as usize] { &[] } else { &self.by[v.0 as usize] }
    }
}

/// The single result of a step that runs.
pub(crate) fn result(graph: &Graph, folded: &[Option<u64>], step: usize) -> Option<ValueId> {
    match graph.nodes[step].outputs[..] {
        [v] if folded[step].is_none() => v,
        _ => None,
    }
}

fn stage(steps: &[Step], step: usize) -> Option<Stage> {
    match &steps[step] {
        Step::Op(op) => op.stage(),
        Step::Control(_) => None,
    }
}

fn tail(graph: &Graph, steps: &[Step], folded: &[Option<u64>], uses: &Uses, step: usize) -> Vec<Link> {
    let mut links = Vec::new();
    let takes = matches!(&steps[step], Step::Op(op) if op.takes_tail());
    let Some(mut v) = result(graph, folded, step).filter(|_| takes) else { return links };
    while let Some(link) = next(graph, steps, uses, step, v) {
        let Some(after) = link.steps.last().and_then(|&(s, _)| result(graph, folded, s)) else { break };
        v = after;
        links.push(link);
    }
    links
}

/// What is done next with value `v` of `step` or its tail, if nobody else needs `v`.
fn next(graph: &Graph, steps: &[Step], uses: &Uses, step: usize, v: ValueId) -> Option<Link> {
    match *uses.of(v) {
        [(s, operand)] => match stage(steps, s)? {
            Stage::Unary(f) => Some(Link { action: Action::Unary(f), steps: vec![(s, operand)] }),
            Stage::Add => {
                let other = graph.nodes[s].inputs.get(1 - operand.min(1)).copied().flatten()?;
                let before = uses.defined[other.0 as usize].is_none_or(|d| d < step);
                before.then(|| Link { action: Action::Add(other), steps: vec![(s, operand)] })
            }
            Stage::Mul => None,
        },
        // x * Sigmoid(x).
        [(s, 0), (t, operand)] => {
            let sigmoid = stage(steps, s)? == Stage::Unary(Unary::Sigmoid);
            let [Some(gate)] = graph.nodes[s].outputs[..] else { return None };
            let both = *uses.of(gate) == [(t, 1 - operand.min(1))] && stage(steps, t)? == Stage::Mul;
            (sigmoid && both)
                .then(|| Link { action: Action::Unary(Unary::Silu), steps: vec![(s, 0), (t, operand)] })
        }
        _ => None,
    }
}
