//! Products of small integers, exact in i32 (which wraps), and what turns numbers into small integers and back.
//!
//! Nothing here saturates. Bytes are multiplied and added four at a time where the machine has an instruction that does so exactly;
//! elsewhere, less their zero points, as i16 in pairs, whose products fit i32.

mod bytes;
mod conv;
mod linear;
mod pairs;
mod tile;

pub use bytes::{Bytes, PackedBytes, product};
pub use conv::{PackedFilters, Results, conv};
pub use linear::{Requantize, dequantize, quantize, requantize};
pub use pairs::{PackedInts, gemm};
