//! Opset upgrade: every operator in the form it has in the pinned operator set, so that operators are implemented
//! once. Each rule keeps the result bit for bit: it restates, it never recomputes.

mod forms;
mod norm;
mod resize;

use isobit_tensor::Tensor;

use crate::{Attr, Graph, GraphError, Model, Node, Value, ValueId};

/// The operator set version of `ai.onnx` that canonical models are written in. A model that imports a newer one
/// keeps it.
pub const PINNED_OPSET: i64 = 23;
/// The IR version of canonical models in the pinned operator set.
pub const PINNED_IR_VERSION: i64 = 11;

/// The newest operator set version of `ai.onnx` whose forms are known here.
pub const NEWEST_OPSET: i64 = 28;

/// Upgrades every node of the model in place.
pub fn upgrade(model: &mut Model) -> Result<(), GraphError> {
    let opset = model.opsets.get("").copied().unwrap_or(1);
    if !(1..=NEWEST_OPSET).contains(&opset) {
        return Err(GraphError::Graph {
            graph: model.graph.name.clone(),
            message: format!("opset {opset} of ai.onnx is not one of 1 to {NEWEST_OPSET}, those known here"),
        });
    }
    if opset < PINNED_OPSET {
        graph(&mut model.graph, opset)?;
    }
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
    let mut rewriter = Rewriter { graph: g, opset };
    for mut node in nodes {
        for attr in node.attrs.values_mut() {
            match attr {
                Attr::Graph(body) => graph(body, opset)?,
                Attr::Graphs(bodies) => bodies.iter_mut().try_for_each(|b| graph(b, opset))?,
                _ => {}
            }
        }
        if node.domain.is_empty() {
            forms::upgrade(&mut rewriter, node)?;
        } else {
            rewriter.push(node);
        }
    }
    Ok(())
}

/// What a rule works with: it takes a node and pushes what stands for it.
struct Rewriter<'g> {
    graph: &'g mut Graph,
    opset: i64,
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
        let name = format!("upgrade{}", self.graph.values.len());
        let out = self.graph.add_value(Value { name, ..Value::default() });
        self.push(Node {
            op: op.into(),
            inputs: inputs.iter().map(|&v| Some(v)).collect(),
            outputs: vec![Some(out)],
            attrs: attrs.iter().map(|(k, a)| ((*k).to_owned(), a.clone())).collect(),
            ..Node::default()
        });
        out
    }

    /// The rank of a value, where the file declares it.
    fn rank(&self, v: ValueId) -> Option<usize> {
        self.graph.value(v).shape.as_ref().map(Vec::len)
    }

    fn error(&self, node: &Node, message: &str) -> GraphError {
        GraphError::Upgrade {
            node: format!("{} '{}'", node.qualified(), node.name),
            opset: self.opset,
            message: message.to_owned(),
        }
    }
}
