//! The same bits, as something one can run: for each operator and element type one hash of what it computes over 1,024 seeded
//! cases.
//!
//! A case starts from one of ONNX's own (`templates.tar.zst`: its graph and operands), takes other numbers of the line's
//! element type, NaN, infinities, -0 and subnormals among them, and now and then other extents: 0, 1, or none at all. Outcomes are
//! results or agreed error codes; both are hashed. `conformance.toml` has the hashes of every line; [`Report`] says what a machine
//! makes of them, under each of its kernel sets and numbers of threads.
//!
//! The hashes guard sameness, not meaning: what operators mean is tested elsewhere, by others' suites.

#![forbid(unsafe_code)]

mod draw;
mod exhaustive;
mod extra;
mod file;
mod line;
mod models;
mod report;
mod templates;
mod values;
mod vary;

pub use exhaustive::{BLOCKS, Function, functions};
pub use file::{FILE, File, FileError};
pub use line::{CASES, Hashes, QUICK, Setting};
pub use models::{MODELS, model_root};
pub use report::{Difference, Report, compare, compute, compute_lines};
pub use templates::{Template, Templates, pack};
