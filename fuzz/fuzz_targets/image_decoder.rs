//! Bytes of an image file: no panic, bounded memory, and pixels as many as the extents say.

#![no_main]

use std::sync::OnceLock;

use isobit_graph::{Graph, Model, Node, Value};
use isobit_runtime::{Limits, Options, RunOptions, Session};
use isobit_tensor::Tensor;
use libfuzzer_sys::fuzz_target;

fn session() -> &'static Session {
    static SESSION: OnceLock<Session> = OnceLock::new();
    SESSION.get_or_init(|| {
        let mut graph = Graph::default();
        let value = |graph: &mut Graph, name: &str| graph.add_value(Value { name: name.into(), ..Value::default() });
        let (file, image) = (value(&mut graph, "file"), value(&mut graph, "image"));
        graph.nodes.push(Node {
            op: "ImageDecoder".into(),
            inputs: vec![Some(file)],
            outputs: vec![Some(image)],
            ..Node::default()
        });
        (graph.inputs, graph.outputs) = (vec![file], vec![image]);
        Session::load(Model { graph, ..Model::default() }, &Options::default()).unwrap()
    })
}

fuzz_target!(|bytes: &[u8]| {
    let file = Tensor::vector(bytes.to_vec());
    let limits = Limits { tensor_bytes: 1 << 24, ..Limits::default() };
    let options = RunOptions { limits, ..RunOptions::default() };
    if let Ok(result) = session().run(vec![("file".into(), file)], &options) {
        assert_eq!(result.outputs[0].1.shape()[2], 3);
    }
});
