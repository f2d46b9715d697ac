//! Decision trees in the form in which they are evaluated.

use isobit_kernels::Exec;

use super::flat::Flat;
use crate::OpError;
use crate::real::Real;

/// How a node compares its feature with its split. A NaN goes where the node says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    /// Whether the feature is in a set.
    Member,
}

/// Where a branch leads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Child {
    Node(u32),
    Leaf(u32),
}

#[derive(Debug, Clone)]
pub(super) struct Split<T> {
    pub(super) feature: u32,
    pub(super) mode: Mode,
    /// Whether NaN takes the true branch.
    pub(super) missing_true: bool,
    pub(super) value: T,
    /// Of a set: where it lies in [`Forest::members`].
    pub(super) set: (u32, u32),
    pub(super) yes: Child,
    pub(super) no: Child,
}

/// What a leaf says: votes for targets.
pub(super) type Votes<T> = Vec<(u32, T)>;

#[derive(Debug)]
pub(super) struct Forest<T> {
    pub(super) splits: Vec<Split<T>>,
    pub(super) leaves: Vec<Votes<T>>,
    pub(super) roots: Vec<Child>,
    pub(super) members: Vec<T>,
    pub(super) targets: usize,
    /// Comparisons and votes on the longest ways through all trees: the cost of a row.
    pub(super) work: u64,
    pub(super) features: usize,
    /// As it is evaluated, where it can be.
    flat: Option<Flat<T>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

impl<T: Real> Forest<T> {
    /// Checks that every branch leads on and none in a circle.
    pub(super) fn new(
        splits: Vec<Split<T>>,
        leaves: Vec<Votes<T>>,
        roots: Vec<Child>,
        members: Vec<T>,
        targets: usize,
    ) -> Result<Self, OpError> {
        let features = splits.iter().map(|s| s.feature as usize + 1).max().unwrap_or(0);
        if let Some((t, _)) = leaves.iter().flatten().find(|(t, _)| *t as usize >= targets) {
            return Err(OpError::attribute(format!("a leaf votes for target {t} of {targets}")));
        }
        let mut forest = Self { splits, leaves, roots, members, targets, work: 0, features, flat: None };
        let mut depths = vec![None; forest.splits.len()];
        for &root in &forest.roots {
            forest.work = forest.work.saturating_add(forest.depth(root, &mut depths)?);
        }
        // Every way of a tree has been followed: it ends in a leaf that is there.
        let reached = depths.iter().all(Option::is_some);
        forest.flat = Flat::new(&forest.splits, &forest.leaves, &forest.roots).filter(|_| reached);
        Ok(forest)
    }

    fn votes(&self, leaf: u32) -> Result<u64, OpError> {
        let votes = self.leaves.get(leaf as usize);
        votes
            .map(|v| v.len() as u64 + 1)
            .ok_or_else(|| OpError::attribute(format!("a branch to leaf {leaf}, which is not there")))
    }

    /// The cost of the longest way from here, with a stack of its own: trees may be as deep as they have nodes.
    fn depth(&self, root: Child, depths: &mut [Option<u64>]) -> Result<u64, OpError> {
        let mut open = vec![false; depths.len()];
        let mut stack = vec![root];
        while let Some(&top) = stack.last() {
            let Child::Node(n) = top else {
                stack.pop();
                continue;
            };
            let at = n as usize;
            let Some(split) = self.splits.get(at) else {
                return Err(OpError::attribute(format!("a branch to node {n}, which is not there")));
            };
            if depths[at].is_some() {
                stack.pop();
                continue;
            }
            let mut below = Some(0);
            for child in [split.yes, split.no] {
                let own = match child {
                    Child::Leaf(l) => Some(self.votes(l)?),
                    Child::Node(c) => depths.get(c as usize).copied().flatten(),
                };
                below = below.zip(own).map(|(a, b)| u64::max(a, b));
            }
            if let Some(below) = below {
                depths[at] = Some(below.saturating_add(1));
                stack.pop();
            } else if std::mem::replace(&mut open[at], true) {
                return Err(OpError::attribute(format!("the branches of node {n} lead back to it")));
            } else {
                stack.extend([split.yes, split.no].into_iter().filter(|c| matches!(c, Child::Node(_))));
            }
        }
        match root {
            Child::Leaf(l) => self.votes(l),
            Child::Node(n) => Ok(depths[n as usize].unwrap_or(0)),
        }
    }

    fn leaf(&self, mut at: Child, row: &[T]) -> &Votes<T> {
        loop {
            match at {
                Child::Leaf(l) => return &self.leaves[l as usize],
                Child::Node(n) => {
                    let split = &self.splits[n as usize];
                    at = if self.holds(split, row[split.feature as usize]) { split.yes } else { split.no };
                }
            }
        }
    }

    fn holds(&self, s: &Split<T>, x: T) -> bool {
        if x.nan() {
            return s.missing_true;
        }
        match s.mode {
            Mode::Leq => x <= s.value,
            Mode::Lt => x < s.value,
            Mode::Gte => x >= s.value,
            Mode::Gt => x > s.value,
            Mode::Eq => x == s.value,
            Mode::Neq => x != s.value,
            Mode::Member => self.members[s.set.0 as usize..s.set.1 as usize].contains(&x),
        }
    }

    /// For each row the targets' scores, into `out`: tree by tree, vote by vote, one accumulator a target.
    pub(super) fn run(&self, exec: Exec<'_>, rows: &[T], width: usize, how: Aggregate, out: &mut [T]) {
        if self.targets == 0 {
            return;
        }
        let count = out.len() / self.targets;
        // Each piece writes the scores of its own rows.
        let piece = count.div_ceil(4 * exec.pool().threads()).max(16);
        let parts: Vec<std::sync::Mutex<&mut [T]>> =
            out.chunks_mut(piece * self.targets).map(std::sync::Mutex::new).collect();
        exec.pool().for_each(parts.len(), &|p| {
            let mut scores = parts[p].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let sums = matches!(how, Aggregate::Sum | Aggregate::Average);
            if let Some(flat) = self.flat.as_ref().filter(|_| sums) {
                let n = scores.len() / self.targets;
                scores.fill(T::ZERO);
                flat.add(exec, &rows[p * piece * width..][..n * width], width, self.targets, &mut scores);
                if how == Aggregate::Average {
                    self.divide(&mut scores);
                }
                return;
            }
            for (i, scores) in scores.chunks_exact_mut(self.targets).enumerate() {
                let at = (p * piece + i) * width;
                self.row(&rows[at..at + width], how, scores);
            }
        });
    }

    /// The mean of the trees from their sum.
    fn divide(&self, scores: &mut [T]) {
        let n = T::of(self.roots.len().max(1) as f64);
        scores.iter_mut().for_each(|s| *s = *s / n);
    }

    fn row(&self, row: &[T], how: Aggregate, scores: &mut [T]) {
        scores.fill(T::ZERO);
        if matches!(how, Aggregate::Sum | Aggregate::Average) {
            for &root in &self.roots {
                for &(target, weight) in self.leaf(root, row) {
                    let s = &mut scores[target as usize];
                    *s = *s + weight;
                }
            }
            if how == Aggregate::Average {
                self.divide(scores);
            }
            return;
        }
        let mut seen = vec![false; self.targets];
        for &root in &self.roots {
            for &(target, weight) in self.leaf(root, row) {
                let t = target as usize;
                scores[t] = match (std::mem::replace(&mut seen[t], true), how) {
                    (false, _) => weight,
                    (true, Aggregate::Min) => scores[t].smaller(weight),
                    (true, _) => scores[t].larger(weight),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(yes: Child, no: Child) -> Split<f32> {
        Split { feature: 0, mode: Mode::Leq, missing_true: false, value: 1.0, set: (0, 0), yes, no }
    }

    fn forest(splits: Vec<Split<f32>>) -> Result<Forest<f32>, OpError> {
        Forest::new(splits, vec![vec![(0, 1.0)], vec![(0, 2.0)]], vec![Child::Node(0)], Vec::new(), 1)
    }

    #[test]
    fn circles_and_missing_nodes_are_refused() {
        use Child::{Leaf, Node};
        assert!(forest(vec![split(Leaf(0), Leaf(1))]).is_ok());
        assert!(forest(vec![split(Leaf(0), Node(0))]).is_err());
        assert!(forest(vec![split(Leaf(0), Node(1)), split(Node(0), Leaf(0))]).is_err());
        assert!(forest(vec![split(Leaf(0), Leaf(2))]).is_err());
        assert!(forest(vec![split(Leaf(0), Node(7))]).is_err());
        // Two branches may share a node.
        let shared = forest(vec![split(Node(1), Node(1)), split(Leaf(0), Leaf(1))]).unwrap();
        assert_eq!(shared.work, 4);
    }

    #[test]
    fn deep_trees_do_not_overflow_the_stack() {
        let n = 200_000;
        let splits = (0..n).map(|i| {
            split(Child::Leaf(0), if i + 1 < n { Child::Node(i as u32 + 1) } else { Child::Leaf(1) })
        });
        assert_eq!(forest(splits.collect()).unwrap().work, n as u64 + 2);
    }

    #[test]
    fn nan_follows_the_flag() {
        let mut s = split(Child::Leaf(0), Child::Leaf(1));
        s.mode = Mode::Neq;
        let row = |s: &Split<f32>, x: f32| {
            let mut out = [0.0];
            forest(vec![s.clone()]).unwrap().row(&[x], Aggregate::Sum, &mut out);
            out[0]
        };
        assert_eq!([row(&s, 1.0), row(&s, 0.0), row(&s, f32::NAN)], [2.0, 1.0, 2.0]);
        s.missing_true = true;
        assert_eq!(row(&s, f32::NAN), 1.0);
    }
}
