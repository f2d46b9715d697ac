//! The graph IR, and everything that turns a model as published into the one canonical graph that
//! every node executes: function inlining, opset upgrade, canonical order and names, the model object.
//!
//! ```no_run
//! let model = isobit_graph::open(std::path::Path::new("model.onnx"))?;
//! let object = isobit_graph::ModelObject::from_model(&model)?;
//! println!("{}", object.address()); // the same for every way of writing this model down
//! # Ok::<(), isobit_graph::GraphError>(())
//! ```
//!
//! Data flows one way: bytes -> [`isobit_onnx`] messages -> [`import`] -> [`upgrade`] -> [`canonicalize`] -> [`integers`], and
//! canonical again -> [`ModelObject`]. Nothing here computes a tensor; that is the business of `isobit-ops`.

#![forbid(unsafe_code)]

mod canonical;
mod error;
mod export;
mod functions;
mod import;
mod integers;
mod ir;
mod json;
mod object;
mod sparse;
mod types;
mod upgrade;
mod validate;

pub use canonical::canonicalize;
pub use error::GraphError;
pub use export::{export, export_external};
pub use import::import;
pub use integers::integers;
pub use ir::{Attr, Dim, Graph, Model, Node, Type, Value, ValueId};
pub use object::{Manifest, ModelObject, PROFILE, Part, Slot, from_onnx_bytes, open, open_known};
pub use upgrade::{NEWEST_OPSET, PINNED_IR_VERSION, PINNED_OPSET, restated, upgrade};
