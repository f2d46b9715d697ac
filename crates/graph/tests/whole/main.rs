//! Whole models through the whole crate.

mod address;
mod mutations;
mod rewrite;
