//! Einsum: a contraction over the summed labels, whatever the equation.

use isobit_kernels::elementwise::Binary;
use isobit_tensor::{DType, Element, Tensor};

use crate::arith::arith;
use crate::axes::{bounded, fact};
use crate::broadcast::{Walk, copy_strided, strides};
use crate::cast::convert;
use crate::matmul::{multiplies, product};
use crate::transpose::transpose;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Einsum", 12, einsum)];

/// One accumulator an element of the result: acc = +0; acc = fma(p, x, acc), with the summed labels ascending in row-major
/// order, the label that appears first in the equation (an ellipsis counts as its dimensions, in order) outermost. x is the
/// last operand's element and p the product of the others', from the left, each rounded; p is 1 for a single operand.
/// f16 and bf16 compute in f32 throughout; integers wrap.
struct Einsum {
    terms: Vec<Vec<Label>>,
    /// `None` where the equation has no arrow.
    output: Option<Vec<Label>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Letter(char),
    Ellipsis,
}

fn einsum(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let equation = ctx.opt_str("equation")?.ok_or_else(|| OpError::attribute("equation is missing"))?;
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation, None),
    };
    let terms = left.split(',').map(|t| labels(t, equation)).collect::<Result<Vec<_>, _>>()?;
    if terms.len() != ctx.node.inputs.len() {
        return Err(OpError::input(format!(
            "equation '{equation}' is for {} operands, {} are given",
            terms.len(),
            ctx.node.inputs.len()
        )));
    }
    let output = right.map(|t| labels(t, equation)).transpose()?;
    for (i, l) in output.iter().flatten().enumerate() {
        let twice = output.iter().flatten().take(i).any(|o| o == l);
        // An ellipsis that no operand has stands for no dimension.
        let unknown = *l != Label::Ellipsis && !terms.iter().flatten().any(|t| t == l);
        if twice || unknown {
            return Err(OpError::attribute(format!("the result of equation '{equation}' has {l:?} wrongly")));
        }
    }
    ctx.one(Einsum { terms, output })
}

fn labels(term: &str, equation: &str) -> Result<Vec<Label>, OpError> {
    let refuse =
        || OpError::attribute(format!("equation '{equation}' is not made of letters, ',', '...', '->'"));
    let mut out = Vec::new();
    let mut rest = term.trim();
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("...") {
            if out.contains(&Label::Ellipsis) {
                return Err(refuse());
            }
            out.push(Label::Ellipsis);
            rest = after;
            continue;
        }
        match c {
            ' ' => {}
            c if c.is_ascii_alphabetic() => out.push(Label::Letter(c)),
            _ => return Err(refuse()),
        }
        rest = &rest[c.len_utf8()..];
    }
    Ok(out)
}

/// An index of the equation once ranks are known: a letter, or one dimension of the ellipsis (from its back).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Index {
    Letter(char),
    Broadcast(usize),
}

/// The equation for operands of known ranks.
struct Plan {
    terms: Vec<Vec<Index>>,
    output: Vec<Index>,
    /// Every index in order of first appearance.
    all: Vec<Index>,
}

impl Einsum {
    fn plan(&self, ranks: &[usize]) -> Result<Plan, OpError> {
        let mut widest = 0;
        for (term, &rank) in self.terms.iter().zip(ranks) {
            let letters = term.iter().filter(|l| **l != Label::Ellipsis).count();
            let covers = if term.contains(&Label::Ellipsis) { rank >= letters } else { rank == letters };
            if !covers {
                return Err(OpError::shape(format!("an operand of rank {rank} for {letters} labels")));
            }
            if letters < rank {
                widest = widest.max(rank - letters);
            }
        }
        let expand = |term: &[Label], dots: usize| -> Vec<Index> {
            term.iter()
                .flat_map(|l| match *l {
                    Label::Letter(c) => vec![Index::Letter(c)],
                    Label::Ellipsis => (0..dots).rev().map(Index::Broadcast).collect(),
                })
                .collect()
        };
        let terms: Vec<Vec<Index>> = self
            .terms
            .iter()
            .zip(ranks)
            .map(|(term, &rank)| expand(term, (rank + 1).saturating_sub(term.len())))
            .collect();
        let mut all: Vec<Index> = Vec::new();
        for term in &self.terms {
            // The ellipsis appears with all of its dimensions, though one operand may have fewer.
            for index in expand(term, widest) {
                if !all.contains(&index) {
                    all.push(index);
                }
            }
        }
        let output = match &self.output {
            Some(output) => expand(output, widest),
            None => {
                // The ellipsis, then every letter that appears once, by alphabet (capitals first).
                let once = |i: &&Index| terms.iter().flatten().filter(|t| t == i).count() == 1;
                let mut letters: Vec<Index> =
                    all.iter().filter(|i| matches!(i, Index::Letter(_))).filter(once).copied().collect();
                letters.sort_by_key(|i| match i {
                    Index::Letter(c) => *c,
                    Index::Broadcast(_) => ' ',
                });
                (0..widest).rev().map(Index::Broadcast).chain(letters).collect()
            }
        };
        Ok(Plan { terms, output, all })
    }
}

impl Plan {
    /// The extent of each index of `all`; an ellipsis broadcasts.
    fn extents(&self, shapes: &[&[Option<usize>]]) -> Result<Vec<Option<usize>>, OpError> {
        self.all
            .iter()
            .map(|index| {
                let (mut extent, mut unknown) = (None, false);
                for (term, shape) in self.terms.iter().zip(shapes) {
                    for (_, &d) in term.iter().zip(*shape).filter(|(i, _)| *i == index) {
                        let spreads = matches!(index, Index::Broadcast(_));
                        extent = match (extent, d) {
                            (e, None) => {
                                unknown = true;
                                e
                            }
                            (None, d) => d,
                            (Some(1), d) if spreads => d,
                            (e, Some(1)) if spreads => e,
                            (e, d) if e == d => e,
                            (e, d) => {
                                let (e, d) = (e.unwrap_or(0), d.unwrap_or(0));
                                return Err(OpError::shape(format!("{index:?} is of extent {e} and of {d}")));
                            }
                        };
                    }
                }
                Ok(if unknown && extent == Some(1) { None } else { extent })
            })
            .collect()
    }

    /// The steps of an operand along each of `indices`; 0 where it does not have one.
    fn steps(&self, term: usize, shape: &[usize], indices: &[Index]) -> Vec<isize> {
        let own = strides(shape);
        let along = |index: &Index| {
            let dims = self.terms[term].iter().zip(&own).zip(shape);
            dims.filter(|((i, _), d)| *i == index && **d != 1).map(|((_, s), _)| *s).sum()
        };
        indices.iter().map(along).collect()
    }
}

/// The operand's elements at each of `indices` in row-major order: diagonals, repeats and all.
fn gathered(ctx: &RunCtx<'_>, t: &Tensor, shape: &[usize], steps: &[isize]) -> Result<Tensor, OpError> {
    fn go<T: Element>(
        ctx: &RunCtx<'_>,
        x: &[T],
        shape: &[usize],
        steps: &[isize],
    ) -> Result<Tensor, OpError> {
        let mut out = ctx.memory.alloc::<T>(shape)?;
        copy_strided(ctx.exec, &Walk::new(shape, [steps], [0]), x, &mut out);
        Ok(Tensor::new(shape, out)?)
    }
    typed!(numbers t.dtype(), T => go(ctx, t.as_slice::<T>()?, shape, steps))
}

impl Op for Einsum {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let dtype = inputs.iter().flatten().find_map(|f| f.dtype);
        if let Some(t) = dtype.filter(|&t| !multiplies(computed_in(t))) {
            return Err(OpError::unsupported_type(t));
        }
        let shapes: Option<Vec<&[Option<usize>]>> =
            (0..self.terms.len()).map(|i| fact(inputs, i).shape.as_deref()).collect();
        let Some(shapes) = shapes else { return Ok(vec![Fact::typed(dtype)]) };
        let plan = self.plan(&shapes.iter().map(|s| s.len()).collect::<Vec<_>>())?;
        let extents = plan.extents(&shapes)?;
        let extent = |i: &Index| plan.all.iter().position(|a| a == i).and_then(|at| extents[at]);
        Ok(vec![Fact::new(dtype, Some(plan.output.iter().map(extent).collect()))])
    }

    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let shapes: Option<Vec<&[Option<usize>]>> =
            (0..self.terms.len()).map(|i| fact(inputs, i).shape.as_deref()).collect();
        let Some(shapes) = shapes else { return 0 };
        let plan = self.plan(&shapes.iter().map(|s| s.len()).collect::<Vec<_>>());
        let extents = plan.and_then(|p| p.extents(&shapes)).unwrap_or_default();
        let all = extents.iter().map(|d| d.unwrap_or(0) as u64).fold(1, u64::saturating_mul);
        all.saturating_mul(self.terms.len().saturating_sub(1).max(1) as u64)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let mut operands = Vec::new();
        let dtype = inputs.get(0)?.dtype();
        for i in 0..self.terms.len() {
            let t = inputs.get(i)?;
            bounded([t])?;
            if t.dtype() != dtype || !multiplies(computed_in(dtype)) {
                return Err(match t.dtype() == dtype {
                    true => OpError::unsupported_type(dtype),
                    false => OpError::input(format!("operands of types {dtype} and {}", t.dtype())),
                });
            }
            operands.push(convert(ctx, t.clone(), computed_in(dtype))?);
        }
        let plan = self.plan(&operands.iter().map(Tensor::rank).collect::<Vec<_>>())?;
        let shapes: Vec<Vec<Option<usize>>> =
            operands.iter().map(|t| t.shape().iter().map(|&d| Some(d)).collect()).collect();
        let extents = plan.extents(&shapes.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
        let extent = |i: &Index| plan.all.iter().position(|a| a == i).and_then(|at| extents[at]).unwrap_or(1);
        let y = contract(ctx, &plan, &operands, &extent)?;
        Ok(vec![convert(ctx, y, dtype)?])
    }
}

/// Small integers wrap, and so does what is left of their 32-bit results.
fn computed_in(t: DType) -> DType {
    match t {
        DType::F16 | DType::BF16 => DType::F32,
        DType::I8 | DType::I16 => DType::I32,
        DType::U8 | DType::U16 => DType::U32,
        t => t,
    }
}

fn contract(
    ctx: &RunCtx<'_>,
    plan: &Plan,
    operands: &[Tensor],
    extent: &dyn Fn(&Index) -> usize,
) -> Result<Tensor, OpError> {
    let sizes = |indices: &[Index]| indices.iter().map(extent).collect::<Vec<usize>>();
    let last = operands.len() - 1;
    let in_last = |i: &Index| plan.terms[last].contains(i);
    let in_first = |i: &Index| plan.terms[..last].iter().any(|t| t.contains(i));
    let (kept, summed): (Vec<Index>, Vec<Index>) = plan.all.iter().partition(|i| plan.output.contains(i));
    // The kept indices as batch, rows (the left side's alone) and columns (the last operand's alone).
    let batch: Vec<Index> = kept.iter().filter(|i| in_first(i) && in_last(i)).copied().collect();
    let rows: Vec<Index> = kept.iter().filter(|i| !in_last(i)).copied().collect();
    let columns: Vec<Index> = kept.iter().filter(|i| !in_first(i)).copied().collect();
    let volume = |indices: &[Index]| ctx.memory.check::<u8>(&sizes(indices));
    let (b, m, n, k) = (volume(&batch)?, volume(&rows)?, volume(&columns)?, volume(&summed)?);

    let left_indices = [&batch[..], &rows, &summed].concat();
    let right_indices = [&batch[..], &summed, &columns].concat();
    let part = |i: usize, indices: &[Index]| {
        gathered(ctx, &operands[i], &sizes(indices), &plan.steps(i, operands[i].shape(), indices))
    };
    let left = match last {
        0 => one(ctx, operands[0].dtype(), &sizes(&left_indices))?,
        _ => {
            let mut acc = part(0, &left_indices)?;
            for i in 1..last {
                acc = arith(ctx, Binary::Mul, acc, part(i, &left_indices)?)?;
            }
            acc
        }
    };
    let right = part(last, &right_indices)?;
    let y = product(ctx, left.reshape(&[b, m, k])?, right.reshape(&[b, k, n])?)?;
    // From [batch, rows, columns] to the order that the equation asks for.
    let made = [&batch[..], &rows, &columns].concat();
    let at = |i: &Index| made.iter().position(|o| o == i);
    let perm: Option<Vec<usize>> = plan.output.iter().map(at).collect();
    let perm = perm.ok_or_else(|| OpError::attribute("the result has an index that no operand has"))?;
    transpose(ctx, y.reshape(&sizes(&made))?, &perm)
}

fn one(ctx: &RunCtx<'_>, dtype: DType, shape: &[usize]) -> Result<Tensor, OpError> {
    use crate::number::Number;
    typed!(numbers dtype, T => Ok(Tensor::new(shape, ctx.memory.filled(shape, T::ONE)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equations() {
        let op = |terms: &[&str], output: Option<&str>| Einsum {
            terms: terms.iter().map(|t| labels(t, "").unwrap()).collect(),
            output: output.map(|t| labels(t, "").unwrap()),
        };
        let (i, j, k) = (Index::Letter('i'), Index::Letter('j'), Index::Letter('k'));
        let plan = op(&["ij", "jk"], None).plan(&[2, 2]).unwrap();
        assert_eq!((plan.output, plan.all), (vec![i, k], vec![i, j, k]));
        let plan = op(&["...ii"], Some("...i")).plan(&[3]).unwrap();
        assert_eq!(plan.output, [Index::Broadcast(0), i]);
        assert!(op(&["ij"], None).plan(&[3]).is_err());
        assert!(labels("i...j...", "").is_err() && labels("i+", "").is_err());
    }
}
