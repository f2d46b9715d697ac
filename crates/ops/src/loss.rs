//! Losses of a classification: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss.

use isobit_tensor::Tensor;

use crate::axes::{fact, ints};
use crate::real::{Real, read, real, write};
use crate::softmax::log_softmax;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef::onnx("NegativeLogLikelihoodLoss", 22, |ctx| loss(ctx, false)),
    OpDef::onnx("SoftmaxCrossEntropyLoss", 13, |ctx| loss(ctx, true)),
];

#[derive(Clone, Copy, PartialEq)]
enum Reduction {
    None,
    Sum,
    Mean,
}

struct Loss {
    /// Whether the operand are scores rather than log-probabilities.
    scores: bool,
    reduction: Reduction,
    ignore: Option<i64>,
    /// Whether the log-probabilities are a result too.
    log_prob: bool,
}

fn loss(ctx: &BuildCtx<'_>, scores: bool) -> Result<Box<dyn Op>, OpError> {
    let reduction = match ctx.str("reduction", "mean")? {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        other => return Err(OpError::attribute(format!("reduction is {other:?}; give none, sum or mean"))),
    };
    let log_prob = ctx.outputs() > 1;
    let op = Loss { scores, reduction, ignore: ctx.opt_int("ignore_index")?, log_prob };
    ctx.at_most(if scores { 2 } else { 1 }, op)
}

impl Op for Loss {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        let shape = match self.reduction {
            Reduction::None => fact(inputs, 1).shape.clone(),
            _ => Some(Vec::new()),
        };
        let mut out = vec![Fact::new(x.dtype, shape)];
        if self.log_prob {
            out.push(Fact::new(x.dtype, x.shape.clone()));
        }
        Ok(out)
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let each = if self.scores { 10 } else { 1 };
        (fact(inputs, 0).numel().unwrap_or(0) as u64).saturating_mul(each)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        real!(inputs.get(0)?.dtype(), T => self.run_in::<T>(ctx, &inputs))
    }
}

impl Loss {
    fn run_in<T: Real>(&self, ctx: &RunCtx<'_>, inputs: &Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, target) = (inputs.get(0)?, inputs.get(1)?);
        let dtype = x.dtype();
        let &[n, classes, ref rest @ ..] = x.shape() else {
            return Err(OpError::shape(format!("an input of shape {:?}; it must be [N, C, ...]", x.shape())));
        };
        if target.shape() != [&[n], rest].concat() {
            let message = format!("a target of shape {:?} for an input of {:?}", target.shape(), x.shape());
            return Err(OpError::shape(message));
        }
        let weights = inputs.opt(2).map(|w| read::<T>(ctx, w)).transpose()?;
        if let Some(w) = weights.as_ref().filter(|w| w.len() != classes) {
            return Err(OpError::shape(format!("{} weights for {classes} classes", w.len())));
        }
        let mut x = Tensor::new(x.shape(), read::<T>(ctx, x)?)?;
        if self.scores {
            x = log_softmax(ctx, x, 1)?;
        }
        let inner = rest.iter().product::<usize>().max(1);
        let size = (classes, inner);
        let samples = self.samples(x.as_slice::<T>()?, &ints(target)?, size, weights.as_deref())?;
        let loss = match self.reduction {
            Reduction::None => {
                write(ctx, dtype, target.shape(), samples.into_iter().map(|s| s.0).collect::<Vec<T>>())?
            }
            _ => {
                let mut total = T::sum(samples.iter().map(|s| s.0));
                if self.reduction == Reduction::Mean {
                    total = total / T::sum(samples.iter().map(|s| s.1));
                }
                write(ctx, dtype, &[], vec![total])?
            }
        };
        let log_prob = self.log_prob.then(|| crate::cast::convert(ctx, x, dtype)).transpose()?;
        Ok([Some(loss), log_prob].into_iter().flatten().collect())
    }

    /// Loss and weight of each sample of an input [N, classes, inner]; both are +0 where the target is to be ignored.
    fn samples<T: Real>(
        &self,
        x: &[T],
        target: &[i64],
        (classes, inner): (usize, usize),
        weights: Option<&[T]>,
    ) -> Result<Vec<(T, T)>, OpError> {
        let at = |i: usize, class: usize| (i / inner * classes + class) * inner + i % inner;
        target
            .iter()
            .enumerate()
            .map(|(i, &c)| {
                if self.ignore == Some(c) {
                    return Ok((T::ZERO, T::ZERO));
                }
                let class = usize::try_from(c).ok().filter(|&c| c < classes);
                let class = class.ok_or_else(|| {
                    OpError::index(format!("target {c}; accepted: 0 up to, not including, {classes}"))
                })?;
                let loss = -x[at(i, class)];
                Ok(match weights {
                    Some(w) => (loss * w[class], w[class]),
                    None => (loss, T::ONE),
                })
            })
            .collect()
    }
}
