//! The model object: what is published, addressed and fetched.
//!
//! | file | content |
//! | --- | --- |
//! | `model.onnx` | the canonical graph, a valid ONNX file; protobuf fields in the order of their numbers |
//! | `weights.bin` | the tensors of 1,024 bytes or more, in graph order, each at a multiple of 64 bytes |
//! | `manifest.json` | canonical JSON (keys sorted, no white space, integers and strings only) naming the other two by hash |
//!
//! The address is BLAKE3 of the manifest. Where a model came from is not part of it, so that two people who publish the
//! same model get the same address.

use std::collections::BTreeMap;
use std::path::Path;

use isobit_onnx::{Limits, Memory, NoExternal};
use isobit_tensor::known::seal_known;
use isobit_tensor::{DType, Hash};

use crate::json::Json;
use crate::{
    Dim, Graph, GraphError, Model, ValueId, canonicalize, export_external, import, integers, upgrade,
};

/// The numeric profile that canonical models are executed under.
pub const PROFILE: &str = "isobit-1";

const MODEL: &str = "model.onnx";
const WEIGHTS: &str = "weights.bin";
const MANIFEST: &str = "manifest.json";
/// Longest manifest that is read.
const MANIFEST_BYTES: usize = 16 << 20;

/// A canonical model as bytes, with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelObject {
    manifest: Vec<u8>,
    model: Vec<u8>,
    weights: Vec<u8>,
}

impl ModelObject {
    /// The object of a model; the model is brought into canonical form first.
    pub fn from_model(model: &Model) -> Result<Self, GraphError> {
        let mut model = model.clone();
        canonical(&mut model)?;
        Ok(Self::of_canonical(&model))
    }

    /// The object of a model in canonical form.
    fn of_canonical(model: &Model) -> Self {
        let (proto, weights) = export_external(model, WEIGHTS);
        let bytes = isobit_onnx::encode(&proto);
        let manifest = manifest(model, &bytes, &weights).encode().into_bytes();
        Self { manifest, model: bytes, weights }
    }

    /// Puts an object together from fetched parts; every hash is checked.
    pub fn from_parts(manifest: Vec<u8>, model: Vec<u8>, weights: Vec<u8>) -> Result<Self, GraphError> {
        let parts = Manifest::parse(&manifest)?;
        for (name, bytes, part) in [(MODEL, &model, &parts.model), (WEIGHTS, &weights, &parts.weights)] {
            if Hash::of(bytes) != part.hash || bytes.len() as u64 != part.bytes {
                return Err(GraphError::Object(format!("{name} is not the file that the manifest names")));
            }
        }
        Ok(Self { manifest, model, weights })
    }

    /// The content address: BLAKE3 of the manifest.
    pub fn address(&self) -> Hash {
        Hash::of(&self.manifest)
    }

    /// The manifest's bytes.
    pub fn manifest(&self) -> &[u8] {
        &self.manifest
    }

    /// The canonical ONNX file's bytes.
    pub fn model(&self) -> &[u8] {
        &self.model
    }

    /// The weights file's bytes; may be empty.
    pub fn weights(&self) -> &[u8] {
        &self.weights
    }

    /// The graph, ready to be loaded. Everything is checked anew: the manifest must describe the graph, and the
    /// graph must be in canonical form.
    pub fn to_model(&self) -> Result<Model, GraphError> {
        let limits = Limits::default();
        let proto = isobit_onnx::decode(&self.model, &limits)?;
        let external = Memory([(WEIGHTS.to_owned(), &self.weights[..])].into());
        let mut model = import(&proto, &external, &limits)?;
        canonical(&mut model)?;
        if Self::of_canonical(&model) != *self {
            return Err(GraphError::Object("the graph is not in canonical form".into()));
        }
        Ok(model)
    }

    /// Writes the three files into a folder, which is made if need be.
    pub fn write_dir(&self, dir: &Path) -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        for (name, bytes) in [(MODEL, &self.model), (WEIGHTS, &self.weights), (MANIFEST, &self.manifest)] {
            std::fs::write(dir.join(name), bytes)?;
        }
        Ok(())
    }

    /// Reads the three files from a folder; every hash is checked.
    pub fn open_dir(dir: &Path) -> Result<Self, GraphError> {
        let read = |name: &str| {
            std::fs::read(dir.join(name)).map_err(|e| GraphError::Object(format!("{name}: {e}")))
        };
        Self::from_parts(read(MANIFEST)?, read(MODEL)?, read(WEIGHTS)?)
    }

    /// Whether a folder looks like a model object.
    pub fn is_dir(dir: &Path) -> bool {
        dir.join(MANIFEST).is_file()
    }
}

/// One file of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// BLAKE3 of its bytes.
    pub hash: Hash,
    /// Its length.
    pub bytes: u64,
}

/// What a manifest says about the files beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The canonical ONNX file.
    pub model: Part,
    /// The weights file.
    pub weights: Part,
    /// The inputs in order.
    pub inputs: Vec<Slot>,
    /// The outputs in order.
    pub outputs: Vec<Slot>,
}

/// An input or output as a manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Element type; `None` for a sequence or a map, or if the model does not say.
    pub dtype: Option<DType>,
    /// Extents, `None` for one that is chosen by the run; `None` for any shape.
    pub shape: Option<Vec<Option<u64>>>,
}

impl Manifest {
    /// Reads a manifest. Only canonical JSON of this profile is one.
    pub fn parse(bytes: &[u8]) -> Result<Self, GraphError> {
        let error = |m: &str| GraphError::Object(format!("the manifest {m}"));
        if bytes.len() > MANIFEST_BYTES {
            return Err(error("is too long"));
        }
        let json = Json::parse(bytes).ok_or_else(|| error("is not canonical JSON"))?;
        let text = |key: &str| json.get(key).and_then(Json::as_str);
        if text("format") != Some("isobit-model-1") {
            return Err(error("is not of the format isobit-model-1"));
        }
        if text("profile") != Some(PROFILE) {
            return Err(error("is for another numeric profile than isobit-1"));
        }
        let part = |name: &str| {
            let part = json.get("files").and_then(|f| f.get(name))?;
            let hash = part.get("blake3").and_then(Json::as_str)?.parse().ok()?;
            Some(Part { hash, bytes: part.get("bytes").and_then(Json::as_u64)? })
        };
        let missing = || error("does not name its files");
        let slots = |key: &str| {
            let list = json.get(key).and_then(Json::as_array);
            let slots: Option<Vec<Slot>> = list.and_then(|l| l.iter().map(slot).collect());
            slots.ok_or_else(|| error("does not describe its inputs and outputs"))
        };
        Ok(Self {
            model: part(MODEL).ok_or_else(missing)?,
            weights: part(WEIGHTS).ok_or_else(missing)?,
            inputs: slots("inputs")?,
            outputs: slots("outputs")?,
        })
    }
}

fn slot(json: &Json) -> Option<Slot> {
    let dims = json.get("shape").and_then(Json::as_array);
    Some(Slot {
        name: json.get("name")?.as_str()?.to_owned(),
        dtype: json.get("dtype").and_then(Json::as_str).and_then(DType::from_name),
        shape: dims.map(|dims| dims.iter().map(Json::as_u64).collect()),
    })
}

fn manifest(model: &Model, bytes: &[u8], weights: &[u8]) -> Json {
    let graph = &model.graph;
    let file =
        |b: &[u8]| Json::object([("blake3", Json::text(Hash::of(b))), ("bytes", Json::Int(b.len() as u64))]);
    let mut operators: BTreeMap<String, u64> = BTreeMap::new();
    count(graph, &mut operators);
    let opsets = model.opsets.iter().map(|(d, &v)| {
        (if d.is_empty() { "ai.onnx".to_owned() } else { d.clone() }, Json::Int(v.max(0) as u64))
    });
    let parameters: u64 = graph.initializers.values().map(|t| t.len() as u64).sum();
    Json::object([
        ("format", Json::text("isobit-model-1")),
        ("profile", Json::text(PROFILE)),
        ("inputs", signature(graph, &graph.inputs)),
        ("outputs", signature(graph, &graph.outputs)),
        ("operators", Json::Object(operators.into_iter().map(|(k, v)| (k, Json::Int(v))).collect())),
        ("opsets", Json::Object(opsets.collect())),
        ("parameters", Json::Int(parameters)),
        ("cost", Json::text("sum over steps of the operators' cost at the shapes of the run")),
        ("files", Json::object([(MODEL, file(bytes)), (WEIGHTS, file(weights))])),
    ])
}

fn count(graph: &Graph, operators: &mut BTreeMap<String, u64>) {
    for node in &graph.nodes {
        *operators.entry(node.qualified()).or_insert(0) += 1;
        for attr in node.attrs.values() {
            match attr {
                crate::Attr::Graph(g) => count(g, operators),
                crate::Attr::Graphs(gs) => gs.iter().for_each(|g| count(g, operators)),
                _ => {}
            }
        }
    }
}

fn signature(graph: &Graph, values: &[ValueId]) -> Json {
    let one = |&v: &ValueId| {
        let value = graph.value(v);
        let dims = |s: &Vec<Dim>| {
            let dim = |d: &Dim| match d {
                Dim::Known(n) => Json::Int(*n as u64),
                Dim::Symbol(s) => Json::text(s),
                Dim::Unknown => Json::text("?"),
            };
            Json::Array(s.iter().map(dim).collect())
        };
        if let Some(container) = &value.container {
            return Json::object([("name", Json::text(&value.name)), ("type", Json::text(container))]);
        }
        Json::object([
            ("name", Json::text(&value.name)),
            ("dtype", Json::text(value.dtype.map_or("?", |d| d.name()))),
            ("shape", value.shape.as_ref().map_or(Json::text("?"), dims)),
        ])
    };
    Json::Array(values.iter().map(one).collect())
}

/// Brings an imported model into the form that is published and executed.
fn canonical(model: &mut Model) -> Result<(), GraphError> {
    upgrade(model)?;
    canonicalize(model)?;
    if integers(model) {
        canonicalize(model)?;
    }
    Ok(())
}

/// Reads a model from an ONNX file (with its external data) or from a model object's folder, and brings it into
/// canonical form.
pub fn open(path: &Path) -> Result<Model, GraphError> {
    open_known(path, None)
}

/// As [`open`], with the roots of weights that are known of the last time, which are kept in the folder `known`
/// ([`isobit_tensor::known`]).
pub fn open_known(path: &Path, known: Option<&Path>) -> Result<Model, GraphError> {
    if path.is_dir() {
        return ModelObject::open_dir(path)?.to_model();
    }
    let limits = Limits::default();
    let (proto, folder) = isobit_onnx::read(path, &limits)?;
    let mut model = import(&proto, &folder, &limits)?;
    if let Some(known) = known {
        seal_known(&mut model.graph.initializers.values_mut().collect::<Vec<_>>(), known);
    }
    canonical(&mut model)?;
    Ok(model)
}

/// As [`open`], from the bytes of an ONNX file that holds all its data.
pub fn from_onnx_bytes(bytes: &[u8]) -> Result<Model, GraphError> {
    let limits = Limits::default();
    let mut model = import(&isobit_onnx::decode(bytes, &limits)?, &NoExternal, &limits)?;
    canonical(&mut model)?;
    Ok(model)
}
