use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use isobit_tensor::Hash;

/// A blob cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// There is none of this hash.
    #[error("there is no blob {0}")]
    Absent(Hash),
    /// The bytes on disk are not those that were stored.
    #[error("blob {0} is damaged on disk; remove it and fetch it again")]
    Damaged(Hash),
    /// Longer than the store takes.
    #[error("a blob of {bytes} bytes is above the limit of {limit}")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Blobs in a folder, one file each.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
    limit: u64,
}

/// Longest blob by default: 8 GiB.
const LIMIT: u64 = 8 << 30;

impl BlobStore {
    /// Opens (or makes) a store. What an interrupted write left behind is removed.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let store = Self { root: root.to_owned(), limit: LIMIT };
        let temporary = store.temporary();
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(at(&temporary))?;
        }
        fs::create_dir_all(&temporary).map_err(at(&temporary))?;
        Ok(store)
    }

    /// The same store with another limit on the length of a blob, in bytes.
    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = limit;
        self
    }

    fn temporary(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// `ab/cdef...`: no folder grows too long.
    fn path(&self, hash: &Hash) -> PathBuf {
        let name = hash.to_string();
        self.root.join(&name[..2]).join(&name[2..])
    }

    /// Stores bytes and returns their hash. When it returns, they are on disk.
    pub fn put(&self, bytes: &[u8]) -> Result<Hash, BlobError> {
        if bytes.len() as u64 > self.limit {
            return Err(BlobError::TooLong { bytes: bytes.len() as u64, limit: self.limit });
        }
        let hash = Hash::of(bytes);
        let path = self.path(&hash);
        if path.exists() {
            return Ok(hash);
        }
        let folder = path.parent().expect("two levels below the root");
        fs::create_dir_all(folder).map_err(at(folder))?;
        let temporary = self.temporary();
        let mut file = tempfile::NamedTempFile::new_in(&temporary).map_err(at(&temporary))?;
        file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(at(file.path()))?;
        file.persist(&path).map_err(|e| BlobError::Io { path: path.clone(), source: e.error })?;
        // The rename itself is durable once the folder is.
        File::open(folder).and_then(|f| f.sync_all()).map_err(at(folder))?;
        Ok(hash)
    }

    /// Whether there is such a blob.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.path(hash).exists()
    }

    /// The bytes of a blob, checked against its hash.
    pub fn get(&self, hash: &Hash) -> Result<Vec<u8>, BlobError> {
        let path = self.path(hash);
        let bytes = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(BlobError::Absent(*hash)),
            other => other.map_err(at(&path))?,
        };
        if Hash::of(&bytes) == *hash { Ok(bytes) } else { Err(BlobError::Damaged(*hash)) }
    }

    /// Every blob there is, in order of hash.
    pub fn list(&self) -> Result<Vec<Hash>, BlobError> {
        let mut out = Vec::new();
        for folder in fs::read_dir(&self.root).map_err(at(&self.root))? {
            let folder = folder.map_err(at(&self.root))?.path();
            let Some(head) = folder.file_name().and_then(|n| n.to_str()).filter(|n| n.len() == 2) else {
                continue;
            };
            for file in fs::read_dir(&folder).map_err(at(&folder))? {
                let name = file.map_err(at(&folder))?.file_name();
                let name = format!("{head}{}", name.to_string_lossy());
                out.extend(name.parse::<Hash>());
            }
        }
        out.sort();
        Ok(out)
    }
}

fn at(path: &Path) -> impl Fn(io::Error) -> BlobError + '_ {
    move |source| BlobError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_once_and_checks_on_reading() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap().with_limit(10);
        let hash = store.put(b"abc").unwrap();
        assert_eq!(store.put(b"abc").unwrap(), hash);
        assert_eq!(store.list().unwrap(), [hash]);
        assert!(matches!(store.put(&[0; 11]), Err(BlobError::TooLong { .. })));
        assert!(matches!(store.get(&Hash::of(b"x")), Err(BlobError::Absent(_))));
        fs::write(store.path(&hash), b"abd").unwrap();
        assert!(matches!(store.get(&hash), Err(BlobError::Damaged(_))));
    }

    #[test]
    fn leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        fs::write(store.temporary().join("half"), b"ha").unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert_eq!(fs::read_dir(store.temporary()).unwrap().count(), 0);
    }
}
