//! Content-addressed blobs, and repositories that give them names.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! use isobit_hub::{BlobStore, FileEntry, RepoName, Repos, Revision, verify_slice};
//! let blobs = BlobStore::open(&dir.path().join("blobs"))?;
//! let hash = blobs.put(b"weights")?;
//! assert_eq!(blobs.get(&hash)?, b"weights");
//! let slice = blobs.slice(&hash, 2, 5)?; // with its proof, for somebody who has the hash alone
//! assert_eq!(verify_slice(&hash, 7, 2, 5, &slice).as_deref(), Some(&b"igh"[..]));
//!
//! let repos = Repos::open(&dir.path().join("repos.redb"))?;
//! let repo: RepoName = "isobit/digits".parse()?;
//! repos.create(&repo)?;
//! let files = [("weights.bin".to_owned(), FileEntry { hash, size: 7 })].into();
//! let id = repos.commit(&repo, "main", &Revision { files, ..Revision::default() }, &blobs)?;
//! assert_eq!(repos.revision(&repo, "main")?.0, id);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A blob's name is the BLAKE3 of its bytes. It is whole or absent, whatever happens while it is written: it is written beside
//! its place, flushed to disk, and moved there by one rename. What is read is hashed again, so a damaged disk gives an error
//! and never other bytes.

#![forbid(unsafe_code)]

mod accounts;
mod blobs;
mod repos;
mod slice;

pub use accounts::{ACCESS_TIME, AccountError, Accounts, Tokens};
pub use blobs::{BlobError, BlobStore};
pub use repos::{FileEntry, RepoError, RepoName, Repos, Revision};
pub use slice::{encode_slice, verify_slice};
