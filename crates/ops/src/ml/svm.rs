//! SVMRegressor and SVMClassifier.

use isobit_numerics::{chain, exp, pow, sigmoid, sum, sum_squares, tanh};
use isobit_tensor::{DType, Tensor};

use super::labels::Labels;
use super::post::Post;
use super::{floats, matrix, ml, rows};
use crate::axes::{extents, fact};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[ml("SVMRegressor", 1, regressor), ml("SVMClassifier", 1, classifier)];

/// With d the chain over the features, ascending: d, pow(gamma d + coef0, degree), tanh(gamma d + coef0), or
/// exp(-gamma s), s the 32-lane sum of squared differences.
#[derive(Clone, Copy)]
enum Kernel {
    Linear,
    Poly { gamma: f32, coef0: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, coef0: f32 },
}

impl Kernel {
    fn new(ctx: &BuildCtx<'_>) -> Result<Self, OpError> {
        let (gamma, coef0, degree) = match ctx.opt_floats("kernel_params")?.unwrap_or_default() {
            [] => (0.0, 0.0, 0.0),
            &[gamma, coef0, degree] => (gamma, coef0, degree),
            other => {
                return Err(OpError::attribute(format!("kernel_params has {} numbers; give 3", other.len())));
            }
        };
        ctx.choice(
            "kernel_type",
            &[
                ("LINEAR", Kernel::Linear),
                ("POLY", Kernel::Poly { gamma, coef0, degree }),
                ("RBF", Kernel::Rbf { gamma }),
                ("SIGMOID", Kernel::Sigmoid { gamma, coef0 }),
            ],
        )
    }

    fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let dot = || chain(0.0, a.iter().copied().zip(b.iter().copied()));
        match self {
            Kernel::Linear => dot(),
            Kernel::Poly { gamma, coef0, degree } => pow(dot() * gamma + coef0, degree),
            Kernel::Sigmoid { gamma, coef0 } => tanh(dot() * gamma + coef0),
            Kernel::Rbf { gamma } => exp(-gamma * sum_squares(a.iter().zip(b).map(|(a, b)| a - b))),
        }
    }
}

/// Vectors one after the other.
struct Vectors {
    data: Vec<f32>,
    width: usize,
}

impl Vectors {
    fn new(name: &str, data: &[f32], count: usize) -> Result<Self, OpError> {
        match data.len().checked_rem(count) {
            Some(0) => Ok(Self { data: data.to_vec(), width: data.len() / count }),
            _ => {
                Err(OpError::attribute(format!("{name} has {} numbers, no multiple of {count}", data.len())))
            }
        }
    }

    fn get(&self, i: usize) -> &[f32] {
        &self.data[i * self.width..(i + 1) * self.width]
    }
}

/// One score a row: the chain over the support vectors of coefficient and kernel, then + rho.
struct Regressor {
    kernel: Kernel,
    supports: Option<Vectors>,
    coefficients: Vec<f32>,
    rho: f32,
    one_class: bool,
    post: Post,
}

fn regressor(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let n = extents(&[ctx.int("n_supports", 0)?])?[0];
    let coefficients = ctx.opt_floats("coefficients")?.unwrap_or_default().to_vec();
    let supports = match n {
        0 => None,
        n if n == coefficients.len() => {
            Some(Vectors::new("support_vectors", ctx.opt_floats("support_vectors")?.unwrap_or_default(), n)?)
        }
        n => return Err(OpError::attribute(format!("{} coefficients for {n} supports", coefficients.len()))),
    };
    let Some(&rho) = ctx.opt_floats("rho")?.and_then(<[f32]>::first) else {
        return Err(OpError::attribute("attribute 'rho' is missing"));
    };
    // Without support vectors the coefficients are those of the features.
    let kernel = if supports.is_some() { Kernel::new(ctx)? } else { Kernel::Linear };
    let one_class = ctx.flag("one_class", false)?;
    ctx.one(Regressor { kernel, supports, coefficients, rho, one_class, post: Post::named(ctx)? })
}

impl Regressor {
    fn width(&self) -> usize {
        self.supports.as_ref().map_or(self.coefficients.len(), |s| s.width)
    }

    fn score(&self, row: &[f32]) -> f32 {
        let s = match &self.supports {
            None => self.kernel.of(row, &self.coefficients),
            Some(v) => chain(
                0.0,
                self.coefficients.iter().enumerate().map(|(j, &c)| (c, self.kernel.of(row, v.get(j)))),
            ),
        };
        let s = s + self.rho;
        match self.one_class {
            true if s > 0.0 => 1.0,
            true => -1.0,
            false => s,
        }
    }
}

impl Op for Regressor {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(Some(DType::F32), Some(vec![rows(fact(inputs, 0)), Some(1)]))])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let each = self.supports.as_ref().map_or(self.coefficients.len(), |s| s.data.len());
        (rows(fact(inputs, 0)).unwrap_or(0) as u64).saturating_mul(each as u64 + 20)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let (n, width) = features(x, self.width())?;
        let data = floats(ctx, x)?;
        let mut y: Vec<f32> = data.chunks_exact(width.max(1)).map(|row| self.score(row)).collect();
        y.resize(n, self.rho);
        self.post.apply(ctx.exec, &mut y, 1);
        Ok(vec![Tensor::new(&[n, 1], y)?])
    }
}

fn features(x: &Tensor, wanted: usize) -> Result<(usize, usize), OpError> {
    match matrix(x.shape())? {
        (n, width) if width == wanted => Ok((n, width)),
        (_, width) => Err(OpError::shape(format!("{width} features; the model has {wanted}"))),
    }
}

/// One against one, by libsvm: for classes i < j the score is rho + the chains of class i's and of class j's support vectors; a
/// score above 0 is a vote for i, else for j. With prob_a and prob_b scores become probabilities (see [`coupled`]). Without
/// support vectors there is a linear score a class.
struct Classifier {
    kernel: Kernel,
    supports: Option<Supports>,
    /// Without support vectors: the coefficients of each class.
    linear: Option<Vectors>,
    rho: Vec<f32>,
    probabilities: Option<(Vec<f32>, Vec<f32>)>,
    labels: Labels,
    post: Post,
}

struct Supports {
    vectors: Vectors,
    /// Where each class's vectors begin, and the end of the last.
    starts: Vec<usize>,
    /// [classes - 1, vectors].
    coefficients: Vectors,
}

fn classifier(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let labels = Labels::needed(ctx, "classlabels_ints", "classlabels_strings")?;
    let classes = labels.len();
    let coefficients = ctx.opt_floats("coefficients")?.unwrap_or_default();
    let rho = ctx.opt_floats("rho")?.unwrap_or_default().to_vec();
    let per_class = extents(ctx.opt_ints("vectors_per_class")?.unwrap_or_default())?;
    let count = per_class.iter().fold(0usize, |n, &c| n.saturating_add(c));
    let pairs = classes * classes.saturating_sub(1) / 2;
    let (mut supports, mut linear) = (None, None);
    if count > 0 {
        if per_class.len() != classes || classes < 2 || rho.len() != pairs {
            let message =
                format!("{classes} labels, {} vectors_per_class and {} rho", per_class.len(), rho.len());
            return Err(OpError::attribute(format!(
                "{message}; there must be one of each class and a rho of each pair"
            )));
        }
        let vectors =
            Vectors::new("support_vectors", ctx.opt_floats("support_vectors")?.unwrap_or_default(), count)?;
        let starts = std::iter::once(0)
            .chain(per_class.iter().scan(0, |at, &n| {
                *at += n;
                Some(*at)
            }))
            .collect();
        let own = Vectors::new("coefficients", coefficients, classes - 1)?;
        if own.width != count {
            return Err(OpError::attribute(format!(
                "{} coefficients for {count} vectors",
                coefficients.len()
            )));
        }
        supports = Some(Supports { vectors, starts, coefficients: own });
    } else {
        if rho.is_empty() {
            return Err(OpError::attribute("attribute 'rho' is missing"));
        }
        linear = Some(Vectors::new("coefficients", coefficients, classes)?);
    }
    let probabilities = match (ctx.opt_floats("prob_a")?, ctx.opt_floats("prob_b")?) {
        (Some(a), Some(b)) if !a.is_empty() && supports.is_some() => {
            if a.len() != pairs || b.len() != pairs {
                return Err(OpError::attribute(format!("prob_a and prob_b must have {pairs} numbers")));
            }
            Some((a.to_vec(), b.to_vec()))
        }
        _ => None,
    };
    ctx.at_most(
        2,
        Classifier {
            kernel: if supports.is_some() { Kernel::new(ctx)? } else { Kernel::Linear },
            supports,
            linear,
            rho,
            probabilities,
            labels,
            post: Post::named(ctx)?,
        },
    )
}

impl Supports {
    /// The score of each pair and the votes of each class.
    fn scores(&self, kernel: Kernel, row: &[f32], rho: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let classes = self.starts.len() - 1;
        let count = self.starts[classes];
        let kernels: Vec<f32> = (0..count).map(|j| kernel.of(row, self.vectors.get(j))).collect();
        let mut votes = vec![0.0; classes];
        let mut scores = Vec::new();
        for i in 0..classes {
            for j in i + 1..classes {
                let part = |own: usize, row: usize| {
                    let range = self.starts[own]..self.starts[own + 1];
                    let pairs = range.map(|v| (self.coefficients.get(row)[v], kernels[v]));
                    chain(0.0, pairs)
                };
                let s = rho[scores.len()] + part(i, j - 1) + part(j, i);
                votes[if s > 0.0 { i } else { j }] += 1.0;
                scores.push(s);
            }
        }
        (scores, votes)
    }
}

/// The probabilities of the classes from those of pairs, by libsvm's iteration (Wu, Lin and Weng's second method), in f32: at most
/// max(100, k) rounds, until no component is further than 0.005 / k from its mean.
fn coupled(k: usize, pair: impl Fn(usize) -> f32) -> Vec<f32> {
    let mut r = vec![0.0f32; k * k];
    let mut at = 0;
    for i in 0..k {
        for j in i + 1..k {
            let p = pair(at);
            let p = isobit_numerics::min(isobit_numerics::max(p, 1e-7), 1.0 - 1e-7);
            (r[i * k + j], r[j * k + i]) = (p, 1.0 - p);
            at += 1;
        }
    }
    let mut q = vec![0.0f32; k * k];
    for t in 0..k {
        for j in 0..k {
            if j == t {
                q[t * k + t] = sum_squares((0..k).filter(|&i| i != t).map(|i| r[i * k + t]));
            } else {
                q[t * k + j] = -(r[j * k + t] * r[t * k + j]);
            }
        }
    }
    let mut p = vec![1.0 / k as f32; k];
    for _ in 0..k.max(100) {
        let mut qp: Vec<f32> = (0..k).map(|t| chain(0.0, (0..k).map(|j| (q[t * k + j], p[j])))).collect();
        let mut pqp = sum(p.iter().zip(&qp).map(|(p, q)| p * q));
        let furthest = qp.iter().fold(0.0, |m, q| isobit_numerics::max(m, (q - pqp).abs()));
        if furthest < 0.005 / k as f32 {
            break;
        }
        for t in 0..k {
            let own = q[t * k + t];
            let step = (pqp - qp[t]) / own;
            p[t] += step;
            let scale = 1.0 + step;
            pqp = (pqp + step * (step * own + 2.0 * qp[t])) / (scale * scale);
            p.iter_mut().for_each(|p| *p /= scale);
            qp.iter_mut().enumerate().for_each(|(j, v)| *v = (*v + step * q[t * k + j]) / scale);
        }
    }
    p
}

impl Classifier {
    fn width(&self) -> usize {
        match (&self.supports, &self.linear) {
            (Some(s), _) => s.vectors.width,
            (_, Some(l)) => l.width,
            _ => 0,
        }
    }

    /// The class and the scores of a row.
    fn row(&self, ctx: &RunCtx<'_>, row: &[f32]) -> (i64, Vec<f32>) {
        let k = self.labels.len();
        let (mut scores, votes) = match (&self.supports, &self.linear) {
            (Some(s), _) => {
                let (scores, votes) = s.scores(self.kernel, row, &self.rho);
                (scores, Some(votes))
            }
            (_, Some(l)) => ((0..k).map(|c| self.rho[0] + self.kernel.of(row, l.get(c))).collect(), None),
            _ => (Vec::new(), None),
        };
        if let Some((a, b)) = &self.probabilities {
            scores = coupled(k, |i| 1.0 - sigmoid(scores[i] * a[i] + b[i]));
        }
        let by = votes.as_ref().unwrap_or(&scores);
        let best = (1..by.len()).fold(0, |best, i| if by[i] > by[best] { i } else { best });
        match scores[..] {
            // Two classes and a score between them.
            [s] if k == 2 => {
                scores = if self.post == Post::Probit { vec![s] } else { vec![-s, s] };
                let width = scores.len();
                self.post.apply(ctx.exec, &mut scores, width);
            }
            _ => {
                let width = scores.len();
                self.post.apply(ctx.exec, &mut scores, width);
            }
        }
        (best as i64, scores)
    }

    /// Scores of a row.
    fn columns(&self) -> usize {
        let k = self.labels.len();
        match self.supports.is_some() && self.probabilities.is_none() {
            true if k == 2 => {
                if self.post == Post::Probit {
                    1
                } else {
                    2
                }
            }
            true => k * (k - 1) / 2,
            false => k,
        }
    }
}

impl Op for Classifier {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let n = rows(fact(inputs, 0));
        let scores = Fact::new(Some(DType::F32), Some(vec![n, Some(self.columns())]));
        Ok(vec![Fact::new(Some(self.labels.dtype()), Some(vec![n])), scores])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let k = self.labels.len() as u64;
        let kernels = self
            .supports
            .as_ref()
            .map_or(0, |s| s.vectors.data.len() as u64 + 20 * s.coefficients.width as u64);
        let votes = self.supports.as_ref().map_or(0, |s| k.saturating_mul(s.coefficients.width as u64));
        let linear = self.linear.as_ref().map_or(0, |l| l.data.len() as u64);
        let coupling =
            if self.probabilities.is_some() { k.max(100).saturating_mul(2 * k).saturating_mul(k) } else { 0 };
        let each = [kernels, votes, linear, coupling].into_iter().fold(1, u64::saturating_add);
        (rows(fact(inputs, 0)).unwrap_or(0) as u64).saturating_mul(each)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let (n, width) = features(x, self.width())?;
        let data = floats(ctx, x)?;
        let mut out = ctx.memory.alloc::<f32>(&[n, self.columns()])?;
        let mut classes = Vec::with_capacity(n);
        for r in 0..n {
            let (class, scores) = self.row(ctx, &data[r * width..(r + 1) * width]);
            classes.push(class);
            out[r * self.columns()..(r + 1) * self.columns()].copy_from_slice(&scores);
        }
        Ok(vec![self.labels.of(&classes), Tensor::new(&[n, self.columns()], out)?])
    }
}
