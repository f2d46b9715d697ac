//! Comparison as ONNX's own runner does it: integers, booleans and strings exactly, floats within the case's tolerance.

use isobit_tensor::{Complex, DType, Data, Datum, Tensor, with_data};

/// A case's tolerance: `|actual - expected| <= atol + rtol * |expected|`.
#[derive(Clone, Copy)]
pub(crate) struct Tolerance {
    pub(crate) rtol: f64,
    pub(crate) atol: f64,
    /// Only types and shapes are compared.
    pub(crate) values: bool,
}

pub(crate) fn compare(actual: &Datum, expected: &Datum, tolerance: Tolerance) -> Result<(), String> {
    match (actual, expected) {
        (Datum::Tensor(a), Datum::Tensor(e)) => tensors(a, e, tolerance),
        (Datum::Sequence(a), Datum::Sequence(e)) if a.len() == e.len() => {
            a.iter().zip(e.iter()).try_for_each(|(a, e)| compare(a, e, tolerance))
        }
        (Datum::Optional(Some(a)), Datum::Optional(Some(e))) => compare(a, e, tolerance),
        (Datum::Optional(None), Datum::Optional(None)) => Ok(()),
        // A value where the file holds an optional with it.
        (a, Datum::Optional(Some(e))) => compare(a, e, tolerance),
        _ => Err(format!(
            "{} of {}, expected {} of {}",
            actual.kind(),
            actual.items(),
            expected.kind(),
            expected.items()
        )),
    }
}

fn tensors(actual: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    let (a, e) = ((actual.dtype(), actual.shape()), (expected.dtype(), expected.shape()));
    if a != e {
        return Err(format!("{} {:?}, expected {} {:?}", a.0, a.1, e.0, e.1));
    }
    if !tolerance.values {
        return Ok(());
    }
    let (Some(a), Some(e)) = (floats(actual), floats(expected)) else {
        return if actual == expected {
            Ok(())
        } else {
            Err(format!("{}, expected {}", excerpt(actual), excerpt(expected)))
        };
    };
    // Two steps of bfloat16, as in ONNX's runner.
    let rtol = if actual.dtype() == DType::BF16 { tolerance.rtol.max(1.0 / 64.0) } else { tolerance.rtol };
    for (i, (&a, &e)) in a.iter().zip(&e).enumerate() {
        let close = a == e || a.is_nan() && e.is_nan() || (a - e).abs() <= tolerance.atol + rtol * e.abs();
        if !close {
            return Err(format!("element {i} is {a}, expected {e}; {} {:?}", actual.dtype(), actual.shape()));
        }
    }
    Ok(())
}

/// The elements of a float or complex tensor. Small floats are compared by bits.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.data() {
        Data::F32(b) => Some(b.iter().map(|&v| v.into()).collect()),
        Data::F64(b) => Some(b.to_vec()),
        Data::F16(b) => Some(b.iter().map(|v| v.to_f64()).collect()),
        Data::BF16(b) => Some(b.iter().map(|v| v.to_f64()).collect()),
        Data::Complex64(b) => {
            Some(b.iter().flat_map(|v: &Complex<f32>| [v.re.into(), v.im.into()]).collect())
        }
        Data::Complex128(b) => Some(b.iter().flat_map(|v| [v.re, v.im]).collect()),
        _ => None,
    }
}

fn excerpt(tensor: &Tensor) -> String {
    with_data!(tensor.data(), b => format!("{:?}", b.iter().take(16).collect::<Vec<_>>()))
}
