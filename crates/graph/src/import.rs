//! From protobuf messages to the IR: names become values, `Constant` nodes become initializers, captures of
//! subgraphs become explicit, nodes are put in topological order.

use std::collections::BTreeMap;

use isobit_onnx::proto::{AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto};
use isobit_onnx::{External, Limits, tensor_from_proto};
use isobit_tensor::Tensor;

use crate::functions::{inline, short_domain as domain};
use crate::ir::bodies;
use crate::sparse::dense;
use crate::types::{type_from_proto, value};
use crate::{Attr, Dim, Graph, GraphError, Model, Node, Value, ValueId};

/// Imports a decoded model. Its tensors are read here, external ones through `external`.
pub fn import(proto: &ModelProto, external: &dyn External, limits: &Limits) -> Result<Model, GraphError> {
    let graph = proto.graph.as_ref().ok_or_else(|| GraphError::Graph {
        graph: String::new(),
        message: "the file holds no graph; is it an ONNX model?".into(),
    })?;
    let mut opsets = BTreeMap::new();
    for o in &proto.opset_import {
        opsets.insert(domain(&o.domain).to_owned(), o.version);
    }
    check_functions(proto, &mut opsets)?;
    let inlined;
    let graph = if proto.functions.is_empty() {
        graph
    } else {
        inlined = inline(proto, limits)?;
        inlined.graph.as_ref().expect("inlining keeps the graph")
    };
    let mut importer = Importer {
        external,
        limits,
        budget: limits.tensor_bytes,
        nodes: 0,
        values: 0,
        opsets: &opsets,
        scopes: Vec::new(),
    };
    let graph = importer.graph(graph, 0)?;
    Ok(Model {
        graph,
        opsets,
        ir_version: proto.ir_version.unwrap_or(0),
        producer: [proto.producer_name.as_str(), proto.producer_version.as_str()].join(" ").trim().to_owned(),
        metadata: proto.metadata_props.iter().map(|p| (p.key.clone(), p.value.clone())).collect(),
    })
}

/// Functions are inlined, so their operators must be of the version that the model imports.
fn check_functions(proto: &ModelProto, opsets: &mut BTreeMap<String, i64>) -> Result<(), GraphError> {
    for f in &proto.functions {
        for o in &f.opset_import {
            let version = *opsets.entry(domain(&o.domain).to_owned()).or_insert(o.version);
            let used = f.node.iter().any(|n| domain(&n.domain) == domain(&o.domain));
            if version != o.version && used {
                return Err(GraphError::Graph {
                    graph: format!("function {}", f.name),
                    message: format!(
                        "it imports opset {} of '{}', the model imports {version}; export with one opset",
                        o.version, o.domain
                    ),
                });
            }
        }
    }
    Ok(())
}

fn label(n: &NodeProto) -> String {
    if n.name.is_empty() { n.op_type.clone() } else { format!("{} '{}'", n.op_type, n.name) }
}

struct Importer<'a> {
    external: &'a dyn External,
    limits: &'a Limits,
    budget: u64,
    nodes: usize,
    values: usize,
    opsets: &'a BTreeMap<String, i64>,
    /// The graphs being built, outermost first.
    scopes: Vec<Scope>,
}

#[derive(Default)]
struct Scope {
    graph: Graph,
    names: BTreeMap<String, ValueId>,
}

impl Importer<'_> {
    fn graph(&mut self, g: &GraphProto, depth: usize) -> Result<Graph, GraphError> {
        if depth > self.limits.depth {
            return Err(GraphError::Limit { what: "levels of subgraphs", limit: self.limits.depth });
        }
        let error = |message: String| GraphError::Graph { graph: g.name.clone(), message };
        let outputs: usize = g.node.iter().map(|n| n.output.len()).sum();
        self.count_values(g.initializer.len() + g.sparse_initializer.len() + g.input.len() + outputs)?;
        self.scopes.push(Scope::default());
        let mut constants = Vec::with_capacity(g.initializer.len());
        for t in &g.initializer {
            constants.push((t.name.clone(), self.tensor(t)?));
        }
        for s in &g.sparse_initializer {
            let name = s.values.as_ref().map(|v| v.name.clone()).unwrap_or_default();
            let tensor = dense(s, self.external, &mut self.budget)?;
            constants.push((name, tensor));
        }
        for (name, tensor) in constants {
            let scope = self.scope();
            let id = scope.graph.add_constant(name.clone(), tensor);
            if scope.names.insert(name.clone(), id).is_some() {
                return Err(error(format!("initializer '{name}' is given twice")));
            }
        }
        for input in &g.input {
            let scope = self.scope();
            // Before IR version 4 every initializer was listed as an input too.
            match scope.names.get(&input.name) {
                Some(id) if scope.graph.initializers.contains_key(id) => continue,
                Some(_) => return Err(error(format!("input '{}' is given twice", input.name))),
                None => {}
            }
            let id = scope.graph.add_value(value(input).map_err(error)?);
            scope.names.insert(input.name.clone(), id);
            scope.graph.inputs.push(id);
        }
        // Results are declared first, so that nodes may come in any order.
        for n in &g.node {
            for name in n.output.iter().filter(|o| !o.is_empty()) {
                let scope = self.scope();
                let id = scope.graph.add_value(Value { name: name.clone(), ..Value::default() });
                if scope.names.insert(name.clone(), id).is_some() {
                    return Err(error(format!("'{name}' is defined twice")));
                }
            }
        }
        for info in g.value_info.iter().chain(&g.output) {
            let scope = self.scope();
            if let Some(&id) = scope.names.get(&info.name) {
                let known = &mut scope.graph.values[id.0 as usize];
                let Value { dtype, shape, container, .. } = value(info).map_err(error)?;
                known.dtype = known.dtype.or(dtype);
                known.shape = known.shape.take().or(shape);
                known.container = known.container.take().or(container);
            }
        }
        for n in &g.node {
            self.node(n, depth)?;
        }
        for output in &g.output {
            let id = self
                .resolve(&output.name)?
                .ok_or_else(|| error(format!("output '{}' is never computed", output.name)))?;
            self.scope().graph.outputs.push(id);
        }
        let mut graph = self.scopes.pop().expect("pushed above").graph;
        graph.name = g.name.clone();
        sort(&mut graph)?;
        Ok(graph)
    }

    fn scope(&mut self) -> &mut Scope {
        self.scopes.last_mut().expect("inside a graph")
    }

    /// The value of this name in the innermost graph; one of an enclosing graph is captured.
    fn resolve(&mut self, name: &str) -> Result<Option<ValueId>, GraphError> {
        let Some(level) = self.scopes.iter().rposition(|s| s.names.contains_key(name)) else {
            return Ok(None);
        };
        self.count_values(self.scopes.len() - 1 - level)?;
        let mut id = self.scopes[level].names[name];
        for scope in level + 1..self.scopes.len() {
            let outer = self.scopes[scope - 1].graph.value(id).clone();
            let graph = &mut self.scopes[scope].graph;
            let inner = graph.add_value(outer);
            graph.captures.push((inner, id));
            self.scopes[scope].names.insert(name.to_owned(), inner);
            id = inner;
        }
        Ok(Some(id))
    }

    fn count_values(&mut self, more: usize) -> Result<(), GraphError> {
        self.values = self.values.saturating_add(more);
        match self.values > self.limits.values {
            true => Err(GraphError::Limit { what: "values", limit: self.limits.values }),
            false => Ok(()),
        }
    }

    fn node(&mut self, n: &NodeProto, depth: usize) -> Result<(), GraphError> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(GraphError::Limit { what: "nodes", limit: self.limits.nodes });
        }
        let error = |message: String| GraphError::Node { node: label(n), message };
        let mut inputs = Vec::with_capacity(n.input.len());
        for name in &n.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            let id = self.resolve(name)?;
            inputs.push(Some(id.ok_or_else(|| error(format!("input '{name}' is defined nowhere")))?));
        }
        let names = &self.scope().names;
        let outputs: Vec<Option<ValueId>> = n.output.iter().map(|name| names.get(name).copied()).collect();
        let own = domain(&n.domain);
        if !self.opsets.contains_key(own) {
            let own = if own.is_empty() { "ai.onnx" } else { own };
            return Err(error(format!("the model imports no version of its operator set '{own}'")));
        }
        let mut attrs = BTreeMap::new();
        for a in &n.attribute {
            if !a.ref_attr_name.is_empty() {
                return Err(error(format!("attribute '{}' refers to a function's, outside of one", a.name)));
            }
            let attr = self.attribute(a, depth).map_err(|e| match e {
                AttrError::Graph(e) => e,
                AttrError::Kind(kind) => {
                    error(format!("attribute '{}' is {kind}, which is not supported", a.name))
                }
            })?;
            if attr.is_some_and(|attr| attrs.insert(a.name.clone(), attr).is_some()) {
                return Err(error(format!("attribute '{}' is given twice", a.name)));
            }
        }
        if n.op_type == "Constant" && domain(&n.domain).is_empty() {
            let tensor = constant(&attrs).map_err(&error)?;
            let [Some(id)] = outputs[..] else {
                return Err(error(format!("{} results; a Constant has one", outputs.len())));
            };
            let scope = self.scope();
            let v = &mut scope.graph.values[id.0 as usize];
            v.dtype = Some(tensor.dtype());
            v.shape = Some(tensor.shape().iter().map(|&d| Dim::Known(d)).collect());
            scope.graph.initializers.insert(id, tensor);
            return Ok(());
        }
        let node = Node {
            domain: own.to_owned(),
            op: n.op_type.clone(),
            name: n.name.clone(),
            inputs,
            outputs,
            attrs,
        };
        self.scope().graph.nodes.push(node);
        Ok(())
    }

    fn attribute(&mut self, a: &AttributeProto, depth: usize) -> Result<Option<Attr>, AttrError> {
        let kind = AttributeType::try_from(a.r#type).unwrap_or(AttributeType::Undefined);
        // Files of the first IR version carry no type; the field that is set says it.
        let kind = if kind == AttributeType::Undefined { guess(a) } else { kind };
        Ok(Some(match kind {
            AttributeType::Float => Attr::Float(a.f.unwrap_or_default()),
            AttributeType::Int => Attr::Int(a.i.unwrap_or_default()),
            AttributeType::String => Attr::String(a.s.clone().unwrap_or_default()),
            AttributeType::Floats => Attr::Floats(a.floats.clone()),
            AttributeType::Ints => Attr::Ints(a.ints.clone()),
            AttributeType::Strings => Attr::Strings(a.strings.clone()),
            AttributeType::Tensor => match &a.t {
                Some(t) => Attr::Tensor(self.tensor(t)?),
                None => return Ok(None),
            },
            AttributeType::Tensors => {
                Attr::Tensors(a.tensors.iter().map(|t| self.tensor(t)).collect::<Result<_, _>>()?)
            }
            AttributeType::Graph => match &a.g {
                Some(g) => Attr::Graph(Box::new(self.graph(g, depth + 1)?)),
                None => return Ok(None),
            },
            AttributeType::Graphs => Attr::Graphs(
                a.graphs.iter().map(|g| self.graph(g, depth + 1)).collect::<Result<_, GraphError>>()?,
            ),
            AttributeType::SparseTensor => match &a.sparse_tensor {
                Some(s) => Attr::Tensor(dense(s, self.external, &mut self.budget)?),
                None => return Ok(None),
            },
            AttributeType::SparseTensors => {
                let all = a.sparse_tensors.iter().map(|s| dense(s, self.external, &mut self.budget));
                Attr::Tensors(all.collect::<Result<_, GraphError>>()?)
            }
            AttributeType::TypeProto => match &a.tp {
                Some(t) => Attr::Type(type_from_proto(t).map_err(AttrError::Kind)?),
                None => return Ok(None),
            },
            AttributeType::TypeProtos => return Err(AttrError::Kind("a list of types")),
            AttributeType::Undefined => return Ok(None),
        }))
    }

    fn tensor(&mut self, t: &isobit_onnx::proto::TensorProto) -> Result<Tensor, GraphError> {
        Ok(tensor_from_proto(t, self.external, &mut self.budget)?)
    }
}

enum AttrError {
    Graph(GraphError),
    Kind(&'static str),
}

impl From<GraphError> for AttrError {
    fn from(e: GraphError) -> Self {
        AttrError::Graph(e)
    }
}

fn guess(a: &AttributeProto) -> AttributeType {
    use AttributeType::*;
    match a {
        _ if !a.ints.is_empty() => Ints,
        _ if !a.floats.is_empty() => Floats,
        _ if !a.strings.is_empty() => Strings,
        _ if a.t.is_some() => Tensor,
        _ if a.tp.is_some() => TypeProto,
        _ if a.sparse_tensor.is_some() => SparseTensor,
        _ if a.g.is_some() => Graph,
        _ if a.s.is_some() => String,
        _ if a.f.is_some() => Float,
        _ => Int,
    }
}

fn constant(attrs: &BTreeMap<String, Attr>) -> Result<Tensor, String> {
    let text = |v: &[u8]| String::from_utf8(v.to_vec()).map_err(|_| "the constant is not UTF-8".to_owned());
    let Some((name, attr)) = attrs.iter().next() else { return Err("a Constant without a value".into()) };
    Ok(match (name.as_str(), attr) {
        ("value" | "sparse_value", Attr::Tensor(t)) => t.clone(),
        ("value_int", Attr::Int(v)) => Tensor::scalar(*v),
        ("value_ints", Attr::Ints(v)) => Tensor::vector(v.clone()),
        ("value_float", Attr::Float(v)) => Tensor::scalar(*v),
        ("value_floats", Attr::Floats(v)) => Tensor::vector(v.clone()),
        ("value_string", Attr::String(v)) => Tensor::scalar(text(v)?),
        ("value_strings", Attr::Strings(v)) => {
            Tensor::vector(v.iter().map(|s| text(s)).collect::<Result<Vec<_>, _>>()?)
        }
        _ => return Err(format!("a Constant of kind '{name}' is not supported")),
    })
}

/// Puts the nodes in topological order, keeping the file's order where it is one.
pub(crate) fn sort(graph: &mut Graph) -> Result<(), GraphError> {
    let mut defined = vec![false; graph.values.len()];
    let outside = graph.captures.iter().map(|(inner, _)| inner);
    for v in graph.inputs.iter().chain(graph.initializers.keys()).chain(outside) {
        defined[v.0 as usize] = true;
    }
    // How many operands of each node are not defined yet, and who waits for a value.
    let mut waiting: BTreeMap<ValueId, Vec<usize>> = BTreeMap::new();
    let mut missing = vec![0usize; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        let mut operands: Vec<ValueId> = node.inputs.iter().flatten().copied().collect();
        operands.extend(bodies(node).flat_map(|b| b.captures.iter().map(|(_, outer)| *outer)));
        for v in operands.into_iter().filter(|v| !defined[v.0 as usize]) {
            missing[i] += 1;
            waiting.entry(v).or_default().push(i);
        }
    }
    let mut ready: std::collections::BTreeSet<usize> =
        (0..graph.nodes.len()).filter(|&i| missing[i] == 0).collect();
    let mut order = Vec::with_capacity(graph.nodes.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for v in graph.nodes[i].outputs.iter().flatten() {
            for w in waiting.remove(v).unwrap_or_default() {
                missing[w] -= 1;
                if missing[w] == 0 {
                    ready.insert(w);
                }
            }
        }
    }
    if order.len() != graph.nodes.len() {
        let stuck = (0..graph.nodes.len()).find(|&i| missing[i] > 0).expect("some node is left");
        let node = &graph.nodes[stuck];
        let message =
            format!("node {} '{}' depends on its own result, or on nothing", node.qualified(), node.name);
        return Err(GraphError::Graph { graph: graph.name.clone(), message });
    }
    let mut nodes: Vec<Option<Node>> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().map(|i| nodes[i].take().expect("each node once")).collect();
    Ok(())
}
