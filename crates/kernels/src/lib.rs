//! The profile's functions, fast, for each instruction set; the home of `unsafe` SIMD.
//!
//! Every function here takes an [`Exec`]: which instruction set to use and how to spread work over
//! threads. Neither may change a bit of a result: each kernel stands beside the scalar definition it
//! must equal (in `isobit-numerics`), and property tests compare the two bit for bit over random
//! shapes, every available [`KernelSet`] and several thread counts.

pub mod blocked;
pub mod conv;
mod dispatch;
pub mod double;
pub mod elementwise;
mod exec;
pub mod fp;
pub mod gemm;
pub mod integer;
pub mod math;
pub mod norm;
mod packed;
pub mod pool;
pub mod recurrent;
pub mod reduce;
mod rounds;
mod scratch;
mod shared;
mod split;
mod strided;
mod threads;
pub mod transpose;

pub use exec::{Exec, KernelSet, Parallel, Serial, UnknownKernelSet};
pub use packed::Panels;
pub use rounds::rounds;
pub(crate) use split::split;
pub use split::{copy, rows};
pub use threads::Threads;
