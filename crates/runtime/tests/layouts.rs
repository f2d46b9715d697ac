//! Networks of convolutions at random: whatever layout a kernel set keeps images in, wherever an operator that knows none
//! comes between, and whatever portions a batch is computed in, results and cost are those of the scalar set, which keeps planes.

use std::collections::BTreeMap;

use isobit_graph::{Attr, Graph, Model, Node, Value, ValueId};
use isobit_kernels::KernelSet;
use isobit_numerics::rng::Rng;
use isobit_runtime::{Options, RunOptions, Session};
use isobit_tensor::Tensor;

struct Network {
    graph: Graph,
    rng: Rng,
    /// Images that were computed: `[channels, height, width]`.
    images: Vec<(ValueId, [usize; 3])>,
    batch: usize,
}

impl Network {
    fn value(&mut self) -> ValueId {
        let name = format!("v{}", self.graph.values.len());
        self.graph.add_value(Value { name, ..Value::default() })
    }

    fn constant(&mut self, shape: &[usize]) -> ValueId {
        let n = shape.iter().product();
        let elements = (0..n).map(|_| self.rng.f32_unit() - 0.5).collect();
        let v = self.value();
        self.graph.initializers.insert(v, Tensor::new::<f32>(shape, elements).unwrap());
        v
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], attrs: Vec<(&str, Attr)>) -> ValueId {
        let y = self.value();
        self.graph.nodes.push(Node {
            op: op.into(),
            inputs: inputs.iter().map(|&v| Some(v)).collect(),
            outputs: vec![Some(y)],
            attrs: attrs.into_iter().map(|(k, a)| (k.to_owned(), a)).collect(),
            ..Node::default()
        });
        y
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n)
    }

    /// One image of those that there are, rather a late one.
    fn pick(&mut self) -> (ValueId, [usize; 3]) {
        let n = self.images.len();
        let back = self.below(n.min(3));
        self.images[n - 1 - back]
    }

    fn conv(&mut self, x: ValueId, [c, h, w]: [usize; 3]) -> (ValueId, [usize; 3]) {
        let k = [1, 1, 3, 3, 5][self.below(5)];
        let (pad, stride) = (self.below(k / 2 + 1), 1 + self.below(2));
        if h + 2 * pad < k || w + 2 * pad < k {
            return (x, [c, h, w]);
        }
        let depthwise = self.below(3) == 0;
        let filters = if depthwise { c } else { [4, 12, 16, 24, 40][self.below(5)] };
        let groups = if depthwise { c } else { 1 };
        let mut inputs = vec![x, self.constant(&[filters, c / groups, k, k])];
        if self.below(3) > 0 {
            inputs.push(self.constant(&[filters]));
        }
        let (k, pad, stride) = (k as i64, pad as i64, stride as i64);
        let attrs = vec![
            ("kernel_shape", Attr::Ints(vec![k, k])),
            ("pads", Attr::Ints(vec![pad; 4])),
            ("strides", Attr::Ints(vec![stride, stride])),
            ("group", Attr::Int(groups as i64)),
        ];
        let y = self.node("Conv", &inputs, attrs);
        let out = |n: usize| (n as i64 + 2 * pad - k) as usize / stride as usize + 1;
        (y, [filters, out(h), out(w)])
    }

    /// `x` times one value a channel, which is computed from it.
    fn gated(&mut self, x: ValueId, c: usize) -> ValueId {
        let mean = self.node("GlobalAveragePool", &[x], vec![]);
        let weights = self.constant(&[c, c, 1, 1]);
        let squeezed = self.node("Conv", &[mean, weights], vec![]);
        let gate = self.node("Sigmoid", &[squeezed], vec![]);
        let operands = if self.below(2) == 0 { [x, gate] } else { [gate, x] };
        self.node("Mul", &operands, vec![])
    }

    fn step(&mut self) {
        let (x, shape) = self.pick();
        let [c, h, w] = shape;
        let next = match self.below(10) {
            0..4 => self.conv(x, shape),
            4 => {
                let f = ["Relu", "Sigmoid", "HardSwish", "Exp"][self.below(4)];
                (self.node(f, &[x], vec![]), shape)
            }
            5 => {
                // x sigmoid(x), in one pass where nobody else asks for x.
                let gate = self.node("Sigmoid", &[x], vec![]);
                (self.node("Mul", &[x, gate], vec![]), shape)
            }
            6 => {
                let same = self.images.iter().rev().find(|(v, s)| *v != x && *s == shape).copied();
                let other = same.map_or(x, |(v, _)| v);
                let op = ["Add", "Sub"][self.below(2)];
                (self.node(op, &[x, other], vec![]), shape)
            }
            7 if h > 2 && w > 2 => {
                let attrs = vec![
                    ("kernel_shape", Attr::Ints(vec![3, 3])),
                    ("pads", Attr::Ints(vec![1; 4])),
                    ("strides", Attr::Ints(vec![2, 2])),
                ];
                (self.node("MaxPool", &[x], attrs), [c, (h - 1) / 2 + 1, (w - 1) / 2 + 1])
            }
            8 => (self.gated(x, c), shape),
            // One that knows no blocks.
            _ => (self.node("Neg", &[x], vec![]), shape),
        };
        self.images.push(next);
    }
}

fn network(seed: u64) -> (Model, Tensor) {
    let mut n = Network { graph: Graph::default(), rng: Rng::new(seed, 0), images: vec![], batch: 1 };
    n.batch = [1, 2, 2, 5][n.below(4)];
    let shape = [[3, 16, 20][n.below(3)], 5 + n.below(16), 5 + n.below(30)];
    let x = n.value();
    n.graph.inputs.push(x);
    n.images.push((x, shape));
    for _ in 0..14 {
        n.step();
    }
    let last = n.images[n.images.len() - 1].0;
    let mean = n.node("GlobalAveragePool", &[last], vec![]);
    n.graph.outputs = vec![last, mean];
    // Sometimes what is inside of the network is asked for as well.
    if n.below(3) == 0 {
        let (v, _) = n.pick();
        n.graph.outputs.push(v);
    }
    let elements = (0..n.batch * shape.iter().product::<usize>()).map(|_| n.rng.f32_unit() - 0.5).collect();
    let input = Tensor::new::<f32>(&[n.batch, shape[0], shape[1], shape[2]], elements).unwrap();
    let opsets = BTreeMap::from([(String::new(), 22)]);
    (Model { graph: n.graph, opsets, ir_version: 10, ..Model::default() }, input)
}

#[test]
fn layouts_do_not_show() {
    let seeds = match std::env::var("ISOBIT_TEST_SEED").ok().and_then(|s| s.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => 0..150u64,
    };
    for seed in seeds {
        let (model, input) = network(seed);
        let run = |set: KernelSet, threads: usize, portion: Option<usize>| {
            let mut options = Options::default().kernel_set(set).threads(threads);
            options.portion = portion;
            let session = Session::load(model.clone(), &options).unwrap();
            // Twice: the second run has the buffers of the first.
            let run = || session.run(vec![("v0".into(), input.clone())], &RunOptions::default()).unwrap();
            let (first, second) = (run(), run());
            let roots = |r: &isobit_runtime::RunResult| -> Vec<_> {
                r.outputs.iter().map(|(_, t)| (t.shape().to_vec(), t.root())).collect()
            };
            assert_eq!(roots(&first), roots(&second), "seed {seed}");
            (roots(&first), first.cost)
        };
        let expected = run(KernelSet::Scalar, 1, None);
        for set in KernelSet::available().into_iter().filter(|s| *s != KernelSet::Scalar) {
            for (threads, portion) in [(1, None), (3, None), (1, Some(1)), (2, Some(1)), (3, Some(2))] {
                let what = format!("{set}, {threads} threads, {portion:?}: ISOBIT_TEST_SEED={seed}");
                assert_eq!(run(set, threads, portion), expected, "{what}");
            }
        }
    }
}

/// A limit on the bytes of a tensor is met by the same networks in every layout, padding included.
#[test]
fn limits_do_not_know_layouts() {
    let mut failed = 0;
    for seed in 0..60u64 {
        let (model, input) = network(seed);
        for bytes in [500, 1_000, 2_500, 6_000, 20_000] {
            let mut options = RunOptions::default();
            options.limits.tensor_bytes = bytes;
            let run = |set: KernelSet, portion: Option<usize>| {
                let mut loading = Options::default().kernel_set(set).threads(1);
                loading.portion = portion;
                let session = Session::load(model.clone(), &loading).unwrap();
                session
                    .run(vec![("v0".into(), input.clone())], &options)
                    .map(|r| r.cost)
                    .map_err(|e| e.to_string())
            };
            let expected = run(KernelSet::Scalar, None);
            failed += usize::from(expected.is_err());
            for set in KernelSet::available() {
                for portion in [None, Some(1)] {
                    assert_eq!(run(set, portion), expected, "{set}, {bytes} bytes, {portion:?}: seed {seed}");
                }
            }
        }
    }
    assert!(failed > 20, "{failed} networks met a limit");
}
