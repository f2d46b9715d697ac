//! Opening models, with progress for large ones.

use std::path::Path;

use anyhow::{Context, Result};
use isobit_graph::Model;

/// Reads an ONNX file or a model object's folder and brings it into canonical form.
pub(crate) fn open(path: &Path) -> Result<Model> {
    open_known(path, None)
}

/// As [`open`], with the roots of weights that are known of the last time, in a folder.
pub(crate) fn open_known(path: &Path, known: Option<&Path>) -> Result<Model> {
    isobit_graph::open_known(path, known).with_context(|| format!("cannot open the model {}", path.display()))
}

/// The machine's cores.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}
