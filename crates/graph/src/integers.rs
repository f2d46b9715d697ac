//! Quantised groups as the integer operators that they stand for.
//!
//! Who quantises a model puts QuantizeLinear and DequantizeLinear around its operators. The file then says which 8 bits are kept of each
//! value, and means a convolution between them to be one of integers. Here the model says so:
//!
//! | group | becomes |
//! | --- | --- |
//! | DequantizeLinear of x, of constant weights and of a bias, Conv (, Relu), QuantizeLinear | QLinearConv |
//! | DequantizeLinear of a and of b, MatMul, QuantizeLinear | QLinearMatMul |
//! | DequantizeLinear, MaxPool or a move of elements, QuantizeLinear of the same scale and zero point | the operator, of the integers |
//!
//! The sums of the first two rows are exact in integers, where the group would round each step. The last row changes no result. What a
//! QuantizeLinear becomes follows from what its operand is made of and from nothing else, so that a model in canonical form has no group left;
//! a value inside a group that is read elsewhere, too, is computed for that reader as it is written. A group stays where the integer operator
//! has not its meaning: numbers that are not of 8 bits, scales that are no constants, a bias of another scale than x and the weights give it.

use std::collections::BTreeMap;

use isobit_tensor::{DType, Tensor};

use crate::ir::attr_bodies_mut;
use crate::{Attr, Graph, Model, Node, ValueId};

/// Operators whose results are elements of their first operand.
const MOVES: &[&str] = &[
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Replaces the ends of the groups of a model in canonical form; what only led there is left for [`crate::canonicalize`] to drop. Says whether
/// there were any.
pub fn integers(model: &mut Model) -> bool {
    graph(&mut model.graph)
}

fn graph(g: &mut Graph) -> bool {
    let bodies = g.nodes.iter_mut().flat_map(|n| n.attrs.values_mut()).flat_map(attr_bodies_mut);
    let mut any = bodies.fold(false, |any, body| graph(body) | any);
    let results =
        |(i, node): (usize, &Node)| -> Vec<_> { node.outputs.iter().flatten().map(|&v| (v, i)).collect() };
    let makers: Makers = g.nodes.iter().enumerate().flat_map(results).collect();
    for last in 0..g.nodes.len() {
        if let Some(node) = group(g, &makers, last) {
            g.nodes[last] = node;
            any = true;
        }
    }
    any
}

/// Which node makes a value.
type Makers = BTreeMap<ValueId, usize>;

fn is(node: &Node, op: &str) -> bool {
    node.domain.is_empty() && node.op == op
}

fn operand(node: &Node, i: usize) -> Option<ValueId> {
    node.inputs.get(i).copied().flatten()
}

/// Integers, and what a node that makes or reads them says of them in constants.
struct Quantised {
    numbers: ValueId,
    dtype: DType,
    scale: ValueId,
    scales: Vec<f32>,
    /// Left out: 0.
    zero: Option<ValueId>,
    zeros: Vec<i64>,
    axis: i64,
}

impl Quantised {
    /// `numbers` are the node's first operand, or its result.
    fn of(g: &Graph, node: &Node, numbers: ValueId) -> Option<Self> {
        let int = |name: &str, default: i64| match node.attrs.get(name) {
            None => Some(default),
            Some(Attr::Int(i)) => Some(*i),
            Some(_) => None,
        };
        let float = i64::from(DType::F32.onnx());
        let plain = [0, float].contains(&int("precision", 0)?) && int("block_size", 0)? == 0;
        let own = int("output_dtype", 0)?;
        let (scale, zero) = (operand(node, 1)?, operand(node, 2));
        let zero_point = match zero {
            Some(zero) => Some(g.initializers.get(&zero)?),
            None => None,
        };
        let dtype = if is(node, "QuantizeLinear") {
            let named = if own == 0 { None } else { DType::from_onnx(i32::try_from(own).ok()?) };
            zero_point.map(Tensor::dtype).or(named).unwrap_or(DType::U8)
        } else {
            if ![0, float].contains(&own) {
                return None;
            }
            let constant = g.initializers.get(&numbers).map(Tensor::dtype);
            zero_point.map(Tensor::dtype).or(constant).or(g.value(numbers).dtype)?
        };
        let scales = g.initializers.get(&scale)?.as_slice::<f32>().ok()?.to_vec();
        let zeros = match zero_point {
            None => vec![0; scales.len()],
            Some(z) => match dtype {
                DType::U8 => z.as_slice::<u8>().ok()?.iter().map(|&z| z.into()).collect(),
                DType::I8 => z.as_slice::<i8>().ok()?.iter().map(|&z| z.into()).collect(),
                DType::I32 => z.as_slice::<i32>().ok()?.iter().map(|&z| z.into()).collect(),
                _ => return None,
            },
        };
        let fits = plain && !scales.is_empty() && zeros.len() == scales.len();
        fits.then_some(Self { numbers, dtype, scale, scales, zero, zeros, axis: int("axis", 1)? })
    }

    /// What a DequantizeLinear reads that makes this value.
    fn behind(g: &Graph, makers: &Makers, v: ValueId) -> Option<Self> {
        let node = &g.nodes[*makers.get(&v)?];
        if !is(node, "DequantizeLinear") {
            return None;
        }
        Self::of(g, node, operand(node, 0)?)
    }

    fn is_bytes(&self) -> bool {
        matches!(self.dtype, DType::U8 | DType::I8)
    }

    /// One scale for all.
    fn is_whole(&self) -> bool {
        self.scales.len() == 1
    }

    /// One scale for all or one for each of `n` along `axis`, of numbers of this rank.
    fn is_along(&self, axis: usize, rank: usize, n: usize) -> bool {
        let own = if self.axis < 0 { self.axis + rank as i64 } else { self.axis };
        self.is_whole() || own == axis as i64 && self.scales.len() == n
    }

    fn scale_of(&self, i: usize) -> f32 {
        self.scales[i % self.scales.len()]
    }

    /// The operands that integer operators have for it: scale and zero point.
    fn operands(&self, g: &mut Graph) -> [Option<ValueId>; 2] {
        let zero = self.zero.unwrap_or_else(|| {
            let n = self.scales.len();
            let shape = g.initializers.get(&self.scale).map_or_else(|| vec![n], |s| s.shape().to_vec());
            let zeros = if self.dtype == DType::I8 {
                Tensor::new(&shape, vec![0i8; n])
            } else {
                Tensor::new(&shape, vec![0u8; n])
            };
            let name = format!("integers{}", g.values.len());
            g.add_constant(name, zeros.expect("as many numbers as the scales' shape says"))
        });
        [Some(self.scale), Some(zero)]
    }
}

/// The integer operator in place of the group that ends with this node.
fn group(g: &mut Graph, makers: &Makers, last: usize) -> Option<Node> {
    let end = &g.nodes[last];
    if !is(end, "QuantizeLinear") {
        return None;
    }
    let (from, out) = (operand(end, 0)?, end.outputs.first().copied().flatten()?);
    let to = Quantised::of(g, end, out).filter(|to| to.is_bytes() && to.is_whole())?;
    let mut node = &g.nodes[*makers.get(&from)?];
    let relu = is(node, "Relu");
    if relu {
        node = &g.nodes[*makers.get(&operand(node, 0)?)?];
    }
    // What is below 0 must be below the range.
    let least = if to.dtype == DType::U8 { 0 } else { -128 };
    let cut = !relu || is(node, "Conv") && to.zeros == [least] && to.scales[0] > 0.0;
    let node = node.clone();
    match node.op.as_str() {
        _ if !cut || !node.domain.is_empty() => None,
        "Conv" => convolution(g, makers, node, &to),
        "MatMul" => product(g, makers, node, &to),
        op if MOVES.contains(&op) => moved(g, makers, node, &to),
        _ => None,
    }
}

fn convolution(g: &mut Graph, makers: &Makers, node: Node, to: &Quantised) -> Option<Node> {
    let x = Quantised::behind(g, makers, operand(&node, 0)?).filter(|x| x.is_bytes() && x.is_whole())?;
    let w = Quantised::behind(g, makers, operand(&node, 1)?).filter(Quantised::is_bytes)?;
    let weights = g.initializers.get(&w.numbers)?;
    let filters = *weights.shape().first()?;
    if !w.is_along(0, weights.rank(), filters) {
        return None;
    }
    let bias = match operand(&node, 2) {
        None => None,
        Some(b) => {
            let b = Quantised::behind(g, makers, b)?;
            let numbers = g.initializers.get(&b.numbers)?;
            // The integer bias has the scale of the sums that it is added to.
            let scaled = (0..filters).all(|f| b.scale_of(f) == x.scales[0] * w.scale_of(f));
            let fits = b.dtype == DType::I32 && numbers.shape() == [filters] && b.is_along(0, 1, filters);
            (fits && scaled && b.zeros.iter().all(|&z| z == 0)).then_some(Some(b.numbers))?
        }
    };
    let mut node = Node { op: "QLinearConv".into(), ..node };
    let [[x_scale, x_zero], [w_scale, w_zero], [y_scale, y_zero]] = [&x, &w, to].map(|q| q.operands(g));
    node.inputs = vec![Some(x.numbers), x_scale, x_zero, Some(w.numbers), w_scale, w_zero, y_scale, y_zero];
    node.inputs.extend(bias.map(Some));
    node.outputs = vec![Some(to.numbers)];
    Some(node)
}

fn product(g: &mut Graph, makers: &Makers, node: Node, to: &Quantised) -> Option<Node> {
    let a = Quantised::behind(g, makers, operand(&node, 0)?).filter(|a| a.is_bytes() && a.is_whole())?;
    let b = Quantised::behind(g, makers, operand(&node, 1)?).filter(Quantised::is_bytes)?;
    let columns = g.initializers.get(&b.numbers).map(Tensor::shape);
    if !b.is_whole() && !matches!(columns, Some(&[_, n]) if b.is_along(1, 2, n)) {
        return None;
    }
    let mut node = Node { op: "QLinearMatMul".into(), ..node };
    let [[a_scale, a_zero], [b_scale, b_zero], [y_scale, y_zero]] = [&a, &b, to].map(|q| q.operands(g));
    node.inputs = vec![Some(a.numbers), a_scale, a_zero, Some(b.numbers), b_scale, b_zero, y_scale, y_zero];
    node.outputs = vec![Some(to.numbers)];
    Some(node)
}

fn moved(g: &Graph, makers: &Makers, mut node: Node, to: &Quantised) -> Option<Node> {
    let from = Quantised::behind(g, makers, operand(&node, 0)?)?;
    let same = from.dtype == to.dtype
        && from.is_whole()
        && from.scales[0].to_bits() == to.scales[0].to_bits()
        && from.zeros == to.zeros;
    // The order is kept, and every number comes back: n * scale, rounded, over the scale is n but for less than a half.
    let scale = from.scales[0];
    let comes_back = scale >= f32::MIN_POSITIVE && (scale * 255.0).is_finite();
    if !same || !comes_back {
        return None;
    }
    node.inputs[0] = Some(from.numbers);
    node.outputs = vec![Some(to.numbers)];
    Some(node)
}
