//! Element types, shapes, tensors, their canonical bytes and the BLAKE3 commitment of those bytes.
//!
//! A [`Tensor`] is a shape and a shared, contiguous, row-major buffer. Cloning one is a reference
//! count; taking its buffer back with [`Tensor::into_vec`] is free when nobody else holds it, which is
//! how operators work in place.
//!
//! ```
//! use isobit_tensor::Tensor;
//! let t = Tensor::new(&[2, 3], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
//! assert_eq!(t.shape(), [2, 3]);
//! assert_eq!(t.as_slice::<f32>().unwrap()[4], 5.0);
//! println!("{}", t.root()); // one hash for dtype, shape and every bit of the content
//! ```
//!
//! Guarantees: the root depends on nothing but dtype, shape and content; a NaN's sign and payload are
//! not content (they are written as the canonical quiet NaN).

#![forbid(unsafe_code)]

mod buf;
mod canonical;
pub mod cores;
mod datum;
mod dtype;
mod error;
mod hash;
pub mod known;
mod pieces;
pub mod recycle;
mod seal;
mod shape;
mod small;
mod tensor;

pub use buf::Buf;
pub use datum::{Datum, Map};
pub use dtype::{DType, Element};
pub use error::TensorError;
pub use half::{bf16, f16};
pub use hash::{Hash, ParseHashError};
pub use seal::seal;
pub use shape::{MAX_EXTENT, MAX_RANK, Shape, numel};
pub use small::{
    Complex, F4E2M1, F6E2M3, F6E3M2, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F8E8M0, I2, I4, Small, U2, U4,
};
pub use tensor::{Data, Tensor};
