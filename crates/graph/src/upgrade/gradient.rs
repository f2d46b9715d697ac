//! Gradient of `ai.onnx.preview.training`: the graph that computes the derivatives, by going backwards through the nodes
//! between the variables and the value.

use std::collections::BTreeMap;

use isobit_tensor::Tensor;

use super::Rewriter;
use super::splice::renamed;
use crate::{Attr, GraphError, Node, Value, ValueId};

pub(super) fn gradient(r: &mut Rewriter<'_>, node: &Node) -> Result<(), GraphError> {
    let names = |name: &str| match node.attrs.get(name) {
        None => Some(Vec::new()),
        Some(Attr::Strings(v)) => v.iter().map(|s| String::from_utf8(s.clone()).ok()).collect(),
        _ => None,
    };
    let (Some(xs), Some(zs), Some(Attr::String(y))) = (names("xs"), names("zs"), node.attrs.get("y")) else {
        return Err(r.error(node, "xs and zs must be lists of names and y a name"));
    };
    let find = |r: &Rewriter<'_>, name: &str| {
        let at = r.graph.values.iter().position(|v| v.name == name);
        let at = at.and_then(|i| u32::try_from(i).ok()).map(ValueId);
        at.ok_or_else(|| r.error(node, &format!("it names '{name}', which is no value of its graph")))
    };
    let variables = xs.iter().chain(&zs).map(|n| find(r, n)).collect::<Result<Vec<_>, _>>()?;
    let y = find(r, &String::from_utf8_lossy(y))?;
    if node.inputs.len() != variables.len() || node.outputs.len() != xs.len() {
        return Err(
            r.error(node, "it must have an operand for each of xs and zs and a result for each of xs")
        );
    }
    // Where the operands are other values than those named, the nodes in between are computed for them too.
    let mut map: BTreeMap<ValueId, ValueId> =
        variables.iter().zip(&node.inputs).filter_map(|(&v, i)| Some((v, (*i)?))).collect();
    let path = path(r, &variables, y);
    let moved = map.iter().any(|(a, b)| a != b);
    let mut forward = Vec::new();
    for own in path {
        let copy = match moved {
            false => own,
            true => {
                for out in own.outputs.iter().flatten() {
                    let value =
                        Value { name: format!("gradient{}", r.graph.values.len()), ..Value::default() };
                    let new = r.graph.add_value(value);
                    map.insert(*out, new);
                }
                let copy = renamed(own, &|v| map.get(&v).copied().unwrap_or(v));
                r.push(copy.clone());
                copy
            }
        };
        forward.push(copy);
    }
    let place = |v: ValueId| map.get(&v).copied().unwrap_or(v);
    let mut back = Backward { sums: BTreeMap::new() };
    let top = place(y);
    let one = r.constant(Tensor::scalar(1.0f32));
    let one = r.op("CastLike", &[one, top], &[]);
    let shape = r.op("Shape", &[top], &[]);
    let ones = r.op("Expand", &[one, shape], &[]);
    back.sums.insert(top, ones);
    for n in forward.iter().rev() {
        back.node(r, n)?;
    }
    for (&x, out) in variables.iter().zip(&node.outputs) {
        let Some(out) = *out else { continue };
        let x = place(x);
        let value = match back.sums.get(&x) {
            Some(&g) => g,
            None => r.op("Sub", &[x, x], &[]),
        };
        r.push(Node {
            op: "Identity".into(),
            inputs: vec![Some(value)],
            outputs: vec![Some(out)],
            ..Node::default()
        });
    }
    Ok(())
}

/// The nodes that lead from the variables to `y`, in order.
fn path(r: &Rewriter<'_>, variables: &[ValueId], y: ValueId) -> Vec<Node> {
    let mut depends: Vec<bool> = vec![false; r.graph.values.len()];
    variables.iter().for_each(|v| depends[v.0 as usize] = true);
    let mut nodes: Vec<&Node> = Vec::new();
    for n in &r.graph.nodes {
        let made_here = n.outputs.iter().flatten().any(|o| variables.contains(o));
        if !made_here && n.inputs.iter().flatten().any(|v| depends[v.0 as usize]) {
            n.outputs.iter().flatten().for_each(|o| depends[o.0 as usize] = true);
            nodes.push(n);
        }
    }
    let mut wanted: Vec<bool> = vec![false; r.graph.values.len()];
    wanted[y.0 as usize] = true;
    let mut out: Vec<Node> = Vec::new();
    for n in nodes.into_iter().rev() {
        if n.outputs.iter().flatten().any(|o| wanted[o.0 as usize]) {
            n.inputs.iter().flatten().for_each(|i| wanted[i.0 as usize] = true);
            out.push(n.clone());
        }
    }
    out.reverse();
    out
}

/// The derivatives of the value with respect to every other, as far as they are known.
struct Backward {
    sums: BTreeMap<ValueId, ValueId>,
}

impl Backward {
    /// One more term of the derivative with respect to `x`, brought to the shape of `x`.
    fn add(&mut self, r: &mut Rewriter<'_>, x: ValueId, term: ValueId) {
        let term = sum_to(r, term, x);
        let sum = match self.sums.get(&x) {
            Some(&sum) => r.op("Add", &[sum, term], &[]),
            None => term,
        };
        self.sums.insert(x, sum);
    }

    fn node(&mut self, r: &mut Rewriter<'_>, n: &Node) -> Result<(), GraphError> {
        let (Some(&Some(y)), Some(&Some(a))) = (n.outputs.first(), n.inputs.first()) else { return Ok(()) };
        let Some(&g) = self.sums.get(&y) else { return Ok(()) };
        let b = n.inputs.get(1).copied().flatten();
        let known = n.domain.is_empty() && n.outputs.len() == 1;
        match (n.op.as_str(), b) {
            ("Identity", None) if known => self.add(r, a, g),
            ("Add" | "Sum", Some(_)) if known => {
                n.inputs.iter().flatten().for_each(|&x| self.add(r, x, g));
            }
            ("Sub", Some(b)) if known => {
                self.add(r, a, g);
                let minus = r.op("Neg", &[g], &[]);
                self.add(r, b, minus);
            }
            ("Mul", Some(b)) if known => {
                let (by_a, by_b) = (r.op("Mul", &[g, b], &[]), r.op("Mul", &[g, a], &[]));
                self.add(r, a, by_a);
                self.add(r, b, by_b);
            }
            ("Div", Some(b)) if known => {
                let by_a = r.op("Div", &[g, b], &[]);
                self.add(r, a, by_a);
                let part = r.op("Mul", &[by_a, y], &[]);
                let minus = r.op("Neg", &[part], &[]);
                self.add(r, b, minus);
            }
            ("MatMul", Some(b)) if known && r.rank(a) == Some(2) && r.rank(b) == Some(2) => {
                let perm = || [("perm", Attr::Ints(vec![1, 0]))];
                let (turned_a, turned_b) =
                    (r.op("Transpose", &[a], &perm()), r.op("Transpose", &[b], &perm()));
                let (by_a, by_b) = (r.op("MatMul", &[g, turned_b], &[]), r.op("MatMul", &[turned_a, g], &[]));
                self.add(r, a, by_a);
                self.add(r, b, by_b);
            }
            (op, None) if known => {
                let term = unary(r, op, a, y, g).ok_or_else(|| self.unknown(r, n))?;
                self.add(r, a, term);
            }
            _ => return Err(self.unknown(r, n)),
        }
        Ok(())
    }

    fn unknown(&self, r: &Rewriter<'_>, n: &Node) -> GraphError {
        r.error(
            n,
            "Gradient goes through Identity, Add, Sum, Sub, Mul, Div, MatMul of two matrices, Neg, Relu, Exp, Log, Sqrt, Tanh, \
             Sigmoid, Sin and Cos only",
        )
    }
}

/// The derivative of y = op(x) times `g`.
fn unary(r: &mut Rewriter<'_>, op: &str, x: ValueId, y: ValueId, g: ValueId) -> Option<ValueId> {
    Some(match op {
        "Neg" => r.op("Neg", &[g], &[]),
        "Relu" => {
            let zero = r.op("Sub", &[g, g], &[]);
            let sign = r.op("Sign", &[y], &[]);
            let passes = r.op("Cast", &[sign], &[("to", Attr::Int(9))]);
            r.op("Where", &[passes, g, zero], &[])
        }
        "Exp" => r.op("Mul", &[g, y], &[]),
        "Log" => r.op("Div", &[g, x], &[]),
        "Sqrt" => {
            let twice = r.op("Add", &[y, y], &[]);
            r.op("Div", &[g, twice], &[])
        }
        "Tanh" | "Sigmoid" => {
            // 1 - y^2 and y - y^2.
            let square = r.op("Mul", &[y, y], &[]);
            let from = if op == "Sigmoid" {
                y
            } else {
                let one = r.constant(Tensor::scalar(1.0f32));
                r.op("CastLike", &[one, y], &[])
            };
            let slope = r.op("Sub", &[from, square], &[]);
            r.op("Mul", &[g, slope], &[])
        }
        "Sin" => {
            let slope = r.op("Cos", &[x], &[]);
            r.op("Mul", &[g, slope], &[])
        }
        "Cos" => {
            let slope = r.op("Sin", &[x], &[]);
            let part = r.op("Mul", &[g, slope], &[]);
            r.op("Neg", &[part], &[])
        }
        _ => return None,
    })
}

/// `term` summed over the axes along which `x` was repeated.
fn sum_to(r: &mut Rewriter<'_>, term: ValueId, x: ValueId) -> ValueId {
    let int = Attr::Int;
    let (own, wide) = (r.op("Shape", &[x], &[]), r.op("Shape", &[term], &[]));
    let (rank, wide_rank) = (r.op("Size", &[own], &[]), r.op("Size", &[wide], &[]));
    let missing = r.op("Sub", &[wide_rank, rank], &[]);
    let flat = r.ints(&[-1]);
    let missing = r.op("Reshape", &[missing, flat], &[]);
    let one = Tensor::vector(vec![1i64]);
    let ones = r.op("ConstantOfShape", &[missing], &[("value", Attr::Tensor(one))]);
    let padded = r.op("Concat", &[ones, own], &[("axis", int(0))]);
    let single = r.ints(&[1]);
    let repeated = r.op("Equal", &[padded, single], &[]);
    let axes = r.op("NonZero", &[repeated], &[]);
    let axes = r.op("Reshape", &[axes, flat], &[]);
    let attrs = [("keepdims", int(1)), ("noop_with_empty_axes", int(1))];
    let sum = r.op("ReduceSum", &[term, axes], &attrs);
    r.op("Reshape", &[sum, own], &[("allowzero", int(1))])
}
