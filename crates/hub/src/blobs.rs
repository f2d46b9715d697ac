use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobit_tensor::Hash;

use crate::slice::{self, Tree};

/// A blob cannot be stored or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// There is none of this hash.
    #[error("there is no blob {0}")]
    Absent(Hash),
    /// The bytes on disk are not those that were stored.
    #[error("blob {0} is damaged on disk; store it again, which replaces it")]
    Damaged(Hash),
    /// What was sent is not what was announced.
    #[error("the bytes have the hash {found}, {expected} was announced; nothing was stored")]
    Mismatch {
        /// What was announced.
        expected: Hash,
        /// What came.
        found: Hash,
    },
    /// Longer than the store takes.
    #[error("a blob of {bytes} bytes or more is above the limit of {limit}")]
    TooLong {
        /// Its length, or how much of it was read.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A range that is empty or reaches beyond the blob's end.
    #[error("bytes {start}..{end} of a blob of {bytes}; give a range that is not empty and within it")]
    Range {
        /// First byte.
        start: u64,
        /// After the last byte.
        end: u64,
        /// The blob's length.
        bytes: u64,
    },
    /// What is read was sent by somebody and cannot be read.
    #[error("the blob cannot be received: {0}")]
    Receive(io::Error),
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// Which path.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Blobs in a folder, one file each, and beside each longer than 16 KiB the inner hashes of its tree, so that a slice is
/// served by reading no more than the slice.
///
/// Clones share the folder; so may several processes.
#[derive(Debug, Clone)]
pub struct BlobStore {
    root: PathBuf,
    limit: u64,
    /// Held shared while the store is open: who gets it alone knows that nobody is writing.
    _lock: Arc<File>,
}

/// Longest blob by default: 8 GiB.
const LIMIT: u64 = 8 << 30;

impl BlobStore {
    /// Opens (or makes) a store. What an interrupted write left behind is removed, unless another process has the store
    /// open and may be writing.
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let temporary = root.join("incoming");
        fs::create_dir_all(&temporary).map_err(at(&temporary))?;
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(at(&path))?;
        if lock.try_lock().is_ok() {
            for entry in fs::read_dir(&temporary).map_err(at(&temporary))? {
                let path = entry.map_err(at(&temporary))?.path();
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        lock.lock_shared().map_err(at(&path))?;
        sync_folder(root)?;
        Ok(Self { root: root.to_owned(), limit: LIMIT, _lock: Arc::new(lock) })
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

    /// The inner hashes of a blob's tree.
    fn tree_path(&self, hash: &Hash) -> PathBuf {
        self.path(hash).with_extension("tree")
    }

    /// Stores bytes and returns their hash. When it returns, they are on disk.
    pub fn put(&self, bytes: &[u8]) -> Result<Hash, BlobError> {
        if bytes.len() as u64 > self.limit {
            return Err(BlobError::TooLong { bytes: bytes.len() as u64, limit: self.limit });
        }
        let tree = Tree::of(bytes, bytes.len() as u64).map_err(BlobError::Receive)?;
        if !self.is_whole(&tree.root)? {
            let mut file = self.new_file()?;
            file.write_all(bytes).map_err(at(file.path()))?;
            self.place(file, &tree)?;
        }
        Ok(tree.root)
    }

    /// Stores what a reader gives, which is never in memory as a whole; returns hash and length. Reading stops above the limit.
    pub fn put_reader(&self, reader: impl Read) -> Result<(Hash, u64), BlobError> {
        let (file, tree) = self.receive(reader)?;
        self.keep(file, &tree)?;
        Ok((tree.root, tree.length))
    }

    /// Stores what a reader gives if it has the announced hash; returns the length.
    pub fn put_expected(&self, expected: &Hash, reader: impl Read) -> Result<u64, BlobError> {
        let (file, tree) = self.receive(reader)?;
        if tree.root != *expected {
            return Err(BlobError::Mismatch { expected: *expected, found: tree.root });
        }
        self.keep(file, &tree)?;
        Ok(tree.length)
    }

    fn new_file(&self) -> Result<tempfile::NamedTempFile, BlobError> {
        let temporary = self.temporary();
        tempfile::NamedTempFile::new_in(&temporary).map_err(at(&temporary))
    }

    fn receive(&self, mut reader: impl Read) -> Result<(tempfile::NamedTempFile, Tree), BlobError> {
        let mut file = self.new_file()?;
        let mut buffer = vec![0; 64 << 10];
        let mut length = 0;
        loop {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(BlobError::Receive)?,
            };
            length += n as u64;
            if length > self.limit {
                return Err(BlobError::TooLong { bytes: length, limit: self.limit });
            }
            file.write_all(&buffer[..n]).map_err(at(file.path()))?;
        }
        file.rewind().map_err(at(file.path()))?;
        let tree = Tree::of(BufReader::new(file.as_file()), length).map_err(at(file.path()))?;
        Ok((file, tree))
    }

    fn keep(&self, file: tempfile::NamedTempFile, tree: &Tree) -> Result<(), BlobError> {
        if self.is_whole(&tree.root)? { Ok(()) } else { self.place(file, tree) }
    }

    /// Whether the blob is there and undamaged.
    fn is_whole(&self, hash: &Hash) -> Result<bool, BlobError> {
        match self.check(hash) {
            Ok(_) => Ok(true),
            Err(BlobError::Absent(_) | BlobError::Damaged(_)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Moves a file that holds a blob to its place. The tree goes first, so a blob that is there has its tree.
    fn place(&self, file: tempfile::NamedTempFile, tree: &Tree) -> Result<(), BlobError> {
        let path = self.path(&tree.root);
        let folder = path.parent().expect("two levels below the root");
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(at(folder))?;
            sync_folder(&self.root)?;
        }
        if !tree.pairs.is_empty() {
            self.place_tree(tree)?;
        }
        persist(file, &path)?;
        // The rename itself is durable once the folder is.
        sync_folder(folder)
    }

    fn place_tree(&self, tree: &Tree) -> Result<(), BlobError> {
        let mut file = self.new_file()?;
        file.write_all(&tree.pairs).map_err(at(file.path()))?;
        persist(file, &self.tree_path(&tree.root))
    }

    /// Whether there is such a blob.
    pub fn contains(&self, hash: &Hash) -> bool {
        self.path(hash).exists()
    }

    /// A blob's length in bytes.
    pub fn length(&self, hash: &Hash) -> Result<u64, BlobError> {
        let path = self.path(hash);
        fs::metadata(&path).map(|m| m.len()).map_err(|e| self.missing(hash, &path, e))
    }

    fn missing(&self, hash: &Hash, path: &Path, e: io::Error) -> BlobError {
        if e.kind() == io::ErrorKind::NotFound { BlobError::Absent(*hash) } else { at(path)(e) }
    }

    /// The bytes of a blob, checked against its hash.
    pub fn get(&self, hash: &Hash) -> Result<Vec<u8>, BlobError> {
        let path = self.path(hash);
        let bytes = fs::read(&path).map_err(|e| self.missing(hash, &path, e))?;
        if Hash::of(&bytes) == *hash { Ok(bytes) } else { Err(BlobError::Damaged(*hash)) }
    }

    /// A blob's file, to be streamed. **Nothing is checked**: whoever reads it checks the hash, or asks for
    /// [`BlobStore::slice`]s.
    pub fn open_unchecked(&self, hash: &Hash) -> Result<File, BlobError> {
        let path = self.path(hash);
        File::open(&path).map_err(|e| self.missing(hash, &path, e))
    }

    /// Reads a whole blob and compares its hash, without holding it in memory.
    pub fn check(&self, hash: &Hash) -> Result<(), BlobError> {
        self.tree_from_data(hash).map(|_| ())
    }

    /// The tree of a blob, computed from its bytes; an error if they are damaged.
    fn tree_from_data(&self, hash: &Hash) -> Result<Tree, BlobError> {
        let length = self.length(hash)?;
        let file = BufReader::new(self.open_unchecked(hash)?);
        let tree = Tree::of(file, length).map_err(at(&self.path(hash)))?;
        if tree.root == *hash { Ok(tree) } else { Err(BlobError::Damaged(*hash)) }
    }

    /// Bytes `start..end` of a blob, rounded out to 16 KiB, with their proof: what [`crate::verify_slice`] checks. What is
    /// read is checked first, so a damaged blob gives an error; lost or damaged inner hashes are computed anew.
    pub fn slice(&self, hash: &Hash, start: u64, end: u64) -> Result<Vec<u8>, BlobError> {
        let length = self.length(hash)?;
        if start >= end || end > length {
            return Err(BlobError::Range { start, end, bytes: length });
        }
        let data = self.open_unchecked(hash)?;
        if let Ok(pairs) = fs::read(self.tree_path(hash)) {
            let tree = Tree { root: *hash, length, pairs };
            if let Some(slice) = slice::encode(&data, &tree, start, end) {
                return Ok(slice);
            }
        }
        let tree = self.tree_from_data(hash)?;
        if !tree.pairs.is_empty() {
            self.place_tree(&tree)?;
        }
        slice::encode(&data, &tree, start, end).ok_or(BlobError::Damaged(*hash))
    }

    /// Removes a blob; it is no error if there is none.
    pub fn remove(&self, hash: &Hash) -> Result<(), BlobError> {
        for path in [self.path(hash), self.tree_path(hash)] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(&path)(e)),
                _ => {}
            }
        }
        Ok(())
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

fn persist(file: tempfile::NamedTempFile, path: &Path) -> Result<(), BlobError> {
    file.as_file().sync_all().map_err(at(file.path()))?;
    file.persist(path).map(|_| ()).map_err(|e| at(path)(e.error))
}

fn sync_folder(folder: &Path) -> Result<(), BlobError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(at(folder))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify_slice;
    use isobit_numerics::rng::Rng;

    fn bytes(length: usize) -> Vec<u8> {
        let mut rng = Rng::new(length as u64, 0);
        (0..length).map(|_| rng.next_u32() as u8).collect()
    }

    fn incoming(store: &BlobStore) -> usize {
        fs::read_dir(store.temporary()).unwrap().count()
    }

    #[test]
    fn stores_once_checks_on_reading_and_heals() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        for length in [0, 3, 16 << 10, (16 << 10) + 1, 300_000] {
            let blob = bytes(length);
            let hash = store.put(&blob).unwrap();
            assert_eq!(hash, Hash::of(&blob));
            assert_eq!(store.put_reader(&blob[..]).unwrap(), (hash, length as u64));
            assert_eq!(store.put_expected(&hash, &blob[..]).unwrap(), length as u64);
            assert_eq!(
                (store.get(&hash).unwrap(), store.length(&hash).unwrap()),
                (blob.clone(), length as u64)
            );
            store.check(&hash).unwrap();
            let mut damaged = blob.clone();
            damaged.push(1);
            fs::write(store.path(&hash), &damaged).unwrap();
            assert!(matches!(store.get(&hash), Err(BlobError::Damaged(_))));
            assert!(matches!(store.check(&hash), Err(BlobError::Damaged(_))));
            store.put(&blob).unwrap();
            assert_eq!(store.get(&hash).unwrap(), blob);
        }
        assert_eq!((store.list().unwrap().len(), incoming(&store)), (5, 0));
        for hash in store.list().unwrap() {
            store.remove(&hash).unwrap();
            store.remove(&hash).unwrap();
            assert!(!store.contains(&hash));
        }
        assert!(store.list().unwrap().is_empty());
    }

    #[test]
    fn refusals_store_nothing() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::ConnectionReset.into())
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap().with_limit(10);
        let absent = Hash::of(b"x");
        assert!(matches!(store.put(&[0; 11]), Err(BlobError::TooLong { .. })));
        assert!(matches!(store.put_reader(io::repeat(0)), Err(BlobError::TooLong { .. })));
        assert!(matches!(store.put_expected(&absent, &b"abc"[..]), Err(BlobError::Mismatch { .. })));
        assert!(matches!(store.put_reader(b"abc".chain(Broken)), Err(BlobError::Receive(_))));
        assert!(matches!(store.get(&absent), Err(BlobError::Absent(_))));
        assert!(matches!(store.length(&absent), Err(BlobError::Absent(_))));
        assert!(matches!(store.slice(&absent, 0, 1), Err(BlobError::Absent(_))));
        assert_eq!((store.list().unwrap().len(), incoming(&store)), (0, 0));
        assert_eq!(store.put_reader(&[0; 10][..]).unwrap().1, 10);
    }

    #[test]
    fn slices_come_from_disk_and_survive_lost_or_damaged_trees() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let blob = bytes(500_000);
        let hash = store.put(&blob).unwrap();
        let check = || {
            let slice = store.slice(&hash, 100_001, 140_000).unwrap();
            assert!(slice.len() < 60_000);
            let proved = verify_slice(&hash, 500_000, 100_001, 140_000, &slice).unwrap();
            assert_eq!(proved, blob[100_001..140_000]);
        };
        check();
        let tree = fs::read(store.tree_path(&hash)).unwrap();
        fs::remove_file(store.tree_path(&hash)).unwrap();
        check();
        assert_eq!(fs::read(store.tree_path(&hash)).unwrap(), tree);
        for damaged in [vec![0; tree.len()], tree[..tree.len() / 2].to_vec(), Vec::new()] {
            fs::write(store.tree_path(&hash), damaged).unwrap();
            check();
            assert_eq!(fs::read(store.tree_path(&hash)).unwrap(), tree);
        }
        for (start, end) in [(0, 0), (5, 4), (0, 500_001), (u64::MAX, u64::MAX)] {
            assert!(matches!(store.slice(&hash, start, end), Err(BlobError::Range { .. })));
        }
        let mut damaged = blob.clone();
        damaged[120_000] ^= 1;
        fs::write(store.path(&hash), damaged).unwrap();
        assert!(matches!(store.slice(&hash, 100_001, 140_000), Err(BlobError::Damaged(_))));
    }

    #[test]
    fn leftovers_are_removed_when_nobody_is_writing() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        fs::write(store.temporary().join("half"), b"ha").unwrap();
        let second = BlobStore::open(dir.path()).unwrap();
        assert_eq!(incoming(&second), 1, "the first may be writing it");
        drop((store, second));
        let store = BlobStore::open(dir.path()).unwrap();
        assert!(store.list().unwrap().is_empty());
        assert_eq!(incoming(&store), 0);
    }
}
