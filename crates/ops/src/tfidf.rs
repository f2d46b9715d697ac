//! TfIdfVectorizer: weighted counts of n-grams.

use std::collections::BTreeMap;

use isobit_tensor::{DType, Tensor};

use crate::axes::{fact, ints};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("TfIdfVectorizer", 9, tf_idf)];

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Token {
    Int(i64),
    Text(String),
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// The count.
    Tf,
    /// The weight, if there is any.
    Idf,
    /// The count times the weight.
    TfIdf,
}

struct TfIdf {
    mode: Mode,
    /// Coordinate and weight of each n-gram, in the pool's order.
    grams: Vec<(usize, f32)>,
    /// The n-grams of the lengths that count.
    index: BTreeMap<Vec<Token>, usize>,
    lengths: (usize, usize),
    skips: usize,
    width: usize,
}

fn tf_idf(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let mode = match ctx.opt_str("mode")? {
        Some("TF") => Mode::Tf,
        Some("IDF") => Mode::Idf,
        Some("TFIDF") => Mode::TfIdf,
        other => return Err(OpError::attribute(format!("mode is {other:?}; accepted: TF, IDF, TFIDF"))),
    };
    let count = |name: &str, least: i64| -> Result<usize, OpError> {
        let n = ctx.opt_int(name)?.filter(|&n| n >= least);
        n.and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| OpError::attribute(format!("{name} is needed and must be at least {least}")))
    };
    let lengths = (count("min_gram_length", 1)?, count("max_gram_length", 1)?);
    if lengths.0 > lengths.1 {
        return Err(OpError::attribute("min_gram_length is larger than max_gram_length"));
    }
    let pool: Vec<Token> = match (ctx.opt_ints("pool_int64s")?, ctx.opt_strs("pool_strings")?) {
        (Some(v), None) => v.iter().map(|&i| Token::Int(i)).collect(),
        (None, Some(v)) => v.into_iter().map(|s| Token::Text(s.to_owned())).collect(),
        _ => return Err(OpError::attribute("give one of pool_int64s and pool_strings")),
    };
    let indexes = ctx.opt_ints("ngram_indexes")?.unwrap_or_default();
    let weights = ctx.opt_floats("weights")?;
    if weights.is_some_and(|w| w.len() != indexes.len()) {
        return Err(OpError::attribute("weights and ngram_indexes differ in length"));
    }
    let coordinates = crate::axes::extents(indexes)?;
    let width = coordinates.iter().max().map_or(0, |m| m + 1);
    let grams = coordinates.iter().enumerate().map(|(i, &c)| (c, weights.map_or(1.0, |w| w[i]))).collect();
    let starts = crate::axes::extents(ctx.opt_ints("ngram_counts")?.unwrap_or_default())?;
    let mut op =
        TfIdf { mode, grams, index: BTreeMap::new(), lengths, skips: count("max_skip_count", 0)?, width };
    op.fill(&pool, &starts)?;
    ctx.one(op)
}

impl TfIdf {
    /// Reads the pool: from `starts[n - 1]` on it holds n-grams of n tokens.
    fn fill(&mut self, pool: &[Token], starts: &[usize]) -> Result<(), OpError> {
        let mut id = 0;
        for (n, &start) in (1usize..).zip(starts) {
            let end = starts.get(n).copied().unwrap_or(pool.len());
            let part = pool.get(start..end).ok_or_else(|| {
                OpError::attribute(format!("ngram_counts {starts:?} does not divide {} tokens", pool.len()))
            })?;
            if part.len() % n != 0 {
                return Err(OpError::attribute(format!(
                    "{} tokens are no whole number of {n}-grams",
                    part.len()
                )));
            }
            for gram in part.chunks_exact(n) {
                if (self.lengths.0..=self.lengths.1).contains(&n) {
                    self.index.insert(gram.to_vec(), id);
                }
                id += 1;
            }
        }
        match id == self.grams.len() {
            true => Ok(()),
            false => Err(OpError::attribute(format!("{id} n-grams, but {} ngram_indexes", self.grams.len()))),
        }
    }

    /// How often each n-gram occurs in a row: with 0 up to `skips` tokens left out between neighbours; a single token
    /// is counted once.
    fn counts(&self, row: &[Token]) -> Vec<u64> {
        let mut counts = vec![0; self.grams.len()];
        let longest = self.lengths.1.min(row.len());
        for n in self.lengths.0..=longest {
            let most = if n == 1 { 0 } else { self.skips.min(row.len()) };
            for step in 1..=most + 1 {
                let reach = (n - 1) * step;
                for start in 0..row.len().saturating_sub(reach) {
                    let gram: Vec<Token> = (0..n).map(|i| row[start + i * step].clone()).collect();
                    if let Some(&id) = self.index.get(&gram) {
                        counts[id] += 1;
                    }
                }
            }
        }
        counts
    }

    fn row(&self, tokens: &[Token], out: &mut [f32]) {
        for (&(at, weight), count) in self.grams.iter().zip(self.counts(tokens)) {
            if count > 0 {
                out[at] += match self.mode {
                    Mode::Tf => count as f32,
                    Mode::Idf => weight,
                    Mode::TfIdf => weight * count as f32,
                };
            }
        }
    }
}

impl Op for TfIdf {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let shape = match fact(inputs, 0).shape.as_deref() {
            None => None,
            Some([] | [_]) => Some(vec![Some(self.width)]),
            Some([n, _]) => Some(vec![*n, Some(self.width)]),
            Some(other) => {
                return Err(OpError::shape(format!("an input of rank {}; it must be 1 or 2", other.len())));
            }
        };
        Ok(vec![Fact::new(Some(DType::F32), shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let tokens = fact(inputs, 0).numel().unwrap_or(0) as u64;
        let each = (self.lengths.1 as u64)
            .saturating_mul(self.lengths.1 as u64)
            .saturating_mul(self.skips as u64 + 1);
        let own = outputs.first().and_then(Fact::numel).unwrap_or(0) as u64;
        tokens.saturating_mul(each).saturating_add(own)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let (rows, length, shape) = match *x.shape() {
            [] => (1, 1, vec![self.width]),
            [c] => (1, c, vec![self.width]),
            [n, c] => (n, c, vec![n, self.width]),
            ref other => {
                return Err(OpError::shape(format!("an input of shape {other:?}; it must be [C] or [N, C]")));
            }
        };
        let tokens: Vec<Token> = match x.dtype() {
            DType::String => x.as_slice::<String>()?.iter().map(|s| Token::Text(s.clone())).collect(),
            _ => ints(x)?.into_iter().map(Token::Int).collect(),
        };
        let mut out = ctx.memory.filled::<f32>(&shape, 0.0)?;
        if self.width > 0 {
            for r in 0..rows {
                self.row(
                    &tokens[r * length..(r + 1) * length],
                    &mut out[r * self.width..(r + 1) * self.width],
                );
            }
        }
        Ok(vec![Tensor::new(&shape, out)?])
    }
}
