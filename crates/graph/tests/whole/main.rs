//! Whole models through the whole crate.

mod address;
mod functions;
mod mutations;
mod rewrite;
mod upgrades;
