//! Attention.

use std::borrow::Cow;

use isobit_kernels::gemm::View;
use isobit_kernels::math::Unary;
use isobit_tensor::{DType, Data, Tensor, bf16, f16};

use crate::axes::{bounded, fact, given};
use crate::concat::concat;
use crate::real::{Real, check_real, elements, read, real, write};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Attention", 25, attention)];

/// Scaled dot-product attention, in f64 where Q is f64, else in f32. With every operation rounded, for each batch entry and
/// query head, whose key and value head is `head / (query heads / key heads)`:
///
/// - s = sqrt(scale), where scale is by default 1 / sqrt(head size); q = Q * s; k = K * s;
/// - logits = chain over the head size of q and k; with a softcap c, c * tanh(logits / c);
/// - the bias is -infinity where causality, the window, the padding or a mask of `false` excludes the key, else the mask's
///   number, or +0; logits + bias;
/// - softmax of each row over the keys; a row whose biases are all -infinity is +0;
/// - Y = chain over the keys of the softmax and V.
struct Attention {
    causal: bool,
    heads: Option<[usize; 2]>,
    scale: Option<f32>,
    softcap: f32,
    /// What the softmax is computed in; `None` is what all is.
    precision: Option<DType>,
    /// Which intermediate result is the fourth output.
    mode: i64,
    /// Most positions before and after the query's own; `None` is any number.
    window: [Option<i64>; 2],
    outputs: usize,
}

fn attention(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let heads = [ctx.int("q_num_heads", 0)?, ctx.int("kv_num_heads", 0)?];
    let heads = match heads {
        [0, 0] => None,
        [q, kv] => match (usize::try_from(q), usize::try_from(kv)) {
            (Ok(q), Ok(kv)) if q > 0 && kv > 0 && q % kv == 0 => Some([q, kv]),
            _ => {
                return Err(OpError::attribute(format!(
                    "q_num_heads {q}, kv_num_heads {kv}; the first must be a multiple of the second"
                )));
            }
        },
    };
    let precision = match ctx.int("softmax_precision", 0)? {
        0 => None,
        1 => Some(DType::F32),
        10 => Some(DType::F16),
        11 => Some(DType::F64),
        16 => Some(DType::BF16),
        other => {
            return Err(OpError::attribute(format!("softmax_precision {other}; accepted: 1, 10, 11, 16")));
        }
    };
    let mode = ctx.int("qk_matmul_output_mode", 0)?;
    if !(0..=3).contains(&mode) {
        return Err(OpError::attribute(format!("qk_matmul_output_mode {mode}; accepted: 0 to 3")));
    }
    let side = |name: &str| match ctx.int(name, -1)? {
        -1 => Ok(None),
        n if n >= 0 => Ok(Some(n)),
        n => Err(OpError::attribute(format!("{name} {n}; accepted: -1 or more"))),
    };
    let op = Attention {
        causal: ctx.flag("is_causal", false)?,
        heads,
        scale: ctx.opt_float("scale")?,
        softcap: ctx.float("softcap", 0.0)?,
        precision,
        mode,
        window: [side("left_window_size")?, side("right_window_size")?],
        outputs: ctx.outputs(),
    };
    ctx.at_most(4, op)
}

/// Extents, of run-time shapes (`usize`) or of facts (`Option<usize>`).
struct Extents<D> {
    batch: D,
    heads: [D; 2],
    queries: D,
    /// Keys given now, without past ones.
    keys: D,
    size: D,
    value_size: D,
}

impl Attention {
    /// The extents from the shapes of Q, K and V; `divide` is the extent of one of so many heads.
    fn extents<D: Copy + From<usize>>(
        &self,
        [q, k, v]: [&[D]; 3],
        divide: impl Fn(D, usize) -> Result<D, OpError>,
    ) -> Result<Extents<D>, OpError> {
        match (q, k, v, self.heads) {
            (&[b, s, qw], &[_, t, _], &[_, _, vw], Some([h, g])) => Ok(Extents {
                batch: b,
                heads: [D::from(h), D::from(g)],
                queries: s,
                keys: t,
                size: divide(qw, h)?,
                value_size: divide(vw, g)?,
            }),
            (&[b, h, s, d], &[_, g, t, _], &[_, _, _, e], _) => {
                Ok(Extents { batch: b, heads: [h, g], queries: s, keys: t, size: d, value_size: e })
            }
            _ => Err(OpError::shape(format!(
                "Q, K and V of rank {}, {} and {}; all must be 4, or 3 with q_num_heads and kv_num_heads given",
                q.len(),
                k.len(),
                v.len()
            ))),
        }
    }

    /// The extents of a run and the number of past keys, after every check of the shapes.
    fn settle(&self, inputs: &Inputs) -> Result<(Extents<usize>, usize), OpError> {
        let (q, k, v) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        bounded([q, k, v].into_iter().chain(inputs.opt(4)).chain(inputs.opt(5)))?;
        let e = self.extents([q.shape(), k.shape(), v.shape()], |width: usize, n| match width % n {
            0 => Ok(width / n),
            _ => Err(OpError::shape(format!("{width} features do not divide into {n} heads"))),
        })?;
        let [h, g] = e.heads;
        if g == 0 || h % g != 0 {
            return Err(OpError::shape(format!("{h} query heads are no multiple of {g} key heads")));
        }
        let fits = |t: &Tensor, size: usize, length: usize| match *t.shape() {
            [b, s, w] => (b, s, Some(w)) == (e.batch, length, g.checked_mul(size)),
            [b, n, s, d] => (b, n, s, d) == (e.batch, g, length, size),
            _ => false,
        };
        if !fits(k, e.size, e.keys) || !fits(v, e.value_size, e.keys) {
            return Err(OpError::shape(format!(
                "Q {:?}, K {:?} and V {:?} do not fit together",
                q.shape(),
                k.shape(),
                v.shape()
            )));
        }
        let past = match (inputs.opt(4), inputs.opt(5)) {
            (None, None) => 0,
            (Some(pk), Some(pv)) => {
                let length = pk.shape().get(2).copied().unwrap_or(0);
                let right = pk.shape() == [e.batch, g, length, e.size]
                    && pv.shape() == [e.batch, g, length, e.value_size]
                    && pk.dtype() == k.dtype()
                    && pv.dtype() == v.dtype();
                if !right {
                    return Err(OpError::shape(format!(
                        "past_key {:?} and past_value {:?} do not continue K {:?} and V {:?}",
                        pk.shape(),
                        pv.shape(),
                        k.shape(),
                        v.shape()
                    )));
                }
                length
            }
            _ => return Err(OpError::input("past_key and past_value go together; one is missing")),
        };
        Ok((e, past))
    }
}

/// Unknown extents take part in inference.
#[derive(Clone, Copy)]
struct Maybe(Option<usize>);

impl From<usize> for Maybe {
    fn from(n: usize) -> Self {
        Maybe(Some(n))
    }
}

impl Op for Attention {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let [q, k, v] = [0, 1, 2].map(|i| fact(inputs, i));
        for t in [q, k, v] {
            check_real(t.dtype)?;
        }
        let shape = |f: &Fact| f.shape.as_ref().map(|s| s.iter().map(|&d| Maybe(d)).collect::<Vec<_>>());
        let (Some(qs), Some(ks), Some(vs)) = (shape(q), shape(k), shape(v)) else {
            let facts = [q.dtype, k.dtype, v.dtype, q.dtype].map(Fact::typed);
            return Ok(facts.into_iter().take(self.outputs).collect());
        };
        let e = self.extents([&qs, &ks, &vs], |w, n| Ok(Maybe(w.0.map(|w| w / n))))?;
        let past = match given(inputs, 4) {
            None => Some(0),
            Some(past) => past.shape.as_ref().and_then(|s| s.get(2).copied().flatten()),
        };
        let total = e.keys.0.zip(past).and_then(|(a, b)| a.checked_add(b));
        let [h, g] = e.heads.map(|d| d.0);
        let (b, s) = (e.batch.0, e.queries.0);
        let y = if qs.len() == 3 {
            vec![b, s, h.zip(e.value_size.0).and_then(|(h, d)| h.checked_mul(d))]
        } else {
            vec![b, h, s, e.value_size.0]
        };
        let shapes =
            [y, vec![b, g, total, e.size.0], vec![b, g, total, e.value_size.0], vec![b, h, s, total]];
        let types = [q.dtype, k.dtype, v.dtype, q.dtype];
        let facts = shapes.into_iter().zip(types).map(|(shape, t)| Fact::new(t, Some(shape)));
        Ok(facts.take(self.outputs).collect())
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        // Queries x keys x (both head sizes and the softmax); the keys from K, the rest from Q and the result.
        let extent = |i: usize, back: usize| {
            let shape = fact(inputs, i).known_shape()?;
            shape.len().checked_sub(back).map(|at| shape[at])
        };
        let past = given(inputs, 4).and_then(|_| extent(4, 2)).unwrap_or(0);
        let keys = extent(1, 2).unwrap_or(0).saturating_add(past) as u64;
        let numel = |f: &Fact| f.numel().unwrap_or(0) as u64;
        let heads = match self.heads {
            Some([h, _]) => h,
            None => extent(0, 3).unwrap_or(0),
        };
        let batch = fact(inputs, 0).known_shape().and_then(|s| s.first().copied()).unwrap_or(0);
        let rows =
            (batch as u64).saturating_mul(heads as u64).saturating_mul(extent(0, 2).unwrap_or(0) as u64);
        let contractions = numel(fact(inputs, 0)).saturating_add(outputs.first().map_or(0, numel));
        contractions.saturating_add(rows.saturating_mul(12)).saturating_mul(keys)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (e, past) = self.settle(&inputs)?;
        let (q, k, v) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        for t in [q, k, v] {
            check_real(Some(t.dtype()))?;
        }
        real!(q.dtype(), T => self.compute::<T>(ctx, &inputs, &e, past))
    }
}

impl Attention {
    fn compute<T: Real>(
        &self,
        ctx: &RunCtx<'_>,
        inputs: &Inputs,
        e: &Extents<usize>,
        past: usize,
    ) -> Result<Vec<Tensor>, OpError> {
        let (q, k, v) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        let [h, g] = e.heads;
        let total = e.keys + past;
        let bias = Bias::<T>::new(ctx, self, inputs, e, past)?;
        let present = past > 0 || inputs.opt(4).is_some() || self.outputs > 1;
        let joined;
        let (k, v) = if present {
            joined = (present_state(ctx, inputs.opt(4), k, g)?, present_state(ctx, inputs.opt(5), v, g)?);
            (&joined.0, &joined.1)
        } else {
            (k, v)
        };

        let scale = match self.scale {
            // The root of an attribute is one of f32.
            Some(scale) => T::of(scale.sqrt().into()),
            None => (T::ONE / T::of(e.size as f64).root()).root(),
        };
        let scaled = |t: &Tensor| -> Result<Vec<T>, OpError> {
            let mut x = read::<T>(ctx, t)?;
            x.iter_mut().for_each(|x| *x = *x * scale);
            Ok(x)
        };
        let (qd, kd, vd) = (scaled(q)?, scaled(k)?, elements::<T>(ctx, v)?);
        let (qs, ks) = (Heads::of(q, h, e.size), Heads::of(k, g, e.size));
        let vs = Heads::of(v, g, e.value_size);

        let rows = [e.batch, h, e.queries, total];
        let mut logits = ctx.memory.alloc::<T>(&rows)?;
        let block = (e.queries * total).max(1);
        let pairs = (0..e.batch).flat_map(|b| (0..h).map(move |i| (b, i, i / (h / g))));
        for (c, (b, i, j)) in logits.chunks_exact_mut(block).zip(pairs.clone()) {
            let keys = ks.matrix(&kd, b, j);
            let keys = View { row_stride: keys.col_stride, col_stride: keys.row_stride, ..keys };
            let queries = qs.matrix(&qd, b, i);
            T::matmul(ctx.exec, [e.queries, total, e.size], queries, keys, c, total);
        }
        let wanted = |mode: i64, x: &[T]| (self.outputs > 3 && self.mode == mode).then(|| x.to_vec());
        let mut scores = wanted(0, &logits);
        if self.softcap > 0.0 {
            let cap = T::of(self.softcap.into());
            logits.iter_mut().for_each(|x| *x = *x / cap);
            T::apply(ctx.exec, Unary::Tanh, &mut logits);
            logits.iter_mut().for_each(|x| *x = *x * cap);
        }
        scores = scores.or_else(|| wanted(1, &logits));
        let empty = bias.add(&mut logits, h, e.queries, total);
        scores = scores.or_else(|| wanted(2, &logits));
        softmax_in(ctx, self.precision, &mut logits, total);
        for row in empty {
            logits[row * total..(row + 1) * total].fill(T::ZERO);
        }
        scores = scores.or_else(|| wanted(3, &logits));

        let flat = q.rank() == 3;
        let shape = match flat {
            true => vec![e.batch, e.queries, h * e.value_size],
            false => vec![e.batch, h, e.queries, e.value_size],
        };
        let mut y = ctx.memory.alloc::<T>(&shape)?;
        if !y.is_empty() {
            for (b, i, j) in pairs {
                let p = &logits[(b * h + i) * e.queries * total..][..e.queries * total];
                let values = vs.matrix(&vd, b, j);
                let (at, width) = match flat {
                    true => ((b * e.queries * h + i) * e.value_size, h * e.value_size),
                    false => ((b * h + i) * e.queries * e.value_size, e.value_size),
                };
                let p = View::row_major(p, total);
                let end = at + (e.queries - 1) * width + e.value_size;
                let c = &mut y[at..end];
                T::matmul(ctx.exec, [e.queries, e.value_size, total], p, values, c, width);
            }
        }
        let mut out = vec![write(ctx, q.dtype(), &shape, y)?];
        if self.outputs > 1 {
            out.extend([k.clone(), v.clone()]);
        }
        if self.outputs > 3 {
            out.push(write(ctx, q.dtype(), &rows, scores.unwrap_or_default())?);
        }
        out.truncate(self.outputs);
        Ok(out)
    }
}

/// Where each head's matrix `[length, size]` lies in a tensor of rank 3 or 4.
struct Heads {
    batch: usize,
    head: usize,
    row: usize,
}

impl Heads {
    fn of(t: &Tensor, heads: usize, size: usize) -> Self {
        let batch = t.shape()[1..].iter().product();
        match t.rank() {
            3 => Self { batch, head: size, row: heads * size },
            _ => Self { batch, head: t.shape()[2] * size, row: size },
        }
    }

    fn matrix<'a, T: Copy>(&self, data: &'a [T], batch: usize, head: usize) -> View<'a, T> {
        let at = (batch * self.batch + head * self.head).min(data.len());
        View { data: &data[at..], row_stride: self.row, col_stride: 1 }
    }
}

/// Past keys or values, then those of now, as `[batch, heads, length, size]`.
fn present_state(
    ctx: &RunCtx<'_>,
    past: Option<&Tensor>,
    now: &Tensor,
    heads: usize,
) -> Result<Tensor, OpError> {
    let now = match *now.shape() {
        [b, s, w] => {
            let split = now.clone().reshape(&[b, s, heads, w / heads.max(1)])?;
            crate::transpose::transpose(ctx, split, &[0, 2, 1, 3])?
        }
        _ => now.clone(),
    };
    let Some(past) = past else { return Ok(now) };
    concat(ctx, &[past, &now], 2)
}

/// What is added to the logits.
struct Bias<'a, T: Real> {
    causal: bool,
    window: [Option<i64>; 2],
    mask: Mask<'a, T>,
    /// Steps of the mask along batch, head and query, and its keys.
    steps: [usize; 3],
    mask_keys: usize,
    /// For each batch entry how many keys precede the first query, and how many keys there are.
    offsets: Vec<(i64, i64)>,
}

enum Mask<'a, T: Real> {
    None,
    Bool(&'a [bool]),
    Number(Cow<'a, [T]>),
}

impl<'a, T: Real> Bias<'a, T> {
    fn new(
        ctx: &RunCtx<'_>,
        op: &Attention,
        inputs: &'a Inputs,
        e: &Extents<usize>,
        past: usize,
    ) -> Result<Self, OpError> {
        let total = e.keys + past;
        let (mut steps, mut mask_keys) = ([0; 3], total);
        let mask = match inputs.opt(3) {
            None => Mask::None,
            Some(t) => {
                let own = t.shape();
                let refuse = || {
                    OpError::shape(format!(
                        "attn_mask {own:?} does not broadcast to {:?}",
                        [e.batch, e.heads[0], e.queries, total]
                    ))
                };
                mask_keys =
                    own.last().copied().filter(|&n| n <= total && own.len() <= 4).ok_or_else(refuse)?;
                let mut step = mask_keys;
                let outer = [e.batch, e.heads[0], e.queries];
                for (i, &d) in own[..own.len() - 1].iter().enumerate().rev() {
                    let at = 4 - own.len() + i;
                    if d != 1 && d != outer[at] {
                        return Err(refuse());
                    }
                    steps[at] = if d == 1 { 0 } else { step };
                    step *= d;
                }
                match t.data() {
                    Data::Bool(b) => Mask::Bool(b),
                    _ => Mask::Number(elements(ctx, t)?),
                }
            }
        };
        let offsets = match inputs.opt(6) {
            None => vec![(past as i64, total as i64); e.batch],
            Some(_) if inputs.opt(4).is_some() => {
                return Err(OpError::input("nonpad_kv_seqlen does not go with past_key"));
            }
            Some(t) => {
                let lengths = t.as_slice::<i64>()?;
                if lengths.len() != e.batch {
                    return Err(OpError::shape(format!(
                        "{} lengths for a batch of {}",
                        lengths.len(),
                        e.batch
                    )));
                }
                lengths.iter().map(|&n| (n.saturating_sub(e.queries as i64), n)).collect()
            }
        };
        Ok(Self { causal: op.causal, window: op.window, mask, steps, mask_keys, offsets })
    }

    /// Adds to each row of logits; the rows in which every key is excluded.
    fn add(&self, logits: &mut [T], heads: usize, queries: usize, total: usize) -> Vec<usize> {
        let excluded = T::of(f64::NEG_INFINITY);
        let mut empty = Vec::new();
        for (row, logits) in logits.chunks_exact_mut(total.max(1)).enumerate() {
            let (b, h, i) = (row / (heads * queries), row / queries % heads, row % queries);
            let (offset, length) = self.offsets[b];
            let position = offset.saturating_add(i as i64);
            // The keys from `first` up to, not including, `end` may be seen.
            let first = self.window[0].map_or(0, |n| position.saturating_sub(n));
            let mut end = length.min(self.mask_keys as i64);
            if self.causal {
                end = end.min(position.saturating_add(1));
            }
            if let Some(n) = self.window[1] {
                end = end.min(position.saturating_add(n).saturating_add(1));
            }
            let end = end.clamp(0, total as i64) as usize;
            let first = first.clamp(0, end as i64) as usize;
            let at = b * self.steps[0] + h * self.steps[1] + i * self.steps[2];
            let mut all = true;
            for (j, x) in logits.iter_mut().enumerate() {
                let bias = match &self.mask {
                    _ if j < first || j >= end => excluded,
                    Mask::None => T::ZERO,
                    Mask::Bool(m) if m[at + j] => T::ZERO,
                    Mask::Bool(_) => excluded,
                    Mask::Number(m) => m[at + j],
                };
                all &= bias == excluded;
                *x = *x + bias;
            }
            if all {
                empty.push(row);
            }
        }
        empty
    }
}

/// Softmax of each row in `precision`, of the logits rounded to it; that of a 16-bit type is computed in f32 and rounded.
fn softmax_in<T: Real>(ctx: &RunCtx<'_>, precision: Option<DType>, x: &mut [T], width: usize) {
    fn through<T: Real, S: Real>(
        ctx: &RunCtx<'_>,
        x: &mut [T],
        width: usize,
        to: impl Fn(f64) -> S,
        from: impl Fn(S) -> f64,
    ) {
        let mut rounded: Vec<S> = x.iter().map(|x| to(x.wide())).collect();
        S::softmax(ctx.exec, &mut rounded, width);
        x.iter_mut().zip(rounded).for_each(|(x, s)| *x = T::of(from(s)));
    }
    match precision {
        Some(DType::F16) => {
            let round = |x: f64| f16::from_f64(x).to_f32();
            through(ctx, x, width, round, |s: f32| round(s.into()).into());
        }
        Some(DType::BF16) => {
            let round = |x: f64| bf16::from_f64(x).to_f32();
            through(ctx, x, width, round, |s: f32| round(s.into()).into());
        }
        Some(own) if own != T::DTYPE && own == DType::F64 => through(ctx, x, width, |x| x, |s: f64| s),
        Some(own) if own != T::DTYPE => through(ctx, x, width, |x| x as f32, f64::from),
        _ => T::softmax(ctx.exec, x, width),
    }
}
