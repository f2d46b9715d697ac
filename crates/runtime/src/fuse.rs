//! Which steps the step before them may do on its result ([`isobit_ops::Op::run_tail`]).
//!
//! Fusing changes no result and no account: a step that was done already passes its operand on, is charged what it costs,
//! and its result counts as held, as if it had run by itself.

use isobit_graph::{Graph, ValueId};
use isobit_kernels::math::Unary;
use isobit_ops::Stage;
use isobit_tensor::Tensor;

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
pub(crate) fn tails<'a>(
    graph: &Graph,
    steps: &[Step],
    folded: &[Option<u64>],
    uses: &Uses,
    constant: &dyn Fn(ValueId) -> Option<&'a Tensor>,
) -> Vec<Vec<Link>> {
    let fuse = Fuse { graph, steps, folded, uses, constant };
    (0..steps.len()).map(|step| fuse.tail(step)).collect()
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

struct Fuse<'g, 'a> {
    graph: &'g Graph,
    steps: &'g [Step],
    folded: &'g [Option<u64>],
    uses: &'g Uses,
    constant: &'g dyn Fn(ValueId) -> Option<&'a Tensor>,
}

impl Fuse<'_, '_> {
    fn stage(&self, step: usize) -> Option<Stage> {
        match &self.steps[step] {
            Step::Op(op) => op.stage(),
            Step::Control(_) => None,
        }
    }

    fn tail(&self, step: usize) -> Vec<Link> {
        let mut links = Vec::new();
        let takes = matches!(&self.steps[step], Step::Op(op) if op.takes_tail());
        let result = |step: usize| result(self.graph, self.folded, step);
        let Some(mut v) = result(step).filter(|_| takes) else { return links };
        while let Some(link) = self.next(step, v) {
            let Some(after) = link.steps.last().and_then(|&(s, _)| result(s)) else { break };
            v = after;
            links.push(link);
        }
        links
    }

    /// What is done next with value `v` of `step` or its tail, if nobody else needs `v`.
    fn next(&self, step: usize, v: ValueId) -> Option<Link> {
        match *self.uses.of(v) {
            [(s, operand)] => match self.stage(s)? {
                Stage::Unary(f) => Some(Link { action: Action::Unary(f), steps: vec![(s, operand)] }),
                Stage::Add => {
                    let other = self.other(s, operand)?;
                    let before = self.uses.defined[other.0 as usize].is_none_or(|d| d < step);
                    before.then(|| Link { action: Action::Add(other), steps: vec![(s, operand)] })
                }
                Stage::Mul | Stage::Pow => None,
            },
            // x * Sigmoid(x).
            [(s, 0), (t, operand)] => {
                let sigmoid = self.stage(s)? == Stage::Unary(Unary::Sigmoid);
                let [Some(gate)] = self.graph.nodes[s].outputs[..] else { return None };
                let both = *self.uses.of(gate) == [(t, 1 - operand.min(1))] && self.stage(t)? == Stage::Mul;
                (sigmoid && both)
                    .then(|| Link { action: Action::Unary(Unary::Silu), steps: vec![(s, 0), (t, operand)] })
            }
            [a, b, c] => self.gelu_new([a, b, c]),
            _ => None,
        }
    }

    /// The operand of a step beside `operand`.
    fn other(&self, step: usize, operand: usize) -> Option<ValueId> {
        self.graph.nodes[step].inputs.get(1 - operand.min(1)).copied().flatten()
    }

    /// Whether a step is `stage` of a value, its `operand`, and of the number `y`.
    fn is(&self, (step, operand): (usize, usize), stage: Stage, y: f32) -> bool {
        let number = self.other(step, operand).and_then(self.constant);
        let number = number.filter(|t| t.rank() == 0).and_then(|t| t.as_slice::<f32>().ok()?.first());
        self.stage(step) == Some(stage) && number == Some(&y)
    }

    /// The step whose operand the result of `step` is, where there is one alone.
    fn only(&self, step: usize) -> Option<(usize, usize)> {
        match *self.uses.of(result(self.graph, self.folded, step)?) {
            [one] => Some(one),
            _ => None,
        }
    }

    /// (0.5 x) * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * pow(x, 3)))) written out: three use x.
    fn gelu_new(&self, uses: [(usize, usize); 3]) -> Option<Link> {
        let find = |wanted: &dyn Fn((usize, usize)) -> bool| uses.into_iter().find(|&u| wanted(u));
        let half = find(&|u| self.is(u, Stage::Mul, 0.5))?;
        let power = find(&|u| u.1 == 0 && self.is(u, Stage::Pow, 3.0))?;
        let sum = find(&|u| self.stage(u.0) == Some(Stage::Add))?;
        let scaled = self.only(power.0).filter(|&u| self.is(u, Stage::Mul, 0.044715))?;
        self.only(scaled.0).filter(|&(s, operand)| s == sum.0 && operand != sum.1)?;
        let inner = self.only(sum.0).filter(|&u| self.is(u, Stage::Mul, SQRT_2_OVER_PI))?;
        let tanh = self.only(inner.0).filter(|u| self.stage(u.0) == Some(Stage::Unary(Unary::Tanh)))?;
        let plus = self.only(tanh.0).filter(|&u| self.is(u, Stage::Add, 1.0))?;
        let last = self.only(plus.0).filter(|u| self.stage(u.0) == Some(Stage::Mul))?;
        self.only(half.0).filter(|&(s, operand)| s == last.0 && operand != last.1)?;
        let steps = vec![half, power, scaled, sum, inner, tanh, plus, last];
        Some(Link { action: Action::Unary(Unary::GeluNew), steps })
    }
}

/// sqrt(2 / pi) rounded to f32.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
