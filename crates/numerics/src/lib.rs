//! The isobit-1 numeric profile in scalar Rust: the definition every kernel must equal.
