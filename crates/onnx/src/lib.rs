//! ONNX on the wire: the protobuf messages, tensors in them and beside them, limits.
//!
//! ```no_run
//! let (model, external) = isobit_onnx::read(std::path::Path::new("model.onnx"), &Default::default())?;
//! println!("{} nodes", model.graph.unwrap().node.len());
//! # let _ = external;
//! # Ok::<(), isobit_onnx::OnnxError>(())
//! ```
//!
//! A model is hostile until shown otherwise: sizes are checked before memory is taken, external data stays inside
//! the model's folder, and nothing in a file is executed.

#![forbid(unsafe_code)]

mod data;
mod error;
mod external;
mod limits;
pub mod proto;
mod tensor;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use isobit_mapped::Mapped;
use prost::Message;
use prost::bytes::{Buf, Bytes};

pub use data::datum_from_bytes;
pub use error::OnnxError;
pub use external::{External, Folder, Found, Memory, NoExternal};
pub use limits::Limits;
pub use tensor::{tensor_from_proto, tensor_to_proto};

/// Reads a model file; external data, if any, is looked up in the file's folder.
pub fn read(path: &Path, limits: &Limits) -> Result<(proto::ModelProto, Folder), OnnxError> {
    let io = |source: std::io::Error| OnnxError::Io {
        path: path.display().to_string(),
        message: source.to_string(),
    };
    let meta = std::fs::metadata(path).map_err(io)?;
    let size = meta.len();
    if size > limits.file_bytes as u64 {
        return Err(OnnxError::Limit {
            what: "model file bytes",
            actual: size,
            limit: limits.file_bytes as u64,
        });
    }
    // Tensors stay in the file until they are asked for; what is no file (a pipe) is read.
    let folder = Folder::new(path.parent().unwrap_or(Path::new("")));
    if !meta.is_file() {
        return Ok((decode(&std::fs::read(path).map_err(io)?, limits)?, folder));
    }
    let file = Arc::new(File::open(path).and_then(|f| Mapped::new(&f)).map_err(io)?);
    let bytes = Bytes::from_owner(Whole(file.clone()));
    Ok((decode_from(bytes, limits)?, folder.with_model(file)))
}

/// All bytes of a file.
struct Whole(Arc<Mapped>);

impl AsRef<[u8]> for Whole {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Decodes a model. Nesting is bounded by the protobuf library (100 messages deep).
pub fn decode(bytes: &[u8], limits: &Limits) -> Result<proto::ModelProto, OnnxError> {
    decode_from(bytes, limits)
}

fn decode_from(bytes: impl Buf, limits: &Limits) -> Result<proto::ModelProto, OnnxError> {
    if bytes.remaining() > limits.file_bytes {
        let (actual, limit) = (bytes.remaining() as u64, limits.file_bytes as u64);
        return Err(OnnxError::Limit { what: "model file bytes", actual, limit });
    }
    proto::ModelProto::decode(bytes).map_err(|e| OnnxError::Protobuf(e.to_string()))
}

/// Encodes a model: fields in the order of their numbers, so that equal messages are equal bytes.
pub fn encode(model: &proto::ModelProto) -> Vec<u8> {
    model.encode_to_vec()
}
