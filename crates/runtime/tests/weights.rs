//! What becomes of constant weights at load: packed, kept on disk, found again, taken over in place of their transposes. None of it
//! changes a result.

use std::fs;
use std::path::Path;

use isobit_graph::{Attr, Graph, Model, Node, Value, ValueId, canonicalize, export, export_external, open};
use isobit_kernels::KernelSet;
use isobit_numerics::rng::Rng;
use isobit_runtime::{Kept, Options, RunOptions, Session};
use isobit_tensor::{Hash, Tensor};

/// A graph that is made step by step.
struct Maker {
    graph: Graph,
    rng: Rng,
}

impl Maker {
    fn new(seed: u64) -> Self {
        Self { graph: Graph::default(), rng: Rng::new(seed, 0) }
    }

    fn value(&mut self) -> ValueId {
        let name = format!("v{}", self.graph.values.len());
        self.graph.add_value(Value { name, ..Value::default() })
    }

    fn input(&mut self) -> ValueId {
        let v = self.value();
        self.graph.inputs.push(v);
        v
    }

    fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let elements = (0..shape.iter().product()).map(|_| self.rng.f32_unit() - 0.5).collect();
        Tensor::new::<f32>(shape, elements).unwrap()
    }

    fn constant(&mut self, tensor: Tensor) -> ValueId {
        let v = self.value();
        self.graph.initializers.insert(v, tensor);
        v
    }

    fn node(&mut self, op: &str, inputs: &[ValueId], attrs: &[(&str, Attr)]) -> ValueId {
        let y = self.value();
        self.graph.nodes.push(Node {
            op: op.into(),
            inputs: inputs.iter().map(|&v| Some(v)).collect(),
            outputs: vec![Some(y)],
            attrs: attrs.iter().map(|(k, a)| ((*k).to_owned(), a.clone())).collect(),
            ..Node::default()
        });
        y
    }

    fn finish(mut self, outputs: &[ValueId]) -> Model {
        self.graph.outputs = outputs.to_vec();
        let mut model = Model { graph: self.graph, ..Model::default() };
        canonicalize(&mut model).unwrap();
        model
    }
}

/// Convolutions in blocks, of whole groups and of one filter a channel too, products of both kinds, one weight used twice.
fn network(seed: u64) -> Model {
    let mut m = Maker::new(seed);
    let x = m.input();
    let pads = || ("pads", Attr::Ints(vec![1; 4]));
    let w = m.tensor(&[64, 32, 3, 3]);
    let w = m.constant(w);
    let y = m.node("Conv", &[x, w], &[pads()]);
    let w = m.tensor(&[1920, 1, 3, 3]);
    let wide = m.tensor(&[1920, 64, 1, 1]);
    let (w, wide) = (m.constant(w), m.constant(wide));
    let y = m.node("Conv", &[y, wide], &[]);
    let y = m.node("Conv", &[y, w], &[pads(), ("group", Attr::Int(1920))]);
    let w = m.tensor(&[1920, 32, 1, 1]);
    let w = m.constant(w);
    let y = m.node("Conv", &[y, w], &[("group", Attr::Int(60))]);
    let y = m.node("GlobalAveragePool", &[y], &[]);
    let y = m.node("Flatten", &[y], &[]);
    let w = m.tensor(&[1920, 200]);
    let w = m.constant(w);
    let y = m.node("MatMul", &[y, w], &[]);
    let w = m.tensor(&[200, 200]);
    let w = m.constant(w);
    let a = m.node("Gemm", &[y, w], &[("transB", Attr::Int(1))]);
    let b = m.node("Gemm", &[y, w], &[]);
    m.finish(&[a, b])
}

/// Convolutions and products of bytes, the same weights with zero points of all kinds.
fn network_of_bytes(seed: u64) -> Model {
    let mut m = Maker::new(seed);
    let x = m.input();
    let bytes = |m: &mut Maker, shape: &[usize]| {
        let elements = (0..shape.iter().product()).map(|_| m.rng.below(256) as u8).collect();
        let tensor = Tensor::new::<u8>(shape, elements).unwrap();
        m.constant(tensor)
    };
    let zero = m.constant(Tensor::scalar(3u8));
    let byte = |m: &mut Maker, x| {
        let x = m.node("Cast", &[x], &[("to", Attr::Int(1))]);
        let scale = m.constant(Tensor::scalar(90.0f32));
        m.node("QuantizeLinear", &[x, scale, zero], &[])
    };
    let axes = m.constant(Tensor::vector(vec![0i64, 1, 2]));
    let row = m.node("ReduceMax", &[x, axes], &[]);
    let (x, row) = (byte(&mut m, x), byte(&mut m, row));
    let middle = m.constant(Tensor::vector(vec![128u8]));
    let (w, zeros) = (bytes(&mut m, &[320, 32, 3, 3]), bytes(&mut m, &[320]));
    let a = m.node("ConvInteger", &[x, w, zero, middle], &[]);
    let b = m.node("ConvInteger", &[x, w, zero, zeros], &[]);
    let w = bytes(&mut m, &[640, 16, 3, 3]);
    let c = m.node("ConvInteger", &[x, w], &[("group", Attr::Int(2))]);
    let (w, zeros) = (bytes(&mut m, &[5, 40_000]), bytes(&mut m, &[40_000]));
    let d = m.node("MatMulInteger", &[row, w, zero, zeros], &[]);
    let e = m.node("MatMulInteger", &[row, w, zero, middle], &[]);
    let f = m.node("MatMulInteger", &[row, w], &[]);
    m.finish(&[a, b, c, d, e, f])
}

fn run(model: &Model, options: &Options, input: &Tensor) -> (Vec<Hash>, u64, Kept) {
    let session = Session::load(model.clone(), options).unwrap();
    let inputs =
        vec![(session.model().graph.value(session.model().graph.inputs[0]).name.clone(), input.clone())];
    let result = session.run(inputs, &RunOptions::default()).unwrap();
    (result.outputs.iter().map(|(_, t)| t.root()).collect(), result.cost, session.kept().clone())
}

fn images() -> Tensor {
    Maker::new(77).tensor(&[2, 32, 5, 5])
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn packed_weights_are_found_again_and_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (models, x) = ([network(1), network(2), network_of_bytes(3)], images());
    for set in KernelSet::available() {
        for threads in [1, 3] {
            let plain = Options::default().kernel_set(set).threads(threads);
            let keeping = plain.clone().packed(folder.path().join("made").join("here"));
            for model in &models {
                let expected = run(model, &plain, &x);
                assert_eq!(expected.2, Kept::Not);
                let first = if threads == 1 { Kept::Written } else { Kept::Found };
                for kept in [first, Kept::Found] {
                    assert_eq!(run(model, &keeping, &x), (expected.0.clone(), expected.1, kept), "{set}");
                }
            }
        }
    }
    assert_eq!(files(&folder.path().join("made/here")).len(), 3 * KernelSet::available().len());
}

/// Whole rows of weights in a file are shared, other parts copied.
#[test]
fn parts_of_weights_in_a_file_are_those_of_weights_in_memory() {
    let mut m = Maker::new(9);
    let x = m.input();
    let w = m.tensor(&[40, 3, 200]);
    assert!(!w.is_in_file());
    let w = m.constant(w);
    let cuts: [[&[i64]; 4]; 7] = [
        [&[3], &[17], &[0], &[1]],
        [&[39], &[40], &[0], &[1]],
        [&[30], &[10], &[0], &[-1]],
        [&[0], &[40], &[0], &[3]],
        [&[5, 1], &[9, 3], &[0, 1], &[1, 1]],
        [&[5, -1], &[9, i64::MIN], &[0, 1], &[1, -1]],
        [&[7], &[7], &[0], &[1]],
    ];
    let mut outputs = Vec::new();
    for cut in cuts {
        let operands = cut.map(|v| m.constant(Tensor::vector(v.to_vec())));
        let part = m.node("Slice", &[&[w], &operands[..]].concat(), &[]);
        outputs.push(m.node("Add", &[part, x], &[]));
    }
    let mut model = m.finish(&outputs);
    model.opsets.insert(String::new(), 23);
    let folder = tempfile::tempdir().unwrap();
    let (proto, weights) = export_external(&model, "weights.bin");
    fs::write(folder.path().join("model.onnx"), isobit_onnx::encode(&proto)).unwrap();
    fs::write(folder.path().join("weights.bin"), weights).unwrap();
    let opened = open(&folder.path().join("model.onnx")).unwrap();
    assert!(opened.graph.initializers.values().any(Tensor::is_in_file));
    let x = Tensor::vector(vec![0.25f32]);
    let options = Options::default();
    assert_eq!(run(&opened, &options, &x).0, run(&model, &options, &x).0);
}

/// Weights inside of the model's own file stay there.
#[test]
fn weights_in_the_model_file_are_those_in_memory() {
    let mut m = Maker::new(4);
    let x = m.input();
    let bytes: Vec<i8> = (0..300 * 256).map(|_| m.rng.below(256) as u8 as i8).collect();
    let w = m.constant(Tensor::new(&[300, 256], bytes).unwrap());
    let y = m.node("MatMulInteger", &[x, w], &[]);
    let rows = m.constant(Tensor::vector(vec![7i64, 299, 0]));
    let rows = m.node("Gather", &[w, rows], &[]);
    let mut model = m.finish(&[y, rows]);
    model.opsets.insert(String::new(), 23);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, isobit_onnx::encode(&export(&model))).unwrap();
    let opened = open(&path).unwrap();
    assert!(opened.graph.initializers.values().any(Tensor::is_in_file));
    let x = Tensor::new(&[2, 300], (0..600u32).map(|i| (i * 7) as u8).collect::<Vec<u8>>()).unwrap();
    for options in [Options::default(), Options::default().packed(folder.path().join("packed"))] {
        assert_eq!(run(&opened, &options, &x).0, run(&model, &options, &x).0);
    }
}

#[test]
fn a_spoiled_file_is_as_good_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let (model, x) = (network(3), images());
    let options = Options::default().packed(folder.path());
    let expected = run(&model, &options, &x);
    assert_eq!(expected.2, Kept::Written);
    let path = files(folder.path()).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let mut rng = Rng::new(5, 0);
    let heads = 32 + 64 * u64::from_le_bytes(whole[8..16].try_into().unwrap()) as usize;
    // Every byte of the first heads, some of the others and of the numbers, and files cut short.
    let mut places: Vec<usize> = (0..120).chain([heads - 1, whole.len() - 1]).collect();
    places.extend((0..20).map(|_| rng.below(heads)));
    for at in places {
        let mut spoiled = whole.clone();
        spoiled[at] ^= 1 << rng.below(8);
        again(&path, &spoiled, &whole, &model, &options, &x, &expected.0);
    }
    for len in [0, 1, 31, 32, heads - 1, heads, whole.len() / 2, whole.len() - 1] {
        again(&path, &whole[..len], &whole, &model, &options, &x, &expected.0);
    }
    // Numbers that are spoiled, each in another entry most likely.
    for _ in 0..10 {
        let mut spoiled = whole.clone();
        let used = isobit_runtime::packs::places(&whole).unwrap();
        let place = &used[rng.below(used.len())];
        spoiled[place.start + rng.below(place.len)] ^= 1;
        again(&path, &spoiled, &whole, &model, &options, &x, &expected.0);
    }
    // What lies between the entries is nobody's.
    fs::remove_file(&path).unwrap();
    assert_eq!(run(&model, &options, &x).2, Kept::Written);
}

fn again(
    path: &Path,
    spoiled: &[u8],
    whole: &[u8],
    model: &Model,
    options: &Options,
    x: &Tensor,
    roots: &[Hash],
) {
    // A new file in the old one's place: nobody writes to one that may be mapped.
    fs::remove_file(path).unwrap();
    fs::write(path, spoiled).unwrap();
    let (found, _, kept) = run(model, options, x);
    assert_eq!((&found[..], kept), (roots, Kept::Written));
    assert!(fs::read(path).unwrap() == whole, "the file is not written as before");
}

#[test]
fn a_folder_that_cannot_be_written_to_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"no folder").unwrap();
    let (model, x) = (network(4), images());
    let (roots, _, kept) = run(&model, &Options::default().packed(file.join("packed")), &x);
    assert_eq!(roots, run(&model, &Options::default(), &x).0);
    assert!(matches!(&kept, Kept::Failed(why) if why.contains("packed")), "{kept:?}");
}

/// What is small, not of f32, or not canonical is packed each time.
#[test]
fn what_is_not_worth_keeping_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut m = Maker::new(6);
    let x = m.input();
    let w = m.tensor(&[5, 5]);
    let w = m.constant(w);
    let y = m.node("MatMul", &[x, w], &[]);
    let model = m.finish(&[y]);
    let (_, _, kept) = run(&model, &Options::default().packed(folder.path()), &Maker::new(1).tensor(&[2, 5]));
    assert_eq!((kept, files(folder.path()).len()), (Kept::Not, 0));
}

/// A weight that is transposed for a product, as exporters of tied embeddings write it: with other uses and without, for MatMul and
/// for Gemm. Results are those of the transposed constant; the cost counts the transposition.
#[test]
fn weights_that_are_transposed_at_load() {
    let x = Maker::new(8).tensor(&[3, 40]);
    for (op, trans, shared) in
        [("MatMul", 0, false), ("MatMul", 0, true), ("Gemm", 0, false), ("Gemm", 1, true)]
    {
        let attrs = if op == "Gemm" { vec![("transB", Attr::Int(trans))] } else { vec![] };
        // The weight as the operator wants it is [40, 70], or with transB [70, 40].
        let wanted = if trans == 1 { [70, 40] } else { [40, 70] };
        let weight = Maker::new(9).tensor(&[wanted[1], wanted[0]]);
        let model = |turned: bool| {
            let mut m = Maker::new(10);
            let x = m.input();
            let mut outputs = Vec::new();
            let right = if turned {
                let w = m.constant(weight.clone());
                if shared {
                    outputs.push(m.node("Identity", &[w], &[]));
                    let row = m.constant(Tensor::scalar(3i64));
                    outputs[0] = m.node("Gather", &[w, row], &[]);
                }
                m.node("Transpose", &[w], &[("perm", Attr::Ints(vec![1, 0]))])
            } else {
                let [rows, cols] = wanted;
                let w = weight.as_slice::<f32>().unwrap();
                let elements = (0..rows * cols).map(|i| w[i % cols * rows + i / cols]).collect();
                m.constant(Tensor::new(&wanted, elements).unwrap())
            };
            outputs.push(m.node(op, &[x, right], &attrs));
            m.finish(&outputs)
        };
        for set in KernelSet::available() {
            let options = Options::default().kernel_set(set);
            let (roots, cost, _) = run(&model(true), &options, &x);
            let (expected, without, _) = run(&model(false), &options, &x);
            assert_eq!(roots.last(), expected.last(), "{op} {trans} {shared} {set}");
            let gathered = if shared { weight.shape()[1] as u64 } else { 0 };
            assert_eq!(cost, without + 40 * 70 + gathered, "{op} {trans} {shared} {set}");
        }
    }
}

/// Parts of constants that are cut out, put together and turned at load, as exporters write the weights of recurrent operators: what
/// a run costs is known before it all the same, and is what it is charged; a part that is a result, too, is still there.
#[test]
fn what_only_the_load_needed_is_let_go_of() {
    let mut m = Maker::new(5);
    let x = m.input();
    let weights = m.tensor(&[200, 150]);
    let w = m.constant(weights.clone());
    let cut = |m: &mut Maker, from: i64, to: i64| {
        let [from, to, axis] = [from, to, 0].map(|n| m.constant(Tensor::vector(vec![n])));
        m.node("Slice", &[w, from, to, axis], &[])
    };
    let (last, first) = (cut(&mut m, 120, 200), cut(&mut m, 0, 120));
    let whole = m.node("Concat", &[last, first], &[("axis", Attr::Int(0))]);
    let turn = ("perm", Attr::Ints(vec![1, 0]));
    let whole = m.node("Transpose", &[whole], std::slice::from_ref(&turn));
    let y = m.node("MatMul", &[x, whole], &[]);
    let turned = m.node("Transpose", &[w], &[turn]);
    let plain = m.node("MatMul", &[x, turned], &[]);
    // Extents that follow from the content of a long constant.
    let mut mask = vec![0.0f32; 5000];
    (mask[3], mask[140]) = (1.0, -2.0);
    let (mask, axis) = (m.constant(Tensor::vector(mask)), m.constant(Tensor::vector(vec![0i64])));
    let places = m.node("NonZero", &[mask], &[]);
    let places = m.node("Squeeze", &[places, axis], &[]);
    let some = m.node("Gather", &[x, places], &[("axis", Attr::Int(1))]);
    let session = Session::load(m.finish(&[y, plain, first, some]), &Options::default()).unwrap();
    let x = Maker::new(9).tensor(&[7, 150]);
    let name = session.model().graph.value(session.model().graph.inputs[0]).name.clone();
    let result = session.run(vec![(name, x.clone())], &RunOptions::default()).unwrap();
    assert_eq!(session.known_cost(&[x]), Some(result.cost));
    let [y, plain, first] = [0, 1, 2].map(|i| result.outputs[i].1.as_slice::<f32>().unwrap());
    for (y, plain) in y.chunks_exact(200).zip(plain.chunks_exact(200)) {
        assert_eq!(y, [&plain[120..], &plain[..120]].concat());
    }
    assert_eq!(first, &weights.as_slice::<f32>().unwrap()[..120 * 150]);
    assert_eq!(result.outputs[3].1.shape(), [7, 2]);
}
