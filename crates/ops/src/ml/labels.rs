//! The classes of a classifier.

use isobit_tensor::{DType, Tensor};

use crate::{BuildCtx, OpError};

/// Class labels, by class.
#[derive(Debug, Clone)]
pub(super) enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

impl Labels {
    /// The labels in one of two attributes.
    pub(super) fn new(ctx: &BuildCtx<'_>, ints: &str, strings: &str) -> Result<Option<Self>, OpError> {
        let all = |v: Vec<&str>| Labels::Strings(v.into_iter().map(str::to_owned).collect());
        match (
            ctx.opt_ints(ints)?.filter(|v| !v.is_empty()),
            ctx.opt_strs(strings)?.filter(|v| !v.is_empty()),
        ) {
            (Some(v), None) => Ok(Some(Labels::Ints(v.to_vec()))),
            (None, Some(v)) => Ok(Some(all(v))),
            (None, None) => Ok(None),
            _ => Err(OpError::attribute(format!("give one of {ints} and {strings}"))),
        }
    }

    /// As [`Labels::new`], where they must be given.
    pub(super) fn needed(ctx: &BuildCtx<'_>, ints: &str, strings: &str) -> Result<Self, OpError> {
        Self::new(ctx, ints, strings)?
            .ok_or_else(|| OpError::attribute(format!("give one of {ints} and {strings}")))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Labels::Ints(v) => v.len(),
            Labels::Strings(v) => v.len(),
        }
    }

    pub(super) fn dtype(&self) -> DType {
        match self {
            Labels::Ints(_) => DType::I64,
            Labels::Strings(_) => DType::String,
        }
    }

    /// The labels themselves, a vector.
    pub(super) fn tensor(&self) -> Tensor {
        match self {
            Labels::Ints(v) => Tensor::vector(v.clone()),
            Labels::Strings(v) => Tensor::vector(v.clone()),
        }
    }

    /// The labels of these classes. Beyond the labels there are: 0 (a class below 0) and 1, or no text.
    pub(super) fn of(&self, classes: &[i64]) -> Tensor {
        let at = |c: i64| usize::try_from(c).ok();
        match self {
            Labels::Ints(v) => Tensor::vector(
                classes
                    .iter()
                    .map(|&c| at(c).and_then(|c| v.get(c).copied()).unwrap_or((c > 0).into()))
                    .collect(),
            ),
            Labels::Strings(v) => Tensor::vector(
                classes.iter().map(|&c| at(c).and_then(|c| v.get(c).cloned()).unwrap_or_default()).collect(),
            ),
        }
    }
}
