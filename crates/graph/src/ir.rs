use std::collections::BTreeMap;

use isobit_tensor::{DType, Tensor};

/// A model: one graph and the operator set versions it is written in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    /// The main graph.
    pub graph: Graph,
    /// Operator set version by domain; `ai.onnx` is the empty string.
    pub opsets: BTreeMap<String, i64>,
    /// ONNX IR version the file declared.
    pub ir_version: i64,
    /// What wrote the file, e.g. `pytorch`.
    pub producer: String,
    /// Free key-value metadata of the file.
    pub metadata: BTreeMap<String, String>,
}

/// Index of a value in [`Graph::values`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueId(pub u32);

/// A directed acyclic graph of operators over single-assignment values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// Name, for people.
    pub name: String,
    /// Every value of this graph; a [`ValueId`] is an index here.
    pub values: Vec<Value>,
    /// What the caller supplies, in order. Never initializers.
    pub inputs: Vec<ValueId>,
    /// What the graph yields, in order. The same value may appear twice.
    pub outputs: Vec<ValueId>,
    /// Constants by value.
    pub initializers: BTreeMap<ValueId, Tensor>,
    /// The steps, topologically ordered.
    pub nodes: Vec<Node>,
    /// Only in the body of a control-flow operator: (value here, value of the enclosing graph).
    pub captures: Vec<(ValueId, ValueId)>,
}

/// A value: what flows on an edge.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Value {
    /// Its name in the file.
    pub name: String,
    /// Element type, where declared or inferred.
    pub dtype: Option<DType>,
    /// Extents, where declared or inferred.
    pub shape: Option<Vec<Dim>>,
}

/// One extent of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// The same symbol is the same number throughout a run, e.g. `batch`.
    Symbol(String),
    /// Anything.
    Unknown,
}

/// One operator application.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Node {
    /// Operator set domain; empty for `ai.onnx`.
    pub domain: String,
    /// Operator name, e.g. `MatMul`.
    pub op: String,
    /// The node's own name, for people.
    pub name: String,
    /// Operands; `None` where an optional one is left out.
    pub inputs: Vec<Option<ValueId>>,
    /// Results; `None` where an optional one is not wanted.
    pub outputs: Vec<Option<ValueId>>,
    /// Attributes by name.
    pub attrs: BTreeMap<String, Attr>,
}

/// An attribute value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // one variant an ONNX attribute type, named like it
pub enum Attr {
    Int(i64),
    Float(f32),
    String(Vec<u8>),
    Tensor(Tensor),
    Graph(Box<Graph>),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<Vec<u8>>),
    Tensors(Vec<Tensor>),
    Graphs(Vec<Graph>),
}

impl Graph {
    /// The value with this id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// Adds a value and returns its id.
    pub fn add_value(&mut self, value: Value) -> ValueId {
        let id = ValueId(u32::try_from(self.values.len()).expect("fewer than 2^32 values"));
        self.values.push(value);
        id
    }

    /// Adds a constant and returns its value.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: Tensor) -> ValueId {
        let shape = tensor.shape().iter().map(|&d| Dim::Known(d)).collect();
        let id = self.add_value(Value { name: name.into(), dtype: Some(tensor.dtype()), shape: Some(shape) });
        self.initializers.insert(id, tensor);
        id
    }
}

impl Node {
    /// `domain::op`, or just the operator for `ai.onnx`.
    pub fn qualified(&self) -> String {
        if self.domain.is_empty() { self.op.clone() } else { format!("{}::{}", self.domain, self.op) }
    }
}

/// The graphs in a node's attributes, in the order of the attributes' names.
pub(crate) fn bodies(node: &Node) -> impl Iterator<Item = &Graph> {
    node.attrs.values().flat_map(attr_bodies)
}

pub(crate) fn attr_bodies(attr: &Attr) -> &[Graph] {
    match attr {
        Attr::Graph(g) => std::slice::from_ref(&**g),
        Attr::Graphs(gs) => gs,
        _ => &[],
    }
}
