//! Groups of QuantizeLinear and DequantizeLinear: which of them become integer operators, and what those give.

use std::collections::{BTreeMap, BTreeSet};

use isobit_graph::{Attr, Graph, Model, ModelObject, Node, Value, ValueId, canonicalize, integers};
use isobit_runtime::{Options, RunOptions, Session};
use isobit_tensor::{DType, Tensor};

/// A graph under way.
struct Build {
    g: Graph,
    inputs: Vec<(String, Tensor)>,
}

impl Build {
    fn new() -> Self {
        Self { g: Graph::default(), inputs: Vec::new() }
    }

    fn input(&mut self, t: Tensor) -> ValueId {
        let name = format!("x{}", self.inputs.len());
        let v = self.g.add_value(Value { name: name.clone(), dtype: Some(t.dtype()), ..Value::default() });
        self.g.inputs.push(v);
        self.inputs.push((name, t));
        v
    }

    fn constant(&mut self, t: Tensor) -> ValueId {
        self.g.add_constant(format!("c{}", self.g.values.len()), t)
    }

    fn op(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let out = self.g.add_value(Value { name: format!("v{}", self.g.values.len()), ..Value::default() });
        self.g.nodes.push(Node {
            op: op.into(),
            inputs: inputs.iter().map(|&v| Some(v)).collect(),
            outputs: vec![Some(out)],
            attrs: attrs.iter().map(|(k, a)| ((*k).to_owned(), a.clone())).collect(),
            ..Node::default()
        });
        out
    }

    /// DequantizeLinear or QuantizeLinear with constants.
    fn linear(&mut self, op: &str, x: ValueId, scale: Tensor, zero: Tensor, axis: i64) -> ValueId {
        let (scale, zero) = (self.constant(scale), self.constant(zero));
        self.op(op, &[x, scale, zero], &[("axis", Attr::Int(axis))])
    }

    fn run(&self, outputs: &[ValueId], as_integers: bool) -> (Vec<String>, Vec<Tensor>) {
        let opsets = BTreeMap::from([(String::new(), 23)]);
        let mut model = Model { graph: self.g.clone(), opsets, ir_version: 11, ..Model::default() };
        model.graph.outputs = outputs.to_vec();
        canonicalize(&mut model).unwrap();
        if as_integers {
            integers(&mut model);
            canonicalize(&mut model).unwrap();
            assert!(!integers(&mut model), "a group is left");
            // What is published says the same when it is opened.
            assert_eq!(ModelObject::from_model(&model).unwrap().to_model().unwrap(), model);
        }
        let ops = model.graph.nodes.iter().map(|n| n.op.clone()).filter(|op| op != "DequantizeLinear");
        let ops = ops.collect();
        let session = Session::load(model, &Options::default().threads(2)).unwrap();
        let result = session.run(self.inputs.to_vec(), &RunOptions::default()).unwrap();
        (ops, result.outputs.into_iter().map(|(_, t)| t).collect())
    }
}

/// Numbers without order, the same each time.
struct Numbers(u64);

impl Numbers {
    fn byte(&mut self) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 56) as u8
    }

    fn u8(&mut self, shape: &[usize]) -> Tensor {
        Tensor::new(shape, (0..shape.iter().product()).map(|_| self.byte()).collect()).unwrap()
    }

    fn i8(&mut self, shape: &[usize]) -> Tensor {
        Tensor::new(shape, (0..shape.iter().product()).map(|_| self.byte() as i8).collect()).unwrap()
    }
}

fn scalar<T: isobit_tensor::Element>(v: T) -> Tensor {
    Tensor::new(&[], vec![v]).unwrap()
}

fn steps(t: &Tensor) -> Vec<i32> {
    match t.dtype() {
        DType::U8 => t.as_slice::<u8>().unwrap().iter().map(|&v| v.into()).collect(),
        _ => t.as_slice::<i8>().unwrap().iter().map(|&v| v.into()).collect(),
    }
}

/// The results as integers and as written differ by a step at most, and few do.
fn close(a: &Tensor, b: &Tensor) {
    assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()));
    let apart: Vec<i32> = steps(a).iter().zip(steps(b)).map(|(a, b)| (a - b).abs()).collect();
    assert!(apart.iter().all(|&d| d <= 1), "{apart:?}");
    assert!(apart.iter().filter(|&&d| d > 0).count() <= apart.len() / 50, "{apart:?}");
}

const X_SCALE: f32 = 0.037;
const W_SCALES: [f32; 4] = [0.011, 0.0021, 0.3, 0.04];

/// Conv of u8 with weights by filter, and what follows it.
fn convolution(then_relu: bool, y_zero: i8, bias_scale: f32) -> (Build, ValueId, ValueId) {
    let (mut b, mut n) = (Build::new(), Numbers(7));
    let x = b.input(n.u8(&[2, 3, 9, 8]));
    let x = b.linear("DequantizeLinear", x, scalar(X_SCALE), scalar(119u8), 1);
    let w = b.constant(n.i8(&[4, 3, 3, 2]));
    let w = b.linear("DequantizeLinear", w, Tensor::vector(W_SCALES.to_vec()), n.i8(&[4]), 0);
    let bias = b.constant(Tensor::vector(vec![900i32, -30_000, 41, 7]));
    let scales = W_SCALES.map(|w| X_SCALE * w * bias_scale).to_vec();
    let bias = b.linear("DequantizeLinear", bias, Tensor::vector(scales), Tensor::vector(vec![0i32; 4]), 0);
    let attrs = [("strides", Attr::Ints(vec![2, 1])), ("pads", Attr::Ints(vec![1, 1, 1, 0]))];
    let sums = b.op("Conv", &[x, w, bias], &attrs);
    let last = if then_relu { b.op("Relu", &[sums], &[]) } else { sums };
    let y = b.linear("QuantizeLinear", last, scalar(0.83f32), scalar(y_zero), 1);
    (b, sums, y)
}

#[test]
fn convolutions_are_of_integers() {
    for (then_relu, y_zero) in [(false, 5), (true, -128)] {
        let (b, _, y) = convolution(then_relu, y_zero, 1.0);
        let ((ops, whole), (_, written)) = (b.run(&[y], true), b.run(&[y], false));
        assert_eq!(ops, ["QLinearConv"]);
        close(&whole[0], &written[0]);
        assert!(steps(&whole[0]).iter().any(|&v| v != -128 && v != 127));
    }
}

#[test]
fn products_are_of_integers() {
    let (mut b, mut n) = (Build::new(), Numbers(3));
    let x = b.input(n.i8(&[2, 5, 60]));
    let x = b.linear("DequantizeLinear", x, scalar(0.02f32), scalar(-7i8), 1);
    let w = b.constant(n.i8(&[60, 4]));
    let w = b.linear("DequantizeLinear", w, Tensor::vector(W_SCALES.to_vec()), n.i8(&[4]), 1);
    let y = b.op("MatMul", &[x, w], &[]);
    let y = b.linear("QuantizeLinear", y, scalar(0.7f32), scalar(100u8), 1);
    let ((ops, whole), (_, written)) = (b.run(&[y], true), b.run(&[y], false));
    assert_eq!(ops, ["QLinearMatMul"]);
    close(&whole[0], &written[0]);
}

/// An operator, its attributes, and its operands after the first.
type Move<'a> = (&'a str, &'a [(&'a str, Attr)], &'a [&'a [i64]]);

#[test]
fn moves_are_of_the_integers_themselves() {
    let pooling = [("kernel_shape", Attr::Ints(vec![3, 2])), ("pads", Attr::Ints(vec![1, 0, 1, 0]))];
    let turn = [("perm", Attr::Ints(vec![0, 2, 3, 1]))];
    let block = [("blocksize", Attr::Int(1))];
    let moves: [Move<'_>; 13] = [
        ("MaxPool", &pooling, &[]),
        ("Transpose", &turn, &[]),
        ("Flatten", &[], &[]),
        ("DepthToSpace", &block, &[]),
        ("SpaceToDepth", &block, &[]),
        ("Reshape", &[], &[&[5, -1]]),
        ("Unsqueeze", &[], &[&[0]]),
        ("Expand", &[], &[&[3, 1, 1, 1, 1]]),
        ("Gather", &[], &[&[1, 0, 1]]),
        ("GatherND", &[], &[&[1, 2]]),
        ("Slice", &[], &[&[1, 2], &[2, 0], &[1, 3], &[1, -1]]),
        ("Tile", &[], &[&[1, 2, 1, 3]]),
        ("Squeeze", &[], &[]),
    ];
    for (op, attrs, operands) in moves {
        for (scale, same) in [(0.037, true), (0.038, false), (-0.037, false), (f32::MAX, false)] {
            let (mut b, mut n) = (Build::new(), Numbers(11));
            let x = b.input(n.i8(&[2, 3, 5, 7]));
            let first = if scale == 0.038 { 0.037 } else { scale };
            let x = b.linear("DequantizeLinear", x, scalar(first), scalar(3i8), 1);
            let operands: Vec<ValueId> =
                operands.iter().map(|v| b.constant(Tensor::vector(v.to_vec()))).collect();
            let y = b.op(op, &[&[x], &operands[..]].concat(), attrs);
            let y = b.linear("QuantizeLinear", y, scalar(scale), scalar(3i8), 1);
            let ((ops, whole), (_, written)) = (b.run(&[y], true), b.run(&[y], false));
            assert_eq!(ops == [op], same, "{op} {scale}");
            assert_eq!(steps(&whole[0]), steps(&written[0]), "{op} {scale}");
        }
    }
}

#[test]
fn who_reads_the_sums_gets_them_as_written() {
    let (b, sums, y) = convolution(false, 5, 1.0);
    let ((ops, whole), (_, written)) = (b.run(&[y, sums], true), b.run(&[y, sums], false));
    assert_eq!(BTreeSet::from_iter(ops), BTreeSet::from(["Conv".to_owned(), "QLinearConv".to_owned()]));
    assert_eq!(whole[1].as_slice::<f32>().unwrap(), written[1].as_slice::<f32>().unwrap());
    assert_eq!(steps(&whole[0]), steps(&b.run(&[y], true).1[0]));
}

#[test]
fn what_is_no_integer_operator_stays_as_it_is() {
    // Relu would cut off what the result's range holds; the bias has a scale of its own.
    let (relu, _, relu_y) = convolution(true, 5, 1.0);
    let (bias, _, bias_y) = convolution(false, 5, 1.5);
    for (b, y) in [(relu, relu_y), (bias, bias_y)] {
        let ((ops, whole), (as_written, written)) = (b.run(&[y], true), b.run(&[y], false));
        assert_eq!(ops, as_written);
        assert_eq!(steps(&whole[0]), steps(&written[0]));
    }
    // A scale that is known only at a run.
    let (mut b, mut n) = (Build::new(), Numbers(5));
    let (x, scale) = (b.input(n.u8(&[3, 4])), b.input(scalar(0.1f32)));
    let w = b.constant(n.u8(&[4, 2]));
    let (x, w) = (b.op("DequantizeLinear", &[x, scale], &[]), b.op("DequantizeLinear", &[w, scale], &[]));
    let y = b.op("MatMul", &[x, w], &[]);
    let y = b.op("QuantizeLinear", &[y, scale], &[]);
    assert_eq!(b.run(&[y], true).0, ["MatMul", "QuantizeLinear"]);
}
