//! How a recurrent operator goes through its steps.
//!
//! Threads share the entries of the batch, each going through all steps with its own, or, where these are few, the units of the
//! hidden state: then each has the same columns of every gate, so that all but the states is its own, and they meet once a step.

use std::ops::Range;
use std::slice::from_ref;
use std::sync::{Mutex, PoisonError, RwLock};

use isobit_kernels::gemm::{COLUMNS, View};
use isobit_kernels::{Exec, Serial, rounds};
use isobit_tensor::recycle;

use crate::cells::{Cell, State};
use crate::memory::buffer;
use crate::real::{Real, add};
use crate::recurrent::{Packed, Recurrent};
use crate::{OpError, RunCtx};

/// Elements of state from which entries are worth more than one thread.
const ENTRIES_WORTH: usize = 1024;
/// Entries of the batch that a thread must have to go through the steps with them by itself: with fewer it would be waiting
/// for the weights.
const ENTRIES: usize = 12;
/// As many where units cannot be shared.
const FEW_ENTRIES: usize = 2;
/// Multiply-adds of a step from which its units are worth more than one thread.
const UNITS_WORTH: usize = 1 << 18;

/// Elements of P that are computed together: they stay in the second-level cache until their steps have used them.
const PROJECTED: usize = 1 << 18;

/// One direction's way through the steps.
pub(crate) struct Walk<'a, T: Real> {
    pub(crate) op: &'a Recurrent,
    pub(crate) direction: usize,
    pub(crate) packed: &'a Packed<T>,
    /// X, `[steps, batch, features]`.
    pub(crate) data: &'a [T],
    /// Added to P.
    pub(crate) sums: &'a [T],
    pub(crate) steps: usize,
    pub(crate) batch: usize,
    pub(crate) lengths: &'a [usize],
    /// Added to the hidden gate's Q (GRU whose reset is last).
    pub(crate) late: &'a [T],
    pub(crate) peepholes: &'a [T],
}

/// What one thread does: some units of some entries.
struct Piece<'y, T> {
    entries: Range<usize>,
    units: Range<usize>,
    /// All units of the entries' hidden states.
    hidden: Vec<T>,
    /// Of these units, as all that follows.
    cell: Vec<T>,
    late: Vec<T>,
    peepholes: Vec<T>,
    /// Where the outputs go, by step and entry.
    outputs: Vec<&'y mut [T]>,
    room: Room<T>,
}

/// What a walk keeps between its steps and within them.
struct Room<T> {
    /// Products with the states, `[gates, entries, units]`.
    q: Vec<T>,
    /// `[entries, units]`: what the reset gate leaves of the states, and candidates (GRU), and what a cell needs.
    kept: Vec<T>,
    candidates: Vec<T>,
    scratch: Vec<T>,
    /// P of as many steps as are computed together, `[gates, steps, entries, units]`, and of what.
    projected: Vec<T>,
    together: usize,
    gathered: Vec<T>,
}

impl<T: Real> Room<T> {
    fn new(walk: &Walk<'_, T>, entries: usize, units: usize) -> Self {
        let rows = walk.op.cell.gates() * units;
        let together = (PROJECTED / (entries * rows).max(1)).clamp(1, walk.steps.max(1));
        let [kept, candidates] = match walk.packed.reset {
            Some(_) => [entries * units; 2],
            None => [0; 2],
        };
        Self {
            q: buffer(entries * rows),
            kept: buffer(kept),
            candidates: buffer(candidates),
            scratch: buffer(entries * units),
            projected: buffer(together * entries * rows),
            together,
            gathered: Vec::new(),
        }
    }
}

impl<T: Real> Piece<'_, T> {
    fn give_back(self) {
        let Room { q, kept, candidates, scratch, projected, gathered, .. } = self.room;
        for buffer in [q, kept, candidates, scratch, projected, gathered, self.hidden, self.cell] {
            recycle::give(buffer);
        }
    }
}

/// The hidden states that one thread leaves for the others: those of its units after every second step, and after the others.
type Left<T> = [RwLock<Vec<T>>; 2];

impl<T: Real> Walk<'_, T> {
    /// How many parts to cut the entries into, and the units.
    fn cut(&self, threads: usize) -> [usize; 2] {
        let (h, batch) = (self.op.hidden, self.batch);
        let work = batch.saturating_mul(h).saturating_mul(self.op.rows());
        let units = threads.min(h / COLUMNS);
        // Before the product with what the reset gate leaves the threads would have to meet once more.
        let by_units = units > 1 && self.packed.reset.is_none() && work >= UNITS_WORTH;
        let entries = threads.saturating_mul(if by_units { ENTRIES } else { FEW_ENTRIES });
        match threads > 1 {
            true if batch >= entries && batch * h >= ENTRIES_WORTH => [threads, 1],
            true if by_units => [1, units],
            _ => [1, 1],
        }
    }

    /// Goes through the steps from `states`, the hidden ones and the cells', and leaves the last ones there. `outputs` are those of
    /// each step and entry.
    pub(crate) fn run(
        &self,
        ctx: &RunCtx<'_>,
        states: [&mut [T]; 2],
        outputs: Vec<&mut [T]>,
    ) -> Result<(), OpError> {
        let (h, batch) = (self.op.hidden, self.batch);
        // What a step keeps must be within the limit on a tensor's bytes, however many share it.
        ctx.memory.check::<T>(&[batch, self.op.rows()])?;
        let [by_entries, by_units] = self.cut(ctx.exec.pool().threads());
        let mut pieces = self.pieces([by_entries, by_units], &states, outputs);
        let alone = RunCtx { exec: Exec::new(ctx.exec.set(), &Serial), ..*ctx };
        if let [piece] = &mut pieces[..] {
            let piece = piece.get_mut().unwrap_or_else(PoisonError::into_inner);
            (0..self.steps).for_each(|s| self.step(ctx, s, piece, None));
        } else if by_units == 1 {
            ctx.exec.pool().for_each(by_entries, &|i| {
                let mut piece = pieces[i].lock().unwrap_or_else(PoisonError::into_inner);
                (0..self.steps).for_each(|s| self.step(&alone, s, &mut piece, None));
            });
        } else {
            let left: Vec<Left<T>> = pieces
                .iter_mut()
                .map(|piece| {
                    let piece = piece.get_mut().unwrap_or_else(PoisonError::into_inner);
                    let own = batch * piece.units.len();
                    [buffer(own), buffer(own)].map(RwLock::new)
                })
                .collect();
            rounds(ctx.exec.pool(), self.steps, by_units, &|s, i| {
                let mut piece = pieces[i].lock().unwrap_or_else(PoisonError::into_inner);
                self.step(&alone, s, &mut piece, Some((&left, i)));
            });
            for piece in &mut pieces {
                let piece = piece.get_mut().unwrap_or_else(PoisonError::into_inner);
                gather(&mut piece.hidden, h, &left, self.steps);
            }
            left.into_iter().flatten().for_each(|l| {
                recycle::give(l.into_inner().unwrap_or_else(PoisonError::into_inner));
            });
        }
        let [hidden, cell] = states;
        for piece in pieces {
            let piece = piece.into_inner().unwrap_or_else(PoisonError::into_inner);
            let own = piece.entries.start * h..piece.entries.end * h;
            hidden[own].copy_from_slice(&piece.hidden);
            let cells = cell.chunks_exact_mut(h).skip(piece.entries.start);
            for (cell, last) in cells.zip(piece.cell.chunks_exact(piece.units.len().max(1))) {
                cell[piece.units.clone()].copy_from_slice(last);
            }
            piece.give_back();
        }
        Ok(())
    }

    /// All by this thread, which runs the next ones, too: what it gives back is there again.
    fn pieces<'y>(
        &self,
        [by_entries, by_units]: [usize; 2],
        [hidden, cell]: &[&mut [T]; 2],
        outputs: Vec<&'y mut [T]>,
    ) -> Vec<Mutex<Piece<'y, T>>> {
        let (h, batch) = (self.op.hidden, self.batch);
        let mut pieces: Vec<Piece<'y, T>> = Vec::with_capacity(by_entries * by_units);
        for i in 0..by_entries {
            let entries = i * batch / by_entries..(i + 1) * batch / by_entries;
            for j in 0..by_units {
                // Panels of columns are whole, unless there is one part.
                let edge = |j: usize| if j == by_units { h } else { j * (h / COLUMNS) / by_units * COLUMNS };
                let units = edge(j)..edge(j + 1);
                let of_units = |numbers: &[T]| -> Vec<T> {
                    numbers.chunks_exact(h).flat_map(|n| &n[units.clone()]).copied().collect()
                };
                let states = entries.start * h..entries.end * h;
                pieces.push(Piece {
                    cell: of_units(cell.get(states.clone()).unwrap_or_default()),
                    hidden: hidden[states].to_vec(),
                    late: of_units(self.late),
                    peepholes: of_units(self.peepholes),
                    outputs: Vec::with_capacity(self.steps * entries.len()),
                    room: Room::new(self, entries.len(), units.len()),
                    entries: entries.clone(),
                    units,
                });
            }
        }
        for (at, mut output) in outputs.into_iter().enumerate() {
            let b = at % batch;
            for piece in pieces.iter_mut().filter(|piece| piece.entries.contains(&b)) {
                let (own, rest) = output.split_at_mut(piece.units.len());
                piece.outputs.push(own);
                output = rest;
            }
        }
        pieces.into_iter().map(Mutex::new).collect()
    }

    /// `out`, `[gates, rows, units]`, = the product of `a` and the gates' columns of these units, plus `bias` for all columns and
    /// `add` for each gate, which are laid out as `out`.
    #[allow(clippy::too_many_arguments)]
    fn product<'p>(
        &self,
        ctx: &RunCtx<'_>,
        rows: usize,
        a: View<'_, T>,
        gates: &[T::Right],
        units: &Range<usize>,
        out: &mut [T],
        bias: Option<&[T]>,
        add: impl Fn(usize) -> Option<&'p [T]>,
    ) {
        let own = units.len();
        let out = out.chunks_exact_mut((rows * own).max(1));
        for (gate, (right, out)) in gates.iter().zip(out).enumerate() {
            let bias = bias.map(|b| &b[gate * self.op.hidden..][units.clone()]);
            T::times_columns(ctx.exec, rows, a, right, units.clone(), out, own, bias, add(gate));
        }
    }

    /// P of a piece in some of its steps. Past the end of a sequence it has no meaning.
    fn project(&self, ctx: &RunCtx<'_>, steps: Range<usize>, piece: &mut Piece<'_, T>) {
        let (k, batch, entries) = (self.packed.features, self.batch, &piece.entries);
        let (reverse, _) = self.op.directions[self.direction];
        let Room { gathered, projected, .. } = &mut piece.room;
        let x = if !reverse && entries.len() == batch {
            &self.data[steps.start * batch * k..][..steps.len() * batch * k]
        } else {
            gathered.clear();
            for s in steps.clone() {
                for b in entries.clone() {
                    let length = self.lengths[b];
                    let at = if reverse { length.checked_sub(s + 1) } else { Some(s) };
                    match at.filter(|&at| at < length) {
                        Some(at) => gathered.extend(&self.data[(at * batch + b) * k..][..k]),
                        None => gathered.resize(gathered.len() + k, T::ZERO),
                    }
                }
            }
            gathered
        };
        let (rows, view) = (steps.len() * entries.len(), View::row_major(x, k));
        let projected = &mut projected[..self.op.cell.gates() * rows * piece.units.len()];
        self.product(ctx, rows, view, &self.packed.input, &piece.units, projected, Some(self.sums), |_| None);
    }

    /// Step `s` of a piece, and where it is one of several parts of the units what all parts left and which it is.
    fn step(
        &self,
        ctx: &RunCtx<'_>,
        s: usize,
        piece: &mut Piece<'_, T>,
        shared: Option<(&[Left<T>], usize)>,
    ) {
        let h = self.op.hidden;
        let (first, count, own) = (piece.entries.start, piece.entries.len(), piece.units.len());
        let (reverse, functions) = &self.op.directions[self.direction];
        let together = piece.room.together;
        let ahead = s - s % together..self.steps.min(s - s % together + together);
        if s == ahead.start {
            self.project(ctx, ahead.clone(), piece);
        }
        if let Some((left, _)) = shared.filter(|_| s > 0) {
            gather(&mut piece.hidden, h, left, s);
        }
        let Piece { units, hidden, cell, late, peepholes, outputs, room, .. } = piece;
        let Room { q, kept, candidates, scratch, projected, .. } = room;
        // Elements of a gate.
        let plane = count * own;
        let projected = |gate: usize| &projected[(gate * ahead.len() + s - ahead.start) * plane..][..plane];
        let sum =
            |gate: usize| matches!(self.op.cell, Cell::Lstm { .. } | Cell::Plain).then(|| projected(gate));
        let q = &mut q[..self.packed.state.len() * plane];
        self.product(ctx, count, View::row_major(&hidden[..], h), &self.packed.state, units, q, None, sum);
        let functions = (functions.as_slice(), self.op.clip);
        if let Some(reset) = &self.packed.reset {
            // All units of these entries: those past their end have no meaning.
            for (gate, q) in q.chunks_exact_mut(plane.max(1)).enumerate() {
                add(q, projected(gate));
                functions.0[0].apply(ctx, functions.1, q);
            }
            T::products(ctx.exec, &q[plane..], hidden, kept);
            self.product(
                ctx,
                count,
                View::row_major(&kept[..], h),
                from_ref(reset),
                units,
                candidates,
                None,
                |_| None,
            );
        }
        // The states of these units, which the step replaces.
        let mut mine = shared.map(|(left, i)| {
            let mut mine = left[i][s % 2].write().unwrap_or_else(PoisonError::into_inner);
            for (mine, hidden) in mine.chunks_exact_mut(own).zip(hidden.chunks_exact(h)) {
                mine.copy_from_slice(&hidden[units.clone()]);
            }
            mine
        });
        let hidden = mine.as_mut().map_or(&mut hidden[..], |mine| &mut mine[..]);
        // Past its end a sequence is left as it is.
        let running = |b: usize| s < self.lengths[first + b];
        let mut b = 0;
        while b < count {
            let run = b..(b..count).find(|&b| !running(b)).unwrap_or(count);
            b = run.end + 1;
            let own = run.start * own..run.end * own;
            let mut gates = q.chunks_exact_mut(plane.max(1)).map(|gate| &mut gate[own.clone()]);
            let mut gate = || gates.next().unwrap_or_default();
            let projected = |gate: usize| &projected(gate)[own.clone()];
            let mut state = State {
                units: units.len(),
                hidden: &mut hidden[own.clone()],
                cell: cell.get_mut(own.clone()).unwrap_or_default(),
                scratch: &mut scratch[own.clone()],
            };
            match self.op.cell {
                Cell::Lstm { coupled } => {
                    state.lstm(ctx, functions, [gate(), gate(), gate(), gate()], peepholes, coupled);
                }
                Cell::Gru { reset_last: true } => {
                    let projected = [projected(0), projected(1), projected(2)];
                    state.gru_reset_last(ctx, functions, [gate(), gate(), gate()], projected, late);
                }
                Cell::Gru { .. } => {
                    let candidate = &mut candidates[own.clone()];
                    state.gru_reset_first(ctx, functions, gate(), candidate, projected(2));
                }
                Cell::Plain => {
                    functions.0[0].apply(ctx, functions.1, gate());
                    state.hidden.copy_from_slice(&q[own.clone()]);
                }
            }
        }
        for (b, hidden) in hidden.chunks_exact(own).enumerate().filter(|&(b, _)| running(b)) {
            let at = if *reverse { self.lengths[first + b] - 1 - s } else { s };
            outputs[at * count + b].copy_from_slice(hidden);
        }
    }
}

/// The hidden states, of `h` units, after `steps` steps.
fn gather<T: Real>(hidden: &mut [T], h: usize, left: &[Left<T>], steps: usize) {
    let Some(last) = steps.checked_sub(1) else { return };
    let mut first = 0;
    for left in left {
        let left = left[last % 2].read().unwrap_or_else(PoisonError::into_inner);
        let own = left.len() / (hidden.len() / h).max(1);
        for (hidden, left) in hidden.chunks_exact_mut(h).zip(left.chunks_exact(own)) {
            hidden[first..first + own].copy_from_slice(left);
        }
        first += own;
    }
}
