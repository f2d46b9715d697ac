//! Cases of ONNX to vary.

use std::collections::BTreeMap;
use std::io::{self, Read};

use isobit_graph::{Model, Type, from_onnx_bytes};
use isobit_onnx::proto::{GraphProto, ModelProto};
use isobit_onnx::{Limits, datum_from_bytes};
use isobit_tensor::{DType, Datum};
use prost::Message as _;

use crate::extra;

/// A model of one operator and operands for it.
#[derive(Debug)]
pub struct Template {
    /// The model, its operator in the newest form; inputs without declared types and extents.
    pub model: Model,
    /// The operands, in the order of the model's inputs.
    pub inputs: Vec<Datum>,
}

/// Templates by operator: `Add`, `ai.onnx.ml::Scaler`.
pub type Templates = BTreeMap<String, Vec<Template>>;

static ARCHIVE: &[u8] = include_bytes!("../templates.tar.zst");

/// Largest template, in bytes of its files: cases are many.
const MOST: usize = 30_000;

/// The templates in this crate.
pub(crate) fn templates() -> Templates {
    let mut all = read(ARCHIVE).expect("the archive in this crate is whole");
    extra::add(&mut all);
    all
}

/// Operators whose operands have types of their own, and the operands to give a type which not all of them can have.
pub(crate) fn alone(op: &str) -> &'static [usize] {
    match op {
        "GridSample" => &[0],
        "Pow" => &[1],
        "OneHot" => &[2],
        "Attention" => &[3],
        "Where" => &[1, 2],
        "SequenceInsert" => &[0, 1],
        _ => &[],
    }
}

fn files(archive: &[u8]) -> io::Result<BTreeMap<String, BTreeMap<String, Vec<u8>>>> {
    let tar = ruzstd::decoding::StreamingDecoder::new(archive).map_err(io::Error::other)?;
    let mut cases: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let mut parts: Vec<&str> = path.split('/').collect();
        let Some(file) = parts.pop() else { continue };
        parts.retain(|p| *p != "test_data_set_0");
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        cases.entry(parts.join("/")).or_default().insert(file.to_owned(), bytes);
    }
    Ok(cases)
}

/// The archive of templates from archives of ONNX's cases: those of one operator, without their expected values.
pub fn pack(archives: &[Vec<u8>]) -> io::Result<Vec<u8>> {
    let mut out = tar::Builder::new(Vec::new());
    for archive in archives {
        for (case, files) in files(archive)? {
            let folder = case.split('/').rev().nth(1).unwrap_or_default();
            // The cases of others' operators also compare standard ones with those.
            let own = |domain: &str| folder != "microsoft" || domain == "com.microsoft";
            let one = |m: &ModelProto| {
                let node = |g: &GraphProto| g.node.len() == 1 && own(&g.node[0].domain);
                m.graph.as_ref().is_some_and(node) && m.functions.is_empty()
            };
            let model = files.get("model.onnx").and_then(|b| ModelProto::decode(&b[..]).ok());
            let wanted = |name: &str| name == "model.onnx" || name.starts_with("input_");
            let size: usize = files.iter().filter(|(n, _)| wanted(n)).map(|(_, b)| b.len()).sum();
            if !matches!(folder, "node" | "ml" | "microsoft")
                || size > MOST
                || !model.is_some_and(|m| one(&m))
            {
                continue;
            }
            for (name, bytes) in files.iter().filter(|(n, _)| wanted(n)) {
                let mut header = tar::Header::new_ustar();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                // Others' cases may be named like ONNX's.
                let owner = if folder == "microsoft" { "microsoft-" } else { "" };
                let short = case.rsplit('/').next().unwrap_or_default();
                out.append_data(&mut header, format!("{owner}{short}/{name}"), &bytes[..])?;
            }
        }
    }
    Ok(ruzstd::encoding::compress_to_vec(&out.into_inner()?[..], ruzstd::encoding::CompressionLevel::Fastest))
}

fn read(archive: &[u8]) -> io::Result<Templates> {
    let mut all = Templates::new();
    for files in files(archive)?.into_values() {
        let Some(bytes) = files.get("model.onnx") else { continue };
        // A model that is refused has no lines; what is refused is tested by the cases themselves.
        let (Ok(proto), Ok(model)) = (ModelProto::decode(&bytes[..]), from_onnx_bytes(bytes)) else {
            continue;
        };
        let Some(graph) = proto.graph else { continue };
        let node = &graph.node[0];
        let declared =
            |name: &str| graph.input.iter().find(|i| i.name == name).and_then(|i| i.r#type.clone());
        let inputs: Option<Vec<Datum>> = model
            .graph
            .inputs
            .iter()
            .map(|&v| {
                let name = &model.graph.value(v).name;
                let at = graph.input.iter().position(|i| i.name == *name)?;
                let mut room = Limits::default().tensor_bytes;
                datum_from_bytes(files.get(&format!("input_{at}.pb"))?, &declared(name)?, &mut room).ok()
            })
            .collect();
        let Some(inputs) = inputs else { continue };
        let op = match node.domain.as_str() {
            "" | "ai.onnx" => node.op_type.clone(),
            domain => format!("{domain}::{}", node.op_type),
        };
        all.entry(op).or_default().push(Template { model: open_types(model), inputs });
    }
    Ok(all)
}

/// The model without declared types and extents, so that it takes any.
fn open_types(mut model: Model) -> Model {
    for value in &mut model.graph.values {
        (value.dtype, value.shape) = (None, None);
        value.container.iter_mut().for_each(open);
    }
    model
}

fn open(t: &mut Type) {
    match t {
        Type::Tensor { dtype, shape } => (*dtype, *shape) = (None, None),
        Type::Sequence(item) | Type::Optional(item) | Type::Map { value: item, .. } => open(item),
    }
}

impl Template {
    /// The element type that a line varies: that of the first tensor among the operands.
    pub fn dtype(&self) -> Option<DType> {
        self.inputs.iter().find_map(Datum::dtype)
    }
}
