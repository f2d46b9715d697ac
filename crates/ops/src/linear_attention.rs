//! LinearAttention: attention as a recurrence over a state of fixed size.

use isobit_kernels::math::{self, Unary};
use isobit_numerics::fma;
use isobit_tensor::{DType, Tensor};

use crate::arith::{narrow, widen};
use crate::axes::{bounded, fact, given};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("LinearAttention", 27, linear_attention)];

/// In f32, one step a token, for the state S of each head of the keys:
///
/// 1. gated: S = S * exp(decay), element by element;
/// 2. delta: v = beta * (v - S' k), S' k by chains from +0 over the key's elements, ascending;
/// 3. S = fma(k, v, S);
/// 4. the result is scale * (S' q), the same chains.
struct LinearAttention {
    heads: usize,
    key_heads: usize,
    scale: f32,
    gated: bool,
    delta: bool,
}

fn linear_attention(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let rules = [
        ("gated_delta", (true, true)),
        ("linear", (false, false)),
        ("gated", (true, false)),
        ("delta", (false, true)),
    ];
    let (gated, delta) = ctx.choice("update_rule", &rules)?;
    let heads = |name: &str| {
        let n = Some(ctx.int(name, 0)?).filter(|&n| n > 0 && n < 1 << 32);
        n.and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| OpError::attribute(format!("{name} is needed and must be positive")))
    };
    let (q, kv) = (heads("q_num_heads")?, heads("kv_num_heads")?);
    if q % kv != 0 {
        return Err(OpError::attribute(format!("q_num_heads {q} is no multiple of kv_num_heads {kv}")));
    }
    ctx.at_most(2, LinearAttention { heads: q, key_heads: kv, scale: ctx.float("scale", 0.0)?, gated, delta })
}

/// The extents of one run.
struct Sizes {
    batch: usize,
    length: usize,
    key: usize,
    value: usize,
}

impl LinearAttention {
    fn sizes(&self, q: &[usize], k: &[usize], v: &[usize]) -> Result<Sizes, OpError> {
        if let (&[batch, length, wq], &[bk, lk, wk], &[bv, lv, wv]) = (q, k, v) {
            let (key, value) = (wq / self.heads, wv / self.key_heads);
            let whole = wq == key * self.heads && wk == key * self.key_heads && wv == value * self.key_heads;
            if whole && [bk, bv] == [batch; 2] && [lk, lv] == [length; 2] {
                return Ok(Sizes { batch, length, key, value });
            }
        }
        let (heads, kv) = (self.heads, self.key_heads);
        Err(OpError::shape(format!(
            "query {q:?}, key {k:?} and value {v:?} with {heads} and {kv} heads; they must be [B, T, heads * size]"
        )))
    }

    /// An operand that must be there where `wanted` and have one number a head and token, or `widest`.
    fn gate(
        &self,
        inputs: &Inputs,
        i: usize,
        wanted: bool,
        s: &Sizes,
        widths: &[usize],
    ) -> Result<Option<(Vec<f32>, usize)>, OpError> {
        match inputs.opt(i) {
            None if !wanted => Ok(None),
            Some(t) if wanted => match *t.shape() {
                [b, l, w] if b == s.batch && l == s.length && widths.contains(&w) => Ok(Some((widen(t)?, w))),
                ref other => Err(OpError::shape(format!(
                    "input {i} has shape {other:?}; it must be [B, T, one of {widths:?}]"
                ))),
            },
            _ => Err(OpError::input(format!(
                "input {i} (decay is 4, beta 5) does not go with this update_rule"
            ))),
        }
    }
}

impl Op for LinearAttention {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (q, v) = (fact(inputs, 0), fact(inputs, 2));
        if let Some(t) = q.dtype.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
            return Err(OpError::unsupported_type(t));
        }
        let (heads, kv) = (self.heads, self.key_heads);
        let (mut out, mut state) = (None, None);
        if let (Some([b, t, wq]), Some([_, _, wv])) = (q.shape.as_deref(), v.shape.as_deref()) {
            let value = wv.map(|w| w / kv);
            out = Some(vec![*b, *t, value.map(|v| v * heads)]);
            state = Some(vec![*b, Some(kv), wq.map(|w| w / heads), value]);
        }
        let kept = given(inputs, 3).map_or(q.dtype, |past| past.dtype);
        Ok(vec![Fact::new(q.dtype, out), Fact::new(kept, state)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let size = |f: Option<&Fact>| f.and_then(Fact::numel).unwrap_or(0) as u64;
        let tokens = fact(inputs, 0).shape.as_deref().and_then(|s| *s.get(1)?).unwrap_or(1) as u64;
        let group = (self.heads / self.key_heads) as u64;
        size(outputs.get(1))
            .saturating_mul(tokens)
            .saturating_mul(3 + group)
            .saturating_add(size(outputs.first()))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (q, k, v) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        bounded([q, k, v])?;
        let s = self.sizes(q.shape(), k.shape(), v.shape())?;
        let kv = self.key_heads;
        let decay = self.gate(&inputs, 4, self.gated, &s, &[kv, kv * s.key])?;
        let beta = self.gate(&inputs, 5, self.delta, &s, &[kv, 1])?;
        let shape = [s.batch, kv, s.key, s.value];
        let mut state = ctx.memory.filled::<f32>(&shape, 0.0)?;
        if let Some(past) = inputs.opt(3) {
            if past.shape() != shape {
                return Err(OpError::shape(format!("a past state {:?}; {shape:?} is needed", past.shape())));
            }
            state.copy_from_slice(&widen(past)?);
        }
        let decay = decay.map(|(mut g, w)| {
            math::unary_in_place(ctx.exec, Unary::Exp, &mut g);
            (g, w)
        });
        let kept = inputs.opt(3).map_or(q.dtype(), Tensor::dtype);
        let (q_dtype, out_shape) = (q.dtype(), [s.batch, s.length, self.heads * s.value]);
        let mut out = ctx.memory.filled::<f32>(&out_shape, 0.0)?;
        let (q, k, v) = (widen(q)?, widen(k)?, widen(v)?);
        let scale = if self.scale == 0.0 { 1.0 / (s.key as f32).sqrt() } else { self.scale };
        let area = (s.key * s.value).max(1);
        for (i, state) in state.chunks_exact_mut(area).enumerate() {
            let (b, h) = (i / kv, i % kv);
            for t in 0..s.length {
                let token = b * s.length + t;
                if let Some((g, w)) = &decay {
                    let each = w / kv;
                    let gates = &g[token * w + h * each..][..each];
                    fade(state, gates, s.value);
                }
                let k = &k[(token * kv + h) * s.key..][..s.key];
                let mut v = v[(token * kv + h) * s.value..][..s.value].to_vec();
                if let Some((beta, w)) = &beta {
                    let beta = beta[token * w + if *w == 1 { 0 } else { h }];
                    let known = read(state, k, s.value);
                    v.iter_mut().zip(known).for_each(|(v, r)| *v = beta * (*v - r));
                }
                for (row, &k) in state.chunks_exact_mut(s.value.max(1)).zip(k) {
                    row.iter_mut().zip(&v).for_each(|(s, &v)| *s = fma(k, v, *s));
                }
                let group = self.heads / kv;
                for head in h * group..(h + 1) * group {
                    let at = token * self.heads + head;
                    let y = read(state, &q[at * s.key..][..s.key], s.value);
                    let o = &mut out[at * s.value..][..s.value];
                    o.iter_mut().zip(y).for_each(|(o, y)| *o = scale * y);
                }
            }
        }
        Ok(vec![narrow(q_dtype, &out_shape, out)?, narrow(kept, &shape, state)?])
    }
}

/// Each row of the state times its gate, or all rows times the only one.
fn fade(state: &mut [f32], gates: &[f32], width: usize) {
    for (i, row) in state.chunks_exact_mut(width.max(1)).enumerate() {
        let gate = gates[if gates.len() == 1 { 0 } else { i }];
        row.iter_mut().for_each(|s| *s *= gate);
    }
}

/// The transposed state times a vector.
fn read(state: &[f32], x: &[f32], width: usize) -> Vec<f32> {
    let mut out = vec![0.0; width];
    for (row, &x) in state.chunks_exact(width.max(1)).zip(x) {
        out.iter_mut().zip(row).for_each(|(o, &s)| *o = fma(s, x, *o));
    }
    out
}
