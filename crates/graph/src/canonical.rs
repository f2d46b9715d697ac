//! The canonical form: one graph for all the ways of writing the same model down.
//!
//! A value's *structural hash* is that of its producer (operator, attributes in name order, the hashes of its
//! operands) and its position among the results; of a constant, its tensor's root; of a graph input, its position.
//! Values of equal hash are one value. Nodes are ordered depth-first from the graph outputs, operands left to
//! right, so the order follows from structure alone. Inner values are named by position, graph inputs and
//! outputs keep their names: they are the signature.

use std::collections::{BTreeMap, BTreeSet};

use isobit_tensor::seal;
use prost::Message as _;

use crate::ir::{attr_bodies, bodies};
use crate::types::type_to_proto;
use crate::{Attr, Graph, GraphError, Model, Node, Value, ValueId, validate};

/// Operators whose results after the first are optional, and left out where nobody uses them.
const OPTIONAL_RESULTS: &[&str] =
    &["Dropout", "MaxPool", "LayerNormalization", "BatchNormalization", "Attention"];
/// Operators all of whose results are optional.
const OPTIONAL_FIRST: &[&str] = &["LSTM", "GRU", "RNN"];

/// Puts a model in canonical form. Bits are unchanged.
///
/// # Errors
/// A value that is used before it is defined, or defined twice.
pub fn canonicalize(model: &mut Model) -> Result<(), GraphError> {
    validate::check(&model.graph, 0)?;
    let mut graph = std::mem::take(&mut model.graph);
    // Large constants on all cores.
    seal(&mut graph.initializers.values_mut().collect::<Vec<_>>());
    let signature = graph.inputs.iter().chain(&graph.outputs).map(|&v| graph.value(v).name.clone());
    let signature: BTreeSet<String> = signature.collect();
    model.graph = canonical_graph(&graph, &[], 0, &signature);
    model.graph.name = "graph".into();
    model.producer = String::new();
    model.metadata = BTreeMap::new();
    let mut domains = BTreeSet::new();
    used_domains(&model.graph, &mut domains);
    model.opsets.retain(|domain, _| domains.contains(domain) || domain.is_empty());
    Ok(())
}

fn used_domains(graph: &Graph, out: &mut BTreeSet<String>) {
    for node in &graph.nodes {
        out.insert(node.domain.clone());
        for body in bodies(node) {
            used_domains(body, out);
        }
    }
}

type Digest = [u8; 32];

/// `outer`: for each value of the enclosing graph, its hash. `depth`: how many graphs enclose this one.
/// `signature`: names that inner values may not have.
fn canonical_graph(graph: &Graph, outer: &[Digest], depth: usize, signature: &BTreeSet<String>) -> Graph {
    let hashes = Hashes::new(graph, outer);
    Builder::new(graph, &hashes, depth, signature).build()
}

/// The structural hashes of a graph.
struct Hashes {
    values: Vec<Digest>,
    nodes: Vec<Digest>,
}

impl Hashes {
    fn new(graph: &Graph, outer: &[Digest]) -> Self {
        let mut values = vec![[0; 32]; graph.values.len()];
        for (i, v) in graph.inputs.iter().enumerate() {
            values[v.0 as usize] = digest(b"input", &[&(i as u64).to_le_bytes()]);
        }
        for (inner, from) in &graph.captures {
            values[inner.0 as usize] = digest(b"outer", &[&outer[from.0 as usize]]);
        }
        for (v, constant) in &graph.initializers {
            values[v.0 as usize] = digest(b"const", &[constant.root().as_bytes()]);
        }
        let mut nodes = Vec::with_capacity(graph.nodes.len());
        for (position, node) in graph.nodes.iter().enumerate() {
            let own = node_digest(node, position, &values);
            nodes.push(own);
            for (i, v) in node.outputs.iter().enumerate() {
                if let Some(v) = v {
                    values[v.0 as usize] = match identity(node) {
                        Some(from) => values[from.0 as usize],
                        None => result_digest(&own, i),
                    };
                }
            }
        }
        Self { values, nodes }
    }

    fn of(&self, v: ValueId) -> Digest {
        self.values[v.0 as usize]
    }
}

fn node_digest(node: &Node, position: usize, values: &[Digest]) -> Digest {
    let mut parts: Vec<Vec<u8>> = vec![node.domain.clone().into_bytes(), node.op.clone().into_bytes()];
    for (name, attr) in &node.attrs {
        parts.push(name.clone().into_bytes());
        parts.push(attr_bytes(attr, values));
    }
    let inputs = operands(node);
    parts.push((inputs.len() as u64).to_le_bytes().to_vec());
    for input in inputs {
        parts.push(input.map(|v| values[v.0 as usize].to_vec()).unwrap_or_default());
    }
    parts.push((node.outputs.len() as u64).to_le_bytes().to_vec());
    if node.is_random() {
        // Keeps equal draws apart. Hashes decide what is equal, never an order, so the position shows nowhere.
        parts.push((position as u64).to_le_bytes().to_vec());
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    digest(b"node", &parts)
}

fn result_digest(node: &Digest, position: usize) -> Digest {
    digest(b"value", &[node, &(position as u64).to_le_bytes()])
}

/// A node's operands without those left out at the end.
fn operands(node: &Node) -> &[Option<ValueId>] {
    &node.inputs[..node.inputs.iter().rposition(Option::is_some).map_or(0, |last| last + 1)]
}

/// The operand of an Identity.
fn identity(node: &Node) -> Option<ValueId> {
    match (&node.inputs[..], &node.outputs[..]) {
        ([Some(from)], [Some(_)]) if node.op == "Identity" && node.domain.is_empty() => Some(*from),
        _ => None,
    }
}

/// BLAKE3 of a tag and parts, each preceded by its length.
fn digest(tag: &[u8], parts: &[&[u8]]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for part in std::iter::once(&tag).chain(parts) {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

fn attr_bytes(attr: &Attr, values: &[Digest]) -> Vec<u8> {
    fn list<T>(tag: u8, items: &[T], bytes: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
        let mut out = vec![tag];
        for item in items {
            let b = bytes(item);
            out.extend_from_slice(&(b.len() as u64).to_le_bytes());
            out.extend_from_slice(&b);
        }
        out
    }
    let tensor = |t: &isobit_tensor::Tensor| t.root().as_bytes().to_vec();
    let graph = |g: &Graph| graph_digest(g, values).to_vec();
    match attr {
        Attr::Int(v) => list(1, &[*v], |v| v.to_le_bytes().to_vec()),
        Attr::Float(v) => list(2, &[*v], |v| v.to_bits().to_le_bytes().to_vec()),
        Attr::String(v) => list(3, &[v], |v| v.to_vec()),
        Attr::Tensor(v) => list(4, &[v], |v| tensor(v)),
        Attr::Graph(v) => list(5, &[v], |v| graph(v)),
        Attr::Ints(v) => list(6, v, |v| v.to_le_bytes().to_vec()),
        Attr::Floats(v) => list(7, v, |v| v.to_bits().to_le_bytes().to_vec()),
        Attr::Strings(v) => list(8, v, Clone::clone),
        Attr::Tensors(v) => list(9, v, tensor),
        Attr::Graphs(v) => list(10, v, graph),
        Attr::Type(t) => list(11, &[t], |t| type_to_proto(t).encode_to_vec()),
    }
}

/// A body's hash: that of its inputs' number and of its outputs, in order.
fn graph_digest(graph: &Graph, outer: &[Digest]) -> Digest {
    let hashes = Hashes::new(graph, outer);
    let inputs = (graph.inputs.len() as u64).to_le_bytes();
    let outputs = graph.outputs.iter().map(|v| &hashes.values[v.0 as usize][..]);
    let parts: Vec<&[u8]> = std::iter::once(&inputs[..]).chain(outputs).collect();
    digest(b"graph", &parts)
}

struct Builder<'g> {
    old: &'g Graph,
    hashes: &'g Hashes,
    depth: usize,
    signature: &'g BTreeSet<String>,
    /// For each hash, the first node with a result that has it.
    producers: BTreeMap<Digest, usize>,
    /// For each hash, a constant that has it.
    constants: BTreeMap<Digest, ValueId>,
    /// For each hash, the value of the enclosing graph that is captured.
    captures: BTreeMap<Digest, ValueId>,
    /// What the outputs depend on.
    used: BTreeSet<Digest>,
    /// The attributes of nodes with bodies, those in canonical form; they capture values of the old graph.
    attrs: BTreeMap<usize, BTreeMap<String, Attr>>,
    new: Graph,
    /// Values of the new graph by hash.
    ids: BTreeMap<Digest, ValueId>,
    emitted: BTreeSet<usize>,
}

impl<'g> Builder<'g> {
    fn new(old: &'g Graph, hashes: &'g Hashes, depth: usize, signature: &'g BTreeSet<String>) -> Self {
        let mut producers = BTreeMap::new();
        for (n, node) in old.nodes.iter().enumerate().filter(|(_, n)| identity(n).is_none()) {
            for &v in node.outputs.iter().flatten() {
                producers.entry(hashes.of(v)).or_insert(n);
            }
        }
        let mut used: BTreeSet<Digest> = old.outputs.iter().map(|&v| hashes.of(v)).collect();
        let mut attrs = BTreeMap::new();
        for (n, node) in old.nodes.iter().enumerate().rev() {
            if !node.outputs.iter().flatten().any(|&v| used.contains(&hashes.of(v))) {
                continue;
            }
            used.extend(node.inputs.iter().flatten().map(|&v| hashes.of(v)));
            if bodies(node).next().is_some() {
                let canonical = |g: &Graph| canonical_graph(g, &hashes.values, depth + 1, signature);
                let new = node.attrs.iter().map(|(k, a)| (k.clone(), map_bodies(a, &canonical))).collect();
                attrs.insert(n, new);
            }
            used.extend(captured(attrs.get(&n)).map(|v| hashes.of(v)));
        }
        Self {
            constants: old.initializers.keys().map(|&v| (hashes.of(v), v)).collect(),
            captures: old.captures.iter().map(|&(inner, from)| (hashes.of(inner), from)).collect(),
            new: Graph::default(),
            ids: BTreeMap::new(),
            emitted: BTreeSet::new(),
            old,
            hashes,
            depth,
            signature,
            producers,
            used,
            attrs,
        }
    }

    fn build(mut self) -> Graph {
        for &v in &self.old.inputs {
            let id = self.signature_value(v);
            self.new.inputs.push(id);
            self.ids.insert(self.hashes.of(v), id);
        }
        for &v in &self.old.outputs {
            self.emit(self.hashes.of(v));
        }
        self.outputs();
        self.new
    }

    /// A name by position; bodies of control flow may not reuse a name of an enclosing graph.
    fn fresh(&self) -> String {
        let mut name = format!("{}v{}", "b".repeat(self.depth), self.new.values.len());
        while self.signature.contains(&name) {
            name.push('_');
        }
        name
    }

    /// A graph input or output: named as before, in a body by position.
    fn signature_value(&mut self, v: ValueId) -> ValueId {
        let mut value = self.old.value(v).clone();
        if self.depth > 0 {
            value.name = self.fresh();
        }
        self.new.add_value(value)
    }

    fn inner_value(&mut self) -> ValueId {
        let value = Value { name: self.fresh(), ..Value::default() };
        self.new.add_value(value)
    }

    /// Makes `root` available in the new graph: first what it depends on, operands left to right.
    fn emit(&mut self, root: Digest) {
        enum Task {
            Value(Digest),
            Node(usize),
        }
        let mut stack = vec![Task::Value(root)];
        while let Some(task) = stack.pop() {
            match task {
                Task::Value(hash) if self.ids.contains_key(&hash) => {}
                Task::Value(hash) => match self.producers.get(&hash) {
                    Some(&n) if self.emitted.insert(n) => {
                        stack.push(Task::Node(n));
                        stack.extend(self.operands(n).into_iter().rev().map(Task::Value));
                    }
                    Some(_) => {}
                    None => self.leaf(hash),
                },
                Task::Node(n) => self.node(n),
            }
        }
    }

    /// What a node needs: operands, then what its bodies capture.
    fn operands(&self, n: usize) -> Vec<Digest> {
        let operands = self.old.nodes[n].inputs.iter().flatten().copied();
        operands.chain(captured(self.attrs.get(&n))).map(|v| self.hashes.of(v)).collect()
    }

    /// A constant or a captured value.
    fn leaf(&mut self, hash: Digest) {
        let id = match self.captures.get(&hash) {
            Some(&from) => {
                let id = self.inner_value();
                self.new.captures.push((id, from));
                id
            }
            None => {
                let tensor = &self.old.initializers[&self.constants[&hash]];
                self.new.add_constant(self.fresh(), tensor.clone())
            }
        };
        self.ids.insert(hash, id);
    }

    fn node(&mut self, n: usize) {
        let node = &self.old.nodes[n];
        let all_optional = OPTIONAL_FIRST.contains(&node.op.as_str());
        let rest_optional = all_optional || OPTIONAL_RESULTS.contains(&node.op.as_str());
        let mut outputs: Vec<Option<ValueId>> = Vec::with_capacity(node.outputs.len());
        for i in 0..node.outputs.len() {
            // A duplicate of this node may have a result that this one leaves out.
            let hash = result_digest(&self.hashes.nodes[n], i);
            let optional = node.domain.is_empty() && if i == 0 { all_optional } else { rest_optional };
            let wanted = self.producers.contains_key(&hash) && (!optional || self.used.contains(&hash));
            outputs.push(wanted.then(|| {
                let id = self.inner_value();
                self.ids.insert(hash, id);
                id
            }));
        }
        while outputs.len() > 1 && outputs.last() == Some(&None) {
            outputs.pop();
        }
        let inputs = operands(node).iter().map(|v| v.map(|v| self.ids[&self.hashes.of(v)])).collect();
        let rebase = |g: &Graph| {
            let mut g = g.clone();
            g.captures.iter_mut().for_each(|(_, from)| *from = self.ids[&self.hashes.of(*from)]);
            g
        };
        let attrs = self.attrs.get(&n).unwrap_or(&node.attrs);
        let attrs = attrs.iter().map(|(k, a)| (k.clone(), map_bodies(a, &rebase))).collect();
        let (domain, op) = (node.domain.clone(), node.op.clone());
        self.new.nodes.push(Node { domain, op, name: String::new(), inputs, outputs, attrs });
    }

    /// Names the outputs; one that has the value of an input, a constant or another output gets an Identity.
    fn outputs(&mut self) {
        let mut taken: BTreeSet<ValueId> = self.new.inputs.iter().copied().collect();
        taken.extend(self.new.initializers.keys());
        taken.extend(self.new.captures.iter().map(|(v, _)| *v));
        let old = self.old;
        let mut done: BTreeMap<ValueId, ValueId> =
            old.inputs.iter().copied().zip(self.new.inputs.iter().copied()).collect();
        for &v in &old.outputs {
            if let Some(&id) = done.get(&v) {
                self.new.outputs.push(id);
                continue;
            }
            let id = self.ids[&self.hashes.of(v)];
            let id = if taken.insert(id) {
                if self.depth == 0 {
                    self.new.values[id.0 as usize] = old.value(v).clone();
                }
                id
            } else {
                let copy = self.signature_value(v);
                self.new.nodes.push(Node {
                    op: "Identity".into(),
                    inputs: vec![Some(id)],
                    outputs: vec![Some(copy)],
                    ..Node::default()
                });
                copy
            };
            done.insert(v, id);
            self.new.outputs.push(id);
        }
    }
}

fn captured(attrs: Option<&BTreeMap<String, Attr>>) -> impl Iterator<Item = ValueId> {
    attrs
        .into_iter()
        .flat_map(BTreeMap::values)
        .flat_map(attr_bodies)
        .flat_map(|b| b.captures.iter().map(|c| c.1))
}

fn map_bodies(attr: &Attr, map: &dyn Fn(&Graph) -> Graph) -> Attr {
    match attr {
        Attr::Graph(g) => Attr::Graph(Box::new(map(g))),
        Attr::Graphs(gs) => Attr::Graphs(gs.iter().map(map).collect()),
        other => other.clone(),
    }
}
