use std::collections::BTreeMap;
use std::fmt;

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
    /// Its type where it is declared and no tensor; element type and extents are then unknown.
    pub container: Option<Type>,
}

/// A type of values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Type {
    /// A tensor.
    Tensor {
        /// Element type, where declared.
        dtype: Option<DType>,
        /// Extents, where declared.
        shape: Option<Vec<Dim>>,
    },
    /// Values of one type, in order.
    Sequence(Box<Type>),
    /// A value or none.
    Optional(Box<Type>),
    /// Values by key.
    Map {
        /// Type of the keys.
        key: DType,
        /// Type of the values.
        value: Box<Type>,
    },
}

impl fmt::Display for Type {
    /// As ONNX writes types: `seq(tensor(float32))`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Tensor { dtype: Some(dtype), .. } => write!(f, "tensor({dtype})"),
            Type::Tensor { dtype: None, .. } => f.write_str("tensor(?)"),
            Type::Sequence(t) => write!(f, "seq({t})"),
            Type::Optional(t) => write!(f, "optional({t})"),
            Type::Map { key, value } => write!(f, "map({key},{value})"),
        }
    }
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
    Type(Type),
}

/// Operators whose results differ from call to call.
const RANDOM: &[&str] =
    &["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"];

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
        let id = self.add_value(Value {
            name: name.into(),
            dtype: Some(tensor.dtype()),
            shape: Some(shape),
            container: None,
        });
        self.initializers.insert(id, tensor);
        id
    }
}

impl Node {
    /// Whether two runs of the node on the same operands may differ: it, or a node of its bodies, draws.
    pub fn is_random(&self) -> bool {
        let op = self.op.as_str();
        let draws =
            self.domain.is_empty() && (RANDOM.contains(&op) || op == "Dropout" && self.inputs.len() > 2);
        draws || bodies(self).any(|b| b.nodes.iter().any(Node::is_random))
    }

    /// `domain::op`, or just the operator for `ai.onnx`.
    pub fn qualified(&self) -> String {
        if self.domain.is_empty() { self.op.clone() } else { format!("{}::{}", self.domain, self.op) }
    }

    /// The values of its own graph that the node's bodies use.
    pub fn captured(&self) -> impl Iterator<Item = ValueId> + Clone + '_ {
        let bodies = self.attrs.values().flat_map(attr_bodies);
        bodies.flat_map(|b| b.captures.iter().map(|&(_, from)| from))
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

/// As [`attr_bodies`], to change them.
pub(crate) fn attr_bodies_mut(attr: &mut Attr) -> &mut [Graph] {
    match attr {
        Attr::Graph(g) => std::slice::from_mut(&mut **g),
        Attr::Graphs(gs) => gs,
        _ => &mut [],
    }
}
