//! `ai.onnx.ml`: classical models and the preparation of their features.
//!
//! Numbers are brought to f32 first (f64 rounds), except by the trees, which compare and add f64 in f64.

pub(crate) mod encode;
pub(crate) mod features;
mod flat;
mod forest;
mod labels;
pub(crate) mod linear;
pub(crate) mod maps;
mod post;
pub(crate) mod svm;
pub(crate) mod trees;

use isobit_tensor::{DType, Tensor};

use crate::cast::convert;
use crate::{BuildCtx, Op, OpDef, OpError, RunCtx};

/// The name of the domain.
const DOMAIN: &str = "ai.onnx.ml";

const fn ml(
    name: &'static str,
    since: u32,
    build: fn(&BuildCtx<'_>) -> Result<Box<dyn Op>, OpError>,
) -> OpDef {
    OpDef { domain: DOMAIN, name, since, build }
}

/// Rows and columns: a vector is one row.
fn matrix(shape: &[usize]) -> Result<(usize, usize), OpError> {
    match *shape {
        [c] => Ok((1, c)),
        [n, c] => Ok((n, c)),
        ref other => Err(OpError::shape(format!("an input of shape {other:?}; it must be [C] or [N, C]"))),
    }
}

/// What is known of the rows of an operand.
fn rows(f: &crate::Fact) -> Option<usize> {
    match f.shape.as_deref() {
        Some([n, _]) => *n,
        Some([_]) => Some(1),
        _ => None,
    }
}

/// The elements of a float, double, int64 or int32 tensor as f32.
fn floats(ctx: &RunCtx<'_>, t: &Tensor) -> Result<Vec<f32>, OpError> {
    match t.dtype() {
        DType::F32 | DType::F64 | DType::I64 | DType::I32 => {
            Ok(convert(ctx, t.clone(), DType::F32)?.into_vec()?)
        }
        other => Err(OpError::unsupported_type(other)),
    }
}
