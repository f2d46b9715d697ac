//! LSTM, GRU and RNN: what they share. For each direction P = chain(X, W) + bias is one product for all steps; then, step
//! by step, Q = chain(H, R), and the cell (see `cells`) makes the next state of P and Q. An entry of the batch past its
//! sequence's end keeps its state, and its output is zero.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

use isobit_kernels::KernelSet;
use isobit_kernels::gemm::{Bias, Epilogue, PackedB, View, gemm_packed};
use isobit_tensor::{DType, Tensor};

use crate::arith::{floats, narrow};
use crate::axes::{bounded, fact, ints};
use crate::cells::{Activation, Cell, State, activations};
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
    /// For each direction, where W and R are constant.
    packed: Option<Vec<Packed>>,
}

/// The weights of one direction.
struct Packed {
    input: PackedB,
    /// Applied to the state at the start of a step.
    state: PackedB,
    /// Applied to what the reset gate leaves of it (GRU, unless its reset is last).
    reset: Option<PackedB>,
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
    if let (Some(w), Some(r)) = (ctx.constant(1), ctx.constant(2)) {
        op.packed = Some(op.pack(ctx.set, w, r)?);
    }
    ctx.at_most(cell.states() + 1, op)
}

impl Recurrent {
    /// Rows of W and R for one direction.
    fn rows(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    fn pack(&self, set: KernelSet, w: &Tensor, r: &Tensor) -> Result<Vec<Packed>, OpError> {
        let (d, h, rows) = (self.directions.len(), self.hidden, self.rows());
        let (&[dw, nw, k], &[dr, nr, kr]) = (w.shape(), r.shape()) else {
            return Err(OpError::shape(format!("W {:?} and R {:?}; both of rank 3", w.shape(), r.shape())));
        };
        if [dw, nw, dr, nr, kr] != [d, rows, d, rows, h] {
            return Err(OpError::shape(format!(
                "W of shape {:?} and R of shape {:?}; expected [{d}, {rows}, input] and [{d}, {rows}, {h}]",
                w.shape(),
                r.shape(),
            )));
        }
        let (w, r) = (floats(w)?, floats(r)?);
        let reset_first = matches!(self.cell, Cell::Gru { reset_last: false });
        let at_start = if reset_first { 2 * h } else { rows };
        Ok((0..d)
            .map(|i| {
                let w = View::transposed(&w[i * rows * k..][..rows * k], k);
                let r = &r[i * rows * h..][..rows * h];
                let last = &r[at_start * h..];
                Packed {
                    input: PackedB::new(set, k, rows, w),
                    state: PackedB::new(set, h, at_start, View::transposed(r, h)),
                    reset: reset_first.then(|| PackedB::new(set, h, h, View::transposed(last, h))),
                }
            })
            .collect())
    }

    /// An optional operand of the given extents, or zeros.
    fn operand<'a>(
        &self,
        ctx: &RunCtx<'_>,
        inputs: &'a Inputs,
        i: usize,
        extents: &[usize],
    ) -> Result<Cow<'a, [f32]>, OpError> {
        match inputs.opt(i) {
            None => Ok(Cow::Owned(ctx.memory.filled(extents, 0.0f32)?)),
            Some(t) if t.shape() == extents => floats(t),
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

fn check(t: Option<DType>) -> Result<(), OpError> {
    match t.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
        Some(t) => Err(OpError::unsupported_type(t)),
        None => Ok(()),
    }
}

impl Op for Recurrent {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check(x.dtype)?;
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

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        check(Some(x.dtype()))?;
        bounded([x])?;
        let [steps, batch, k] = self.split(x.shape())?;
        let (d, h, rows) = (self.directions.len(), self.hidden, self.rows());
        let packed_here;
        let packed = match &self.packed {
            Some(p) => p,
            None => {
                packed_here = self.pack(ctx.exec.set(), inputs.get(1)?, inputs.get(2)?)?;
                &packed_here
            }
        };
        if packed[0].input.k() != k {
            return Err(OpError::shape(format!("{k} input features, but W is for {}", packed[0].input.k())));
        }
        let initial = if self.batch_first { [batch, d, h] } else { [d, batch, h] };
        let first = [
            self.operand(ctx, &inputs, 5, &initial)?,
            match self.cell.states() {
                2 => self.operand(ctx, &inputs, 6, &initial)?,
                _ => Cow::Borrowed(&[][..]),
            },
        ];
        let bias = self.operand(ctx, &inputs, 3, &[d, 2 * rows])?;
        let peepholes = match inputs.opt(7) {
            Some(_) if self.cell.states() == 2 => self.operand(ctx, &inputs, 7, &[d, 3 * h])?,
            _ => Cow::Borrowed(&[][..]),
        };
        let lengths = lengths(inputs.opt(4), steps, batch)?;

        // Time-major rows, whatever the layout.
        let time_major;
        let data = if self.batch_first {
            time_major = transpose(ctx, x.clone(), &[1, 0, 2])?;
            floats(&time_major)?
        } else {
            floats(x)?
        };
        let mut y = ctx.memory.filled(&[steps, d, batch, h], 0.0f32)?;
        let mut last = vec![Vec::new(); self.cell.states()];
        for (i, packed) in packed.iter().enumerate() {
            let own = &bias[i * 2 * rows..(i + 1) * 2 * rows];
            let (sums, late) = self.cell.biases(own, h);
            let mut projected = ctx.memory.alloc::<f32>(&[steps, batch, rows])?;
            let epilogue = Epilogue { bias: Bias::Columns(&sums), ..Epilogue::default() };
            let view = View::row_major(&data, k);
            gemm_packed(ctx.exec, steps * batch, view, &packed.input, &mut projected, rows, &epilogue);
            let start = |s: &[f32]| -> Vec<f32> {
                let at = |b: usize| if self.batch_first { (b * d + i) * h } else { (i * batch + b) * h };
                (0..batch)
                    .filter(|_| !s.is_empty())
                    .flat_map(|b| s[at(b)..at(b) + h].iter().copied())
                    .collect()
            };
            let mut walk = Walk {
                op: self,
                direction: i,
                packed,
                lengths: &lengths,
                late,
                peepholes: peepholes.get(i * 3 * h..(i + 1) * 3 * h).unwrap_or(&[]),
                hidden: start(&first[0]),
                cell: start(&first[1]),
            };
            walk.run(ctx, &projected, steps, |t, b, row| {
                let at = ((t * d + i) * batch + b) * h;
                y[at..at + h].copy_from_slice(row);
            })?;
            for (last, state) in last.iter_mut().zip([walk.hidden, walk.cell]) {
                last.extend(state);
            }
        }
        let mut out = vec![narrow(x.dtype(), &[steps, d, batch, h], y)?];
        for state in last {
            out.push(narrow(x.dtype(), &[d, batch, h], state)?);
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

/// One direction on its way through the steps.
struct Walk<'a> {
    op: &'a Recurrent,
    direction: usize,
    packed: &'a Packed,
    lengths: &'a [usize],
    /// Added to the hidden gate's Q (GRU whose reset is last).
    late: &'a [f32],
    peepholes: &'a [f32],
    hidden: Vec<f32>,
    cell: Vec<f32>,
}

impl Walk<'_> {
    fn run(
        &mut self,
        ctx: &RunCtx<'_>,
        projected: &[f32],
        steps: usize,
        mut emit: impl FnMut(usize, usize, &[f32]),
    ) -> Result<(), OpError> {
        let (h, rows, batch) = (self.op.hidden, self.op.rows(), self.lengths.len());
        let (reverse, functions) = &self.op.directions[self.direction];
        let width = self.packed.state.n();
        let mut q = ctx.memory.alloc::<f32>(&[batch, width])?;
        let mut kept = ctx.memory.alloc::<f32>(&[batch, h])?;
        let mut candidates = ctx.memory.alloc::<f32>(&[batch, h])?;
        let mut scratch = vec![0.0; batch * h];
        let none = Epilogue::default();
        for s in 0..steps {
            // Past its end a sequence is left as it is.
            let running = |b: usize| s < self.lengths[b];
            let at = |b: usize| if *reverse { self.lengths[b] - 1 - s } else { s };
            let row = |b: usize| &projected[(at(b) * batch + b) * rows..][..rows];
            let state = View::row_major(&self.hidden, h);
            gemm_packed(ctx.exec, batch, state, &self.packed.state, &mut q, width, &none);
            if let Some(reset) = &self.packed.reset {
                for b in (0..batch).filter(|&b| running(b)) {
                    let gates = &mut q[b * width..(b + 1) * width];
                    add(gates, &row(b)[..width]);
                    functions[0].apply(ctx, self.op.clip, gates);
                    let (hidden, kept) = (&self.hidden[b * h..][..h], &mut kept[b * h..][..h]);
                    for ((kept, r), x) in kept.iter_mut().zip(&gates[h..]).zip(hidden) {
                        *kept = r * x;
                    }
                }
                let state = View::row_major(&kept, h);
                gemm_packed(ctx.exec, batch, state, reset, &mut candidates, h, &none);
            }
            let entries = q.chunks_exact_mut(width.max(1)).zip(self.hidden.chunks_exact_mut(h.max(1)));
            let mut cells = self.cell.chunks_exact_mut(h.max(1));
            let mut candidates = candidates.chunks_exact_mut(h.max(1));
            let mut spare = scratch.chunks_exact_mut(h.max(1));
            let entries = entries.map(|(gates, hidden)| {
                let cell = cells.next().unwrap_or(&mut []);
                let candidate = candidates.next().unwrap_or(&mut []);
                (gates, State { hidden, cell, scratch: spare.next().unwrap_or(&mut []) }, candidate)
            });
            let own = (functions.as_slice(), self.op.clip);
            let (op, late, peepholes) = (self.op, self.late, self.peepholes);
            let advance =
                |b: usize, gates: &mut [f32], state: &mut State<'_>, candidate: &mut [f32]| match op.cell {
                    Cell::Lstm { coupled } => state.lstm(ctx, own, gates, row(b), peepholes, coupled),
                    Cell::Gru { reset_last: true } => state.gru_reset_last(ctx, own, gates, row(b), late),
                    Cell::Gru { .. } => {
                        add(candidate, &row(b)[2 * h..]);
                        functions[1].apply(ctx, op.clip, candidate);
                        state.mix(&gates[..h], candidate);
                    }
                    Cell::Plain => {
                        add(gates, row(b));
                        functions[0].apply(ctx, op.clip, gates);
                        state.hidden.copy_from_slice(gates);
                    }
                };
            if ctx.exec.pool().threads() > 1 && batch > 1 && batch * h >= PARALLEL {
                let entries: Vec<_> = entries.map(Mutex::new).collect();
                ctx.exec.pool().for_each(batch, &|b| {
                    if running(b) {
                        let mut entry = entries[b].lock().unwrap_or_else(PoisonError::into_inner);
                        let (gates, state, candidate) = &mut *entry;
                        advance(b, gates, state, candidate);
                    }
                });
            } else {
                for (b, (gates, mut state, candidate)) in entries.enumerate().filter(|&(b, _)| running(b)) {
                    advance(b, gates, &mut state, candidate);
                }
            }
            for b in (0..batch).filter(|&b| running(b)) {
                emit(at(b), b, &self.hidden[b * h..(b + 1) * h]);
            }
        }
        Ok(())
    }
}

/// x + y into x.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
