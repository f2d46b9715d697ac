use std::sync::Arc;

use isobit_tensor::{DType, Datum, Map, Tensor};
use prost::Message;

use crate::proto::{MapProto, OptionalProto, SequenceProto, TensorProto, TypeProto, TypeValue};
use crate::{NoExternal, OnnxError, tensor_from_proto};

/// Reads a data file (`input_0.pb` and the like): a value of the type that a model declares. A file does not say
/// of what kind it is. `budget` bounds the bytes of all tensors in it, and is lowered by what they take.
pub fn datum_from_bytes(bytes: &[u8], declared: &TypeProto, budget: &mut u64) -> Result<Datum, OnnxError> {
    let wrong = |e: prost::DecodeError| OnnxError::Protobuf(e.to_string());
    match &declared.value {
        Some(TypeValue::Sequence(_)) => sequence(&SequenceProto::decode(bytes).map_err(wrong)?, budget),
        Some(TypeValue::Map(_)) => map(&MapProto::decode(bytes).map_err(wrong)?, budget),
        Some(TypeValue::Optional(_)) => optional(&OptionalProto::decode(bytes).map_err(wrong)?, budget),
        _ => tensor(&TensorProto::decode(bytes).map_err(wrong)?, budget),
    }
}

fn tensor(t: &TensorProto, budget: &mut u64) -> Result<Datum, OnnxError> {
    Ok(tensor_from_proto(t, &NoExternal, budget)?.into())
}

fn sequence(s: &SequenceProto, budget: &mut u64) -> Result<Datum, OnnxError> {
    let mut items = Vec::new();
    for t in &s.tensor_values {
        items.push(tensor(t, budget)?);
    }
    for s in &s.sequence_values {
        items.push(sequence(s, budget)?);
    }
    for m in &s.map_values {
        items.push(map(m, budget)?);
    }
    for o in &s.optional_values {
        items.push(optional(o, budget)?);
    }
    Ok(Datum::sequence(items))
}

fn map(m: &MapProto, budget: &mut u64) -> Result<Datum, OnnxError> {
    let error = |message: &str| OnnxError::Declaration { name: m.name.clone(), message: message.to_owned() };
    let keys = if m.key_type == DType::String.onnx() {
        let keys = m.string_keys.iter().map(|k| String::from_utf8(k.clone()));
        Tensor::vector(keys.collect::<Result<_, _>>().map_err(|_| error("a key is not UTF-8"))?)
    } else {
        Tensor::vector(m.keys.clone())
    };
    let values = m.values.as_ref().ok_or_else(|| error("a map without values"))?;
    let Datum::Sequence(values) = sequence(values, budget)? else { unreachable!("made above") };
    if values.len() != keys.len() {
        return Err(error("a map with another number of values than keys"));
    }
    Ok(Datum::Map(Arc::new(Map { keys, values: values.to_vec() })))
}

fn optional(o: &OptionalProto, budget: &mut u64) -> Result<Datum, OnnxError> {
    let value = match (&o.tensor_value, &o.sequence_value, &o.map_value, &o.optional_value) {
        (Some(t), ..) => Some(tensor(t, budget)?),
        (_, Some(s), ..) => Some(sequence(s, budget)?),
        (_, _, Some(m), _) => Some(map(m, budget)?),
        (.., Some(o)) => Some(optional(o, budget)?),
        _ => None,
    };
    Ok(Datum::Optional(value.map(Arc::new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::SequenceType;
    use crate::tensor_to_proto;

    #[test]
    fn containers_are_read() {
        let t = Tensor::vector(vec![1f32]);
        let s = SequenceProto { tensor_values: vec![tensor_to_proto("", &t)], ..Default::default() };
        let o = OptionalProto { sequence_value: Some(Box::new(s.clone())), ..Default::default() };
        let declare = |value| TypeProto { value: Some(value), ..Default::default() };
        let inner = || Box::new(SequenceType::default());
        let read = |bytes: &[u8], value| datum_from_bytes(bytes, &declare(value), &mut 1000);
        let expected = Datum::sequence(vec![t.into()]);
        assert_eq!(read(&s.encode_to_vec(), TypeValue::Sequence(inner())).unwrap(), expected);
        let some = Datum::Optional(Some(Arc::new(expected)));
        assert_eq!(read(&o.encode_to_vec(), TypeValue::Optional(inner())).unwrap(), some);
        assert_eq!(read(&[], TypeValue::Optional(inner())).unwrap(), Datum::Optional(None));
        assert!(read(&[0xff], TypeValue::Sequence(inner())).is_err());
    }
}
