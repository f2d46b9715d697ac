//! The operators: one file a family. An operator is built once from its node (attributes parsed,
//! constant weights packed), can say the shape and type of its results and what it costs, and runs.
//!
//! Operators are written for the newest form of each: `isobit-graph` upgrades older forms before they
//! arrive here. With [`isobit_kernels::KernelSet::Scalar`] an operator computes exactly by the
//! definitions of `isobit-numerics`; every other kernel set must give the same bits.

#![forbid(unsafe_code)]

mod affine_grid;
mod arith;
mod attention;
mod axes;
mod batch_norm;
mod bit_cast;
mod blocked;
mod broadcast;
mod build;
mod cast;
mod causal_conv;
mod cells;
mod col2im;
mod concat;
mod conv;
mod create;
mod crop;
mod deform_conv;
mod det;
mod dropout;
mod einsum;
mod entries;
mod error;
mod fact;
mod fold;
mod gather;
mod grid_sample;
mod image;
mod integer_conv;
mod linear_attention;
mod local_norm;
mod logic;
mod loss;
mod matmul;
mod max_roi_pool;
mod max_unpool;
mod memory;
mod ml;
mod modulo;
mod narrow;
mod nms;
mod norm;
mod number;
mod op;
mod optimizers;
mod packs;
mod pad;
mod pool;
mod pow;
mod product;
mod quantize;
mod quantized_matmul;
mod random;
mod re2;
mod real;
mod recurrent;
mod reduce;
mod registry;
mod resize;
mod roi_align;
mod rotary;
mod scatter;
mod select;
mod sequence;
mod shape;
mod slice;
mod softmax;
mod spectral_windows;
mod spectrum;
mod split_sequence;
mod steps;
mod strings;
mod swiglu;
mod tail;
mod taps;
mod tensor_scatter;
mod tfidf;
mod transpose;
mod typed;
mod unary;
mod window;

pub use blocked::{Blocked, Blockwise, Gated, Role, Value, Wanted, plain};
pub use build::BuildCtx;
pub use error::{Code, OpError};
pub use fact::Fact;
pub use matmul::takes_turned;
pub use memory::Memory;
pub use op::{Inputs, Op, RunCtx};
pub use packs::{Form, Packs};
pub use registry::{OpDef, all, find};
pub use tail::{Stage, Tail};
