//! LSTM, GRU and RNN: what they share. For each direction P = chain(X, W) + bias is one product for many steps; then, step
//! by step, Q = chain(H, R), and the cell (see `cells`) makes the next state of P and Q. An entry of the batch past its
//! sequence's end keeps its state, and its output is zero. f64 computes in f64, the others in f32.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use isobit_kernels::gemm::View;
use isobit_kernels::{Exec, Serial};
use isobit_tensor::{DType, Tensor, recycle};

use crate::arith::floats;
use crate::axes::{bounded, fact, ints};
use crate::cells::{Activation, Cell, State, activations};
use crate::memory::buffer;
use crate::real::{Real, check_real, elements, real, write};
use crate::transpose::transpose;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("LSTM", 22, |ctx| recurrent(ctx, Cell::Lstm { coupled: ctx.flag("input_forget", false)? })),
    OpDef::onnx("GRU", 22, |ctx| {
        recurrent(ctx, Cell::Gru { reset_last: ctx.flag("linear_before_reset", false)? })
    }),
    OpDef::onnx("RNN", 22, |ctx| recurrent(ctx, Cell::Plain)),
];

struct Recurrent {
    cell: Cell,
    /// For each direction whether it goes from the end, and its activations.
    directions: Vec<(bool, Vec<Activation>)>,
    clip: Option<f32>,
    hidden: usize,
    batch_first: bool,
    outputs: usize,
    /// For each direction, where W and R are constant and computed with in f32.
    packed: Option<Vec<Packed<f32>>>,
}

/// The weights of one direction.
struct Packed<T: Real> {
    /// Features of an input.
    features: usize,
    input: T::Right,
    /// Applied to the state at the start of a step.
    state: T::Right,
    /// Columns of the product with the state.
    width: usize,
    /// Applied to what the reset gate leaves of it (GRU, unless its reset is last).
    reset: Option<T::Right>,
}

fn recurrent(ctx: &BuildCtx<'_>, cell: Cell) -> Result<Box<dyn Op>, OpError> {
    let reverse: &[bool] = match ctx.str("direction", "forward")? {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => {
            return Err(OpError::attribute(format!(
                "direction '{other}'; accepted: forward, reverse, bidirectional"
            )));
        }
    };
    let lists = activations(ctx, cell, reverse.len())?;
    let hidden = ctx.opt_int("hidden_size")?;
    let hidden = hidden.and_then(|h| usize::try_from(h).ok()).filter(|&h| h > 0 && h < 1 << 24);
    let hidden = hidden.ok_or_else(|| OpError::attribute("hidden_size must be given and positive"))?;
    let clip = ctx.opt_float("clip")?;
    if let Some(clip) = clip.filter(|c| c.is_nan() || *c < 0.0) {
        return Err(OpError::attribute(format!("clip {clip}; give a number of 0 or more")));
    }
    let mut op = Recurrent {
        cell,
        directions: reverse.iter().copied().zip(lists).collect(),
        clip,
        hidden,
        batch_first: ctx.flag("layout", false)?,
        outputs: ctx.outputs(),
        packed: None,
    };
    if let (Some(w), Some(r)) = (ctx.constant(1), ctx.constant(2))
        && ![w, r].iter().any(|t| t.dtype() == DType::F64)
    {
        op.packed = Some(op.pack(ctx.packs.exec(), (w.shape(), &floats(w)?), (r.shape(), &floats(r)?))?);
    }
    ctx.at_most(cell.states() + 1, op)
}

impl Recurrent {
    /// Rows of W and R for one direction.
    fn rows(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    fn pack<T: Real>(
        &self,
        exec: Exec<'_>,
        (w_shape, w): (&[usize], &[T]),
        (r_shape, r): (&[usize], &[T]),
    ) -> Result<Vec<Packed<T>>, OpError> {
        let (d, h, rows) = (self.directions.len(), self.hidden, self.rows());
        let (&[dw, nw, k], &[dr, nr, kr]) = (w_shape, r_shape) else {
            return Err(OpError::shape(format!("W {w_shape:?} and R {r_shape:?}; both of rank 3")));
        };
        if [dw, nw, dr, nr, kr] != [d, rows, d, rows, h] {
            return Err(OpError::shape(format!(
                "W of shape {w_shape:?} and R of shape {r_shape:?}; expected [{d}, {rows}, input] and [{d}, {rows}, {h}]",
            )));
        }
        let reset_first = matches!(self.cell, Cell::Gru { reset_last: false });
        let width = if reset_first { 2 * h } else { rows };
        Ok((0..d)
            .map(|i| {
                let w = View::transposed(&w[i * rows * k..][..rows * k], k);
                let r = &r[i * rows * h..][..rows * h];
                let last = View::transposed(&r[width * h..], h);
                Packed {
                    features: k,
                    input: T::right(exec, k, rows, w),
                    state: T::right(exec, h, width, View::transposed(r, h)),
                    width,
                    reset: reset_first.then(|| T::right(exec, h, h, last)),
                }
            })
            .collect())
    }

    /// An optional operand of the given extents, or zeros.
    fn operand<'a, T: Real>(
        &self,
        ctx: &RunCtx<'_>,
        inputs: &'a Inputs,
        i: usize,
        extents: &[usize],
    ) -> Result<Cow<'a, [T]>, OpError> {
        match inputs.opt(i) {
            None => Ok(Cow::Owned(ctx.memory.filled(extents, T::ZERO)?)),
            Some(t) if t.shape() == extents => elements(ctx, t),
            Some(t) => {
                Err(OpError::shape(format!("input {i} of shape {:?}; expected {extents:?}", t.shape())))
            }
        }
    }

    /// Steps and batch of a first operand's shape.
    fn split(&self, x: &[usize]) -> Result<[usize; 3], OpError> {
        match *x {
            [a, b, k] if self.batch_first => Ok([b, a, k]),
            [a, b, k] => Ok([a, b, k]),
            _ => Err(OpError::shape(format!("an input of shape {x:?}; it must be of rank 3"))),
        }
    }
}

impl Op for Recurrent {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check_real(x.dtype)?;
        let (d, h) = (Some(self.directions.len()), Some(self.hidden));
        let (y, last) = match x.shape.as_deref() {
            Some(&[a, b, _]) if self.batch_first => (Some(vec![a, b, d, h]), Some(vec![a, d, h])),
            Some(&[a, b, _]) => (Some(vec![a, d, b, h]), Some(vec![d, b, h])),
            Some(s) => {
                return Err(OpError::shape(format!("an input of rank {}; it must be 3", s.len())));
            }
            None => (None, None),
        };
        let facts = [y, last.clone(), last].into_iter().map(|s| Fact::new(x.dtype, s));
        Ok(facts.take(self.outputs).collect())
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let Some(&[a, b, k]) = fact(inputs, 0).known_shape().as_deref().and_then(|s| s.first_chunk::<3>())
        else {
            return 0;
        };
        let row = (k as u64).saturating_add(self.hidden as u64).saturating_add(10);
        let step = row.saturating_mul(self.rows() as u64);
        let steps = (a as u64).saturating_mul(b as u64).saturating_mul(self.directions.len() as u64);
        steps.saturating_mul(step)
    }

    fn taken(&self) -> &[usize] {
        if self.packed.is_some() { &[1, 2] } else { &[] }
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        check_real(Some(x.dtype()))?;
        bounded([x])?;
        match &self.packed {
            Some(packed) if x.dtype() != DType::F64 => self.compute(ctx, &inputs, packed),
            _ => real!(x.dtype(), T => {
                let (w, r) = (inputs.get(1)?, inputs.get(2)?);
                let (wide_w, wide_r) = (elements::<T>(ctx, w)?, elements::<T>(ctx, r)?);
                let packed = self.pack(ctx.exec, (w.shape(), &wide_w), (r.shape(), &wide_r))?;
                self.compute(ctx, &inputs, &packed)
            }),
        }
    }
}

impl Recurrent {
    fn compute<T: Real>(
        &self,
        ctx: &RunCtx<'_>,
        inputs: &Inputs,
        packed: &[Packed<T>],
    ) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let [steps, batch, k] = self.split(x.shape())?;
        let (d, h, rows) = (self.directions.len(), self.hidden, self.rows());
        if packed[0].features != k {
            return Err(OpError::shape(format!("{k} input features, but W is for {}", packed[0].features)));
        }
        let initial = if self.batch_first { [batch, d, h] } else { [d, batch, h] };
        let first = [
            self.operand(ctx, inputs, 5, &initial)?,
            match self.cell.states() {
                2 => self.operand(ctx, inputs, 6, &initial)?,
                _ => Cow::Borrowed(&[][..]),
            },
        ];
        let bias = self.operand(ctx, inputs, 3, &[d, 2 * rows])?;
        let peepholes = match inputs.opt(7) {
            Some(_) if self.cell.states() == 2 => self.operand(ctx, inputs, 7, &[d, 3 * h])?,
            _ => Cow::Borrowed(&[][..]),
        };
        let lengths = lengths(inputs.opt(4), steps, batch)?;

        // Time-major rows, whatever the layout.
        let time_major;
        let data = if self.batch_first {
            time_major = transpose(ctx, x.clone(), &[1, 0, 2])?;
            elements::<T>(ctx, &time_major)?
        } else {
            elements::<T>(ctx, x)?
        };
        // Every output is written, unless a sequence ends early.
        let mut y = match lengths.iter().all(|&n| n == steps) {
            true => ctx.memory.alloc(&[steps, d, batch, h])?,
            false => ctx.memory.filled(&[steps, d, batch, h], T::ZERO)?,
        };
        let mut last = vec![Vec::new(); self.cell.states()];
        for (i, packed) in packed.iter().enumerate() {
            let own = &bias[i * 2 * rows..(i + 1) * 2 * rows];
            let (sums, late) = self.cell.biases(own, h);
            let start = |s: &[T]| -> Vec<T> {
                let at = |b: usize| if self.batch_first { (b * d + i) * h } else { (i * batch + b) * h };
                (0..batch)
                    .filter(|_| !s.is_empty())
                    .flat_map(|b| s[at(b)..at(b) + h].iter().copied())
                    .collect()
            };
            let walk = Walk {
                op: self,
                direction: i,
                packed,
                data: &data,
                sums: &sums,
                batch,
                lengths: &lengths,
                late,
                peepholes: peepholes.get(i * 3 * h..(i + 1) * 3 * h).unwrap_or(&[]),
            };
            let mut states = [start(&first[0]), start(&first[1])];
            let mut outputs: Vec<&mut [T]> = y.chunks_exact_mut(h.max(1)).collect();
            walk.run(ctx, steps, states.each_mut().map(Vec::as_mut_slice), |t, b| {
                outputs.get_mut((t * d + i) * batch + b).map(std::mem::take).unwrap_or_default()
            })?;
            for (last, state) in last.iter_mut().zip(states) {
                last.extend(state);
            }
        }
        let mut out = vec![write(ctx, x.dtype(), &[steps, d, batch, h], y)?];
        for state in last {
            out.push(write(ctx, x.dtype(), &[d, batch, h], state)?);
        }
        if self.batch_first {
            out[0] = transpose(ctx, out[0].clone(), &[2, 0, 1, 3])?;
            for state in &mut out[1..] {
                *state = transpose(ctx, state.clone(), &[1, 0, 2])?;
            }
        }
        out.truncate(self.outputs);
        Ok(out)
    }
}

/// Each sequence's length, all of them by default.
fn lengths(given: Option<&Tensor>, steps: usize, batch: usize) -> Result<Vec<usize>, OpError> {
    let Some(given) = given else { return Ok(vec![steps; batch]) };
    let lengths = ints(given)?.into_iter().map(|n| usize::try_from(n).ok().filter(|&n| n <= steps));
    let lengths = lengths.collect::<Option<Vec<_>>>().filter(|l| l.len() == batch);
    lengths.ok_or_else(|| OpError::input(format!("sequence_lens must be {batch} numbers from 0 to {steps}")))
}

/// Elements of state from which the entries of a step are worth more than one thread.
const PARALLEL: usize = 1024;
/// Entries of the batch that a thread must have to go through the steps with them by itself.
const ENTRIES: usize = 2;

/// Elements of P that are computed together: they stay in the second-level cache until their steps have used them.
const PROJECTED: usize = 1 << 18;

/// One direction's way through the steps.
struct Walk<'a, T: Real> {
    op: &'a Recurrent,
    direction: usize,
    packed: &'a Packed<T>,
    /// X, `[steps, batch, features]`.
    data: &'a [T],
    /// Added to P.
    sums: &'a [T],
    batch: usize,
    lengths: &'a [usize],
    /// Added to the hidden gate's Q (GRU whose reset is last).
    late: &'a [T],
    peepholes: &'a [T],
}

/// Entries of the batch on their way.
struct Entries<'y, T> {
    range: Range<usize>,
    hidden: &'y mut [T],
    cell: &'y mut [T],
    /// Where their outputs go, step by step.
    outputs: Vec<&'y mut [T]>,
    room: Room<T>,
}

/// What a walk keeps between its steps and within them.
struct Room<T> {
    /// Products with the states, `[entries, width]`.
    q: Vec<T>,
    /// `[entries, hidden]`: what the reset gate leaves of the states, and candidates (GRU), and what a cell needs.
    kept: Vec<T>,
    candidates: Vec<T>,
    scratch: Vec<T>,
    /// P of as many steps as are computed together, `[steps, entries, rows]`, and of what.
    projected: Vec<T>,
    gathered: Vec<T>,
}

impl<T: Real> Room<T> {
    /// For entries whose rows and states are within the limit on memory, however many threads share them; the rest is bounded.
    fn new(walk: &Walk<'_, T>, steps: usize, entries: usize) -> Self {
        let (h, rows) = (walk.op.hidden, walk.op.rows());
        let together = (PROJECTED / (entries * rows).max(1)).clamp(1, steps.max(1));
        Self {
            q: buffer(entries * walk.packed.width),
            kept: buffer(entries * h),
            candidates: buffer(entries * h),
            scratch: buffer(entries * h),
            projected: buffer(together * entries * rows),
            gathered: Vec::new(),
        }
    }

    fn give_back(self) {
        for buffer in [self.q, self.kept, self.candidates, self.scratch, self.projected] {
            recycle::give(buffer);
        }
    }
}

impl<T: Real> Walk<'_, T> {
    /// Goes through the steps from `states`, the hidden ones and the cells', and leaves the last ones there. `output` is where
    /// the output of a step and an entry goes; each is asked for once.
    ///
    /// With entries enough each thread has some of its own for all steps: no thread ever waits for another.
    fn run<'y>(
        &self,
        ctx: &RunCtx<'_>,
        steps: usize,
        [mut hidden, mut cell]: [&'y mut [T]; 2],
        mut output: impl FnMut(usize, usize) -> &'y mut [T],
    ) -> Result<(), OpError> {
        let (h, batch, threads) = (self.op.hidden, self.batch, ctx.exec.pool().threads());
        // What a step keeps must be within the limit on a tensor's bytes, however many share it.
        ctx.memory.check::<T>(&[batch, self.packed.width.max(h).max(self.op.rows())])?;
        let apart = threads > 1 && batch >= ENTRIES * threads && batch * h >= PARALLEL;
        let pieces = if apart { threads } else { 1 };
        let mut all = Vec::with_capacity(pieces);
        for piece in 0..pieces {
            let range = piece * batch / pieces..(piece + 1) * batch / pieces;
            let cut = |states: &mut &'y mut [T]| {
                // A cell without cells' states has none.
                let len = (range.len() * h).min(states.len());
                let (own, rest) = std::mem::take(states).split_at_mut(len);
                *states = rest;
                own
            };
            let (hidden, cell) = (cut(&mut hidden), cut(&mut cell));
            let outputs = (0..steps).flat_map(|t| range.clone().map(move |b| (t, b)));
            let outputs = outputs.map(|(t, b)| output(t, b)).collect();
            // All by this thread, which runs the next ones, too: what it gives back is there again.
            let room = Room::new(self, steps, range.len());
            all.push(Mutex::new(Entries { range, hidden, cell, outputs, room }));
        }
        if let [entries] = &mut all[..] {
            self.go(ctx, steps, entries.get_mut().unwrap_or_else(PoisonError::into_inner));
        } else {
            ctx.exec.pool().for_each(pieces, &|piece| {
                let alone = RunCtx { exec: Exec::new(ctx.exec.set(), &Serial), ..*ctx };
                self.go(&alone, steps, &mut all[piece].lock().unwrap_or_else(PoisonError::into_inner));
            });
        }
        for entries in all {
            entries.into_inner().unwrap_or_else(PoisonError::into_inner).room.give_back();
        }
        Ok(())
    }

    /// P of some entries in some of their steps: `[steps, entries, rows]`. Past the end of a sequence it has no meaning.
    fn project(
        &self,
        ctx: &RunCtx<'_>,
        entries: &Range<usize>,
        steps: Range<usize>,
        gathered: &mut Vec<T>,
        projected: &mut [T],
    ) {
        let (k, batch) = (self.packed.features, self.batch);
        let (reverse, _) = self.op.directions[self.direction];
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
        T::times_right(ctx.exec, rows, view, &self.packed.input, projected, Some(self.sums), None);
    }

    fn go(&self, ctx: &RunCtx<'_>, steps: usize, entries: &mut Entries<'_, T>) {
        let (h, rows) = (self.op.hidden, self.op.rows());
        let (first, count) = (entries.range.start, entries.range.len());
        let (reverse, functions) = &self.op.directions[self.direction];
        let width = self.packed.width;
        let Entries { hidden, cell, outputs, room, .. } = entries;
        let Room { q, kept, candidates, scratch, projected, gathered } = room;
        let together = (projected.len() / (count * rows).max(1)).max(1);
        for s in 0..steps {
            // Past its end a sequence is left as it is.
            let running = |b: usize| s < self.lengths[first + b];
            let at = |b: usize| if *reverse { self.lengths[first + b] - 1 - s } else { s };
            if s % together == 0 {
                let soon = s..steps.min(s + together);
                self.project(ctx, &entries.range, soon, gathered, projected);
            }
            let projected = &projected[s % together * count * rows..][..count * rows];
            let row = |b: usize| &projected[b * rows..][..rows];
            let state = View::row_major(hidden, h);
            let sum = matches!(self.op.cell, Cell::Lstm { .. } | Cell::Plain).then_some(projected);
            T::times_right(ctx.exec, count, state, &self.packed.state, q, None, sum);
            if let Some(reset) = &self.packed.reset {
                for b in (0..count).filter(|&b| running(b)) {
                    let gates = &mut q[b * width..(b + 1) * width];
                    add(gates, &row(b)[..width]);
                    functions[0].apply(ctx, self.op.clip, gates);
                    let (hidden, kept) = (&hidden[b * h..][..h], &mut kept[b * h..][..h]);
                    for ((kept, &r), &x) in kept.iter_mut().zip(&gates[h..]).zip(hidden) {
                        *kept = r * x;
                    }
                }
                let state = View::row_major(&kept[..], h);
                T::times_right(ctx.exec, count, state, reset, candidates, None, None);
            }
            let states = q.chunks_exact_mut(width.max(1)).zip(hidden.chunks_exact_mut(h.max(1)));
            let mut cells = cell.chunks_exact_mut(h.max(1));
            let mut candidates = candidates.chunks_exact_mut(h.max(1));
            let mut spare = scratch.chunks_exact_mut(h.max(1));
            let states = states.map(|(gates, hidden)| {
                let cell = cells.next().unwrap_or(&mut []);
                let candidate = candidates.next().unwrap_or(&mut []);
                (gates, State { hidden, cell, scratch: spare.next().unwrap_or(&mut []) }, candidate)
            });
            let own = (functions.as_slice(), self.op.clip);
            let (op, late, peepholes) = (self.op, self.late, self.peepholes);
            let advance =
                |b: usize, gates: &mut [T], state: &mut State<'_, T>, candidate: &mut [T]| match op.cell {
                    Cell::Lstm { coupled } => state.lstm(ctx, own, gates, peepholes, coupled),
                    Cell::Gru { reset_last: true } => state.gru_reset_last(ctx, own, gates, row(b), late),
                    Cell::Gru { .. } => {
                        add(candidate, &row(b)[2 * h..]);
                        functions[1].apply(ctx, op.clip, candidate);
                        T::mix(ctx.exec, state.hidden, gates, candidate);
                    }
                    Cell::Plain => {
                        functions[0].apply(ctx, op.clip, gates);
                        state.hidden.copy_from_slice(gates);
                    }
                };
            if ctx.exec.pool().threads() > 1 && count > 1 && count * h >= PARALLEL {
                let states: Vec<_> = states.map(Mutex::new).collect();
                ctx.exec.pool().for_each(count, &|b| {
                    if running(b) {
                        let mut entry = states[b].lock().unwrap_or_else(PoisonError::into_inner);
                        let (gates, state, candidate) = &mut *entry;
                        advance(b, gates, state, candidate);
                    }
                });
            } else {
                for (b, (gates, mut state, candidate)) in states.enumerate().filter(|&(b, _)| running(b)) {
                    advance(b, gates, &mut state, candidate);
                }
            }
            for b in (0..count).filter(|&b| running(b)) {
                outputs[at(b) * count + b].copy_from_slice(&hidden[b * h..(b + 1) * h]);
            }
        }
    }
}

/// x + y into x.
pub(crate) fn add<T: Real>(x: &mut [T], y: &[T]) {
    x.iter_mut().zip(y).for_each(|(x, &y)| *x = *x + y);
}
