use isobit_tensor::{
    Complex, DType, F6E2M3, F6E3M2, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, MAX_EXTENT, Small,
    Tensor, TensorError, bf16, f16, numel,
};

use crate::proto::TensorProto;
use crate::{External, Found, OnnxError};

/// The tensor that a message declares. `budget` bounds the bytes of this and all later tensors, and is
/// lowered by what this one takes.
///
/// Nothing is allocated before the data at hand was compared with the declared shape.
pub fn tensor_from_proto(
    t: &TensorProto,
    external: &dyn External,
    budget: &mut u64,
) -> Result<Tensor, OnnxError> {
    let declaration = |message: String| OnnxError::Declaration { name: t.name.clone(), message };
    let wrong = |source: TensorError| OnnxError::Tensor { name: t.name.clone(), source };
    let dtype = DType::from_onnx(t.data_type)
        .ok_or_else(|| declaration(format!("element type number {} is unknown", t.data_type)))?;
    let shape = t
        .dims
        .iter()
        .map(|&d| {
            let extent = usize::try_from(d).ok().filter(|&d| d <= MAX_EXTENT);
            extent.ok_or_else(|| declaration(format!("an extent of {d}; accepted: 0 to {MAX_EXTENT}")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let n = numel(&shape).ok_or_else(|| wrong(TensorError::TooLarge(shape.clone())))?;
    let bytes = (n as u64).saturating_mul(dtype.bits().max(8) as u64).div_ceil(8);
    *budget = budget.checked_sub(bytes).ok_or(OnnxError::Limit {
        what: "bytes of all tensors",
        actual: bytes,
        limit: *budget,
    })?;

    if t.data_location == 1 {
        let read = match find_external(t, external, bytes)? {
            Found::Memory(bytes) => Tensor::from_le_bytes(dtype, &shape, bytes),
            Found::File(file, range) => Tensor::from_le_file(dtype, &shape, &file, range),
        };
        return read.map_err(wrong);
    }
    if dtype == DType::String {
        let strings = t.string_data.iter().map(|s| String::from_utf8(s.clone()));
        let strings = strings.collect::<Result<Vec<_>, _>>();
        let strings = strings.map_err(|_| declaration("a string is not UTF-8".into()))?;
        return Tensor::new(&shape, strings).map_err(wrong);
    }
    if !t.raw_data.is_empty() || n == 0 {
        let read = match external.place(&t.raw_data) {
            Some((file, range)) => Tensor::from_le_file(dtype, &shape, &file, range),
            None => Tensor::from_le_bytes(dtype, &shape, &t.raw_data),
        };
        return read.map_err(wrong);
    }
    let narrow =
        |what: &'static str| declaration(format!("a value in int32_data is out of range for {what}"));
    macro_rules! narrowed {
        ($t:ty, $via:ty, $map:expr) => {
            Tensor::new(
                &shape,
                t.int32_data
                    .iter()
                    .map(|&v| <$via>::try_from(v).map($map).map_err(|_| narrow(dtype.name())))
                    .collect::<Result<Vec<$t>, _>>()?,
            )
        };
    }
    match dtype {
        DType::F32 => Tensor::new(&shape, t.float_data.clone()),
        DType::F64 => Tensor::new(&shape, t.double_data.clone()),
        DType::I64 => Tensor::new(&shape, t.int64_data.clone()),
        DType::U64 => Tensor::new(&shape, t.uint64_data.clone()),
        DType::U32 => {
            let values = t.uint64_data.iter().map(|&v| u32::try_from(v));
            let values = values.collect::<Result<Vec<_>, _>>();
            Tensor::new(&shape, values.map_err(|_| declaration("a value is out of range for uint32".into()))?)
        }
        DType::I32 => Tensor::new(&shape, t.int32_data.clone()),
        DType::I8 => narrowed!(i8, i8, |v| v),
        DType::I16 => narrowed!(i16, i16, |v| v),
        DType::U8 => narrowed!(u8, u8, |v| v),
        DType::U16 => narrowed!(u16, u16, |v| v),
        DType::Bool => narrowed!(bool, u8, |v| v != 0),
        DType::F16 => narrowed!(f16, u16, f16::from_bits),
        DType::BF16 => narrowed!(bf16, u16, bf16::from_bits),
        DType::F8E4M3FN => narrowed!(F8E4M3FN, u8, Small::from_bits),
        DType::F8E4M3FNUZ => narrowed!(F8E4M3FNUZ, u8, Small::from_bits),
        DType::F8E5M2 => narrowed!(F8E5M2, u8, Small::from_bits),
        DType::F8E5M2FNUZ => narrowed!(F8E5M2FNUZ, u8, Small::from_bits),
        DType::F8E8M0 => narrowed!(F8E8M0, u8, Small::from_bits),
        DType::F6E2M3 => narrowed!(F6E2M3, u8, Small::from_bits),
        DType::F6E3M2 => narrowed!(F6E3M2, u8, Small::from_bits),
        // One packed byte an entry.
        DType::F4E2M1 | DType::U4 | DType::I4 | DType::U2 | DType::I2 => {
            let packed = t.int32_data.iter().map(|&v| u8::try_from(v).map_err(|_| narrow(dtype.name())));
            Tensor::from_le_bytes(dtype, &shape, &packed.collect::<Result<Vec<u8>, _>>()?)
        }
        DType::Complex64 => Tensor::new(&shape, pairs(&t.float_data)),
        DType::Complex128 => Tensor::new(&shape, pairs(&t.double_data)),
        other => Err(TensorError::Unsupported(other)),
    }
    .map_err(wrong)
}

/// Real and imaginary parts in turn; a part without its other half makes the count wrong, which is refused.
fn pairs<T: Copy + Default>(parts: &[T]) -> Vec<Complex<T>> {
    let pair = |p: &[T]| Complex { re: p[0], im: p.get(1).copied().unwrap_or_default() };
    let odd = if parts.len() % 2 == 1 { 2 } else { 0 };
    parts.chunks(2).map(pair).chain(std::iter::repeat_n(Complex::default(), odd)).collect()
}

fn find_external<'a>(
    t: &TensorProto,
    external: &'a dyn External,
    expected: u64,
) -> Result<Found<'a>, OnnxError> {
    let error = |message: String| OnnxError::External { name: t.name.clone(), message };
    let entry = |key: &str| t.external_data.iter().find(|e| e.key == key).map(|e| e.value.as_str());
    let number = |key: &str| match entry(key) {
        None => Ok(None),
        Some(v) => v.parse::<u64>().map(Some).map_err(|_| error(format!("{key} '{v}' is no number"))),
    };
    let location = entry("location").ok_or_else(|| error("no location is given".into()))?;
    let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
    // Without a length the shape says how much there is; the file may go on with other tensors.
    external.find(location, offset, Some(length.unwrap_or(expected)), expected).map_err(error)
}

/// The message of a tensor, its elements in `raw_data` (strings in `string_data`).
pub fn tensor_to_proto(name: &str, tensor: &Tensor) -> TensorProto {
    let mut proto = TensorProto {
        name: name.to_owned(),
        data_type: tensor.dtype().onnx(),
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        ..TensorProto::default()
    };
    match tensor.as_slice::<String>() {
        Ok(strings) => proto.string_data = strings.iter().map(|s| s.clone().into_bytes()).collect(),
        Err(_) => proto.raw_data = tensor.to_le_bytes().into(),
    }
    proto
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NoExternal;

    fn read(t: &TensorProto) -> Result<Tensor, OnnxError> {
        tensor_from_proto(t, &NoExternal, &mut (1 << 30))
    }

    #[test]
    fn round_trips() {
        for t in [
            Tensor::new(&[2, 2], vec![1f32, 2.0, -0.0, 4.0]).unwrap(),
            Tensor::scalar(5i64),
            Tensor::vector(vec![true, false]),
            Tensor::vector(vec!["a".to_owned(), "".to_owned()]),
            Tensor::new(&[0], Vec::<f32>::new()).unwrap(),
            Tensor::vector(vec![f16::from_f32(0.5)]),
            Tensor::vector([1, 2, 13].map(isobit_tensor::I4::from_bits).to_vec()),
            Tensor::vector([1, 2, 63].map(F6E3M2::from_bits).to_vec()),
            Tensor::vector(vec![Complex { re: 1.0f32, im: 2.0 }]),
        ] {
            assert_eq!(read(&tensor_to_proto("t", &t)).unwrap(), t);
        }
    }

    #[test]
    fn typed_fields_are_read() {
        let t = TensorProto {
            dims: vec![2],
            data_type: 10,
            int32_data: vec![0x3c00, 0xbc00],
            ..Default::default()
        };
        assert_eq!(read(&t).unwrap(), Tensor::vector(vec![f16::from_f32(1.0), f16::from_f32(-1.0)]));
        let t = TensorProto { dims: vec![3], data_type: 22, int32_data: vec![33, 13], ..Default::default() };
        assert_eq!(read(&t).unwrap(), Tensor::vector([1, 2, 13].map(isobit_tensor::I4::from_bits).to_vec()));
        let t = TensorProto { dims: vec![2], data_type: 3, int32_data: vec![-1, 127], ..Default::default() };
        assert_eq!(read(&t).unwrap(), Tensor::vector(vec![-1i8, 127]));
    }

    #[test]
    fn lies_are_refused_before_memory_is_taken() {
        let dims = vec![1 << 20, 1 << 20];
        let huge = TensorProto { dims, data_type: 1, raw_data: vec![0; 8].into(), ..Default::default() };
        assert!(matches!(read(&huge), Err(OnnxError::Limit { .. })));
        for t in [
            TensorProto { dims: vec![3], data_type: 1, raw_data: vec![0; 8].into(), ..Default::default() },
            TensorProto { dims: vec![-1], data_type: 1, ..Default::default() },
            TensorProto { dims: vec![0, 1 << 40], data_type: 1, ..Default::default() },
            TensorProto { dims: vec![1], data_type: 99, ..Default::default() },
            TensorProto { dims: vec![1], data_type: 3, int32_data: vec![300], ..Default::default() },
            TensorProto { dims: vec![2], data_type: 1, float_data: vec![1.0], ..Default::default() },
            TensorProto { dims: vec![1], data_type: 1, data_location: 1, ..Default::default() },
        ] {
            assert!(read(&t).is_err(), "{t:?}");
        }
    }
}
