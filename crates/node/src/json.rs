//! Elements of tensors as JSON has them.

use isobit_tensor::{DType, Data, Tensor, numel};
use serde_json::Value as Json;

/// A tensor of these elements, in row-major order. Floats may also be the strings `NaN`, `Infinity` and `-Infinity`.
pub fn tensor_from_json(dtype: DType, shape: &[usize], data: &[&Json]) -> Result<Tensor, String> {
    if numel(shape) != Some(data.len()) {
        return Err(format!("shape {shape:?} does not match {} elements", data.len()));
    }
    let wrong = |v: &Json| format!("{v} is no {dtype}");
    macro_rules! all {
        ($get:expr) => {{
            let elements = data.iter().map(|v| $get(v).ok_or_else(|| wrong(v)));
            Tensor::new(shape, elements.collect::<Result<Vec<_>, _>>()?).map_err(|e| e.to_string())?
        }};
    }
    macro_rules! ints {
        ($t:ty, $get:ident) => {
            all!(|v: &Json| v.$get().and_then(|x| <$t>::try_from(x).ok()))
        };
    }
    Ok(match dtype {
        // Through the shortest decimal, so that the text is rounded once and not twice.
        DType::F32 => all!(|v| float(v).map(|x| x.to_string().parse().unwrap_or(x as f32))),
        DType::F64 => all!(float),
        DType::F16 => all!(|v| float(v).map(half::f16::from_f64)),
        DType::BF16 => all!(|v| float(v).map(half::bf16::from_f64)),
        DType::I8 => ints!(i8, as_i64),
        DType::I16 => ints!(i16, as_i64),
        DType::I32 => ints!(i32, as_i64),
        DType::I64 => ints!(i64, as_i64),
        DType::U8 => ints!(u8, as_u64),
        DType::U16 => ints!(u16, as_u64),
        DType::U32 => ints!(u32, as_u64),
        DType::U64 => ints!(u64, as_u64),
        DType::Bool => all!(|v: &Json| v.as_bool()),
        DType::String => all!(|v: &Json| v.as_str().map(str::to_owned)),
        other => return Err(format!("element type {other} is not supported")),
    })
}

fn float(v: &Json) -> Option<f64> {
    match v.as_str() {
        Some("NaN") => Some(f64::NAN),
        Some("Infinity") => Some(f64::INFINITY),
        Some("-Infinity") => Some(f64::NEG_INFINITY),
        _ => v.as_f64(),
    }
}

/// The elements of a tensor, in row-major order: what [`tensor_from_json`] reads back to the same bits (but the payload of NaN).
pub fn tensor_to_json(tensor: &Tensor) -> Result<Vec<Json>, String> {
    fn real(x: f64, shortest: impl std::fmt::Display) -> Json {
        match shortest.to_string().parse::<f64>().ok().and_then(serde_json::Number::from_f64) {
            Some(number) => Json::Number(number),
            None if x.is_nan() => "NaN".into(),
            None if x > 0.0 => "Infinity".into(),
            None => "-Infinity".into(),
        }
    }
    macro_rules! all {
        ($x:expr) => {
            $x.iter().map(|v| Json::from(v.clone())).collect()
        };
    }
    Ok(match tensor.data() {
        Data::F32(x) => x.iter().map(|&x| real(x.into(), x)).collect(),
        Data::F64(x) => x.iter().map(|&x| real(x, x)).collect(),
        Data::F16(x) => x.iter().map(|&x| real(x.into(), f64::from(x))).collect(),
        Data::BF16(x) => x.iter().map(|&x| real(x.into(), f64::from(x))).collect(),
        Data::I8(x) => all!(x),
        Data::I16(x) => all!(x),
        Data::I32(x) => all!(x),
        Data::I64(x) => all!(x),
        Data::U8(x) => all!(x),
        Data::U16(x) => all!(x),
        Data::U32(x) => all!(x),
        Data::U64(x) => all!(x),
        Data::Bool(x) => all!(x),
        Data::String(x) => all!(x),
        _ => return Err(format!("element type {} has no JSON", tensor.dtype())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_round_trip() {
        let floats = vec![0.1f32, -0.0, f32::MIN_POSITIVE, 1e-45, f32::MAX, f32::INFINITY, -3.0];
        let tensors = [
            Tensor::new(&[7], floats).unwrap(),
            Tensor::new(&[2], vec![f64::NEG_INFINITY, 0.1 + 0.2]).unwrap(),
            Tensor::new(&[2], vec![u64::MAX, 0]).unwrap(),
            Tensor::new(&[2], vec![i64::MIN, i64::MAX]).unwrap(),
            Tensor::new(&[1, 2], vec![true, false]).unwrap(),
            Tensor::new(&[2], vec!["a\"".to_owned(), String::new()]).unwrap(),
            Tensor::new(&[2], vec![half::f16::from_f32(0.1), half::f16::MAX]).unwrap(),
        ];
        for tensor in tensors {
            let text = serde_json::to_string(&tensor_to_json(&tensor).unwrap()).unwrap();
            let json: Vec<Json> = serde_json::from_str(&text).unwrap();
            let json: Vec<&Json> = json.iter().collect();
            let back = tensor_from_json(tensor.dtype(), tensor.shape(), &json).unwrap();
            assert_eq!(back.root(), tensor.root(), "{text}");
        }
        assert!(tensor_from_json(DType::U8, &[1], &[&256.into()]).unwrap_err().contains("no uint8"));
    }
}
