//! A forest as it is evaluated: nodes side by side, several ways at once, because each step of one waits for memory.

use isobit_kernels::{Exec, rows};

use super::forest::{Child, Mode, Split, Votes};
use crate::real::Real;

/// Ways that are followed together, of one row through several trees or of several rows through one: the trees of a forest lie farther
/// away than one tree.
const TREES: usize = 16;
const ROWS: usize = 8;
/// Trees for which it is worth waking another thread.
const GRAIN: usize = 128;

/// A split; `next` are the branches of false and true, a leaf as its complement.
#[derive(Debug, Clone, Copy)]
struct Node<T> {
    value: T,
    /// The feature, and in the top bit whether NaN takes the true branch.
    feature: u32,
    next: [i32; 2],
}

const MISSING: u32 = 1 << 31;

/// The trees of a forest whose splits all compare in the same way.
#[derive(Debug)]
pub(super) struct Flat<T> {
    mode: Mode,
    nodes: Vec<Node<T>>,
    roots: Vec<i32>,
    /// Where the votes of each leaf begin; one more entry than leaves.
    starts: Vec<u32>,
    votes: Vec<(u32, T)>,
}

impl<T: Real> Flat<T> {
    /// The flat form, if there is one.
    pub(super) fn new(splits: &[Split<T>], leaves: &[Votes<T>], roots: &[Child]) -> Option<Self> {
        let mode = splits.first()?.mode;
        let votes: usize = leaves.iter().map(Vec::len).sum();
        let sizes = [splits.len(), leaves.len(), votes];
        if sizes.iter().any(|&n| n >= i32::MAX as usize) || mode == Mode::Member {
            return None;
        }
        let place = |child: Child| match child {
            Child::Node(n) => n as i32,
            Child::Leaf(l) => !(l as i32),
        };
        let node = |s: &Split<T>| {
            let fits = s.mode == mode && s.feature < MISSING;
            let feature = s.feature | if s.missing_true { MISSING } else { 0 };
            fits.then(|| Node { value: s.value, feature, next: [place(s.no), place(s.yes)] })
        };
        let mut starts = vec![0];
        for leaf in leaves {
            starts.push(starts.last().copied().unwrap_or(0) + leaf.len() as u32);
        }
        Some(Self {
            mode,
            nodes: splits.iter().map(node).collect::<Option<_>>()?,
            roots: roots.iter().copied().map(place).collect(),
            starts,
            votes: leaves.iter().flatten().copied().collect(),
        })
    }

    /// Adds every tree's votes for each row, in the order of the trees, to the row's `targets` scores.
    pub(super) fn add(&self, exec: Exec<'_>, rows: &[T], width: usize, targets: usize, scores: &mut [T]) {
        match self.mode {
            Mode::Leq => self.add_by(exec, rows, width, targets, scores, |x, v| x <= v),
            Mode::Lt => self.add_by(exec, rows, width, targets, scores, |x, v| x < v),
            Mode::Gte => self.add_by(exec, rows, width, targets, scores, |x, v| x >= v),
            Mode::Gt => self.add_by(exec, rows, width, targets, scores, |x, v| x > v),
            Mode::Eq => self.add_by(exec, rows, width, targets, scores, |x, v| x == v),
            Mode::Neq | Mode::Member => self.add_by(exec, rows, width, targets, scores, |x, v| x != v),
        }
    }

    #[inline(always)]
    fn add_by(
        &self,
        exec: Exec<'_>,
        x: &[T],
        width: usize,
        targets: usize,
        scores: &mut [T],
        holds: impl Fn(T, T) -> bool + Copy + Sync,
    ) {
        /// Rows for which a tree stays in the cache.
        const BLOCK: usize = 128;
        let count = scores.len() / targets;
        if count < ROWS {
            let mut leaves = vec![!0; self.roots.len()];
            for (i, scores) in scores.chunks_exact_mut(targets).enumerate() {
                let row = &x[i * width..(i + 1) * width];
                rows(exec, &mut leaves, 1, GRAIN, |first, leaves| {
                    let roots = self.roots[first..][..leaves.len()].chunks(TREES);
                    for (leaves, trees) in leaves.chunks_mut(TREES).zip(roots) {
                        let mut at = [!0; TREES];
                        at[..trees.len()].copy_from_slice(trees);
                        self.follow(&mut at, [row; TREES], holds);
                        leaves.copy_from_slice(&at[..trees.len()]);
                    }
                });
                leaves.iter().for_each(|&leaf| self.vote(leaf, scores));
            }
            return;
        }
        for first in (0..count).step_by(BLOCK) {
            let block = first..count.min(first + BLOCK);
            for &root in &self.roots {
                for i in block.clone().step_by(ROWS) {
                    let n = ROWS.min(block.end - i);
                    let mut at = [root; ROWS];
                    let row = std::array::from_fn(|w| &x[(i + w.min(n - 1)) * width..][..width]);
                    self.follow(&mut at, row, holds);
                    for (w, &leaf) in at.iter().enumerate().take(n) {
                        self.vote(leaf, &mut scores[(i + w) * targets..][..targets]);
                    }
                }
            }
        }
    }

    /// Follows each way to its leaf.
    #[inline(always)]
    fn follow<const WAYS: usize>(
        &self,
        at: &mut [i32; WAYS],
        row: [&[T]; WAYS],
        holds: impl Fn(T, T) -> bool,
    ) {
        while at.iter().any(|&at| at >= 0) {
            for (at, row) in at.iter_mut().zip(&row) {
                if *at < 0 {
                    continue;
                }
                let node = &self.nodes[*at as usize];
                let x = row[(node.feature & !MISSING) as usize];
                let missing = x.nan();
                let yes = (holds(x, node.value) & !missing) | (missing & (node.feature & MISSING != 0));
                *at = node.next[usize::from(yes)];
            }
        }
    }

    #[inline(always)]
    fn vote(&self, leaf: i32, scores: &mut [T]) {
        let leaf = !leaf as usize;
        for &(target, weight) in &self.votes[self.starts[leaf] as usize..self.starts[leaf + 1] as usize] {
            let s = &mut scores[target as usize];
            *s = *s + weight;
        }
    }
}
