//! Types of values, from and to protobuf messages.

use isobit_onnx::proto::{
    Dimension, DimensionValue, MapType, SequenceType, TensorShapeProto, TensorType, TypeProto, TypeValue,
    ValueInfoProto,
};
use isobit_tensor::DType;

use crate::{Dim, Type, Value};

/// A declared value. Sparse tensors are refused: nothing in the standard computes with them.
pub(crate) fn value(info: &ValueInfoProto) -> Result<Value, String> {
    let name = info.name.clone();
    let Some(declared) = info.r#type.as_ref().filter(|t| t.value.is_some()) else {
        return Ok(Value { name, ..Value::default() });
    };
    match type_from_proto(declared) {
        Ok(Type::Tensor { dtype, shape }) => Ok(Value { name, dtype, shape, container: None }),
        Ok(container) => Ok(Value { name, container: Some(container), ..Value::default() }),
        Err(kind) => Err(format!("'{name}' is {kind}, which is not supported")),
    }
}

/// The type that a message declares, or what it is that has no place here.
pub(crate) fn type_from_proto(t: &TypeProto) -> Result<Type, &'static str> {
    let inner = |s: &SequenceType| match &s.elem_type {
        Some(t) => type_from_proto(t).map(Box::new),
        None => Err("a container of nothing"),
    };
    match t.value.as_ref().ok_or("of no type")? {
        TypeValue::Tensor(t) => {
            let shape = t.shape.as_ref().map(|s| s.dim.iter().map(dim).collect());
            Ok(Type::Tensor { dtype: DType::from_onnx(t.elem_type), shape })
        }
        TypeValue::Sequence(s) => Ok(Type::Sequence(inner(s)?)),
        TypeValue::Optional(s) => Ok(Type::Optional(inner(s)?)),
        TypeValue::Map(m) => {
            let key = DType::from_onnx(m.key_type).ok_or("a map of unknown keys")?;
            let value = m.value_type.as_ref().ok_or("a map to nothing")?;
            Ok(Type::Map { key, value: Box::new(type_from_proto(value)?) })
        }
        TypeValue::SparseTensor(_) => Err("a sparse tensor"),
    }
}

fn dim(d: &Dimension) -> Dim {
    match &d.value {
        Some(DimensionValue::Value(n)) => usize::try_from(*n).map_or(Dim::Unknown, Dim::Known),
        Some(DimensionValue::Param(p)) if !p.is_empty() => Dim::Symbol(p.clone()),
        _ => Dim::Unknown,
    }
}

/// The declaration of a value; without a type where none is known.
pub(crate) fn value_info(name: &str, value: &Value) -> ValueInfoProto {
    let declared = match &value.container {
        Some(container) => Some(type_to_proto(container)),
        // A type that says nothing is left out: tools take one for a contradiction of what they infer.
        None if value.dtype.is_none() && value.shape.is_none() => None,
        None => Some(tensor_type(value.dtype, &value.shape)),
    };
    ValueInfoProto { name: name.to_owned(), r#type: declared, ..ValueInfoProto::default() }
}

/// The message of a type.
pub(crate) fn type_to_proto(t: &Type) -> TypeProto {
    let inner = |t: &Type| Box::new(SequenceType { elem_type: Some(Box::new(type_to_proto(t))) });
    let value = match t {
        Type::Tensor { dtype, shape } => return tensor_type(*dtype, shape),
        Type::Sequence(t) => TypeValue::Sequence(inner(t)),
        Type::Optional(t) => TypeValue::Optional(inner(t)),
        Type::Map { key, value } => TypeValue::Map(Box::new(MapType {
            key_type: key.onnx(),
            value_type: Some(Box::new(type_to_proto(value))),
        })),
    };
    TypeProto { value: Some(value), ..TypeProto::default() }
}

fn tensor_type(dtype: Option<DType>, shape: &Option<Vec<Dim>>) -> TypeProto {
    let dimension = |d: &Dim| {
        let value = match d {
            Dim::Known(n) => Some(DimensionValue::Value(*n as i64)),
            Dim::Symbol(s) => Some(DimensionValue::Param(s.clone())),
            Dim::Unknown => None,
        };
        Dimension { value, ..Dimension::default() }
    };
    let shape = shape.as_ref().map(|s| TensorShapeProto { dim: s.iter().map(dimension).collect() });
    let tensor = TensorType { elem_type: dtype.map_or(0, DType::onnx), shape };
    TypeProto { value: Some(TypeValue::Tensor(tensor)), ..TypeProto::default() }
}
