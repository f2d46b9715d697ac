use std::collections::BTreeMap;

use isobit_graph::{Attr, Graph, Model, Node, Value as GraphValue};
use isobit_kernels::KernelSet;
use isobit_numerics::rng::Rng;
use isobit_ops::Memory;
use isobit_tensor::DType;

use super::*;
use crate::{Options, RunError, RunOptions, Session};

struct Build(Graph);

impl Build {
    fn new() -> Self {
        let mut build = Self(Graph::default());
        let x = build.value();
        build.0.inputs.push(x);
        build
    }

    fn value(&mut self) -> ValueId {
        let name = format!("v{}", self.0.values.len());
        self.0.add_value(GraphValue { name, ..GraphValue::default() })
    }

    fn constant(&mut self, t: Tensor) -> ValueId {
        let v = self.value();
        self.0.initializers.insert(v, t);
        v
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let y = self.value();
        self.0.nodes.push(Node {
            op: op.into(),
            inputs: inputs.iter().map(|&v| Some(v)).collect(),
            outputs: vec![Some(y)],
            attrs: attrs.iter().map(|(name, attr)| ((*name).to_owned(), attr.clone())).collect(),
            ..Node::default()
        });
        y
    }

    fn conv(&mut self, x: ValueId, [m, c, k]: [usize; 3], stride: i64) -> ValueId {
        let w = self.constant(Tensor::zeros(DType::F32, &[m, c, k, k]).unwrap());
        let (pads, strides) = (vec![k as i64 / 2; 4], vec![stride; 2]);
        self.node("Conv", &[x, w], &[("pads", Attr::Ints(pads)), ("strides", Attr::Ints(strides))])
    }

    fn load(mut self, outputs: &[ValueId], options: &Options) -> Session {
        self.0.outputs = outputs.to_vec();
        let opsets = BTreeMap::from([(String::new(), 22)]);
        Session::load(Model { graph: self.0, opsets, ir_version: 10, ..Model::default() }, options).unwrap()
    }
}

fn portions(session: &Session, shape: &[usize]) -> Option<Portions> {
    let x = Datum::Tensor(Tensor::zeros(DType::F32, shape).unwrap());
    session.known(&[x]).portions.map(|p| (*p).clone())
}

/// Large images and then large weights: the batch is whole again where weights begin to weigh more.
#[test]
fn images_go_alone_as_long_as_they_weigh_more_than_weights() {
    for threads in [1, 2] {
        let mut b = Build::new();
        let mut x = b.0.inputs[0];
        for (m, c) in [(32, 3), (64, 32), (64, 64)] {
            x = b.conv(x, [m, c, 3], 1);
            x = b.node("Relu", &[x], &[]);
        }
        x = b.conv(x, [64, 64, 3], 16);
        for (m, c) in [(1024, 64), (1024, 1024), (1024, 1024)] {
            x = b.conv(x, [m, c, 3], 2);
        }
        let session = b.load(&[x], &Options::default().threads(threads));
        let found = portions(&session, &[8, 3, 112, 112]).unwrap();
        assert_eq!((found.entries, found.batch), (1, 8));
        assert_eq!(found.given.iter().map(|g| (g.batch, g.last)).collect::<Vec<_>>(), [(true, true)]);
        // As many images as some weights have filters: these are no batch.
        let many = portions(&session, &[32, 3, 112, 112]).unwrap();
        assert_eq!((many.steps, many.given), (found.steps.clone(), found.given.clone()));
        assert_eq!((found.steps.clone(), found.results.len()), (0..7, 1));
        // One image, as many as there are threads at most, small ones.
        assert_eq!(portions(&session, &[1, 3, 112, 112]), None);
        assert_eq!(portions(&session, &[8, 3, 16, 16]), None);
    }
}

#[test]
fn a_batch_ends_where_entries_meet() {
    let portion = Options::default().portion(1);
    let axes = |b: &mut Build, axis: i64| b.constant(Tensor::vector(vec![axis]));
    let until = |f: &dyn Fn(&mut Build, ValueId) -> ValueId| {
        let mut b = Build::new();
        let x = b.0.inputs[0];
        let relu = b.node("Relu", &[x], &[]);
        let y = f(&mut b, relu);
        portions(&b.load(&[y], &portion), &[4, 4, 6]).map_or(0, |p| p.steps.end)
    };
    let reduce = |axis: i64| {
        move |b: &mut Build, x| {
            let axes = axes(b, axis);
            b.node("ReduceMean", &[x, axes], &[])
        }
    };
    assert_eq!(until(&reduce(0)), 1);
    assert_eq!(until(&reduce(-3)), 1);
    assert_eq!(until(&reduce(1)), 2);
    assert_eq!(until(&|b, x| b.node("ReduceMean", &[x], &[])), 1);
    let concat = |axis: i64| move |b: &mut Build, x| b.node("Concat", &[x, x], &[("axis", Attr::Int(axis))]);
    assert_eq!(until(&concat(0)), 1);
    assert_eq!(until(&concat(-1)), 2);
    // Some values for each entry, by its place; for each row, the same for all; one for everything.
    let add = |shape: &[usize]| {
        let t = Tensor::zeros(DType::F32, shape).unwrap();
        move |b: &mut Build, x| {
            let c = b.constant(t.clone());
            b.node("Add", &[x, c], &[])
        }
    };
    assert_eq!(until(&add(&[4, 1, 1])), 2);
    assert_eq!(until(&add(&[2, 4, 4, 6])), 1);
    assert_eq!(until(&add(&[4, 1])), 2);
    assert_eq!(until(&add(&[1, 4, 6])), 2);
    assert_eq!(until(&add(&[])), 2);
    // The batch's own axis elsewhere, and first again without another.
    let turned = |b: &mut Build, x| b.node("Transpose", &[x], &[("perm", Attr::Ints(vec![1, 0, 2]))]);
    assert_eq!(until(&turned), 1);
    let picked = |axis: i64| {
        move |b: &mut Build, x| {
            let x = turned(b, x);
            let one = b.constant(Tensor::scalar(1i64));
            b.node("Gather", &[x, one], &[("axis", Attr::Int(axis))])
        }
    };
    assert_eq!(until(&picked(0)), 3);
    assert_eq!(until(&picked(1)), 1);
    assert_eq!(until(&picked(2)), 1);
    let mean = |b: &mut Build, x| {
        let axes = axes(b, 0);
        let mean = b.node("ReduceMean", &[x, axes], &[("keepdims", Attr::Int(0))]);
        b.node("Add", &[x, mean], &[])
    };
    assert_eq!(until(&mean), 1);
}

/// The failure is the whole batch's: its first in the order of steps, not of entries.
#[test]
fn a_failure_is_that_of_the_whole_batch() {
    let run = |portion: Option<usize>| {
        let mut b = Build::new();
        let x = b.0.inputs[0];
        let six = b.constant(Tensor::scalar(6i32));
        let first = b.node("Div", &[six, x], &[]);
        let less = b.node("Sub", &[first, six], &[]);
        let second = b.node("Div", &[six, less], &[]);
        let kernel_set = KernelSet::Scalar;
        let session = b.load(&[second], &Options { portion, kernel_set, ..Options::default() });
        // 6 / 0 in entry 2; in entry 0 it is a later step that fails: 6 / (6 / 1 - 6).
        let outcome = |x: Vec<i32>| {
            let x = Tensor::new(&[4, 1], x).unwrap();
            assert_eq!(session.known(&[Datum::Tensor(x.clone())]).portions.is_some(), portion.is_some());
            session.run(vec![("v0".into(), x)], &RunOptions::default())
        };
        assert!(outcome(vec![2, 3, 6, 7]).is_ok());
        match outcome(vec![1, 2, 0, 3]).unwrap_err() {
            RunError::Op { node, source } => (node.step, source.code, source.message),
            other => panic!("{other}"),
        }
    };
    assert_eq!(run(None).0, 0);
    assert_eq!(run(Some(1)), run(None));
}

#[test]
fn limits_of_a_run_are_those_of_the_whole_batch() {
    let mut failed = 0;
    let outcomes = [None, Some(1), Some(3)].map(|portion| {
        let mut b = Build::new();
        let x = b.0.inputs[0];
        let y = b.conv(x, [4, 3, 3], 1);
        let y = b.node("Neg", &[y], &[]);
        let y = b.node("Softmax", &[y], &[]);
        let session = b.load(&[y], &Options { portion, ..Options::default() });
        let run = |limits: Limits| {
            let x = Tensor::zeros(DType::F32, &[5, 3, 8, 8]).unwrap();
            let options = RunOptions { limits, ..RunOptions::default() };
            session.run(vec![("v0".into(), x)], &options).map(|r| r.cost).map_err(|e| e.to_string())
        };
        let by_steps = (0..5).map(|steps| run(Limits { steps, ..Limits::default() }));
        let bytes = |n: u64| n * 5 * 4 * 64;
        let by_held = (0..40).map(|n| run(Limits { held_bytes: bytes(n), ..Limits::default() }));
        let outcomes: Vec<_> = by_steps.chain(by_held).collect();
        failed = outcomes.iter().filter(|r| r.is_err()).count();
        outcomes
    });
    assert!(failed > 5, "{failed} runs met a limit");
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0], outcomes[2]);
}

#[test]
fn times_of_portions_are_those_of_their_steps() {
    let mut b = Build::new();
    let x = b.0.inputs[0];
    let y = b.conv(x, [4, 3, 3], 1);
    let y = b.node("Sigmoid", &[y], &[]);
    let session = b.load(&[y], &Options::default().portion(2));
    let x = Tensor::zeros(DType::F32, &[5, 3, 8, 8]).unwrap();
    let result = session.run(vec![("v0".into(), x)], &RunOptions { profile: true, ..RunOptions::default() });
    let steps: Vec<_> = result.unwrap().steps.iter().map(|s| (s.node.step, s.cost)).collect();
    assert_eq!(steps, [(0, 5 * 4 * 64 * 27), (1, 5 * 4 * 64 * 8)]);
}

/// Networks at random of operators that move, merge and split the axis of the batch, or meet along it.
struct Network {
    build: Build,
    rng: Rng,
    values: Vec<(ValueId, Vec<usize>)>,
    batch: usize,
}

impl Network {
    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n)
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let elements = (0..shape.iter().product()).map(|_| self.rng.f32_unit() - 0.5).collect();
        Tensor::new::<f32>(shape, elements).unwrap()
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let t = self.tensor(shape);
        self.build.constant(t)
    }

    fn ints(&mut self, n: impl IntoIterator<Item = usize>) -> ValueId {
        self.build.constant(Tensor::vector(n.into_iter().map(|n| n as i64).collect()))
    }

    /// A shape that broadcasts to this one.
    fn narrower(&mut self, shape: &[usize]) -> Vec<usize> {
        let from = self.below(shape.len() + 1);
        shape[from..].iter().map(|&n| if self.rng.below(3) == 0 { 1 } else { n }).collect()
    }

    /// Extents of as many elements: two axes merged, or one split.
    fn other_shape(&mut self, shape: &[usize]) -> Vec<usize> {
        let mut to = shape.to_vec();
        let axis = self.below(shape.len());
        let divisors: Vec<usize> = (2..to[axis]).filter(|d| to[axis].is_multiple_of(*d)).collect();
        if axis + 1 < to.len() && (to.len() > 4 || divisors.is_empty() || self.below(2) == 0) {
            let n = to.remove(axis);
            to[axis] *= n;
        } else if !divisors.is_empty() {
            let d = divisors[self.below(divisors.len())];
            to[axis] /= d;
            to.insert(axis, d);
        }
        to
    }

    /// A reshape to these extents: said in numbers, with a -1 or a 0, or computed from the operand's shape.
    fn reshape(&mut self, x: ValueId, from: &[usize], to: &[usize]) -> ValueId {
        let mut numbers: Vec<i64> = to.iter().map(|&n| n as i64).collect();
        let at = self.below(to.len());
        match self.below(4) {
            0 => numbers[at] = -1,
            1 if from.get(at) == to.get(at) => numbers[at] = 0,
            2 if from[0] == to[0] => {
                let shape = self.build.node("Shape", &[x], &[("start", Attr::Int(0)), ("end", Attr::Int(1))]);
                let rest = self.build.constant(Tensor::vector(numbers.split_off(1)));
                let target = self.build.node("Concat", &[shape, rest], &[("axis", Attr::Int(0))]);
                return self.build.node("Reshape", &[x, target], &[]);
            }
            _ => {}
        }
        let target = self.build.constant(Tensor::vector(numbers));
        self.build.node("Reshape", &[x, target], &[])
    }

    fn step(&mut self) {
        let n = self.values.len();
        let back = self.below(n.min(3));
        let (x, shape) = self.values[n - 1 - back].clone();
        let rank = shape.len();
        let axis = self.below(rank);
        let along = [("axis", Attr::Int(axis as i64))];
        let last = shape[rank - 1];
        let next = match self.below(17) {
            0 | 1 => {
                let mut perm: Vec<usize> = (0..rank).collect();
                for i in 1..rank {
                    let j = self.below(i + 1);
                    perm.swap(i, j);
                }
                let to = perm.iter().map(|&p| shape[p]).collect();
                let perm = perm.iter().map(|&p| p as i64).collect();
                (self.build.node("Transpose", &[x], &[("perm", Attr::Ints(perm))]), to)
            }
            2..5 => {
                let to = self.other_shape(&shape);
                (self.reshape(x, &shape, &to), to)
            }
            5 => {
                let (columns, mut to) = (1 + self.below(6), shape.clone());
                let w = self.constant(&[last, columns]);
                to[rank - 1] = columns;
                let op = if rank == 2 && self.below(2) == 0 { "Gemm" } else { "MatMul" };
                let mut operands = vec![x, w];
                if op == "Gemm" && self.below(2) == 0 {
                    let c = self.narrower(&to);
                    operands.push(self.constant(&c));
                }
                (self.build.node(op, &operands, &[]), to)
            }
            6 if rank > 2 => {
                let (mut perm, mut to) = ((0..rank as i64).collect::<Vec<_>>(), shape.clone());
                perm.swap(rank - 1, rank - 2);
                to[rank - 1] = shape[rank - 2];
                let turned = self.build.node("Transpose", &[x], &[("perm", Attr::Ints(perm))]);
                (self.build.node("MatMul", &[x, turned], &[]), to)
            }
            7 | 8 => {
                let narrower = self.narrower(&shape);
                let c = self.constant(&narrower);
                let operands = if self.below(2) == 0 { [x, c] } else { [c, x] };
                let op = ["Add", "Mul", "Max"][self.below(3)];
                (self.build.node(op, &operands, &[]), shape)
            }
            9 => {
                let same =
                    self.values.iter().rev().find(|(v, s)| *v != x && *s == shape).map_or(x, |(v, _)| *v);
                (self.build.node("Sub", &[x, same], &[]), shape)
            }
            10 => (self.build.node("Softmax", &[x], &along), shape),
            11 => {
                let scale = self.constant(&shape[axis..]);
                (self.build.node("LayerNormalization", &[x, scale], &along), shape)
            }
            12 => {
                let axes = self.ints([axis]);
                let (keep, mut to) = (rank == 1 || self.below(2) == 0, shape);
                to[axis] = 1;
                if !keep {
                    to.remove(axis);
                }
                let keep = [("keepdims", Attr::Int(keep.into()))];
                (self.build.node("ReduceMax", &[x, axes], &keep), to)
            }
            13 => {
                let other = self.build.node("Neg", &[x], &[]);
                let mut to = shape;
                to[axis] *= 2;
                (self.build.node("Concat", &[x, other], &along), to)
            }
            14 => {
                let mut to = shape.clone();
                let (from, until) =
                    (self.below(to[axis]), if self.below(2) == 0 { to[axis] } else { 1_000_000 });
                to[axis] -= from;
                let operands = [x, self.ints([from]), self.ints([until]), self.ints([axis])];
                (self.build.node("Slice", &operands, &[]), to)
            }
            15 => {
                let picked = [&[][..], &[2], &[2, 1]][self.below(3)];
                let indices = (0..picked.iter().product()).map(|_| self.below(shape[axis]) as i64).collect();
                let indices = self.build.constant(Tensor::new::<i64>(picked, indices).unwrap());
                let to = [&shape[..axis], picked, &shape[axis + 1..]].concat();
                (self.build.node("Gather", &[x, indices], &along), to)
            }
            _ => {
                let narrower = self.narrower(&shape);
                let c = self.constant(&narrower);
                let less = self.build.node("Less", &[x, c], &[]);
                let other = self.build.node("Exp", &[x], &[]);
                (self.build.node("Where", &[less, x, other], &[]), shape)
            }
        };
        if next.1.iter().product::<usize>() < 3_000 && next.1.len() < 6 && !next.1.is_empty() {
            self.values.push(next);
        }
    }
}

#[test]
fn portions_do_not_show() {
    let seeds = match std::env::var("ISOBIT_TEST_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..600u64,
    };
    let (mut steps, mut later) = (0, 0);
    for seed in seeds.clone() {
        let mut n = Network { build: Build::new(), rng: Rng::new(seed, 0), values: vec![], batch: 1 };
        n.batch = [2, 3, 4, 6][n.below(4)];
        let shape = vec![n.batch, 2 + n.below(3), [1, 4, 6][n.below(3)], 2 + n.below(4)];
        let input = n.tensor(&shape);
        n.values.push((n.build.0.inputs[0], shape.clone()));
        for _ in 0..20 {
            n.step();
        }
        let last = n.values[n.values.len() - 1].0;
        let back = n.below(n.values.len());
        n.build.0.outputs = vec![last, n.values[back].0];
        let run = |portion: Option<usize>, threads: usize| {
            let mut build = Build(n.build.0.clone());
            let outputs = std::mem::take(&mut build.0.outputs);
            let session = build.load(&outputs, &Options { portion, ..Options::default().threads(threads) });
            let found = portions(&session, &shape);
            if let Some(found) = &found {
                // Without a second run that would hide a failure of this one.
                let (memory, options) = (Memory::new(u64::MAX), RunOptions::default());
                let mut run = Run::new(Exec::new(KernelSet::best(), &session.pool), &memory, &options, false);
                let inputs = vec![Datum::Tensor(input.clone())];
                found.run(&session.program, &mut run, inputs, &session.spares).unwrap();
            }
            let options = RunOptions { profile: true, ..RunOptions::default() };
            let result = session.run(vec![("v0".into(), input.clone())], &options).unwrap();
            let costs: Vec<_> = result.steps.iter().map(|s| (s.node.step, s.cost)).collect();
            let roots: Vec<_> = result.outputs.iter().map(|(_, t)| (t.shape().to_vec(), t.root())).collect();
            ((roots, result.cost, costs), found)
        };
        let (expected, _) = run(None, 1);
        for (portion, threads) in [(1, 1), (2, 1), (1, 2), (1, 3)] {
            let (result, found) = run(Some(portion), threads);
            assert_eq!(result, expected, "{portion} on {threads} threads: ISOBIT_TEST_SEED={seed}");
            steps += found.as_ref().map_or(0, |p| p.steps.len());
            later += found.map_or(0, |p| usize::from(p.steps.start > 0));
        }
    }
    println!("{steps} steps in portions, {later} times after others");
    assert!(
        seeds.end - seeds.start == 1 || steps > 10_000 && later > 100,
        "{steps} steps in portions, {later} times after others"
    );
}
