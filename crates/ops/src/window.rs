//! What convolution and pooling share: windows sliding over the spatial dimensions of `[N, C, D1, D2, ...]`.

use crate::{BuildCtx, OpError};

/// Attributes of a sliding window.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    kernel: Option<Vec<usize>>,
    strides: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
    auto_pad: AutoPad,
    ceil_mode: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum AutoPad {
    NotSet,
    Valid,
    SameUpper,
    SameLower,
}

/// A window over given extents: one entry a spatial dimension.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Geometry {
    pub(crate) kernel: Vec<usize>,
    pub(crate) strides: Vec<usize>,
    pub(crate) dilations: Vec<usize>,
    pub(crate) before: Vec<usize>,
    pub(crate) after: Vec<usize>,
    /// `None` where the input's extent is unknown.
    pub(crate) output: Vec<Option<usize>>,
}

/// Largest kernel, stride, dilation or padding: beyond it sums of them could overflow.
const MOST: usize = 1 << 24;

impl Window {
    pub(crate) fn new(ctx: &BuildCtx<'_>) -> Result<Self, OpError> {
        let sizes = |name: &str, least: i64| match ctx.opt_ints(name)? {
            None => Ok(None),
            Some(values) => values
                .iter()
                .map(|&v| {
                    let ok = (least..=MOST as i64).contains(&v);
                    ok.then_some(v as usize).ok_or_else(|| {
                        OpError::attribute(format!("{name} {values:?}; each from {least} to {MOST}"))
                    })
                })
                .collect::<Result<Vec<_>, _>>()
                .map(Some),
        };
        let auto_pad = match ctx.str("auto_pad", "NOTSET")? {
            "NOTSET" => AutoPad::NotSet,
            "VALID" => AutoPad::Valid,
            "SAME_UPPER" => AutoPad::SameUpper,
            "SAME_LOWER" => AutoPad::SameLower,
            other => {
                return Err(OpError::attribute(format!(
                    "auto_pad '{other}'; accepted: NOTSET, VALID, SAME_UPPER, SAME_LOWER"
                )));
            }
        };
        Ok(Self {
            kernel: sizes("kernel_shape", 1)?,
            strides: sizes("strides", 1)?,
            dilations: sizes("dilations", 1)?,
            pads: sizes("pads", 0)?,
            auto_pad,
            ceil_mode: ctx.flag("ceil_mode", false)?,
        })
    }

    /// Whether windows begin at every place.
    pub(crate) fn is_dense(&self) -> bool {
        self.strides.iter().flatten().all(|&s| s == 1)
    }

    /// How far windows of `kernel` reach beyond an image of any extents, where their pads or their rule say.
    pub(crate) fn reach(&self, kernel: &[usize]) -> usize {
        let span = |(d, k): (usize, &usize)| {
            let dilation = self.dilations.as_ref().and_then(|l| l.get(d)).copied().unwrap_or(1);
            k.saturating_sub(1).saturating_mul(dilation)
        };
        match self.auto_pad {
            AutoPad::NotSet => self.pads.iter().flatten().copied().max().unwrap_or(0),
            AutoPad::Valid => 0,
            AutoPad::SameUpper | AutoPad::SameLower => {
                kernel.iter().enumerate().map(span).max().unwrap_or(0).div_ceil(2)
            }
        }
    }

    /// The geometry over spatial extents `input`; `kernel` where the attribute is left out.
    pub(crate) fn over(
        &self,
        input: &[Option<usize>],
        kernel: Option<&[usize]>,
    ) -> Result<Geometry, OpError> {
        let rank = input.len();
        let kernel = match (&self.kernel, kernel) {
            (Some(a), Some(b)) if a != b => {
                return Err(OpError::shape(format!("kernel_shape {a:?}, but the weights are for {b:?}")));
            }
            (Some(a), _) => a.clone(),
            (None, Some(b)) => b.to_vec(),
            (None, None) => return Err(OpError::attribute("kernel_shape is missing")),
        };
        let list = |name: &str, values: &Option<Vec<usize>>, n: usize, default: usize| match values {
            None => Ok(vec![default; n]),
            Some(v) if v.len() == n => Ok(v.clone()),
            Some(v) => {
                Err(OpError::attribute(format!("{name} {v:?} for {rank} spatial dimensions; give {n}")))
            }
        };
        if kernel.len() != rank || kernel.iter().any(|&k| k == 0 || k > MOST) {
            return Err(OpError::shape(format!("a kernel of {kernel:?} for {rank} spatial dimensions")));
        }
        let strides = list("strides", &self.strides, rank, 1)?;
        let dilations = list("dilations", &self.dilations, rank, 1)?;
        let pads = list("pads", &self.pads, 2 * rank, 0)?;
        let (mut before, mut after) = (pads[..rank].to_vec(), pads[rank..].to_vec());
        let mut output = Vec::with_capacity(rank);
        for d in 0..rank {
            let Some(n) = input[d] else {
                output.push(None);
                continue;
            };
            let span = (kernel[d] - 1).saturating_mul(dilations[d]).saturating_add(1);
            let out = match self.auto_pad {
                AutoPad::NotSet => None,
                AutoPad::Valid => {
                    (before[d], after[d]) = (0, 0);
                    None
                }
                same => {
                    let out = n.div_ceil(strides[d]);
                    let total = (out.saturating_sub(1) * strides[d]).saturating_add(span).saturating_sub(n);
                    let (small, large) = (total / 2, total - total / 2);
                    (before[d], after[d]) =
                        if same == AutoPad::SameUpper { (small, large) } else { (large, small) };
                    Some(out)
                }
            };
            output.push(Some(match out {
                Some(out) => out,
                None => self.steps(n, before[d], after[d], span, strides[d])?,
            }));
        }
        Ok(Geometry { kernel, strides, dilations, before, after, output })
    }

    /// The geometry of a transposed convolution over spatial extents `input`, with `output_padding` more at the end;
    /// `output_shape`, where given, decides the padding.
    pub(crate) fn transposed(
        &self,
        input: &[Option<usize>],
        kernel: &[usize],
        output_padding: Option<&[usize]>,
        output_shape: Option<&[usize]>,
    ) -> Result<Geometry, OpError> {
        // The forward geometry checks the attributes' lengths; only the extents are others.
        let any = vec![None; input.len()];
        let mut g = self.over(&any, Some(kernel))?;
        let rank = input.len();
        for (name, list) in [("output_padding", output_padding), ("output_shape", output_shape)] {
            if let Some(list) = list.filter(|l| l.len() != rank) {
                return Err(OpError::attribute(format!("{name} {list:?} for {rank} spatial dimensions")));
            }
        }
        for d in 0..rank {
            let Some(n) = input[d] else { continue };
            let span = (g.kernel[d] - 1).saturating_mul(g.dilations[d]).saturating_add(1);
            let extra = output_padding.map_or(0, |p| p[d]);
            let whole = n.saturating_sub(1).saturating_mul(g.strides[d]);
            let whole = whole.saturating_add(extra).saturating_add(span);
            let wanted = match (output_shape, self.auto_pad) {
                (Some(shape), _) => Some(shape[d]),
                (None, AutoPad::SameUpper | AutoPad::SameLower) => Some(n.saturating_mul(g.strides[d])),
                (None, AutoPad::Valid) => {
                    (g.before[d], g.after[d]) = (0, 0);
                    None
                }
                (None, AutoPad::NotSet) => None,
            };
            if let Some(wanted) = wanted {
                let total = whole.saturating_sub(wanted);
                let (small, large) = (total / 2, total - total / 2);
                (g.before[d], g.after[d]) =
                    if self.auto_pad == AutoPad::SameUpper { (small, large) } else { (large, small) };
            }
            let padding = g.before[d].saturating_add(g.after[d]);
            g.output[d] = Some(match wanted {
                Some(wanted) => wanted,
                None => whole.checked_sub(padding).ok_or_else(|| {
                    OpError::shape(format!("padding of {padding} leaves nothing of an extent of {whole}"))
                })?,
            });
        }
        Ok(g)
    }

    fn steps(
        &self,
        n: usize,
        before: usize,
        after: usize,
        span: usize,
        stride: usize,
    ) -> Result<usize, OpError> {
        let padded = n.saturating_add(before).saturating_add(after);
        let Some(space) = padded.checked_sub(span) else {
            return Err(OpError::shape(format!(
                "a window of {span} over an extent of {n} with padding {before} and {after}"
            )));
        };
        let mut steps = space / stride + 1;
        // Rounding up adds a window that begins inside the image or its padding before it, not in the one after.
        if self.ceil_mode && space % stride != 0 && steps * stride < n + before {
            steps += 1;
        }
        Ok(steps)
    }
}

/// A one- or two-dimensional list as two dimensions: one is a height of `fill`.
pub(crate) fn two(list: &[usize], fill: usize) -> Result<[usize; 2], OpError> {
    match *list {
        [w] => Ok([fill, w]),
        [h, w] => Ok([h, w]),
        _ => Err(OpError::shape("more than two spatial dimensions")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(auto_pad: AutoPad, ceil_mode: bool) -> Window {
        Window {
            kernel: Some(vec![3]),
            strides: Some(vec![2]),
            dilations: None,
            pads: Some(vec![1, 1]),
            auto_pad,
            ceil_mode,
        }
    }

    #[test]
    fn output_extents() {
        let out = |a, c, n| {
            window(a, c).over(&[Some(n)], None).map(|g| (g.output[0].unwrap_or(0), g.before[0], g.after[0]))
        };
        assert_eq!(out(AutoPad::NotSet, false, 7), Ok((4, 1, 1)));
        assert_eq!(out(AutoPad::NotSet, true, 8), Ok((5, 1, 1)));
        assert_eq!(out(AutoPad::Valid, false, 7), Ok((3, 0, 0)));
        assert_eq!(out(AutoPad::SameUpper, false, 8), Ok((4, 0, 1)));
        assert_eq!(out(AutoPad::SameLower, false, 8), Ok((4, 1, 0)));
        assert!(out(AutoPad::Valid, false, 2).is_err());
    }
}
