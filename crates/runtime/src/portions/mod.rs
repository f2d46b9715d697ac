//! Batches a portion at a time: the images that the first layers of a network make of a whole batch are many times larger
//! than a core's cache, those of one entry are not, and threads with entries of their own need not wait for each other after
//! every step. Each thread takes portions of its own through a stretch of steps ([`stretch`]); the steps before and after it take
//! the batch as one.
//!
//! Nothing of it shows: an operator in a portion computes what it would have computed of these entries in the batch
//! ([`isobit_ops::Op::batch_axis`]). A run that could reach a limit, or that fails, is one without portions.

mod stretch;

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isobit_graph::ValueId;
use isobit_kernels::{Exec, Serial};
use isobit_ops::{OpError, Value};
use isobit_tensor::recycle::Spares;
use isobit_tensor::{Datum, Tensor};

use crate::Limits;
use crate::infer::Inference;
use crate::meter::{Run, Stop, Timed};
use crate::program::{Frame, Program};

/// How a program computes batches of some extents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Portions {
    /// The steps that take portions.
    steps: Range<usize>,
    /// Entries of a batch, and of a portion.
    batch: usize,
    entries: usize,
    /// What these steps need and do not compute.
    given: Vec<Given>,
    /// What they compute and others need.
    results: Vec<ValueId>,
    /// Those of them that put a batch under a shape that an operand says.
    views: Vec<View>,
    /// Those of them whose results follow from the extents of the inputs.
    known: Vec<Known>,
    /// Bytes of the largest tensor, and of all.
    largest: u64,
    all: u64,
}

/// A value that steps in portions need: their entries of it, or all of it.
#[derive(Debug, Clone, PartialEq)]
struct Given {
    value: ValueId,
    batch: bool,
    /// Whether no other step needs it afterwards.
    last: bool,
}

/// A step that puts the elements of a batch under this shape, in which the batch is along `axis`, because an operand says so.
#[derive(Debug, Clone, PartialEq)]
struct View {
    step: usize,
    operand: usize,
    shape: Vec<usize>,
    axis: usize,
}

/// A step, its metered cost and its results.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    step: usize,
    cost: u64,
    values: Vec<(ValueId, Tensor)>,
}

/// Where a batch is in a tensor: the axis, whose indices are `groups` times those of the first entry, of the second, and so on.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    axis: usize,
    groups: usize,
}

impl Place {
    /// One entry after the other.
    const FIRST: Self = Self { axis: 0, groups: 1 };

    /// Whether each entry has as much of this shape.
    fn fits(self, shape: &[usize], batch: usize) -> bool {
        shape.get(self.axis).is_some_and(|&n| n > 0 && n.is_multiple_of(self.groups * batch))
    }

    /// Where the batch is when the elements of a tensor come under another shape.
    fn under(self, from: &[usize], to: &[usize], batch: usize) -> Option<Self> {
        let groups = from[..self.axis].iter().product::<usize>() * self.groups;
        let mut before = 1;
        if to.contains(&0) {
            return None;
        }
        for (axis, n) in to.iter().enumerate() {
            let place = Self { axis, groups: groups / before };
            if groups.is_multiple_of(before) && place.fits(to, batch) {
                return Some(place);
            }
            before *= n;
        }
        None
    }
}

/// A run of a portion.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    portions: &'a Portions,
    entries: usize,
}

impl Part<'_> {
    /// Whether a step is not run, its results being given.
    pub(crate) fn skips(&self, step: usize) -> bool {
        self.portions.known.binary_search_by_key(&step, |known| known.step).is_ok()
    }

    /// The operand of a step that says what shape a batch is to have, and what it says of a portion.
    pub(crate) fn extents(&self, step: usize) -> Option<(usize, Tensor)> {
        let Portions { batch, views, .. } = self.portions;
        let view = &views[views.binary_search_by_key(&step, |view| view.step).ok()?];
        let mut extents: Vec<i64> = view.shape.iter().map(|&n| n as i64).collect();
        extents[view.axis] = extents[view.axis] / *batch as i64 * self.entries as i64;
        Some((view.operand, Tensor::vector(extents)))
    }
}

impl Portions {
    /// The portions that suit a batch of which this is known, where any do; of `entries` each, where that is given.
    pub(crate) fn find(
        program: &Program,
        inference: &Inference,
        threads: usize,
        entries: Option<usize>,
    ) -> Option<Self> {
        let (fused, ends) = (program.fused(), program.ends());
        let stretches = stretch::stretches(program, inference, (&fused, &ends));
        if let Some(entries) = entries {
            let longest = stretches.into_iter().rev().max_by_key(|s| s.whole() - s.from())?;
            let cut = longest.whole();
            return (cut > longest.from() && (1..longest.batch()).contains(&entries))
                .then(|| longest.portions(cut, entries));
        }
        let of_stretch = |stretch: stretch::Stretch<'_>| {
            // Every thread is to have some; a portion that is the whole batch gains nothing.
            let sizes = (0..usize::BITS).map(|i| 1 << i).take_while(|n| n * threads <= stretch.batch());
            let cuts = sizes.map(|n| (stretch.cut(n, threads), n)).filter(|((gain, _), _)| *gain > 0.0);
            let ((gain, cut), entries) = cuts.max_by(|(a, _), (b, _)| a.0.total_cmp(&b.0))?;
            Some((gain, stretch.portions(cut, entries)))
        };
        let best = stretches.into_iter().filter_map(of_stretch).max_by(|(a, _), (b, _)| a.total_cmp(b));
        best.map(|(_, portions)| portions)
    }

    /// Whether a run of which no limit can be reached; results may be as large as several of them together.
    pub(crate) fn within(&self, limits: &Limits) -> bool {
        self.largest <= limits.tensor_bytes / 4 && self.all <= limits.held_bytes / 4
    }

    /// Runs the program on inputs of these extents.
    pub(crate) fn run(
        &self,
        program: &Program,
        run: &mut Run<'_>,
        inputs: Vec<Datum>,
        spares: &Spares,
    ) -> Result<Vec<Datum>, Stop> {
        let mut frame = Frame::new(&program.graph, inputs.into_iter().map(Value::from).collect());
        program.run_steps(0..self.steps.start, run, &mut frame)?;
        // However many portions take them.
        self.steps.clone().try_for_each(|_| run.step())?;
        for Known { step, cost, values } in &self.known {
            if run.profile {
                run.times.push(Timed { step: *step, time: Duration::ZERO, cost: *cost, fused: false });
            }
            values.iter().try_for_each(|(v, t)| frame.hold(*v, t.clone().into(), run))?;
        }
        let parts = self.parts(program, run, &mut frame, spares)?;
        for (&v, parts) in self.results.iter().zip(parts) {
            let together = Value::together(&program.ctx(run, 0), parts);
            frame.hold(v, together.map_err(|error| self.stop(error))?, run)?;
        }
        program.run_steps(self.steps.end..program.steps.len(), run, &mut frame)?;
        run.times = summed(std::mem::take(&mut run.times));
        Ok(program.outputs(frame))
    }

    /// For each result, its parts.
    fn parts(
        &self,
        program: &Program,
        run: &mut Run<'_>,
        frame: &mut Frame,
        spares: &Spares,
    ) -> Result<Vec<Vec<Value>>, Stop> {
        let (exec, threads) = (run.exec, run.exec.pool().threads());
        let mut given = Vec::with_capacity(self.given.len());
        for &Given { value: v, batch, last } in &self.given {
            let mut value =
                program.value(v, frame, last, Some(&mut *run)).ok_or_else(|| self.not_a_batch())?;
            if batch {
                // Images in blocks are in planes again.
                value = value.into_datum(&program.ctx(run, 0)).map_err(|error| self.stop(error))?.into();
            }
            given.push((v, batch, value));
        }
        let part = |range: &Range<usize>| Part { portions: self, entries: range.len() };
        let one = |range: Range<usize>, mut run: Run<'_>| {
            let mut frame = Frame::new(&program.graph, Vec::new());
            for (v, batch, value) in &given {
                let entries = if *batch { value.entries(range.clone()) } else { Some(value.clone()) };
                frame.give(*v, entries.ok_or_else(|| self.not_a_batch())?);
            }
            program.run_steps(self.steps.clone(), &mut run, &mut frame)?;
            let results = self.results.iter().map(|&v| frame.take(v).ok_or_else(|| self.not_a_batch()));
            Ok((results.collect::<Result<Vec<_>, Stop>>()?, run.times))
        };
        // As many for each thread.
        let portions = self.batch / self.entries / threads * threads;
        let done: Vec<_> = (0..portions).map(|_| Mutex::new(None)).collect();
        let alone = Exec::new(exec.set(), &Serial);
        let shared = &*run;
        exec.pool().for_each(portions, &|i| {
            let range = i * self.entries..(i + 1) * self.entries;
            let result = spares.with(|| one(range.clone(), shared.part(alone, part(&range))));
            *done[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        let mut parts: Vec<Vec<Value>> = vec![Vec::with_capacity(portions + 1); self.results.len()];
        let mut add =
            |values: Vec<Value>| parts.iter_mut().zip(values).for_each(|(parts, value)| parts.push(value));
        for result in done {
            let result = result.into_inner().unwrap_or_else(PoisonError::into_inner);
            let (values, times) = result.expect("every portion was run")?;
            // Threads do them side by side.
            run.times.extend(times.into_iter().map(|t| Timed { time: t.time / threads as u32, ..t }));
            add(values);
        }
        // What is left is too little for all threads.
        let rest = portions * self.entries..self.batch;
        if !rest.is_empty() {
            let (values, times) = one(rest.clone(), run.part(exec, part(&rest)))?;
            run.times.extend(times);
            add(values);
        }
        Ok(parts)
    }

    fn stop(&self, error: OpError) -> Stop {
        Stop::Step { step: self.steps.start, error }
    }

    fn not_a_batch(&self) -> Stop {
        self.stop(OpError::input("not a batch"))
    }
}

/// The times of each step together, in the order of steps.
fn summed(mut times: Vec<Timed>) -> Vec<Timed> {
    times.sort_by_key(|t| t.step);
    let mut sums: Vec<Timed> = Vec::new();
    for t in times {
        match sums.last_mut().filter(|sum| sum.step == t.step) {
            Some(sum) => {
                sum.time += t.time;
                sum.cost = sum.cost.saturating_add(t.cost);
            }
            None => sums.push(t),
        }
    }
    sums
}

#[cfg(test)]
mod tests;
