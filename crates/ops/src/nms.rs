//! NonMaxSuppression.

use isobit_numerics::{max, min};
use isobit_tensor::{DType, Tensor};

use crate::axes::{fact, int};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("NonMaxSuppression", 11, nms)];

/// Boxes by falling score (ties: the lower index; NaN last) are taken unless they overlap a taken one too much.
struct NonMaxSuppression {
    /// Boxes are given by centre and size instead of two corners.
    center: bool,
}

fn nms(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    match ctx.int("center_point_box", 0)? {
        flag @ (0 | 1) => ctx.one(NonMaxSuppression { center: flag == 1 }),
        other => Err(OpError::attribute(format!("center_point_box is {other}; accepted: 0, 1"))),
    }
}

/// The corners of a box, low and high.
#[derive(Clone, Copy)]
struct Corners {
    low: [f32; 2],
    high: [f32; 2],
}

impl Corners {
    fn area(self) -> f32 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// Whether the overlap is more than `threshold` of the union; boxes without an area overlap nothing.
    fn overlaps(self, other: Self, threshold: f32) -> bool {
        let common = Corners {
            low: [max(self.low[0], other.low[0]), max(self.low[1], other.low[1])],
            high: [min(self.high[0], other.high[0]), min(self.high[1], other.high[1])],
        };
        if common.high[0] <= common.low[0] || common.high[1] <= common.low[1] {
            return false;
        }
        let (a, b, both) = (self.area(), other.area(), common.area());
        let union = a + b - both;
        a > 0.0 && b > 0.0 && union > 0.0 && both / union > threshold
    }
}

impl NonMaxSuppression {
    fn corners(&self, b: &[f32]) -> Corners {
        if self.center {
            let (w, h) = (b[2] / 2.0, b[3] / 2.0);
            return Corners { low: [b[0] - w, b[1] - h], high: [b[0] + w, b[1] + h] };
        }
        Corners { low: [min(b[0], b[2]), min(b[1], b[3])], high: [max(b[0], b[2]), max(b[1], b[3])] }
    }
}

/// The one number of an optional operand.
fn scalar(inputs: &Inputs, i: usize) -> Result<Option<f32>, OpError> {
    match inputs.opt(i).map(|t| t.as_slice::<f32>()).transpose()? {
        None => Ok(None),
        Some([x]) => Ok(Some(*x)),
        Some(other) => Err(OpError::input(format!("{} numbers in input {i}; one is expected", other.len()))),
    }
}

impl Op for NonMaxSuppression {
    fn infer(&self, _: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(Some(DType::I64), Some(vec![None, Some(3)]))])
    }

    /// Every pair of boxes may have to be compared.
    fn cost(&self, inputs: &[Option<Fact>], _: &[Fact]) -> u64 {
        let scores = fact(inputs, 1);
        let boxes = scores.shape.as_ref().and_then(|s| s.last().copied().flatten()).unwrap_or(0);
        (scores.numel().unwrap_or(0) as u64).saturating_mul(boxes as u64)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (boxes, scores) = (inputs.get(0)?, inputs.get(1)?);
        let (&[batch, n, 4], &[batches, classes, m]) = (boxes.shape(), scores.shape()) else {
            let message = format!("boxes {:?} and scores {:?}", boxes.shape(), scores.shape());
            return Err(OpError::shape(format!(
                "{message}; they must be [N, boxes, 4] and [N, classes, boxes]"
            )));
        };
        if batch != batches || n != m {
            let message = format!("boxes {:?} and scores {:?} do not fit", boxes.shape(), scores.shape());
            return Err(OpError::shape(message));
        }
        let most = inputs.opt(2).map(int).transpose()?.unwrap_or(0);
        let most = usize::try_from(most).unwrap_or(0).min(n);
        let (overlap, least) = (scalar(&inputs, 3)?.unwrap_or(0.0), scalar(&inputs, 4)?);
        let (boxes, scores) = (boxes.as_slice::<f32>()?, scores.as_slice::<f32>()?);
        let mut out: Vec<i64> = Vec::new();
        for b in 0..if most == 0 { 0 } else { batch } {
            let corners: Vec<Corners> =
                boxes[b * n * 4..(b + 1) * n * 4].chunks_exact(4).map(|c| self.corners(c)).collect();
            for class in 0..classes {
                let at = (b * classes + class) * n;
                for i in select(&corners, &scores[at..at + n], most, overlap, least) {
                    out.extend([b as i64, class as i64, i as i64]);
                }
                ctx.memory.check::<i64>(&[out.len()])?;
            }
        }
        Ok(vec![Tensor::new(&[out.len() / 3, 3], out)?])
    }
}

fn select(corners: &[Corners], scores: &[f32], most: usize, overlap: f32, least: Option<f32>) -> Vec<usize> {
    let mut order: Vec<usize> =
        (0..scores.len()).filter(|&i| least.is_none_or(|least| scores[i] > least)).collect();
    let key = |i: usize| if scores[i].is_nan() { f32::NEG_INFINITY } else { scores[i] };
    // NaN goes with -infinity, behind it by the second comparison; the sort is stable.
    order.sort_by(|&i, &j| {
        let by_score = key(j).partial_cmp(&key(i)).unwrap_or(std::cmp::Ordering::Equal);
        by_score.then(scores[i].is_nan().cmp(&scores[j].is_nan()))
    });
    let mut taken: Vec<usize> = Vec::new();
    for i in order {
        if taken.len() == most {
            break;
        }
        if !taken.iter().any(|&t| corners[i].overlaps(corners[t], overlap)) {
            taken.push(i);
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lower_index_and_nan_comes_last() {
        let apart = |i: usize| Corners { low: [i as f32 * 10.0, 0.0], high: [i as f32 * 10.0 + 1.0, 1.0] };
        let corners: Vec<Corners> = (0..4).map(apart).collect();
        let scores = [f32::NAN, 0.5, f32::NEG_INFINITY, 0.5];
        assert_eq!(select(&corners, &scores, 4, 0.5, None), [1, 3, 2, 0]);
        assert_eq!(select(&corners, &scores, 4, 0.5, Some(0.4)), [1, 3]);
        assert_eq!(select(&[corners[0]; 4], &scores, 4, 0.5, None), [1]);
    }
}
