//! TreeEnsemble and its older forms, TreeEnsembleRegressor and TreeEnsembleClassifier.

use std::collections::BTreeMap;

use isobit_tensor::{DType, Tensor};

use super::forest::{Aggregate, Child, Forest, Mode, Split, Votes};
use super::labels::Labels;
use super::post::Post;
use super::{matrix, ml, rows};
use crate::axes::{extents, fact};
use crate::cast::convert;
use crate::real::{Real, write};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[
    ml("TreeEnsemble", 5, ensemble),
    ml("TreeEnsembleClassifier", 5, |ctx| legacy(ctx, "class")),
    ml("TreeEnsembleRegressor", 5, |ctx| legacy(ctx, "target")),
];

/// The scores of every target: its base value last.
struct Scores<T> {
    forest: Forest<T>,
    aggregate: Aggregate,
    base: Vec<T>,
}

impl<T: Real> Scores<T> {
    fn new(forest: Forest<T>, aggregate: Aggregate, base: Vec<T>) -> Result<Self, OpError> {
        match base.len() == forest.targets || base.len() <= 1 {
            true => Ok(Self { forest, aggregate, base }),
            false => {
                Err(OpError::attribute(format!("{} base values for {} targets", base.len(), forest.targets)))
            }
        }
    }

    fn run(&self, ctx: &RunCtx<'_>, x: &Tensor) -> Result<(usize, Vec<T>), OpError> {
        let (n, width) = matrix(x.shape())?;
        if width < self.forest.features {
            return Err(OpError::shape(format!(
                "{width} features where the trees look at {}",
                self.forest.features
            )));
        }
        let x: Vec<T> = convert(ctx, x.clone(), T::DTYPE)?.into_vec()?;
        let mut out = ctx.memory.filled::<T>(&[n, self.forest.targets], T::ZERO)?;
        self.forest.run(ctx.exec, &x, width, self.aggregate, &mut out);
        if !self.base.is_empty() {
            out.iter_mut().enumerate().for_each(|(i, o)| {
                *o = *o + self.base[i % self.forest.targets % self.base.len()];
            });
        }
        Ok((n, out))
    }
}

/// In f32 or, where splits or weights are f64, in f64.
enum Either {
    Single(Scores<f32>),
    Double(Scores<f64>),
}

impl Either {
    fn work(&self) -> u64 {
        match self {
            Either::Single(s) => s.forest.work,
            Either::Double(s) => s.forest.work,
        }
    }

    fn targets(&self) -> usize {
        match self {
            Either::Single(s) => s.forest.targets,
            Either::Double(s) => s.forest.targets,
        }
    }
}

fn check(x: &Fact) -> Result<(), OpError> {
    match x.dtype.filter(|t| !matches!(t, DType::F32 | DType::F64 | DType::F16 | DType::I64 | DType::I32)) {
        Some(t) => Err(OpError::unsupported_type(t)),
        None => Ok(()),
    }
}

/// An attribute of numbers as f64, exactly: a list of floats, or `name` + `_as_tensor`.
fn numbers(ctx: &BuildCtx<'_>, name: &str) -> Result<Option<Vec<f64>>, OpError> {
    if let Some(t) = ctx.opt_tensor(&format!("{name}_as_tensor"))? {
        return Ok(Some(wide(t)?));
    }
    Ok(ctx.opt_floats(name)?.map(|v| v.iter().map(|&v| v.into()).collect()))
}

fn wide(t: &Tensor) -> Result<Vec<f64>, OpError> {
    match t.dtype() {
        DType::F32 => Ok(t.as_slice::<f32>()?.iter().map(|&v| v.into()).collect()),
        DType::F64 => Ok(t.as_slice::<f64>()?.to_vec()),
        DType::F16 => Ok(crate::arith::widen(t)?.into_iter().map(f64::from).collect()),
        other => Err(OpError::unsupported_type(other)),
    }
}

fn same_length(what: &str, has: usize, wanted: usize) -> Result<(), OpError> {
    match has == wanted {
        true => Ok(()),
        false => Err(OpError::attribute(format!("{what} has {has} entries where {wanted} are needed"))),
    }
}

fn id(v: i64) -> Result<u32, OpError> {
    u32::try_from(v).map_err(|_| OpError::attribute(format!("{v} where an index is needed")))
}

/// The trees of an old form as nodes by (tree, node), and votes at leaves.
fn legacy(ctx: &BuildCtx<'_>, votes: &str) -> Result<Box<dyn Op>, OpError> {
    let classifier = votes == "class";
    let double = ["nodes_values", "class_weights", "target_weights", "base_values"];
    let double = double.iter().any(|n| {
        ctx.opt_tensor(&format!("{n}_as_tensor")).ok().flatten().is_some_and(|t| t.dtype() == DType::F64)
    });
    let labels = match classifier {
        true => Some(Labels::needed(ctx, "classlabels_int64s", "classlabels_strings")?),
        false => None,
    };
    let targets = match &labels {
        Some(labels) => labels.len(),
        None => extents(&[ctx.int("n_targets", 1)?])?[0],
    };
    let aggregate = match ctx.choice(
        "aggregate_function",
        &[
            ("SUM", Aggregate::Sum),
            ("AVERAGE", Aggregate::Average),
            ("MIN", Aggregate::Min),
            ("MAX", Aggregate::Max),
        ],
    )? {
        _ if classifier => Aggregate::Sum,
        other => other,
    };
    let base = numbers(ctx, "base_values")?.unwrap_or_default();
    let scores = match double {
        true => Either::Double(scores_of::<f64>(ctx, votes, targets, aggregate, &base)?),
        false => Either::Single(scores_of::<f32>(ctx, votes, targets, aggregate, &base)?),
    };
    let post = Post::named(ctx)?;
    match labels {
        None => ctx.one(Regressor { scores, post, float: true }),
        Some(labels) => {
            let weights = numbers(ctx, "class_weights")?.unwrap_or_default();
            let ids = ctx.opt_ints("class_ids")?.unwrap_or_default();
            let single = ids.iter().all(|i| Some(i) == ids.first()).then(|| ids.first().copied()).flatten();
            let lone = labels.len() == 2 && single == Some(0);
            let positive = weights.iter().all(|&w| w >= 0.0);
            ctx.at_most(2, Classifier { scores, post, labels, lone, positive })
        }
    }
}

fn scores_of<T: Real>(
    ctx: &BuildCtx<'_>,
    votes: &str,
    targets: usize,
    aggregate: Aggregate,
    base: &[f64],
) -> Result<Scores<T>, OpError> {
    let forest = legacy_forest::<T>(ctx, votes, targets)?;
    Scores::new(forest, aggregate, base.iter().map(|&b| T::of(b)).collect())
}

fn legacy_forest<T: Real>(ctx: &BuildCtx<'_>, votes: &str, targets: usize) -> Result<Forest<T>, OpError> {
    let ints = |name: String| Ok::<_, OpError>(ctx.opt_ints(&name)?.unwrap_or_default());
    let nodes = |name: &str| ints(format!("nodes_{name}"));
    let (trees, ids) = (nodes("treeids")?, nodes("nodeids")?);
    let (yes, no, features) = (nodes("truenodeids")?, nodes("falsenodeids")?, nodes("featureids")?);
    let modes = ctx.opt_strs("nodes_modes")?.unwrap_or_default();
    let missing = nodes("missing_value_tracks_true")?;
    let values = numbers(ctx, "nodes_values")?.unwrap_or_default();
    let n = modes.len();
    for (what, has) in [
        ("nodes_treeids", trees.len()),
        ("nodes_nodeids", ids.len()),
        ("nodes_truenodeids", yes.len()),
        ("nodes_falsenodeids", no.len()),
        ("nodes_featureids", features.len()),
        ("nodes_values", values.len()),
    ] {
        same_length(what, has, n)?;
    }
    if !missing.is_empty() {
        same_length("nodes_missing_value_tracks_true", missing.len(), n)?;
    }
    // Where each (tree, node) is: a split or a leaf, in the order of the lists.
    let mut places = BTreeMap::new();
    let (mut splits, mut leaves) = (0, 0);
    for i in 0..n {
        let next = if modes[i] == "LEAF" { &mut leaves } else { &mut splits };
        let place = if modes[i] == "LEAF" { Child::Leaf(*next) } else { Child::Node(*next) };
        *next += 1;
        if places.insert((trees[i], ids[i]), place).is_some() {
            return Err(OpError::attribute(format!("tree {} has two nodes {}", trees[i], ids[i])));
        }
    }
    let find = |tree: i64, node: i64| {
        let found = places.get(&(tree, node)).copied();
        found.ok_or_else(|| OpError::attribute(format!("tree {tree} has no node {node}")))
    };
    let mut all = Vec::with_capacity(splits as usize);
    let mut roots: Vec<(i64, Child)> = Vec::new();
    for i in 0..n {
        // A tree's first node is its root; trees come in the order of their first nodes.
        if roots.iter().rev().take(1).all(|r| r.0 != trees[i]) && !roots.iter().any(|r| r.0 == trees[i]) {
            roots.push((trees[i], find(trees[i], ids[i])?));
        }
        let mode = match modes[i] {
            "LEAF" => continue,
            "BRANCH_LEQ" => Mode::Leq,
            "BRANCH_LT" => Mode::Lt,
            "BRANCH_GTE" => Mode::Gte,
            "BRANCH_GT" => Mode::Gt,
            "BRANCH_EQ" => Mode::Eq,
            "BRANCH_NEQ" => Mode::Neq,
            other => return Err(OpError::attribute(format!("nodes_modes has {other:?}"))),
        };
        all.push(Split {
            feature: id(features[i])?,
            mode,
            missing_true: missing.get(i).is_some_and(|&m| m != 0),
            value: T::of(values[i]),
            set: (0, 0),
            yes: find(trees[i], yes[i])?,
            no: find(trees[i], no[i])?,
        });
    }
    let of = |name: &str| ints(format!("{votes}_{name}"));
    let (vote_trees, vote_nodes, vote_ids) = (of("treeids")?, of("nodeids")?, of("ids")?);
    let weights = numbers(ctx, &format!("{votes}_weights"))?.unwrap_or_default();
    same_length("the nodes of votes", vote_nodes.len(), vote_trees.len())?;
    same_length("the ids of votes", vote_ids.len(), vote_trees.len())?;
    same_length("the weights of votes", weights.len(), vote_trees.len())?;
    let mut said: Vec<Votes<T>> = vec![Vec::new(); leaves as usize];
    for i in 0..vote_trees.len() {
        match find(vote_trees[i], vote_nodes[i])? {
            Child::Leaf(l) => said[l as usize].push((id(vote_ids[i])?, T::of(weights[i]))),
            // As the peers do: what does not stand at a leaf is never counted.
            Child::Node(_) => {}
        }
    }
    Forest::new(all, said, roots.into_iter().map(|(_, c)| c).collect(), Vec::new(), targets)
}

fn ensemble(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let splits = ctx.opt_tensor("nodes_splits")?.map(Tensor::dtype);
    let scores = match splits {
        Some(DType::F64) => Either::Double(Scores::new(forest::<f64>(ctx)?, aggregate(ctx)?, Vec::new())?),
        _ => Either::Single(Scores::new(forest::<f32>(ctx)?, aggregate(ctx)?, Vec::new())?),
    };
    ctx.one(Regressor { scores, post: Post::numbered(ctx)?, float: false })
}

fn aggregate(ctx: &BuildCtx<'_>) -> Result<Aggregate, OpError> {
    match ctx.int("aggregate_function", 1)? {
        0 => Ok(Aggregate::Average),
        1 => Ok(Aggregate::Sum),
        2 => Ok(Aggregate::Min),
        3 => Ok(Aggregate::Max),
        other => Err(OpError::attribute(format!("aggregate_function is {other}; accepted: 0 to 3"))),
    }
}

fn forest<T: Real>(ctx: &BuildCtx<'_>) -> Result<Forest<T>, OpError> {
    let ints = |name: &str| Ok::<_, OpError>(ctx.opt_ints(name)?.unwrap_or_default());
    let tensor = |name: &str| {
        ctx.opt_tensor(name)?.ok_or_else(|| OpError::attribute(format!("attribute '{name}' is missing")))
    };
    let modes = tensor("nodes_modes")?.as_slice::<u8>()?;
    let values = wide(tensor("nodes_splits")?)?;
    let features = ints("nodes_featureids")?;
    let (yes, no) = (ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?);
    let (yes_leaf, no_leaf) = (ints("nodes_trueleafs")?, ints("nodes_falseleafs")?);
    let missing = ints("nodes_missing_value_tracks_true")?;
    let n = modes.len();
    for (what, has) in [
        ("nodes_splits", values.len()),
        ("nodes_featureids", features.len()),
        ("nodes_truenodeids", yes.len()),
        ("nodes_falsenodeids", no.len()),
        ("nodes_trueleafs", yes_leaf.len()),
        ("nodes_falseleafs", no_leaf.len()),
    ] {
        same_length(what, has, n)?;
    }
    if !missing.is_empty() {
        same_length("nodes_missing_value_tracks_true", missing.len(), n)?;
    }
    let mut sets =
        ctx.opt_tensor("membership_values")?.map(wide).transpose()?.unwrap_or_default().into_iter();
    let mut members: Vec<T> = Vec::new();
    let mut splits = Vec::with_capacity(n);
    for i in 0..n {
        let mode = match modes[i] {
            0 => Mode::Leq,
            1 => Mode::Lt,
            2 => Mode::Gte,
            3 => Mode::Gt,
            4 => Mode::Eq,
            5 => Mode::Neq,
            6 => Mode::Member,
            other => return Err(OpError::attribute(format!("nodes_modes has {other}; accepted: 0 to 6"))),
        };
        let start = members.len() as u32;
        if mode == Mode::Member {
            // Sets come in the order of their nodes, each up to a NaN.
            members.extend(sets.by_ref().take_while(|v| !v.is_nan()).map(T::of));
        }
        let child = |to: i64, leaf: i64| {
            Ok::<_, OpError>(if leaf != 0 { Child::Leaf(id(to)?) } else { Child::Node(id(to)?) })
        };
        splits.push(Split {
            feature: id(features[i])?,
            mode,
            missing_true: missing.get(i).is_some_and(|&m| m != 0),
            value: T::of(values[i]),
            set: (start, members.len() as u32),
            yes: child(yes[i], yes_leaf[i])?,
            no: child(no[i], no_leaf[i])?,
        });
    }
    let weights = wide(tensor("leaf_weights")?)?;
    let targets = ints("leaf_targetids")?;
    same_length("leaf_targetids", targets.len(), weights.len())?;
    let leaves = targets
        .iter()
        .zip(weights)
        .map(|(&t, w)| Ok(vec![(id(t)?, T::of(w))]))
        .collect::<Result<_, OpError>>()?;
    let roots =
        ints("tree_roots")?.iter().map(|&r| Ok(Child::Node(id(r)?))).collect::<Result<_, OpError>>()?;
    Forest::new(splits, leaves, roots, members, extents(&[ctx.int("n_targets", 1)?])?[0])
}

struct Regressor {
    scores: Either,
    post: Post,
    /// Whether the result is f32 whatever the operand is.
    float: bool,
}

impl Op for Regressor {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check(x)?;
        let dtype = if self.float { Some(DType::F32) } else { x.dtype };
        Ok(vec![Fact::new(dtype, Some(vec![rows(x), Some(self.scores.targets())]))])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let own = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
        (rows(fact(inputs, 0)).unwrap_or(0) as u64).saturating_mul(self.scores.work()).saturating_add(own)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let dtype = if self.float { DType::F32 } else { x.dtype() };
        let (n, y) = match &self.scores {
            Either::Single(s) => s.run(ctx, x).map(|(n, y)| (n, Tensor::vector(y)))?,
            Either::Double(s) => s.run(ctx, x).map(|(n, y)| (n, Tensor::vector(y)))?,
        };
        let shape = [n, self.scores.targets()];
        if self.post == Post::None {
            return Ok(vec![convert(ctx, y.reshape(&shape)?, dtype)?]);
        }
        let mut y: Vec<f32> = convert(ctx, y, DType::F32)?.into_vec()?;
        self.post.apply(ctx.exec, &mut y, shape[1]);
        Ok(vec![write::<f32>(ctx, dtype, &shape, y)?])
    }
}

/// The class of the greatest score, the first of equal ones. Where all votes are for the first of two classes, its score s is
/// that of the second: above 0.5, or above 0 where weights may be negative, it is the second class. The scores are then, for
/// LOGISTIC, those of -s and s; else 1 - s and s, or -s and s where weights may be negative, without a transform.
struct Classifier {
    scores: Either,
    post: Post,
    labels: Labels,
    /// Whether only the first of two classes has votes.
    lone: bool,
    positive: bool,
}

impl Op for Classifier {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        check(x)?;
        let n = rows(x);
        let scores = Fact::new(Some(DType::F32), Some(vec![n, Some(self.labels.len())]));
        Ok(vec![Fact::new(Some(self.labels.dtype()), Some(vec![n])), scores])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let own = outputs.iter().filter_map(Fact::numel).fold(0, usize::saturating_add) as u64;
        (rows(fact(inputs, 0)).unwrap_or(0) as u64).saturating_mul(self.scores.work()).saturating_add(own)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let (n, classes, mut scores) = match &self.scores {
            Either::Single(s) => self.decide(s.run(ctx, x)?),
            Either::Double(s) => self.decide(s.run(ctx, x)?),
        };
        if !self.lone || self.post == Post::Logistic {
            self.post.apply(ctx.exec, &mut scores, self.labels.len());
        }
        Ok(vec![self.labels.of(&classes), Tensor::new(&[n, self.labels.len()], scores)?])
    }
}

impl Classifier {
    /// The number of rows, their classes, and their scores in f32.
    fn decide<T: Real>(&self, (n, scores): (usize, Vec<T>)) -> (usize, Vec<i64>, Vec<f32>) {
        let width = self.labels.len();
        let mut classes = Vec::with_capacity(n);
        let mut out = Vec::with_capacity(scores.len());
        for row in scores.chunks_exact(width.max(1)) {
            match self.lone {
                true => {
                    let s = row[0];
                    let limit = if self.positive { T::of(0.5) } else { T::ZERO };
                    classes.push((s > limit).into());
                    let rest = self.positive && self.post != Post::Logistic;
                    let other = if rest { T::ONE - s } else { -s };
                    out.extend([other, s].map(|s| s.wide() as f32));
                }
                false => {
                    let better = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
                    classes.push((1..row.len()).fold(0, better) as i64);
                    out.extend(row.iter().map(|s| s.wide() as f32));
                }
            }
        }
        (n, classes, out)
    }
}
