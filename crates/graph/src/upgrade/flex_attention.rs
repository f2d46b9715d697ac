//! FlexAttention as the standard's function body, its modifiers in place.

use isobit_tensor::{DType, Tensor};

use super::Rewriter;
use super::forms::take_float;
use super::splice::splice;
use crate::{Attr, GraphError, Node, ValueId};

pub(super) fn flex_attention(r: &mut Rewriter<'_>, mut node: Node) -> Result<(), GraphError> {
    let &[Some(q), Some(k), Some(v)] = &node.inputs[..] else {
        return Err(r.error(&node, "it takes Q, K and V"));
    };
    let int = Attr::Int;
    let precision = match (node.attrs.get("softmax_precision"), r.dtype(q)) {
        (Some(Attr::Int(code)), _) => i32::try_from(*code).ok().and_then(DType::from_onnx),
        (None, Some(DType::F64)) => Some(DType::F64),
        (None, Some(_)) => Some(DType::F32),
        _ => None,
    };
    let Some(precision) = precision.filter(|p| p.is_float()) else {
        return Err(r.error(&node, "nothing says in which type its softmax is; declare the type of Q"));
    };
    let precision = int(precision.onnx().into());
    let extent = |r: &mut Rewriter<'_>, x, axis: i64| {
        r.op("Shape", &[x], &[("start", int(axis)), ("end", int(axis + 1))])
    };
    let heads = extent(r, q, 1);
    let aligned = {
        let (batch, kv_heads, length) = (extent(r, q, 0), extent(r, k, 1), extent(r, k, 2));
        let repeat = r.op("Div", &[heads, kv_heads], &[]);
        let second = r.ints(&[2]);
        move |r: &mut Rewriter<'_>, x: ValueId| {
            let size = extent(r, x, 3);
            let apart = r.op("Unsqueeze", &[x, second], &[]);
            let wide = r.op("Concat", &[batch, kv_heads, repeat, length, size], &[("axis", int(0))]);
            let repeated = r.op("Expand", &[apart, wide], &[]);
            let shape = r.op("Concat", &[batch, heads, length, size], &[("axis", int(0))]);
            r.op("Reshape", &[repeated, shape], &[])
        }
    };
    let (k, v_all) = (aligned(r, k), aligned(r, v));
    let scale = match take_float(&mut node, "scale") {
        Some(scale) => r.constant(Tensor::scalar(scale)),
        None => {
            let none = r.ints(&[]);
            let size = extent(r, q, 3);
            let size = r.op("Reshape", &[size, none], &[]);
            let size = r.op("Cast", &[size], &[("to", int(1))]);
            let root = r.op("Sqrt", &[size], &[]);
            let one = r.constant(Tensor::scalar(1.0f32));
            r.op("Div", &[one, root], &[])
        }
    };
    let root = r.op("Sqrt", &[scale], &[]);
    let root = r.op("CastLike", &[root, q], &[]);
    let (q_scaled, k_scaled) = (r.op("Mul", &[q, root], &[]), r.op("Mul", &[k, root], &[]));
    let k_turned = r.op("Transpose", &[k_scaled], &[("perm", Attr::Ints(vec![0, 1, 3, 2]))]);
    let score = r.op("MatMul", &[q_scaled, k_turned], &[]);
    let score = r.op("Cast", &[score], &[("to", precision.clone())]);
    let score = modified(r, &mut node, "score_mod", score)?;
    let prob = r.op("Softmax", &[score], &[("axis", int(3))]);
    let prob = modified(r, &mut node, "prob_mod", prob)?;
    let v_wide = r.op("Cast", &[v_all], &[("to", precision)]);
    let y = r.op("MatMul", &[prob, v_wide], &[]);
    r.push(Node {
        op: "CastLike".into(),
        name: node.name,
        inputs: vec![Some(y), Some(v)],
        outputs: node.outputs,
        ..Node::default()
    });
    Ok(())
}

/// What a modifier makes of a value; the value itself without one.
fn modified(r: &mut Rewriter<'_>, node: &mut Node, name: &str, x: ValueId) -> Result<ValueId, GraphError> {
    let body = match node.attrs.remove(name) {
        None => return Ok(x),
        Some(Attr::Graph(body)) if body.inputs.len() == 1 && body.outputs.len() == 1 => *body,
        Some(_) => return Err(r.error(node, &format!("{name} is no graph of one input and one output"))),
    };
    Ok(splice(r, body, &[x])[0])
}
