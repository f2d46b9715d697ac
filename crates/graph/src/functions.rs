//! Inlining of model-local functions: each call becomes a copy of the function's body, its names made unique.
//!
//! Works on the messages, before import, so that everything after it knows graphs only. Bounded in nodes, bytes and depth:
//! a short file can describe an expansion of any size.

use std::collections::{BTreeMap, BTreeSet};

use isobit_onnx::Limits;
use isobit_onnx::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto};
use prost::Message;

use crate::GraphError;

type Key<'a> = (&'a str, &'a str, &'a str);

/// The model without functions. Calls in subgraphs and in functions are followed, recursion is refused.
pub(crate) fn inline(model: &ModelProto, limits: &Limits) -> Result<ModelProto, GraphError> {
    let mut functions = BTreeMap::new();
    for f in &model.functions {
        let key = (short_domain(&f.domain), f.name.as_str(), f.overload.as_str());
        if functions.insert(key, f).is_some() {
            return Err(GraphError::Graph {
                graph: f.name.clone(),
                message: "two functions have this domain, name and overload".into(),
            });
        }
    }
    let mut prefix = "fn".to_owned();
    if let Some(graph) = &model.graph {
        let mut names = BTreeSet::new();
        collect_names(graph, &mut names);
        while names.range(prefix.as_str()..).next().is_some_and(|n| n.starts_with(&prefix)) {
            prefix.push('_');
        }
    }
    let mut inliner =
        Inliner { functions, prefix, fresh: 0, nodes: 0, bytes: 0, limits, calls: Vec::new(), depth: 0 };
    let graph = model.graph.as_ref().map(|g| inliner.graph(g)).transpose()?;
    Ok(ModelProto {
        graph,
        functions: Vec::new(),
        ir_version: model.ir_version,
        producer_name: model.producer_name.clone(),
        producer_version: model.producer_version.clone(),
        opset_import: model.opset_import.clone(),
        metadata_props: model.metadata_props.clone(),
        ..ModelProto::default()
    })
}

/// `ai.onnx` under its short name.
pub(crate) fn short_domain(name: &str) -> &str {
    if name == "ai.onnx" { "" } else { name }
}

fn collect_names<'a>(graph: &'a GraphProto, names: &mut BTreeSet<&'a str>) {
    names.extend(graph.input.iter().map(|v| v.name.as_str()));
    names.extend(graph.initializer.iter().map(|v| v.name.as_str()));
    for node in &graph.node {
        names.extend(node.output.iter().map(String::as_str));
        node.attribute.iter().flat_map(bodies).for_each(|g| collect_names(g, names));
    }
}

fn bodies(a: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    a.g.iter().chain(&a.graphs)
}

struct Inliner<'a> {
    functions: BTreeMap<Key<'a>, &'a FunctionProto>,
    /// No name of the model starts like this.
    prefix: String,
    fresh: usize,
    nodes: usize,
    bytes: usize,
    limits: &'a Limits,
    /// The functions being expanded, outermost first.
    calls: Vec<*const FunctionProto>,
    /// How many graphs enclose the current node.
    depth: usize,
}

/// What the body of a function sees: its names, one map a level of subgraphs, and its attributes.
struct Scope<'c> {
    names: Vec<BTreeMap<&'c str, String>>,
    attributes: BTreeMap<&'c str, &'c AttributeProto>,
    call: &'c NodeProto,
}

impl Scope<'_> {
    fn lookup(&self, name: &str) -> Result<String, GraphError> {
        if name.is_empty() {
            return Ok(String::new());
        }
        let found = self.names.iter().rev().find_map(|level| level.get(name));
        found
            .cloned()
            .ok_or_else(|| self.error(format!("its function uses '{name}', which is defined nowhere")))
    }

    fn error(&self, message: String) -> GraphError {
        GraphError::Node { node: format!("{} '{}'", self.call.op_type, self.call.name), message }
    }
}

impl Inliner<'_> {
    fn graph(&mut self, g: &GraphProto) -> Result<GraphProto, GraphError> {
        self.depth += 1;
        if self.depth > self.limits.depth + 1 {
            return Err(GraphError::Limit { what: "levels of subgraphs", limit: self.limits.depth });
        }
        let mut node = Vec::with_capacity(g.node.len());
        for n in &g.node {
            self.node(n, &mut node)?;
        }
        self.depth -= 1;
        Ok(GraphProto {
            node,
            name: g.name.clone(),
            initializer: g.initializer.clone(),
            input: g.input.clone(),
            output: g.output.clone(),
            value_info: g.value_info.clone(),
            sparse_initializer: g.sparse_initializer.clone(),
            ..GraphProto::default()
        })
    }

    fn node(&mut self, n: &NodeProto, out: &mut Vec<NodeProto>) -> Result<(), GraphError> {
        let key = (short_domain(&n.domain), n.op_type.as_str(), n.overload.as_str());
        if let Some(&f) = self.functions.get(&key) {
            return self.call(n, f, out);
        }
        self.account(n)?;
        let mut node = n.clone();
        for a in &mut node.attribute {
            if let Some(g) = &mut a.g {
                *g = self.graph(g)?;
            }
            for g in &mut a.graphs {
                *g = self.graph(g)?;
            }
        }
        out.push(node);
        Ok(())
    }

    fn account(&mut self, n: &NodeProto) -> Result<(), GraphError> {
        self.nodes += 1;
        if self.nodes > self.limits.nodes {
            return Err(GraphError::Limit { what: "nodes", limit: self.limits.nodes });
        }
        self.bytes = self.bytes.saturating_add(n.encoded_len());
        if self.bytes > self.limits.file_bytes {
            return Err(GraphError::Limit {
                what: "bytes of inlined functions",
                limit: self.limits.file_bytes,
            });
        }
        Ok(())
    }

    fn call(&mut self, n: &NodeProto, f: &FunctionProto, out: &mut Vec<NodeProto>) -> Result<(), GraphError> {
        let identity = std::ptr::from_ref(f);
        let mut scope = Scope { names: vec![BTreeMap::new()], attributes: BTreeMap::new(), call: n };
        if self.calls.contains(&identity) {
            return Err(scope.error(format!("function '{}' calls itself", f.name)));
        }
        if self.calls.len() >= self.limits.depth {
            return Err(GraphError::Limit { what: "levels of functions", limit: self.limits.depth });
        }
        if n.input.len() > f.input.len() || n.output.len() > f.output.len() {
            let (has, takes) = ((n.input.len(), n.output.len()), (f.input.len(), f.output.len()));
            return Err(scope.error(format!(
                "{} operands and {} results where function '{}' has {} and {}",
                has.0, has.1, f.name, takes.0, takes.1
            )));
        }
        for (i, name) in f.input.iter().enumerate() {
            scope.names[0].insert(name, n.input.get(i).cloned().unwrap_or_default());
        }
        for name in f.node.iter().flat_map(|b| &b.output).filter(|o| !o.is_empty()) {
            let position = f.output.iter().position(|o| o == name);
            let wanted = position.and_then(|i| n.output.get(i)).filter(|o| !o.is_empty());
            let unique = wanted.cloned().unwrap_or_else(|| self.fresh());
            if scope.names[0].insert(name, unique).is_some() {
                return Err(scope.error(format!("function '{}' defines '{name}' twice", f.name)));
            }
        }
        scope.attributes.extend(f.attribute_proto.iter().map(|a| (a.name.as_str(), a)));
        scope.attributes.extend(n.attribute.iter().map(|a| (a.name.as_str(), a)));
        self.calls.push(identity);
        for body in &f.node {
            let mut node = self.instance(body, &mut scope)?;
            node.name = format!("{}/{}", n.name, body.name);
            self.node(&node, out)?;
        }
        self.calls.pop();
        // A result that is a parameter, or the same value as an earlier result.
        for (name, wanted) in f.output.iter().zip(&n.output).filter(|(_, w)| !w.is_empty()) {
            let from = scope.lookup(name)?;
            if from != *wanted {
                out.push(NodeProto {
                    op_type: "Identity".into(),
                    input: vec![from],
                    output: vec![wanted.clone()],
                    ..NodeProto::default()
                });
            }
        }
        Ok(())
    }

    fn fresh(&mut self) -> String {
        self.fresh += 1;
        format!("{}{}", self.prefix, self.fresh)
    }

    /// A node of a function's body under the names and attributes of the call.
    fn instance<'c>(&mut self, n: &'c NodeProto, scope: &mut Scope<'c>) -> Result<NodeProto, GraphError> {
        self.account(n)?;
        let mut attribute = Vec::with_capacity(n.attribute.len());
        for a in &n.attribute {
            if !a.ref_attr_name.is_empty() {
                if let Some(&given) = scope.attributes.get(a.ref_attr_name.as_str()) {
                    self.bytes = self.bytes.saturating_add(given.encoded_len());
                    attribute.push(AttributeProto { name: a.name.clone(), ..given.clone() });
                }
                continue;
            }
            if bodies(a).next().is_none() {
                attribute.push(a.clone());
                continue;
            }
            let g = a.g.as_ref().map(|g| self.body(g, scope)).transpose()?;
            let graphs = a.graphs.iter().map(|g| self.body(g, scope)).collect::<Result<_, _>>()?;
            attribute.push(AttributeProto {
                g,
                graphs,
                name: a.name.clone(),
                r#type: a.r#type,
                ..AttributeProto::default()
            });
        }
        let all = |names: &[String]| names.iter().map(|s| scope.lookup(s)).collect::<Result<Vec<_>, _>>();
        Ok(NodeProto {
            input: all(&n.input)?,
            output: all(&n.output)?,
            op_type: n.op_type.clone(),
            domain: n.domain.clone(),
            overload: n.overload.clone(),
            attribute,
            ..NodeProto::default()
        })
    }

    /// A subgraph in a function's body: what it defines gets new names, what it captures those of the call.
    fn body<'c>(&mut self, g: &'c GraphProto, scope: &mut Scope<'c>) -> Result<GraphProto, GraphError> {
        let defined = g.initializer.iter().map(|t| &t.name).chain(g.input.iter().map(|i| &i.name));
        let defined = defined.chain(g.node.iter().flat_map(|n| &n.output)).filter(|n| !n.is_empty());
        let names = defined.map(|n| (n.as_str(), self.fresh())).collect();
        scope.names.push(names);
        let mut new = GraphProto { name: g.name.clone(), ..GraphProto::default() };
        new.sparse_initializer.clone_from(&g.sparse_initializer);
        for t in &g.initializer {
            let mut t = t.clone();
            t.name = scope.lookup(&t.name)?;
            new.initializer.push(t);
        }
        for (from, to) in [(&g.input, &mut new.input), (&g.output, &mut new.output)] {
            for info in from {
                let mut info = info.clone();
                info.name = scope.lookup(&info.name)?;
                to.push(info);
            }
        }
        for n in &g.node {
            new.node.push(self.instance(n, scope)?);
        }
        scope.names.pop();
        Ok(new)
    }
}
