//! LinearRegressor and LinearClassifier.

use isobit_tensor::{DType, Tensor};

use super::labels::Labels;
use super::post::Post;
use super::{floats, matrix, ml, rows};
use crate::axes::{extents, fact};
use crate::product::Product;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    ml("LinearRegressor", 1, |ctx| {
        ctx.one(Linear { scores: Scores::new(ctx, None)?, post: Post::named(ctx)? })
    }),
    ml("LinearClassifier", 1, classifier),
];

/// Chains over the features, ascending, then + intercept.
struct Scores {
    /// [features, targets].
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    targets: usize,
}

impl Scores {
    fn new(ctx: &BuildCtx<'_>, targets: Option<usize>) -> Result<Self, OpError> {
        let given = ctx.opt_floats("coefficients")?.unwrap_or_default();
        let targets = match targets {
            Some(n) => n,
            None => extents(&[ctx.int("targets", 1)?])?[0],
        };
        let intercepts = ctx.opt_floats("intercepts")?.unwrap_or_default().to_vec();
        if targets == 0
            || given.len() % targets != 0
            || !(intercepts.is_empty() || intercepts.len() == targets)
        {
            let message = format!(
                "{} coefficients and {} intercepts for {targets} targets",
                given.len(),
                intercepts.len()
            );
            return Err(OpError::attribute(message));
        }
        let features = given.len() / targets;
        let coefficients =
            (0..features).flat_map(|f| (0..targets).map(move |t| given[t * features + f])).collect();
        Ok(Self { coefficients, intercepts, targets })
    }

    fn run(&self, ctx: &RunCtx<'_>, x: &Tensor) -> Result<(usize, Vec<f32>), OpError> {
        let (n, width) = matrix(x.shape())?;
        if width * self.targets != self.coefficients.len() {
            let features = self.coefficients.len() / self.targets;
            return Err(OpError::shape(format!("{width} features; the model has {features}")));
        }
        let mut out = ctx.memory.filled::<f32>(&[n, self.targets], 0.0)?;
        f32::product(ctx.exec, n, self.targets, width, &floats(ctx, x)?, &self.coefficients, &mut out);
        if !self.intercepts.is_empty() {
            out.iter_mut().enumerate().for_each(|(i, o)| *o += self.intercepts[i % self.targets]);
        }
        Ok((n, out))
    }

    fn cost(&self, inputs: &[Option<Fact>]) -> u64 {
        (rows(fact(inputs, 0)).unwrap_or(0) as u64).saturating_mul(self.coefficients.len() as u64)
    }
}

struct Linear {
    scores: Scores,
    post: Post,
}

impl Op for Linear {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(Some(DType::F32), Some(vec![rows(fact(inputs, 0)), Some(self.scores.targets)]))])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        self.scores.cost(inputs)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (n, mut y) = self.scores.run(ctx, inputs.get(0)?)?;
        self.post.apply(ctx.exec, &mut y, self.scores.targets);
        Ok(vec![Tensor::new(&[n, self.scores.targets], y)?])
    }
}

/// The class of the greatest score, the first of equal ones. A single score s stands for the second of two classes when it
/// is above 0; the scores are then 1 - s and s after the transform, which for SOFTMAX and SOFTMAX_ZERO is none.
struct Classifier {
    scores: Scores,
    post: Post,
    labels: Labels,
}

fn classifier(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let labels = Labels::needed(ctx, "classlabels_ints", "classlabels_strings")?;
    let intercepts = ctx.opt_floats("intercepts")?.unwrap_or_default().len();
    let targets = if intercepts > 0 { intercepts } else { labels.len() };
    if targets != labels.len() && !(targets == 1 && labels.len() == 2) {
        return Err(OpError::attribute(format!("{targets} intercepts for {} labels", labels.len())));
    }
    ctx.at_most(2, Classifier { scores: Scores::new(ctx, Some(targets))?, post: Post::named(ctx)?, labels })
}

impl Op for Classifier {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let n = rows(fact(inputs, 0));
        let scores = Fact::new(Some(DType::F32), Some(vec![n, Some(self.labels.len())]));
        Ok(vec![Fact::new(Some(self.labels.dtype()), Some(vec![n])), scores])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        self.scores.cost(inputs)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (n, mut y) = self.scores.run(ctx, inputs.get(0)?)?;
        let (has, wants) = (self.scores.targets, self.labels.len());
        let better =
            |row: &[f32]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }) as i64;
        if has == wants {
            let classes: Vec<i64> = y.chunks_exact(has).map(better).collect();
            self.post.apply(ctx.exec, &mut y, has);
            return Ok(vec![self.labels.of(&classes), Tensor::new(&[n, has], y)?]);
        }
        let classes: Vec<i64> = y.iter().map(|&s| (s > 0.0).into()).collect();
        if !matches!(self.post, Post::Softmax | Post::SoftmaxZero) {
            self.post.apply(ctx.exec, &mut y, 1);
        }
        let both = y.iter().flat_map(|&s| [1.0 - s, s]).collect();
        Ok(vec![self.labels.of(&classes), Tensor::new(&[n, 2], both)?])
    }
}
