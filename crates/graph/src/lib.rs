//! The graph IR, and everything that turns a model as published into the one canonical graph that
//! every node executes: opset upgrade, function inlining, canonical order and names, the model object.
//!
//! Data flows one way: bytes -> [`isobit_onnx`] protobuf -> [`Model`] -> upgrade -> inline -> canonical
//! form -> model object. Nothing here computes a tensor; that is the business of `isobit-ops`.

#![forbid(unsafe_code)]

mod ir;

pub use ir::{Attr, Dim, Graph, Model, Node, Value, ValueId};
