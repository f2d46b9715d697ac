//! From the IR back to protobuf messages: a file that any ONNX tool opens.

use isobit_onnx::proto::{
    AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto,
};
use isobit_onnx::tensor_to_proto;
use isobit_tensor::{DType, Tensor};

use crate::types::{type_to_proto, value_info};
use crate::{Attr, Graph, Model, Node, ValueId};

/// Tensors shorter than this stay in the model file, where tools look for shapes.
const INLINE_BYTES: usize = 1024;
/// Alignment of each tensor in the weights file, so that it can be used in place.
const ALIGN: usize = 64;

/// The model with all weights inside.
pub fn export(model: &Model) -> ModelProto {
    export_with(model, &mut Weights::Inline)
}

/// The model and its weights as a second file, named `location` in the first. Tensors of less than 1,024
/// bytes and strings stay in the model file; the others follow one another in graph order, each at a multiple
/// of 64 bytes, little-endian, the gaps zero.
pub fn export_external(model: &Model, location: &str) -> (ModelProto, Vec<u8>) {
    let mut weights = Weights::External { location: location.to_owned(), bytes: Vec::new() };
    let proto = export_with(model, &mut weights);
    match weights {
        Weights::External { bytes, .. } => (proto, bytes),
        Weights::Inline => unreachable!("made external above"),
    }
}

enum Weights {
    Inline,
    External { location: String, bytes: Vec<u8> },
}

fn export_with(model: &Model, weights: &mut Weights) -> ModelProto {
    let opsets = model.opsets.iter();
    ModelProto {
        ir_version: Some(model.ir_version),
        producer_name: model.producer.clone(),
        opset_import: opsets.map(|(d, &version)| OperatorSetIdProto { domain: d.clone(), version }).collect(),
        metadata_props: model
            .metadata
            .iter()
            .map(|(k, v)| StringStringEntryProto { key: k.clone(), value: v.clone() })
            .collect(),
        graph: Some(graph_proto(&model.graph, &[], weights)),
        ..ModelProto::default()
    }
}

/// `outer` names the values of the enclosing graph, which a body refers to by name.
fn graph_proto(graph: &Graph, outer: &[String], weights: &mut Weights) -> GraphProto {
    let mut names: Vec<String> = graph.values.iter().map(|v| v.name.clone()).collect();
    for (inner, from) in &graph.captures {
        names[inner.0 as usize].clone_from(&outer[from.0 as usize]);
    }
    let name = |v: &Option<ValueId>| v.map(|v| names[v.0 as usize].clone()).unwrap_or_default();
    let info = |&v: &ValueId| value_info(&names[v.0 as usize], graph.value(v));
    GraphProto {
        name: if graph.name.is_empty() { "graph".into() } else { graph.name.clone() },
        node: graph.nodes.iter().map(|n| node_proto(n, &name, &names, weights)).collect(),
        initializer: graph
            .initializers
            .iter()
            .map(|(v, t)| weight_proto(&names[v.0 as usize], t, weights))
            .collect(),
        input: graph.inputs.iter().map(info).collect(),
        output: graph.outputs.iter().map(info).collect(),
        ..GraphProto::default()
    }
}

fn node_proto(
    node: &Node,
    name: &dyn Fn(&Option<ValueId>) -> String,
    names: &[String],
    weights: &mut Weights,
) -> NodeProto {
    NodeProto {
        op_type: node.op.clone(),
        domain: node.domain.clone(),
        name: node.name.clone(),
        input: node.inputs.iter().map(name).collect(),
        output: node.outputs.iter().map(name).collect(),
        attribute: node.attrs.iter().map(|(k, a)| attribute_proto(k, a, names, weights)).collect(),
        ..NodeProto::default()
    }
}

fn attribute_proto(name: &str, attr: &Attr, names: &[String], weights: &mut Weights) -> AttributeProto {
    let mut a = AttributeProto { name: name.to_owned(), ..AttributeProto::default() };
    let kind = match attr {
        Attr::Int(v) => {
            a.i = Some(*v);
            AttributeType::Int
        }
        Attr::Float(v) => {
            a.f = Some(*v);
            AttributeType::Float
        }
        Attr::String(v) => {
            a.s = Some(v.clone());
            AttributeType::String
        }
        Attr::Tensor(t) => {
            a.t = Some(tensor_to_proto("", t));
            AttributeType::Tensor
        }
        Attr::Graph(g) => {
            a.g = Some(graph_proto(g, names, weights));
            AttributeType::Graph
        }
        Attr::Ints(v) => {
            a.ints.clone_from(v);
            AttributeType::Ints
        }
        Attr::Floats(v) => {
            a.floats.clone_from(v);
            AttributeType::Floats
        }
        Attr::Strings(v) => {
            a.strings.clone_from(v);
            AttributeType::Strings
        }
        Attr::Tensors(v) => {
            a.tensors = v.iter().map(|t| tensor_to_proto("", t)).collect();
            AttributeType::Tensors
        }
        Attr::Graphs(v) => {
            a.graphs = v.iter().map(|g| graph_proto(g, names, weights)).collect();
            AttributeType::Graphs
        }
        Attr::Type(t) => {
            a.tp = Some(type_to_proto(t));
            AttributeType::TypeProto
        }
    };
    a.r#type = kind as i32;
    a
}

fn weight_proto(name: &str, tensor: &Tensor, weights: &mut Weights) -> TensorProto {
    let Weights::External { location, bytes } = weights else { return tensor_to_proto(name, tensor) };
    if tensor.dtype() == DType::String || tensor.byte_len() < INLINE_BYTES {
        return tensor_to_proto(name, tensor);
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    let offset = bytes.len();
    bytes.extend_from_slice(&tensor.to_le_bytes());
    let entry = |key: &str, value: String| StringStringEntryProto { key: key.into(), value };
    TensorProto {
        name: name.to_owned(),
        data_type: tensor.dtype().onnx(),
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_location: 1,
        external_data: vec![
            entry("location", location.clone()),
            entry("offset", offset.to_string()),
            entry("length", (bytes.len() - offset).to_string()),
        ],
        ..TensorProto::default()
    }
}
