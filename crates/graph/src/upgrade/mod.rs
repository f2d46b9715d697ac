//! Opset upgrade: every operator in the form it has in the pinned operator set, so that operators are implemented
//! once. Each rule keeps the result bit for bit: it restates, it never recomputes.

mod flex_attention;
mod forms;
mod gradient;
mod microsoft;
mod norm;
mod resize;
mod scan;
mod splice;

use std::collections::BTreeMap;

use isobit_tensor::{DType, Tensor};

use crate::{Attr, Dim, Graph, GraphError, Model, Node, Value, ValueId};

/// The operator set version of `ai.onnx` that canonical models are written in. A model that imports a newer one
/// keeps it.
pub const PINNED_OPSET: i64 = 23;
/// The IR version of canonical models in the pinned operator set.
pub const PINNED_IR_VERSION: i64 = 11;

/// The newest operator set version of `ai.onnx` whose forms are known here.
pub const NEWEST_OPSET: i64 = 28;

/// Operators that are restated in others, by domain: those of `com.microsoft`, and those of the standard that are graphs
/// themselves.
pub fn restated() -> impl Iterator<Item = (&'static str, &'static str)> {
    let microsoft = microsoft::OPERATORS.iter().map(|&op| ("com.microsoft", op));
    let own = [
        ("", "Scatter"),
        ("", "Upsample"),
        ("ai.onnx.preview", "FlexAttention"),
        ("ai.onnx.preview.training", "Gradient"),
    ];
    own.into_iter().chain(microsoft)
}

/// Upgrades every node of the model in place.
pub fn upgrade(model: &mut Model) -> Result<(), GraphError> {
    let opset = model.opsets.get("").copied().unwrap_or(1);
    if !(1..=NEWEST_OPSET).contains(&opset) {
        return Err(GraphError::Graph {
            graph: model.graph.name.clone(),
            message: format!("opset {opset} of ai.onnx is not one of 1 to {NEWEST_OPSET}, those known here"),
        });
    }
    graph(&mut model.graph, opset)?;
    let opset = opset.max(PINNED_OPSET);
    model.opsets.insert(String::new(), opset);
    model.ir_version = ir_version(opset);
    Ok(())
}

/// The IR version an operator set came out with: not the file's own, which says nothing about its meaning.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=23 => PINNED_IR_VERSION,
        24 => 12,
        25..=27 => 13,
        _ => 14,
    }
}

fn graph(g: &mut Graph, opset: i64) -> Result<(), GraphError> {
    let nodes = std::mem::take(&mut g.nodes);
    let mut sources = BTreeMap::new();
    for node in nodes.iter().filter(|n| n.domain.is_empty() && n.op == "Identity") {
        if let ([Some(from)], [Some(to)]) = (&node.inputs[..], &node.outputs[..]) {
            sources.insert(*to, sources.get(from).copied().unwrap_or(*from));
        }
    }
    let mut rewriter = Rewriter { graph: g, opset, sources };
    for mut node in nodes {
        for attr in node.attrs.values_mut() {
            match attr {
                Attr::Graph(body) => graph(body, opset)?,
                Attr::Graphs(bodies) => bodies.iter_mut().try_for_each(|b| graph(b, opset))?,
                _ => {}
            }
        }
        match (node.domain.as_str(), node.op.as_str()) {
            ("", op) if opset < PINNED_OPSET && op != "SimplifiedLayerNormalization" => {
                forms::upgrade(&mut rewriter, node)?
            }
            ("ai.onnx.preview", "FlexAttention") => flex_attention::flex_attention(&mut rewriter, node)?,
            ("ai.onnx.preview.training", "Gradient") => gradient::gradient(&mut rewriter, &node)?,
            ("com.microsoft", _) | ("", "SimplifiedLayerNormalization") => {
                microsoft::restate(&mut rewriter, node)?
            }
            _ => rewriter.push(node),
        }
    }
    Ok(())
}

/// What a rule works with: it takes a node and pushes what stands for it.
struct Rewriter<'g> {
    graph: &'g mut Graph,
    opset: i64,
    /// What each result of an Identity is a copy of: copies must not change which form a rule chooses.
    sources: BTreeMap<ValueId, ValueId>,
}

/// Adds a value of which nothing is known.
fn fresh(graph: &mut Graph) -> ValueId {
    let name = format!("upgrade{}", graph.values.len());
    graph.add_value(Value { name, ..Value::default() })
}

/// Adds a node with one new result.
fn push_op(graph: &mut Graph, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
    let out = fresh(graph);
    graph.nodes.push(Node {
        op: op.into(),
        inputs: inputs.iter().map(|&v| Some(v)).collect(),
        outputs: vec![Some(out)],
        attrs: attrs.iter().map(|(k, a)| ((*k).to_owned(), a.clone())).collect(),
        ..Node::default()
    });
    out
}

impl Rewriter<'_> {
    fn push(&mut self, node: Node) {
        self.graph.nodes.push(node);
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        self.graph.add_constant(format!("upgrade{}", self.graph.values.len()), tensor)
    }

    fn ints(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::vector(values.to_vec()))
    }

    /// Pushes a node with one new result.
    fn op(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        push_op(self.graph, op, inputs, attrs)
    }

    fn source(&self, v: ValueId) -> ValueId {
        self.sources.get(&v).copied().unwrap_or(v)
    }

    /// The extents of a value, where the file declares them.
    fn shape(&self, v: ValueId) -> Option<&[Dim]> {
        self.graph.value(self.source(v)).shape.as_deref()
    }

    /// The rank of a value, where the file declares it.
    fn rank(&self, v: ValueId) -> Option<usize> {
        self.shape(v).map(<[Dim]>::len)
    }

    /// The element type of a value, where the file declares it.
    fn dtype(&self, v: ValueId) -> Option<DType> {
        self.graph.value(self.source(v)).dtype
    }

    /// The content of a value, where it is a constant.
    fn content(&self, v: ValueId) -> Option<&Tensor> {
        self.graph.initializers.get(&self.source(v))
    }

    fn error(&self, node: &Node, message: &str) -> GraphError {
        GraphError::Upgrade {
            node: format!("{} '{}'", node.qualified(), node.name),
            opset: self.opset,
            message: message.to_owned(),
        }
    }
}
