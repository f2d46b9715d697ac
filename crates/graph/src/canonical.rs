//! The canonical form: one graph for all the ways of writing the same model down.
//!
//! A value's *structural hash* is that of its producer (operator, attributes in name order, the hashes of its
//! operands) and its position among the results; of a constant, its tensor's root; of a graph input, its position.
//! Values of equal hash are one value. Nodes are ordered depth-first from the graph outputs, operands left to
//! right, so the order follows from structure alone. Inner values are named by position, graph inputs and
//! outputs keep their names: they are the signature.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Attr, Graph, Model, Node, Value, ValueId};

/// Operators whose results differ from call to call: equal ones are not merged.
const RANDOM: &[&str] =
    &["RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"];

/// Operators whose results after the first are optional, and left out where nobody uses them.
const OPTIONAL_RESULTS: &[&str] =
    &["Dropout", "MaxPool", "LSTM", "GRU", "RNN", "LayerNormalization", "BatchNormalization", "Attention"];

/// Puts a model in canonical form. Bits are unchanged.
pub fn canonicalize(model: &mut Model) {
    let graph = std::mem::take(&mut model.graph);
    model.graph = canonical_graph(&graph, &[], 0);
    model.graph.name = "graph".into();
    model.producer = String::new();
    model.metadata = BTreeMap::new();
    let mut domains = BTreeSet::new();
    used_domains(&model.graph, &mut domains);
    model.opsets.retain(|domain, _| domains.contains(domain) || domain.is_empty());
}

fn used_domains(graph: &Graph, out: &mut BTreeSet<String>) {
    for node in &graph.nodes {
        out.insert(node.domain.clone());
        for body in bodies(node) {
            used_domains(body, out);
        }
    }
}

fn bodies(node: &Node) -> impl Iterator<Item = &Graph> {
    node.attrs.values().flat_map(|a| match a {
        Attr::Graph(g) => std::slice::from_ref(&**g),
        Attr::Graphs(gs) => gs.as_slice(),
        _ => &[],
    })
}

type Digest = [u8; 32];

/// `outer`: for each value of the enclosing graph, its hash. `depth`: how many graphs enclose this one.
fn canonical_graph(graph: &Graph, outer: &[Digest], depth: usize) -> Graph {
    let hashes = structural_hashes(graph, outer);
    Builder::new(graph, &hashes, depth).build()
}

/// The hash of every value of the graph.
fn structural_hashes(graph: &Graph, outer: &[Digest]) -> Vec<Digest> {
    let mut hashes = vec![[0; 32]; graph.values.len()];
    for (i, v) in graph.inputs.iter().enumerate() {
        hashes[v.0 as usize] = digest(b"input", &[&(i as u64).to_le_bytes()]);
    }
    for (inner, from) in &graph.captures {
        let from = outer.get(from.0 as usize).copied().unwrap_or_default();
        hashes[inner.0 as usize] = digest(b"outer", &[&from]);
    }
    for (v, t) in &graph.initializers {
        hashes[v.0 as usize] = digest(b"const", &[t.root().as_bytes()]);
    }
    for (position, node) in graph.nodes.iter().enumerate() {
        if is_identity(node) {
            if let ([Some(from)], [Some(to)]) = (&node.inputs[..], &node.outputs[..]) {
                hashes[to.0 as usize] = hashes[from.0 as usize];
                continue;
            }
        }
        let mut parts: Vec<Vec<u8>> = vec![node.domain.clone().into_bytes(), node.op.clone().into_bytes()];
        for (name, attr) in &node.attrs {
            parts.push(name.clone().into_bytes());
            parts.push(attr_bytes(attr, &hashes));
        }
        parts.push(node.inputs.len().to_le_bytes().to_vec());
        for input in &node.inputs {
            parts.push(input.map(|v| hashes[v.0 as usize].to_vec()).unwrap_or_default());
        }
        parts.push(node.outputs.len().to_le_bytes().to_vec());
        if RANDOM.contains(&node.op.as_str()) {
            parts.push(position.to_le_bytes().to_vec());
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let own = digest(b"node", &parts);
        for (i, v) in node.outputs.iter().enumerate() {
            if let Some(v) = v {
                hashes[v.0 as usize] = digest(b"value", &[&own, &(i as u64).to_le_bytes()]);
            }
        }
    }
    hashes
}

fn is_identity(node: &Node) -> bool {
    node.op == "Identity" && node.domain.is_empty()
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

fn attr_bytes(attr: &Attr, hashes: &[Digest]) -> Vec<u8> {
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
    let graph = |g: &Graph| graph_digest(g, hashes).to_vec();
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
    }
}

/// A body's hash: that of its outputs, in order.
fn graph_digest(graph: &Graph, outer: &[Digest]) -> Digest {
    let hashes = structural_hashes(graph, outer);
    let outputs: Vec<&[u8]> = graph.outputs.iter().map(|v| &hashes[v.0 as usize][..]).collect();
    digest(b"graph", &outputs)
}

struct Builder<'g> {
    old: &'g Graph,
    hashes: &'g [Digest],
    /// For each hash, the first node with a result that has it.
    producers: BTreeMap<Digest, usize>,
    /// For each hash, a constant that has it.
    constants: BTreeMap<Digest, ValueId>,
    depth: usize,
    new: Graph,
    /// Values of the new graph by hash.
    ids: BTreeMap<Digest, ValueId>,
    emitted: BTreeSet<usize>,
    used: BTreeSet<Digest>,
}

impl<'g> Builder<'g> {
    fn new(old: &'g Graph, hashes: &'g [Digest], depth: usize) -> Self {
        let mut producers = BTreeMap::new();
        for (n, node) in old.nodes.iter().enumerate().filter(|(_, n)| !is_identity(n)) {
            for v in node.outputs.iter().flatten() {
                producers.entry(hashes[v.0 as usize]).or_insert(n);
            }
        }
        let constants = old.initializers.keys().map(|&v| (hashes[v.0 as usize], v)).collect();
        let mut used = BTreeSet::new();
        for node in &old.nodes {
            used.extend(node.inputs.iter().flatten().map(|v| hashes[v.0 as usize]));
            used.extend(
                bodies(node).flat_map(|b| b.captures.iter().map(|(_, from)| hashes[from.0 as usize])),
            );
        }
        used.extend(old.outputs.iter().map(|v| hashes[v.0 as usize]));
        let (ids, emitted) = (BTreeMap::new(), BTreeSet::new());
        Self { old, hashes, producers, constants, depth, new: Graph::default(), ids, emitted, used }
    }

    fn hash(&self, v: ValueId) -> Digest {
        self.hashes[v.0 as usize]
    }

    fn build(mut self) -> Graph {
        for &v in &self.old.inputs {
            let id = self.signature_value(v);
            self.new.inputs.push(id);
            self.ids.insert(self.hash(v), id);
        }
        for &(inner, from) in &self.old.captures {
            if !self.ids.contains_key(&self.hash(inner)) && self.used.contains(&self.hash(inner)) {
                let id = self.new.add_value(Value { name: self.fresh(), ..Value::default() });
                self.new.captures.push((id, from));
                self.ids.insert(self.hash(inner), id);
            }
        }
        for &v in &self.old.outputs {
            self.emit(v);
        }
        self.outputs();
        self.new
    }

    /// A name by position; bodies of control flow may not reuse a name of an enclosing graph.
    fn fresh(&self) -> String {
        format!("{}v{}", "b".repeat(self.depth), self.new.values.len())
    }

    /// A graph input or output: named as before, in a body by position.
    fn signature_value(&mut self, v: ValueId) -> ValueId {
        let mut value = self.old.value(v).clone();
        if self.depth > 0 {
            value.name = self.fresh();
        }
        self.new.add_value(value)
    }

    /// Makes `root` available in the new graph: first what it depends on, operands left to right.
    fn emit(&mut self, root: ValueId) {
        enum Task {
            Value(Digest),
            Node(usize),
        }
        let mut stack = vec![Task::Value(self.hash(root))];
        while let Some(task) = stack.pop() {
            match task {
                Task::Value(hash) => {
                    if self.ids.contains_key(&hash) {
                        continue;
                    }
                    match self.producers.get(&hash) {
                        Some(&n) if self.emitted.insert(n) => {
                            stack.push(Task::Node(n));
                            stack.extend(self.operands(n).into_iter().rev().map(Task::Value));
                        }
                        Some(_) => {}
                        None => self.constant(hash),
                    }
                }
                Task::Node(n) => self.node(n),
            }
        }
    }

    /// What a node needs: operands, then what its bodies capture.
    fn operands(&self, n: usize) -> Vec<Digest> {
        let node = &self.old.nodes[n];
        let operands = node.inputs.iter().flatten().map(|&v| self.hash(v));
        let captured = bodies(node).flat_map(|b| b.captures.iter().map(|&(_, from)| self.hash(from)));
        operands.chain(captured).collect()
    }

    fn constant(&mut self, hash: Digest) {
        let old = self.constants.get(&hash).expect("a value is an input, a constant or a node's result");
        let id = self.new.add_constant(self.fresh(), self.old.initializers[old].clone());
        self.ids.insert(hash, id);
    }

    fn node(&mut self, n: usize) {
        let node = &self.old.nodes[n];
        let mut outputs: Vec<Option<ValueId>> = Vec::with_capacity(node.outputs.len());
        for (i, v) in node.outputs.iter().enumerate() {
            let optional = i > 0 && OPTIONAL_RESULTS.contains(&node.op.as_str());
            let wanted = v.map(|v| self.hash(v)).filter(|h| !optional || self.used.contains(h));
            outputs.push(wanted.map(|hash| {
                let id = self.new.add_value(Value { name: self.fresh(), ..Value::default() });
                self.ids.insert(hash, id);
                id
            }));
        }
        while outputs.len() > 1 && outputs.last() == Some(&None) {
            outputs.pop();
        }
        let inputs = node.inputs.iter().map(|v| v.map(|v| self.ids[&self.hash(v)])).collect();
        let attrs = node.attrs.iter().map(|(k, a)| (k.clone(), self.attr(a))).collect();
        self.new.nodes.push(Node {
            domain: node.domain.clone(),
            op: node.op.clone(),
            name: String::new(),
            inputs,
            outputs,
            attrs,
        });
    }

    fn attr(&self, attr: &Attr) -> Attr {
        let body = |g: &Graph| {
            let mut new = canonical_graph(g, self.hashes, self.depth + 1);
            for (_, from) in &mut new.captures {
                *from = self.ids[&self.hash(*from)];
            }
            new
        };
        match attr {
            Attr::Graph(g) => Attr::Graph(Box::new(body(g))),
            Attr::Graphs(gs) => Attr::Graphs(gs.iter().map(body).collect()),
            other => other.clone(),
        }
    }

    /// Names the outputs; one that is also an input, a constant or another output gets an Identity.
    fn outputs(&mut self) {
        let mut taken: BTreeSet<ValueId> = self.new.inputs.iter().copied().collect();
        taken.extend(self.new.initializers.keys());
        taken.extend(self.new.captures.iter().map(|(v, _)| *v));
        for &v in &self.old.outputs {
            let id = self.ids[&self.hash(v)];
            let id = if taken.insert(id) {
                if self.depth == 0 {
                    self.new.values[id.0 as usize] = self.old.value(v).clone();
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
            self.new.outputs.push(id);
        }
        self.avoid_signature_names();
    }

    /// An inner name must not collide with a name of the signature.
    fn avoid_signature_names(&mut self) {
        let outside: BTreeSet<ValueId> = self.new.inputs.iter().chain(&self.new.outputs).copied().collect();
        let names: BTreeSet<String> = outside.iter().map(|v| self.new.value(*v).name.clone()).collect();
        for (i, value) in self.new.values.iter_mut().enumerate() {
            if !outside.contains(&ValueId(i as u32)) {
                while names.contains(&value.name) {
                    value.name.push('_');
                }
            }
        }
    }
}
