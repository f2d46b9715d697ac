//! Content-addressed blobs: a blob's name is the BLAKE3 of its bytes.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! let store = isobit_hub::BlobStore::open(dir.path())?;
//! let hash = store.put(b"weights")?;
//! assert_eq!(store.get(&hash)?, b"weights");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A blob is whole or absent, whatever happens while it is written: it is written beside its place, flushed to disk, and
//! moved there by one rename. What is read is hashed again, so a damaged disk gives an error and never other bytes.

#![forbid(unsafe_code)]

mod blobs;
mod slice;

pub use blobs::{BlobError, BlobStore};
pub use slice::{encode_slice, verify_slice};
