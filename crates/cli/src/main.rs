//! The isobit command.
fn main() {}
