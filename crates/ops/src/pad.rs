//! Pad: constant, reflect, edge and wrap; a negative pad removes.

use isobit_tensor::{Element, Tensor};

use crate::axes::{axes, fact, given, ints, known, known_ints, settled};
use crate::broadcast::strides;
use crate::fold::fold;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Pad", 23, pad)];

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Constant,
    Reflect,
    Edge,
    Wrap,
}

struct Pad {
    mode: Mode,
}

fn pad(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let mode = match ctx.str("mode", "constant")? {
        "constant" => Mode::Constant,
        "reflect" => Mode::Reflect,
        "edge" => Mode::Edge,
        "wrap" => Mode::Wrap,
        other => {
            return Err(OpError::attribute(format!(
                "mode '{other}'; accepted: constant, reflect, edge, wrap"
            )));
        }
    };
    ctx.one(Pad { mode })
}

/// Pads before and after, for each dimension.
fn spread(pads: &[i64], on: Option<&[i64]>, rank: usize) -> Result<Vec<(i64, i64)>, OpError> {
    let on = match on {
        Some(on) => axes(on, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * on.len() {
        return Err(OpError::shape(format!(
            "{} pads for {} axes; there must be two for each",
            pads.len(),
            on.len()
        )));
    }
    // No tensor is as large as this; the sums below cannot overflow.
    if let Some(p) = pads.iter().find(|p| p.unsigned_abs() > 1 << 60) {
        return Err(OpError::shape(format!("a pad of {p}")));
    }
    let (before, after) = pads.split_at(on.len());
    let mut out = vec![(0, 0); rank];
    for (i, &a) in on.iter().enumerate() {
        out[a] = (before[i], after[i]);
    }
    Ok(out)
}

fn padded(dims: &[Option<usize>], pads: &[(i64, i64)]) -> Result<Vec<Option<usize>>, OpError> {
    dims.iter()
        .zip(pads)
        .map(|(d, &(before, after))| {
            let Some(d) = *d else { return Ok(None) };
            let n = (d as i64).checked_add(before).and_then(|n| n.checked_add(after));
            n.and_then(|n| usize::try_from(n).ok())
                .map(Some)
                .ok_or_else(|| OpError::shape(format!("pads {before} and {after} on an extent of {d}")))
        })
        .collect()
}

impl Pad {
    /// Where each position of a padded dimension comes from; `None` for the constant.
    fn sources(&self, n: usize, (before, after): (i64, i64)) -> Result<Vec<Option<usize>>, OpError> {
        // Removal comes first: what is removed is not there to be reflected.
        let first = (-before).max(0);
        let kept = n as i64 - first - (-after).max(0);
        let (before, after) = (before.max(0), after.max(0));
        if kept <= 0 && self.mode != Mode::Constant && before + after + kept > 0 {
            return Err(OpError::shape(format!("only a constant can pad an extent of {}", kept.max(0))));
        }
        let source = |i: i64| -> Option<usize> {
            let i = match self.mode {
                _ if (0..kept).contains(&i) => i,
                Mode::Constant => return None,
                Mode::Edge => i.clamp(0, kept - 1),
                Mode::Wrap => i.rem_euclid(kept),
                Mode::Reflect if kept == 1 => 0,
                Mode::Reflect => {
                    let period = 2 * (kept - 1);
                    let i = i.rem_euclid(period);
                    i.min(period - i)
                }
            };
            Some((i + first) as usize)
        };
        Ok((-before..kept.saturating_add(after)).map(source).collect())
    }
}

impl Op for Pad {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let data = fact(inputs, 0);
            let Some(dims) = &data.shape else { return Ok(vec![Fact::typed(data.dtype)]) };
            let on = known_ints(inputs, 3)?;
            let shape = match known_ints(inputs, 1)? {
                Some(pads) if on.is_some() || given(inputs, 3).is_none() => {
                    padded(dims, &spread(&pads, on.as_deref(), dims.len())?)?
                }
                _ => vec![None; dims.len()],
            };
            Ok(vec![Fact::new(data.dtype, Some(shape))])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let data = inputs.get(0)?;
        let on = inputs.opt(3).map(ints).transpose()?;
        let pads = spread(&ints(inputs.get(1)?)?, on.as_deref(), data.rank())?;
        let shape = settled(padded(&known(data.shape()), &pads)?)?;
        let out = typed!(data.dtype(), T => self.fill::<T>(ctx, data, inputs.opt(2), &pads, &shape))?;
        Ok(vec![out])
    }
}

impl Pad {
    fn fill<T: Element>(
        &self,
        ctx: &RunCtx<'_>,
        data: &Tensor,
        constant: Option<&Tensor>,
        pads: &[(i64, i64)],
        shape: &[usize],
    ) -> Result<Tensor, OpError> {
        let value = match constant.map(|c| c.as_slice::<T>()).transpose()? {
            None => T::default(),
            Some([v]) => v.clone(),
            Some(other) => {
                return Err(OpError::input(format!("a constant of {} elements; one is needed", other.len())));
            }
        };
        // Allocated before the tables of sources, so that the limit holds for both.
        let mut out = ctx.memory.filled(shape, value)?;
        if out.is_empty() {
            return Ok(Tensor::new(shape, out)?);
        }
        let src = data.as_slice::<T>()?;
        let Some(rank) = shape.len().checked_sub(1) else {
            out.clone_from_slice(src);
            return Ok(Tensor::new(shape, out)?);
        };
        let tables = data
            .shape()
            .iter()
            .zip(pads)
            .map(|(&n, &p)| self.sources(n, p))
            .collect::<Result<Vec<_>, _>>()?;
        let steps = strides(data.shape());
        // The middle of a row is one run of the operand's row; only its ends need the table.
        let (last, (before, after)) = (&tables[rank], pads[rank]);
        let middle = before.max(0) as usize..last.len() - (after.max(0) as usize).min(last.len());
        let mut index = vec![0usize; rank];
        for row in out.chunks_exact_mut(last.len()) {
            let start: Option<usize> =
                (0..rank).try_fold(0, |at, d| Some(at + tables[d][index[d]]? * steps[d] as usize));
            if let Some(start) = start {
                if let Some(Some(from)) = last.get(middle.start).filter(|_| !middle.is_empty()) {
                    row[middle.clone()].clone_from_slice(&src[start + from..][..middle.len()]);
                }
                for (i, from) in last.iter().enumerate() {
                    if let Some(from) = from.filter(|_| !middle.contains(&i)) {
                        row[i].clone_from(&src[start + from]);
                    }
                }
            }
            for d in (0..rank).rev() {
                index[d] += 1;
                if index[d] < shape[d] {
                    break;
                }
                index[d] = 0;
            }
        }
        Ok(Tensor::new(shape, out)?)
    }
}
