//! Sessions: load a canonical graph, plan it, run it, meter it.
//!
//! ```no_run
//! use isobit_runtime::{Options, RunOptions, Session};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let model: isobit_graph::Model = unimplemented!();
//! # let image: isobit_tensor::Tensor = unimplemented!();
//! let session = Session::load(model, &Options::default())?;
//! let result = session.run(vec![("image".into(), image)], &RunOptions::default())?;
//! for (name, tensor) in &result.outputs {
//!     println!("{name}: {}", tensor.root());
//! }
//! println!("metered cost {}", result.cost);
//! # Ok(()) }
//! ```
//!
//! Guarantees: the outputs and the metered cost, or the error code, are a function of the model, the
//! inputs, the seed and the limits. The kernel set, the number of threads and everything else about
//! the machine change nothing but the time it takes.

#![forbid(unsafe_code)]

mod check;
mod control;
mod error;
mod fuse;
mod infer;
mod layout;
mod meter;
mod options;
pub mod packs;
mod plan;
mod pool;
mod portions;
mod program;
mod session;
mod signature;

pub use check::{Issue, check};
pub use control::OPERATORS as CONTROL_FLOW;
pub use error::{LoadError, NodeRef, RunError};
pub use infer::{Inference, infer};
pub use isobit_kernels::KernelSet;
pub use options::{DataResult, Limits, Options, RunOptions, RunResult, StepTime};
pub use packs::Kept;
pub use session::Session;
