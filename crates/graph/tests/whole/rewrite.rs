//! Ways of writing the same model down, chosen by a seed.

use std::collections::{BTreeMap, BTreeSet};

use isobit_onnx::proto::{
    AttributeProto, AttributeType, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
};

/// SplitMix64.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Another file for the same model: nodes and initializers in another order, inner names and node names changed, some
/// initializers as Constant nodes or given twice, Identity and dead nodes added, documentation added.
pub(crate) fn rewrite(model: &ModelProto, rng: &mut Rng) -> ModelProto {
    let mut model = model.clone();
    let graph = model.graph.as_mut().unwrap();
    let kept = graph.input.iter().chain(&graph.output).map(|v| v.name.clone()).collect();
    rewrite_graph(graph, rng, &mut 0);
    let mut names = BTreeMap::new();
    rename(graph, &kept, &mut names, rng);
    model.producer_name = format!("producer {}", rng.next());
    model.producer_version = "7".into();
    model.doc_string = "words".into();
    model.ir_version = Some(7 + rng.below(3) as i64);
    model.metadata_props.push(StringStringEntryProto { key: "k".into(), value: "v".into() });
    model
}

fn rewrite_graph(graph: &mut GraphProto, rng: &mut Rng, fresh: &mut usize) {
    graph.doc_string = "words".into();
    graph.value_info.clear();
    for node in &mut graph.node {
        node.name = format!("node {}", rng.next());
        node.doc_string = "words".into();
        for a in &mut node.attribute {
            a.g.iter_mut().chain(&mut a.graphs).for_each(|g| rewrite_graph(g, rng, fresh));
        }
        rng.shuffle(&mut node.attribute);
    }
    let mut named = |what: &str| {
        *fresh += 1;
        format!("{what} {fresh}")
    };
    let mut added = Vec::new();
    for node in &mut graph.node {
        for input in node.input.iter_mut().filter(|i| !i.is_empty()) {
            if rng.below(4) == 0 {
                let copy = named("copy");
                added.push(simple("Identity", input, &copy));
                *input = copy;
            }
        }
        if rng.below(4) == 0 {
            added.push(simple("Relu", &node.output[0], &named("dead")));
        }
    }
    graph.node.append(&mut added);
    let mut kept = Vec::new();
    for t in std::mem::take(&mut graph.initializer) {
        match rng.below(3) {
            0 => graph.node.push(constant(t)),
            1 => {
                let mut twin = t.clone();
                twin.name = named("twin");
                for input in graph.node.iter_mut().flat_map(|n| &mut n.input).filter(|i| **i == t.name) {
                    if rng.below(2) == 0 {
                        input.clone_from(&twin.name);
                    }
                }
                kept.extend([t, twin]);
            }
            _ => kept.push(t),
        }
    }
    graph.initializer = kept;
    rng.shuffle(&mut graph.initializer);
    rng.shuffle(&mut graph.node);
}

fn simple(op: &str, input: &str, output: &str) -> NodeProto {
    NodeProto {
        op_type: op.into(),
        input: vec![input.into()],
        output: vec![output.into()],
        ..NodeProto::default()
    }
}

fn constant(t: TensorProto) -> NodeProto {
    let output = vec![t.name.clone()];
    let attribute = vec![AttributeProto {
        name: "value".into(),
        r#type: AttributeType::Tensor as i32,
        t: Some(t),
        ..AttributeProto::default()
    }];
    NodeProto { op_type: "Constant".into(), output, attribute, ..NodeProto::default() }
}

fn rename(
    graph: &mut GraphProto,
    kept: &BTreeSet<String>,
    names: &mut BTreeMap<String, String>,
    rng: &mut Rng,
) {
    let mut change = |name: &mut String, rng: &mut Rng| {
        if !name.is_empty() && !kept.contains(name) {
            let count = names.len();
            let new = names.entry(name.clone()).or_insert_with(|| format!("{}_{count}", rng.below(1000)));
            name.clone_from(new);
        }
    };
    graph.initializer.iter_mut().for_each(|t| change(&mut t.name, rng));
    graph.input.iter_mut().chain(&mut graph.output).for_each(|v| change(&mut v.name, rng));
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).for_each(|v| change(v, rng));
    }
    for a in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
        a.g.iter_mut().chain(&mut a.graphs).for_each(|g| rename(g, kept, names, rng));
    }
}
