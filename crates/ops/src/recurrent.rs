//! LSTM. With every operation rounded, for each direction and step t:
//! P_t = chain(X_t, W) + (Wb + Rb), Q = chain(H, R), gates (i, o, f, c) = P_t + Q, then + p * C for the peepholes of i and f;
//! i, f = sigmoid; c = tanh; C' = f * C + i * c; o = sigmoid(o [+ p * C']); H' = o * tanh(C').

use isobit_kernels::gemm::{Bias, Epilogue, PackedB, View, gemm_packed};
use isobit_kernels::math::{Unary, unary_in_place};
use isobit_tensor::{DType, Tensor};

use crate::axes::{fact, ints};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("LSTM", 22, lstm)];

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Forward,
    Reverse,
}

struct Lstm {
    directions: Vec<Direction>,
    hidden: usize,
    batch_first: bool,
    outputs: usize,
    /// For each direction W and R, packed, where they are constant.
    packed: Option<Vec<(PackedB, PackedB)>>,
}

fn lstm(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let directions = match ctx.str("direction", "forward")? {
        "forward" => vec![Direction::Forward],
        "reverse" => vec![Direction::Reverse],
        "bidirectional" => vec![Direction::Forward, Direction::Reverse],
        other => {
            return Err(OpError::attribute(format!(
                "direction '{other}'; accepted: forward, reverse, bidirectional"
            )));
        }
    };
    if let Some(names) = ctx.opt_strs("activations")? {
        let usual = ["sigmoid", "tanh", "tanh"];
        if names.iter().enumerate().any(|(i, n)| !n.eq_ignore_ascii_case(usual[i % 3])) {
            return Err(OpError::attribute(format!(
                "activations {names:?}; only Sigmoid, Tanh, Tanh are supported"
            )));
        }
    }
    if ctx.opt_float("clip")?.is_some() {
        return Err(OpError::unsupported("clip is not supported"));
    }
    if ctx.flag("input_forget", false)? {
        return Err(OpError::unsupported("input_forget (coupled gates) is not supported"));
    }
    let hidden = ctx.opt_int("hidden_size")?;
    let hidden = hidden.and_then(|h| usize::try_from(h).ok()).filter(|&h| h > 0 && h < 1 << 24);
    let hidden = hidden.ok_or_else(|| OpError::attribute("hidden_size must be given and positive"))?;
    let mut op = Lstm {
        directions,
        hidden,
        batch_first: ctx.int("layout", 0)? == 1,
        outputs: ctx.outputs(),
        packed: None,
    };
    if let (Some(w), Some(r)) = (ctx.constant(1), ctx.constant(2)) {
        if w.dtype() == DType::F32 && r.dtype() == DType::F32 {
            op.packed = Some(op.pack(ctx.set, w, r)?);
        }
    }
    Ok(Box::new(op))
}

impl Lstm {
    fn pack(
        &self,
        set: isobit_kernels::KernelSet,
        w: &Tensor,
        r: &Tensor,
    ) -> Result<Vec<(PackedB, PackedB)>, OpError> {
        let (d, h4) = (self.directions.len(), 4 * self.hidden);
        let fits = |t: &Tensor, k: Option<usize>| matches!(*t.shape(), [a, b, c] if a == d && b == h4 && k.is_none_or(|k| c == k));
        if !fits(w, None) || !fits(r, Some(self.hidden)) {
            return Err(OpError::shape(format!(
                "W of shape {:?} and R of shape {:?}; expected [{d}, {h4}, input] and [{d}, {h4}, {}]",
                w.shape(),
                r.shape(),
                self.hidden
            )));
        }
        let k = w.shape()[2];
        let (w, r) = (w.as_slice::<f32>()?, r.as_slice::<f32>()?);
        Ok((0..d)
            .map(|i| {
                let w = View::transposed(&w[i * h4 * k..(i + 1) * h4 * k], k);
                let r = View::transposed(&r[i * h4 * self.hidden..(i + 1) * h4 * self.hidden], self.hidden);
                (PackedB::new(set, k, h4, w), PackedB::new(set, self.hidden, h4, r))
            })
            .collect())
    }

    /// An optional operand of the given extents, or zeros.
    fn state(&self, inputs: &Inputs, i: usize, extents: &[usize]) -> Result<Vec<f32>, OpError> {
        match inputs.opt(i) {
            None => Ok(vec![0.0; extents.iter().product()]),
            Some(t) if t.shape() == extents => Ok(t.as_slice::<f32>()?.to_vec()),
            Some(t) => {
                Err(OpError::shape(format!("input {i} of shape {:?}; expected {extents:?}", t.shape())))
            }
        }
    }
}

/// One direction's run: its constants and where it is.
struct Direct<'a> {
    hidden: usize,
    batch: usize,
    lengths: &'a [usize],
    reverse: bool,
    peepholes: &'a [f32],
}

impl Op for Lstm {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|&t| t != DType::F32) {
            return Err(OpError::unsupported_type(t));
        }
        let (d, h) = (Some(self.directions.len()), Some(self.hidden));
        let (y, last) = match x.shape.as_deref() {
            Some(&[a, b, _]) if self.batch_first => (Some(vec![a, b, d, h]), Some(vec![a, d, h])),
            Some(&[a, b, _]) => (Some(vec![a, d, b, h]), Some(vec![d, b, h])),
            Some(s) => {
                return Err(OpError::shape(format!("an input of rank {}; LSTM takes rank 3", s.len())));
            }
            None => (None, None),
        };
        let facts = [y, last.clone(), last].into_iter().map(|s| Fact::new(Some(DType::F32), s));
        Ok(facts.take(self.outputs).collect())
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let Some(&[a, b, k]) = fact(inputs, 0).known_shape().as_deref().and_then(|s| s.first_chunk::<3>())
        else {
            return 0;
        };
        let step = 4 * self.hidden * (k + self.hidden) + 40 * self.hidden;
        ((a * b) as u64).saturating_mul(step as u64).saturating_mul(self.directions.len() as u64)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let &[a, b, k] = x.shape() else {
            return Err(OpError::shape(format!("an input of shape {:?}; LSTM takes rank 3", x.shape())));
        };
        let (steps, batch) = if self.batch_first { (b, a) } else { (a, b) };
        let (d, h) = (self.directions.len(), self.hidden);
        let packed_here;
        let packed = match &self.packed {
            Some(p) => p,
            None => {
                packed_here = self.pack(ctx.exec.set(), inputs.get(1)?, inputs.get(2)?)?;
                &packed_here
            }
        };
        if packed[0].0.k() != k {
            return Err(OpError::shape(format!("{k} input features, but W is for {}", packed[0].0.k())));
        }
        let bias = self.state(&inputs, 3, &[d, 8 * h])?;
        let lengths = match inputs.opt(4) {
            None => vec![steps; batch],
            Some(t) => ints(t)?
                .into_iter()
                .map(|n| usize::try_from(n).ok().filter(|&n| n <= steps))
                .collect::<Option<Vec<_>>>()
                .filter(|l| l.len() == batch)
                .ok_or_else(|| {
                    OpError::input(format!("sequence_lens must be {batch} numbers from 0 to {steps}"))
                })?,
        };
        let initial = if self.batch_first { [batch, d, h] } else { [d, batch, h] };
        let (h0, c0) = (self.state(&inputs, 5, &initial)?, self.state(&inputs, 6, &initial)?);
        let peepholes = match inputs.opt(7) {
            None => Vec::new(),
            Some(_) => self.state(&inputs, 7, &[d, 3 * h])?,
        };

        // Time-major rows, whatever the layout.
        let data = x.as_slice::<f32>()?;
        let turned: Vec<f32>;
        let data = if self.batch_first && batch > 1 {
            turned = (0..steps * batch)
                .flat_map(|i| {
                    let at = (i % batch * steps + i / batch) * k;
                    data[at..at + k].iter().copied()
                })
                .collect();
            &turned
        } else {
            data
        };
        let mut y = ctx.memory.filled(&[steps, d, batch, h], 0.0f32)?;
        let mut last = [vec![0.0f32; d * batch * h], vec![0.0f32; d * batch * h]];
        for (i, (w, r)) in packed.iter().enumerate() {
            let own = &bias[i * 8 * h..(i + 1) * 8 * h];
            let sums: Vec<f32> = own[..4 * h].iter().zip(&own[4 * h..]).map(|(w, r)| w + r).collect();
            let mut projected = ctx.memory.alloc::<f32>(&[steps * batch, 4 * h])?;
            let epilogue = Epilogue { bias: Bias::Columns(&sums), ..Epilogue::default() };
            gemm_packed(
                ctx.exec,
                steps * batch,
                View::row_major(data, k),
                w,
                &mut projected,
                4 * h,
                &epilogue,
            );
            let start = |s: &[f32]| -> Vec<f32> {
                (0..batch)
                    .flat_map(|b| {
                        let at = if self.batch_first { (b * d + i) * h } else { (i * batch + b) * h };
                        s[at..at + h].iter().copied()
                    })
                    .collect()
            };
            let direct = Direct {
                hidden: h,
                batch,
                lengths: &lengths,
                reverse: self.directions[i] == Direction::Reverse,
                peepholes: peepholes.get(i * 3 * h..(i + 1) * 3 * h).unwrap_or(&[]),
            };
            let (mut hs, mut cs) = (start(&h0), start(&c0));
            let mut emit = |t: usize, b: usize, row: &[f32]| {
                let at = ((t * d + i) * batch + b) * h;
                y[at..at + h].copy_from_slice(row);
            };
            direct.run(ctx, steps, &projected, r, &mut hs, &mut cs, &mut emit);
            last[0][i * batch * h..(i + 1) * batch * h].copy_from_slice(&hs);
            last[1][i * batch * h..(i + 1) * batch * h].copy_from_slice(&cs);
        }
        let mut out = vec![Tensor::new(&[steps, d, batch, h], y)?];
        for state in last {
            out.push(Tensor::new(&[d, batch, h], state)?);
        }
        if self.batch_first {
            out[0] = crate::transpose::transpose(ctx, out[0].clone(), &[2, 0, 1, 3])?;
            for state in &mut out[1..] {
                *state = crate::transpose::transpose(ctx, state.clone(), &[1, 0, 2])?;
            }
        }
        out.truncate(self.outputs);
        Ok(out)
    }
}

impl Direct<'_> {
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        ctx: &RunCtx<'_>,
        steps: usize,
        projected: &[f32],
        r: &PackedB,
        hs: &mut [f32],
        cs: &mut [f32],
        emit: &mut dyn FnMut(usize, usize, &[f32]),
    ) {
        let h = self.hidden;
        let mut gates = vec![0.0f32; self.batch * 4 * h];
        let mut cell = vec![0.0f32; h];
        for s in 0..steps {
            gemm_packed(
                ctx.exec,
                self.batch,
                View::row_major(hs, h),
                r,
                &mut gates,
                4 * h,
                &Epilogue::default(),
            );
            for b in 0..self.batch {
                let length = self.lengths[b];
                if s >= length {
                    continue; // past its end a sequence keeps its state, and its output is zero
                }
                let t = if self.reverse { length - 1 - s } else { s };
                let p = &projected[(t * self.batch + b) * 4 * h..][..4 * h];
                let gates = &mut gates[b * 4 * h..(b + 1) * 4 * h];
                gates.iter_mut().zip(p).for_each(|(g, p)| *g += p);
                let (hs, cs) = (&mut hs[b * h..(b + 1) * h], &mut cs[b * h..(b + 1) * h]);
                self.step(ctx, gates, hs, cs, &mut cell);
                emit(t, b, hs);
            }
        }
    }

    fn step(&self, ctx: &RunCtx<'_>, gates: &mut [f32], hs: &mut [f32], cs: &mut [f32], cell: &mut [f32]) {
        let h = self.hidden;
        let (i, rest) = gates.split_at_mut(h);
        let (o, rest) = rest.split_at_mut(h);
        let (f, c) = rest.split_at_mut(h);
        let peep = |gate: &mut [f32], p: &[f32], cs: &[f32]| {
            for ((g, p), c) in gate.iter_mut().zip(p).zip(cs) {
                *g += p * c;
            }
        };
        if !self.peepholes.is_empty() {
            peep(i, &self.peepholes[..h], cs);
            peep(f, &self.peepholes[2 * h..], cs);
        }
        unary_in_place(ctx.exec, Unary::Sigmoid, i);
        unary_in_place(ctx.exec, Unary::Sigmoid, f);
        unary_in_place(ctx.exec, Unary::Tanh, c);
        for (n, cs) in cs.iter_mut().enumerate() {
            *cs = f[n] * *cs + i[n] * c[n];
        }
        if !self.peepholes.is_empty() {
            peep(o, &self.peepholes[h..2 * h], cs);
        }
        unary_in_place(ctx.exec, Unary::Sigmoid, o);
        cell.copy_from_slice(cs);
        unary_in_place(ctx.exec, Unary::Tanh, cell);
        for ((hs, o), c) in hs.iter_mut().zip(o).zip(cell) {
            *hs = *o * *c;
        }
    }
}
