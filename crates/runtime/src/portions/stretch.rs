//! Stretches of steps that compute each entry of a batch by itself, and what it is worth to take one in portions. What it is
//! worth is a matter of time alone.

use std::collections::BTreeMap;

use isobit_graph::ValueId;
use isobit_ops::{Fact, Op};
use isobit_tensor::DType;

use super::{Given, Known, Place, Portions, View};
use crate::infer::Inference;
use crate::program::{Program, Step};

/// What of a core's cache is for images.
const CACHE: f64 = (1 << 20) as f64;
/// What a step costs besides its work, in bytes moved.
const STEP: f64 = 20_000.0;
/// Weights that the next portion finds in the last cache.
const KEPT: f64 = (16 << 20) as f64;
/// What a byte of weights costs from there, and from memory, where one of an image costs 1: it is asked for ahead of its use.
const WEIGHT: [f64; 2] = [0.05, 0.4];

/// What a step moves: bytes of images for each entry, and of weights, less where they are kept.
#[derive(Debug, Clone, Copy, Default)]
struct Moved {
    images: f64,
    weights: f64,
}

impl Moved {
    /// What an entry costs a thread in a portion (or a share of the batch) of so many.
    fn cost(self, entries: f64) -> f64 {
        let beyond = (1.0 - CACHE / (self.images * entries).max(CACHE)).max(0.0);
        self.images * beyond + (self.weights + STEP) / entries
    }
}

/// How the steps of a stretch take a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Taken {
    Whole,
    Batch(Place),
}

/// Steps one after the other that compute each entry of a batch by itself.
pub(super) struct Stretch<'a> {
    program: &'a Program,
    facts: &'a [Fact],
    costs: &'a [Option<u64>],
    batch: usize,
    from: usize,
    /// For each value that its steps take or make, how.
    taken: BTreeMap<ValueId, Taken>,
    /// For each step of the program, whether an earlier one may do it.
    fused: &'a [bool],
    /// For each value, the last step that needs it.
    ends: &'a [usize],
    /// Those of values that are no results: their entries do not lie one after the other.
    inner: Vec<usize>,
    /// Bytes of the steps' weights.
    weights: f64,
    /// What each of the steps moves.
    moved: Vec<Moved>,
    /// For each of them, whether the stretch may end with it.
    closed: Vec<bool>,
    views: Vec<View>,
    known: Vec<Known>,
}

/// The stretches of a program, each as long as it may be; `uses` are what [`Program::fused`] and [`Program::ends`] say.
pub(super) fn stretches<'a>(
    program: &'a Program,
    inference: &'a Inference,
    uses: (&'a [bool], &'a [usize]),
) -> Vec<Stretch<'a>> {
    let graph = &program.graph;
    let first = graph.inputs.first().and_then(|v| inference.facts[v.0 as usize].known_shape());
    let batch = first.and_then(|shape| shape.first().copied()).unwrap_or(1);
    let (mut out, mut from, mut reach) = (Vec::new(), 0, None);
    while batch > 1 && from < graph.nodes.len() {
        let mut stretch = Stretch::new(program, inference, uses, batch, from);
        // It begins with no step that an earlier one does.
        while (reach < Some(from) || !stretch.moved.is_empty()) && stretch.next(&mut reach) {}
        from = stretch.until();
        if stretch.moved.is_empty() {
            reach = reach.max(Some(program.reach(from)));
            from += 1;
        } else {
            out.push(stretch);
        }
    }
    out
}

impl<'a> Stretch<'a> {
    fn new(
        program: &'a Program,
        Inference { facts, costs, .. }: &'a Inference,
        (fused, ends): (&'a [bool], &'a [usize]),
        batch: usize,
        from: usize,
    ) -> Self {
        Self {
            program,
            facts,
            costs,
            batch,
            from,
            taken: BTreeMap::new(),
            fused,
            ends,
            inner: Vec::new(),
            weights: 0.0,
            moved: Vec::new(),
            closed: Vec::new(),
            views: Vec::new(),
            known: Vec::new(),
        }
    }

    pub(super) fn batch(&self) -> usize {
        self.batch
    }

    pub(super) fn from(&self) -> usize {
        self.from
    }

    /// The step after its last.
    fn until(&self) -> usize {
        self.from + self.moved.len()
    }

    /// Takes the step after its last, where that computes each entry by itself; `reach` is the last step that any so far does.
    fn next(&mut self, reach: &mut Option<usize>) -> bool {
        let step = self.until();
        if step == self.program.steps.len() {
            return false;
        }
        let Some(moved) = self.take(step) else { return false };
        *reach = (*reach).max(Some(self.program.reach(step)));
        self.moved.push(moved);
        self.inner.retain(|&end| end > step);
        self.closed.push(*reach == Some(step) && self.inner.is_empty());
        true
    }

    fn take(&mut self, step: usize) -> Option<Moved> {
        let node = &self.program.graph.nodes[step];
        if self.program.is_folded(step) {
            return (!self.moved.is_empty()).then(Moved::default);
        }
        let Step::Op(op) = &self.program.steps[step] else { return None };
        let tensor = |v: &ValueId| self.facts[v.0 as usize].dtype.is_some_and(|t| t != DType::String);
        if node.is_random() || !node.inputs.iter().chain(&node.outputs).flatten().all(tensor) {
            return None;
        }
        let known = |v: &Option<ValueId>| Some(((*v)?, self.facts[(*v)?.0 as usize].value.clone()?));
        if let Some(values) = node.outputs.iter().map(known).collect::<Option<Vec<_>>>() {
            self.known.push(Known { step, cost: self.costs[step]?, values });
            return (!self.moved.is_empty()).then(Moved::default);
        }
        // A value from outside may be a batch. A constant of these extents, say of as many filters, is none more often, and so is any
        // that is not the only one.
        let constant = |v: ValueId| self.program.constant(v).is_some();
        let (roles, place) = [(true, true), (true, false), (false, false)].into_iter().find_map(|may| {
            let role = |v: ValueId| {
                let given = if constant(v) { may.1 } else { may.0 } && self.may_be_a_batch(v);
                let new = if given { Taken::Batch(Place::FIRST) } else { Taken::Whole };
                self.taken.get(&v).copied().unwrap_or(new)
            };
            let roles: Vec<_> = node.inputs.iter().map(|v| v.map(role)).collect();
            let place = self.place(step, &**op, &roles)?;
            Some((roles, place))
        })?;
        let mut moved = Moved::default();
        for (v, role) in node.inputs.iter().zip(&roles) {
            let (Some(v), Some(role)) = (*v, *role) else { continue };
            let bytes = self.bytes(v);
            *(if role == Taken::Whole { &mut moved.weights } else { &mut moved.images }) += bytes;
            self.taken.insert(v, role);
        }
        for &v in node.outputs.iter().flatten() {
            // What an earlier step does with its result is read nowhere, and written nowhere else.
            moved.images += self.bytes(v) * if self.fused[step] { -1.0 } else { 1.0 };
            self.taken.insert(v, Taken::Batch(place));
            if place != Place::FIRST {
                self.inner.push(self.ends[v.0 as usize]);
            }
        }
        self.weights += moved.weights;
        moved.weights *= WEIGHT[usize::from(self.weights > KEPT)];
        moved.images = moved.images.max(0.0) / self.batch as f64;
        Some(moved)
    }

    /// Where the batch is in a step's results, when its operands are taken so.
    fn place(&mut self, step: usize, op: &dyn Op, roles: &[Option<Taken>]) -> Option<Place> {
        let node = &self.program.graph.nodes[step];
        let place =
            |role: &Option<Taken>| if let Some(Taken::Batch(place)) = role { Some(*place) } else { None };
        let places: Vec<Option<Place>> = roles.iter().map(place).collect();
        let first = places.iter().flatten().next().copied()?;
        let shape = |v: ValueId| self.facts[v.0 as usize].known_shape();
        if op.keeps_order() {
            let (&[Some(x), ..], &[Some(y)]) = (&node.inputs[..], &node.outputs[..]) else { return None };
            let (from, to) = (shape(x)?, shape(y)?);
            let alone = places[0].is_some() && places[1..].iter().all(Option::is_none);
            let place = first.under(&from, &to, self.batch).filter(|_| alone)?;
            if let Some(operand) = op.extents_operand() {
                self.views.push(View { step, operand, shape: to, axis: place.axis });
            }
            return Some(place);
        }
        let axes: Vec<Option<usize>> = places.iter().map(|p| p.map(|p| p.axis)).collect();
        let place = Place { axis: op.batch_axis(&self.operands(step), &axes)?, ..first };
        let same = places.iter().flatten().all(|p| p.groups == first.groups);
        let all_of_it = |&v: &ValueId| shape(v).is_some_and(|s| place.fits(&s, self.batch));
        (same && node.outputs.iter().flatten().all(all_of_it)).then_some(place)
    }

    /// Whether the entries of a value that no step of the stretch makes lie along its first axis.
    fn may_be_a_batch(&self, v: ValueId) -> bool {
        let first = self.facts[v.0 as usize].known_shape().and_then(|s| s.first().copied());
        first == Some(self.batch) && !self.program.taken.contains_key(&v)
    }

    fn operands(&self, step: usize) -> Vec<Option<Fact>> {
        let fact = |v: &Option<ValueId>| v.map(|v| self.facts[v.0 as usize].clone());
        self.program.graph.nodes[step].inputs.iter().map(fact).collect()
    }

    fn bytes(&self, v: ValueId) -> f64 {
        bytes(&self.facts[v.0 as usize]) as f64
    }

    /// Whether one of its steps runs.
    fn runs(&self, step: usize) -> bool {
        let known = self.known.binary_search_by_key(&step, |known| known.step);
        known.is_err() && !self.program.is_folded(step)
    }

    /// What the stretch's steps up to one make that a step after it needs.
    fn results(&self, until: usize) -> impl Iterator<Item = ValueId> {
        let made = (self.from..until).filter(|&step| self.runs(step));
        let made = made.flat_map(|step| self.program.graph.nodes[step].outputs.iter().flatten().copied());
        made.filter(move |v| self.ends[v.0 as usize] >= until)
    }

    /// Where it is best cut for portions of so many entries, and what an entry costs less.
    pub(super) fn cut(&self, entries: usize, threads: usize) -> (f64, usize) {
        let share = (self.batch as f64 / threads as f64).max(1.0);
        let (mut best, mut gain, mut live) = ((0.0, self.from), 0.0, 0.0);
        let mut dropped = vec![0.0; self.until()];
        for (step, (moved, closed)) in (self.from..).zip(self.moved.iter().zip(&self.closed)) {
            if self.runs(step) {
                gain += moved.cost(share) - moved.cost(entries as f64);
                for &v in self.program.graph.nodes[step].outputs.iter().flatten() {
                    let bytes = self.bytes(v) / self.batch as f64;
                    live += bytes;
                    if let Some(dropped) = dropped.get_mut(self.ends[v.0 as usize]) {
                        *dropped += bytes;
                    }
                }
            }
            live -= dropped[step];
            // What is live is written once more, and read.
            if *closed && gain - 2.0 * live > best.0 {
                best = (gain - 2.0 * live, step + 1);
            }
        }
        best
    }

    /// The longest cut there is.
    pub(super) fn whole(&self) -> usize {
        self.from + self.closed.iter().rposition(|&closed| closed).map_or(0, |last| last + 1)
    }

    pub(super) fn portions(self, until: usize, entries: usize) -> Portions {
        let graph = &self.program.graph;
        let steps = self.from..until;
        let results: Vec<ValueId> = self.results(until).collect();
        let mut made = vec![false; self.facts.len()];
        let mut given = Vec::new();
        for step in steps.clone().filter(|&step| self.runs(step)) {
            for &v in graph.nodes[step].inputs.iter().flatten() {
                let batch = matches!(self.taken.get(&v), Some(Taken::Batch(_)));
                if !std::mem::replace(&mut made[v.0 as usize], true)
                    && (batch || self.program.constant(v).is_none())
                    && !self.program.taken.contains_key(&v)
                {
                    given.push(Given { value: v, batch, last: self.ends[v.0 as usize] < until });
                }
            }
            graph.nodes[step].outputs.iter().flatten().for_each(|v| made[v.0 as usize] = true);
        }
        let all = || graph.nodes.iter().flat_map(|n| &n.outputs).flatten().map(|v| &self.facts[v.0 as usize]);
        Portions {
            batch: self.batch,
            entries,
            given,
            results,
            views: self.views.into_iter().filter(|view| steps.contains(&view.step)).collect(),
            known: self.known.into_iter().filter(|known| steps.contains(&known.step)).collect(),
            largest: all().map(bytes).max().unwrap_or(0),
            all: all().map(bytes).fold(0, u64::saturating_add),
            steps,
        }
    }
}

fn bytes(fact: &Fact) -> u64 {
    let width = fact.dtype.map_or(8, |t| t.bits().div_ceil(8) as u64);
    fact.numel().map_or(u64::MAX, |n| (n as u64).saturating_mul(width))
}
