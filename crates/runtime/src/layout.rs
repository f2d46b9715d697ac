//! Which values are images in blocks of channels ([`isobit_ops::Blockwise`]).
//!
//! A value is, where the step that makes it can do so and everybody who uses it knows blocks: nothing is turned to and fro.
//! A layout changes no result and no account.

use isobit_graph::{Graph, ValueId};
use isobit_ops::{Blockwise, Role, Wanted};

use crate::fuse::{Link, Uses, result};
use crate::program::Step;

/// The layout of a graph's values.
pub(crate) struct Layout {
    /// For each step, how its result (or that of its whole tail) is best given, where that is to be in blocks.
    pub(crate) wanted: Vec<Option<Wanted>>,
    /// For each value, whether it is to be in blocks.
    inside: Vec<bool>,
}

impl Layout {
    /// Whether a step is to read or make images in blocks.
    pub(crate) fn in_blocks(&self, graph: &Graph, step: usize) -> bool {
        let mut operands = graph.nodes[step].inputs.iter().flatten();
        self.wanted[step].is_some() || operands.any(|v| self.inside[v.0 as usize])
    }
}

/// The layout of a graph's values.
pub(crate) fn layout(
    graph: &Graph,
    steps: &[Step],
    folded: &[Option<u64>],
    uses: &Uses,
    tails: &[Vec<Link>],
) -> Layout {
    let roles = Roles { graph, steps, folded, uses };
    let inside = roles.inside();
    let wanted = |step: usize| {
        let first = roles.result(step).filter(|v| inside[v.0 as usize])?;
        let last = tails[step].last().and_then(|link| link.steps.last());
        let v = last.map_or(Some(first), |&(s, _)| roles.result(s))?;
        inside[v.0 as usize].then(|| roles.wanted(v))
    };
    Layout { wanted: (0..steps.len()).map(wanted).collect(), inside }
}

struct Roles<'a> {
    graph: &'a Graph,
    steps: &'a [Step],
    folded: &'a [Option<u64>],
    uses: &'a Uses,
}

impl Roles<'_> {
    fn blockwise(&self, step: usize) -> Option<&dyn Blockwise> {
        match &self.steps[step] {
            Step::Op(op) if self.folded[step].is_none() => op.blockwise(),
            _ => None,
        }
    }

    fn role(&self, step: usize) -> Option<Role> {
        self.blockwise(step).map(Blockwise::role)
    }

    /// The result of a step that can make blocks.
    fn result(&self, step: usize) -> Option<ValueId> {
        matches!(self.role(step)?, Role::Makes { .. } | Role::Keeps { .. })
            .then(|| result(self.graph, self.folded, step))?
    }

    /// Operands of a step that may be in blocks.
    fn operands(&self, step: usize) -> usize {
        match self.role(step) {
            Some(Role::Makes { .. } | Role::Ends) => 1,
            Some(Role::Keeps { operands }) => operands,
            None => 0,
        }
    }

    /// The values in blocks: the largest set in which everyone agrees.
    fn inside(&self) -> Vec<bool> {
        let mut inside = vec![false; self.graph.values.len()];
        let mut open: Vec<usize> = (0..self.steps.len()).collect();
        for v in open.iter().filter_map(|&step| self.result(step)) {
            inside[v.0 as usize] = true;
        }
        while let Some(step) = open.pop() {
            let Some(v) = self.result(step).filter(|v| inside[v.0 as usize]) else { continue };
            if self.agrees(step, v, &inside) {
                continue;
            }
            inside[v.0 as usize] = false;
            // Those who asked for it look again, each to be left out at once: a graph costs what it has edges.
            let keeps = |s: &usize| matches!(self.role(*s), Some(Role::Keeps { .. }));
            open.extend(self.uses.of(v).iter().map(|&(s, _)| s).filter(keeps));
            if keeps(&step) {
                let operands = self.graph.nodes[step].inputs.iter().flatten();
                open.extend(operands.filter_map(|&o| self.uses.defined(o)));
            }
        }
        inside
    }

    /// Whether a step and all users of its result agree that it is in blocks.
    fn agrees(&self, step: usize, v: ValueId, inside: &[bool]) -> bool {
        let is_inside = |v: ValueId| inside[v.0 as usize];
        let makes = match self.role(step) {
            Some(Role::Keeps { .. }) => {
                self.graph.nodes[step].inputs.iter().all(|o| o.is_some_and(is_inside))
            }
            Some(Role::Makes { .. }) => true,
            _ => false,
        };
        let takes = |&(s, operand): &(usize, usize)| {
            let keeps = matches!(self.role(s), Some(Role::Keeps { .. }));
            operand < self.operands(s) && (!keeps || self.result(s).is_some_and(is_inside))
        };
        let users = self.uses.of(v);
        makes && !users.is_empty() && users.iter().all(takes)
    }

    /// The widest border that a user of a value asks for, and whether all of them take gates.
    fn wanted(&self, v: ValueId) -> Wanted {
        let asked = |&(s, _): &(usize, usize)| match self.role(s) {
            Some(Role::Makes { border }) => border,
            _ => 0,
        };
        let users = self.uses.of(v);
        let takes_gates = |&(s, operand): &(usize, usize)| {
            operand == 0 && self.blockwise(s).is_some_and(Blockwise::takes_gates)
        };
        Wanted {
            border: users.iter().map(asked).max().unwrap_or(0),
            gated: users.len() == 1 && users.iter().all(takes_gates),
        }
    }
}
