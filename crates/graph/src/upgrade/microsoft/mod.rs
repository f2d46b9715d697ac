//! Operators of `com.microsoft`, which exporters and ONNX Runtime's optimizer write, restated in those of the standard: what
//! they compute is by definition what these graphs compute.

mod attention;
mod channels;
mod dense;
mod norm;
mod quantized;

use std::collections::BTreeMap;

use isobit_tensor::Tensor;

use super::{Rewriter, fresh};
use crate::{Attr, GraphError, Node, ValueId};

/// The operators that are known here.
pub(super) static OPERATORS: &[&str] = &[
    "Attention",
    "BiasAdd",
    "BiasDropout",
    "BiasGelu",
    "BiasSoftmax",
    "BiasSplitGelu",
    "CDist",
    "DequantizeLinear",
    "DynamicQuantizeMatMul",
    "EmbedLayerNormalization",
    "ExpandDims",
    "FastGelu",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "GatherBlockQuantized",
    "GatherND",
    "Gelu",
    "GemmFastGelu",
    "GridSample",
    "GroupNorm",
    "GroupQueryAttention",
    "LayerNormalization",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "NhwcConv",
    "NhwcMaxPool",
    "Pad",
    "QAttention",
    "QGemm",
    "QLinearAdd",
    "QLinearAveragePool",
    "QLinearConcat",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QLinearLeakyRelu",
    "QLinearMul",
    "QLinearReduceMean",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QLinearWhere",
    "QuantizeLinear",
    "QuickGelu",
    "Range",
    "RotaryEmbedding",
    "SimplifiedLayerNormalization",
    "SkipGroupNorm",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "TransposeMatMul",
    "Trilu",
    "Unique",
];

/// Restates `node`, where it is one that is known here.
pub(super) fn restate(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let c = &mut Call {
        r,
        inputs: std::mem::take(&mut node.inputs),
        attrs: std::mem::take(&mut node.attrs),
        node,
    };
    match c.node.op.as_str() {
        // The same under another name.
        "Gelu" | "QuantizeLinear" | "DequantizeLinear" | "GatherND" | "Pad" | "Trilu" => c.renamed(),
        "Unique" => return dense::unique(c),
        "Range" => return dense::range(c),
        "ExpandDims" => {
            c.renamed();
            c.node.op = "Unsqueeze".into();
        }
        "FastGelu" => return dense::gelu(c, true),
        "BiasGelu" => return dense::gelu(c, false),
        "QuickGelu" => return dense::quick_gelu(c),
        "BiasAdd" => return dense::bias_add(c),
        "BiasSplitGelu" => return dense::bias_split_gelu(c),
        "BiasDropout" => return dense::bias_dropout(c),
        "FusedMatMul" | "TransposeMatMul" => return dense::fused_matmul(c),
        "FusedGemm" => return dense::activated(c, "Gemm"),
        "FusedConv" => return dense::activated(c, "Conv"),
        "GemmFastGelu" => return dense::matmul_gelu(c),
        "BiasSoftmax" => return dense::bias_softmax(c),
        "CDist" => return dense::distances(c),
        "GridSample" => {
            c.renamed();
            dense::grid_sample(c);
        }
        "NhwcMaxPool" => return channels::between(c, "MaxPool"),
        "NhwcConv" => return channels::between(c, "Conv"),
        "QLinearConv" => return channels::conv(c),
        "GroupNorm" => {
            let x = c.need(0)?;
            return channels::group_norm(c, x);
        }
        "SkipGroupNorm" => return channels::skip_group_norm(c),
        "GatherBlockQuantized" => return quantized::gather(c),
        "MatMulNBits" => return quantized::matmul_bits(c),
        "LayerNormalization" => c.renamed(),
        "SimplifiedLayerNormalization" => return norm::simplified(c),
        "SkipLayerNormalization" => return norm::skip(c, "LayerNormalization"),
        "SkipSimplifiedLayerNormalization" => return norm::skip(c, "RMSNormalization"),
        "EmbedLayerNormalization" => return norm::embed(c),
        "RotaryEmbedding" => return attention::rotary(c),
        "MultiHeadAttention" => return attention::multi_head(c),
        "Attention" => return attention::packed(c),
        "GroupQueryAttention" => return attention::group_query(c),
        "DynamicQuantizeMatMul" => return quantized::dynamic_matmul(c),
        "MatMulIntegerToFloat" => return quantized::integer_matmul(c),
        "QLinearAdd" => return quantized::binary(c, "Add"),
        "QLinearMul" => return quantized::binary(c, "Mul"),
        "QLinearSigmoid" => return quantized::unary(c, "Sigmoid"),
        "QLinearLeakyRelu" => return quantized::unary(c, "LeakyRelu"),
        "QLinearSoftmax" => return quantized::softmax(c),
        "QLinearReduceMean" => return quantized::mean(c),
        "QLinearWhere" => return quantized::choice(c),
        "QLinearAveragePool" => return channels::pool(c, "AveragePool"),
        "QLinearGlobalAveragePool" => return channels::pool(c, "GlobalAveragePool"),
        "QGemm" => return quantized::gemm(c),
        "QAttention" => return quantized::attention(c),
        "QLinearConcat" => return quantized::concat(c),
        _ => {}
    }
    c.push_as_is();
    Ok(())
}

/// The node that is restated.
struct Call<'c, 'g> {
    r: &'c mut Rewriter<'g>,
    inputs: Vec<Option<ValueId>>,
    attrs: BTreeMap<String, Attr>,
    /// Name, operator and results.
    node: Node,
}

impl Call<'_, '_> {
    fn renamed(&mut self) {
        self.node.domain.clear();
    }

    fn push_as_is(&mut self) {
        let mut node = std::mem::take(&mut self.node);
        node.inputs = std::mem::take(&mut self.inputs);
        node.attrs = std::mem::take(&mut self.attrs);
        self.r.push(node);
    }

    fn error(&self, message: &str) -> GraphError {
        self.r.error(&self.node, message)
    }

    fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    fn need(&self, i: usize) -> Result<ValueId, GraphError> {
        self.input(i).ok_or_else(|| self.error(&format!("operand {i} is missing")))
    }

    fn int(&self, name: &str, default: i64) -> i64 {
        match self.attrs.get(name) {
            Some(Attr::Int(v)) => *v,
            _ => default,
        }
    }

    fn float(&self, name: &str) -> Option<f32> {
        match self.attrs.get(name) {
            Some(Attr::Float(v)) => Some(*v),
            _ => None,
        }
    }

    fn op(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        self.r.op(op, inputs, attrs)
    }

    fn ints(&mut self, values: &[i64]) -> ValueId {
        self.r.ints(values)
    }

    /// A float constant of the type of `like`.
    fn number(&mut self, value: f32, like: ValueId) -> ValueId {
        let value = self.r.constant(Tensor::scalar(value));
        self.op("CastLike", &[value, like], &[])
    }

    /// `x` + operand `i`, where that is given.
    fn plus(&mut self, x: ValueId, i: usize) -> ValueId {
        match self.input(i) {
            Some(b) => self.op("Add", &[x, b], &[]),
            None => x,
        }
    }

    /// Extents `from..to`, a vector.
    fn extents(&mut self, x: ValueId, from: i64, to: i64) -> ValueId {
        self.op("Shape", &[x], &[("start", Attr::Int(from)), ("end", Attr::Int(to))])
    }

    fn reshape(&mut self, x: ValueId, parts: &[ValueId]) -> ValueId {
        let shape = self.op("Concat", parts, &[("axis", Attr::Int(0))]);
        self.op("Reshape", &[x, shape], &[])
    }

    /// Result `i` is what this node makes; nothing where it is not wanted.
    fn result(&mut self, i: usize, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) {
        let Some(out) = self.node.outputs.get(i).copied().flatten() else { return };
        self.r.push(Node {
            op: op.into(),
            name: if i == 0 { std::mem::take(&mut self.node.name) } else { String::new() },
            inputs: inputs.iter().map(|&v| Some(v)).collect(),
            outputs: vec![Some(out)],
            attrs: attrs.iter().map(|(k, a)| ((*k).to_owned(), a.clone())).collect(),
            ..Node::default()
        });
    }

    /// Moves the attributes that are left to the node that was pushed last.
    fn attributes_to_last(&mut self) {
        let attrs = std::mem::take(&mut self.attrs);
        if let Some(node) = self.r.graph.nodes.last_mut() {
            node.attrs = attrs;
        }
    }

    fn wanted(&self, i: usize) -> bool {
        self.node.outputs.get(i).copied().flatten().is_some()
    }

    /// A node with operands that may be left out and several results, in the order of `count`.
    fn many(
        &mut self,
        op: &str,
        inputs: Vec<Option<ValueId>>,
        attrs: &[(&str, Attr)],
        count: usize,
    ) -> Vec<ValueId> {
        let outputs: Vec<ValueId> = (0..count).map(|_| fresh(self.r.graph)).collect();
        self.r.push(Node {
            op: op.into(),
            inputs,
            outputs: outputs.iter().map(|&v| Some(v)).collect(),
            attrs: attrs.iter().map(|(k, a)| ((*k).to_owned(), a.clone())).collect(),
            ..Node::default()
        });
        outputs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_of_the_list_is_restated() {
        for op in OPERATORS {
            let mut graph = crate::Graph::default();
            let node = Node { domain: "com.microsoft".into(), op: (*op).into(), ..Node::default() };
            let mut rewriter = Rewriter { graph: &mut graph, opset: 21, sources: BTreeMap::new() };
            // Without operands most are refused, which only those known here are.
            let refused = restate(&mut rewriter, node).is_err();
            assert!(refused || graph.nodes.iter().all(|n| n.domain.is_empty()), "{op}");
        }
    }
}
