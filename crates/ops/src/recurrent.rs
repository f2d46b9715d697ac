//! LSTM, GRU and RNN: what they share. For each direction P = chain(X, W) + bias is one product for many steps; then, step
//! by step (see `steps`), Q = chain(H, R), and the cell (see `cells`) makes the next state of P and Q. An entry of the batch past its
//! sequence's end keeps its state, and its output is zero. f64 computes in f64, the others in f32.

use std::borrow::Cow;

use isobit_kernels::Exec;
use isobit_kernels::gemm::View;
use isobit_tensor::{DType, Tensor};

use crate::arith::floats;
use crate::axes::{bounded, fact, ints};
use crate::cells::{Activation, Cell, activations};
use crate::real::{Real, check_real, elements, real, write};
use crate::steps::Walk;
use crate::transpose::transpose;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("LSTM", 22, |ctx| recurrent(ctx, Cell::Lstm { coupled: ctx.flag("input_forget", false)? })),
    OpDef::onnx("GRU", 22, |ctx| {
        recurrent(ctx, Cell::Gru { reset_last: ctx.flag("linear_before_reset", false)? })
    }),
    OpDef::onnx("RNN", 22, |ctx| recurrent(ctx, Cell::Plain)),
];

pub(crate) struct Recurrent {
    pub(crate) cell: Cell,
    /// For each direction whether it goes from the end, and its activations.
    pub(crate) directions: Vec<(bool, Vec<Activation>)>,
    pub(crate) clip: Option<f32>,
    pub(crate) hidden: usize,
    batch_first: bool,
    outputs: usize,
    /// For each direction, where W and R are constant and computed with in f32.
    packed: Option<Vec<Packed<f32>>>,
}

/// The weights of one direction.
pub(crate) struct Packed<T: Real> {
    /// Features of an input.
    pub(crate) features: usize,
    /// For each gate.
    pub(crate) input: Vec<T::Right>,
    /// For each gate, or each but the last, that are applied to the state at the start of a step.
    pub(crate) state: Vec<T::Right>,
    /// Applied to what the reset gate leaves of it (GRU, unless its reset is last).
    pub(crate) reset: Option<T::Right>,
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
    pub(crate) fn rows(&self) -> usize {
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
        let direction = |i: usize| {
            let (w, r) = (&w[i * rows * k..][..rows * k], &r[i * rows * h..][..rows * h]);
            let gates = |w: &[T], k: usize| -> Vec<T::Right> {
                let gate = |gate: usize| &w[gate * h * k..][..h * k];
                (0..self.cell.gates()).map(|g| T::right(exec, k, h, View::transposed(gate(g), k))).collect()
            };
            let mut state = gates(r, h);
            let reset = matches!(self.cell, Cell::Gru { reset_last: false }).then(|| state.pop()).flatten();
            Packed { features: k, input: gates(w, k), state, reset }
        };
        Ok((0..d).map(direction).collect())
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
                steps,
                batch,
                lengths: &lengths,
                late,
                peepholes: peepholes.get(i * 3 * h..(i + 1) * 3 * h).unwrap_or(&[]),
            };
            let mut states = [start(&first[0]), start(&first[1])];
            let outputs = y.chunks_exact_mut(h).enumerate();
            let outputs = outputs.filter(|(at, _)| at / batch % d == i).map(|(_, output)| output).collect();
            walk.run(ctx, states.each_mut().map(Vec::as_mut_slice), outputs)?;
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
