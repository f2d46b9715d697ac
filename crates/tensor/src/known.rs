//! Roots of tensors in files, kept from load to load.
//!
//! A file of weights that has not changed has the roots that it had. Whether it has changed is told by what the operating system says
//! of it ([`isobit_mapped::Identity`]), as build tools and version control do. Roots are kept in a file named by a hash of that:
//!
//! ```text
//! 0..8     "isobitR1"
//! 8..40    BLAKE3 of the rest
//! 40..     for each tensor BLAKE3 of its head and where it starts (u64 little-endian), and its root: 32 bytes each
//! ```
//!
//! Any of them may be deleted at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isobit_mapped::{Identity, Mapped, replace};

use crate::{Hash, Tensor, seal};

/// The name of such a file ends so.
pub const EXTENSION: &str = "roots";

const MAGIC: &[u8; 8] = b"isobitR1";
const HEAD: usize = 40;
const ENTRY: usize = 64;
/// Bytes of a file that is worth reading.
const LONGEST: u64 = 1 << 24;

/// For tensors in one file, by head and place.
pub type Roots = BTreeMap<Hash, Hash>;

/// As [`seal`], with the roots in `folder` of tensors whose files have not changed; those of others are kept there, as far as that is
/// possible.
pub fn seal_known(tensors: &mut [&mut Tensor], folder: &Path) {
    let mut files: Vec<(Arc<Mapped>, Identity, Roots)> = Vec::new();
    // Tensors, and by what to find them in which file.
    let mut unknown = Vec::new();
    for (i, tensor) in tensors.iter_mut().enumerate().filter(|(_, t)| t.sealed().is_none()) {
        let Some((file, place)) = tensor.place() else { continue };
        let Some(identity) = file.identity() else { continue };
        let at = files.iter().position(|(known, ..)| Arc::ptr_eq(known, file)).unwrap_or_else(|| {
            files.push((file.clone(), identity, read(&path(folder, &identity)).unwrap_or_default()));
            files.len() - 1
        });
        let key = key(tensor, place.start);
        match files[at].2.get(&key) {
            Some(&root) => tensor.seal_as(root),
            None => unknown.push((i, at, key)),
        }
    }
    seal(tensors);
    let mut grown = BTreeSet::new();
    for (i, at, key) in unknown {
        files[at].2.extend(tensors[i].sealed().map(|root| (key, root)));
        grown.insert(at);
    }
    for (_, identity, roots) in grown.into_iter().map(|at| &files[at]) {
        // Without it the next load hashes them again.
        let _ = write(&path(folder, identity), roots);
    }
}

/// What a tensor in a file is found by; its head says how many bytes it has.
fn key(tensor: &Tensor, start: usize) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tensor.head()).update(&(start as u64).to_le_bytes());
    hasher.finalize().into()
}

fn path(folder: &Path, identity: &Identity) -> PathBuf {
    folder.join(format!("{}.{EXTENSION}", Hash::of(identity.as_bytes())))
}

fn read(path: &Path) -> Option<Roots> {
    let short = fs::metadata(path).ok()?.len() <= LONGEST;
    short.then(|| fs::read(path).ok()).flatten().and_then(|file| entries(&file))
}

/// The entries of such a file, if it is whole.
pub fn entries(file: &[u8]) -> Option<Roots> {
    let (head, rest) = file.split_at_checked(HEAD)?;
    let whole = &head[..8] == MAGIC && head[8..] == Hash::of(rest).0 && rest.len().is_multiple_of(ENTRY);
    let hash = |bytes: &[u8]| bytes.try_into().map(Hash).ok();
    let entry = |entry: &[u8]| Some((hash(&entry[..32])?, hash(&entry[32..])?));
    whole.then(|| rest.chunks_exact(ENTRY).map(entry).collect()).flatten()
}

fn write(path: &Path, roots: &Roots) -> io::Result<()> {
    let rest: Vec<u8> = roots.iter().flat_map(|(key, root)| [key.0, root.0]).flatten().collect();
    let mut file = MAGIC.to_vec();
    file.extend(Hash::of(&rest).0);
    file.extend(rest);
    replace(path, |new| fs::write(new, file))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::time::Duration;

    use super::*;
    use crate::DType;

    const SHAPE: [usize; 2] = [200, 100];

    /// The two tensors in a file of weights, sealed with what is known in a folder.
    fn sealed(file: &Arc<Mapped>, folder: &Path) -> [Hash; 2] {
        let bytes = SHAPE[0] * SHAPE[1] * 4;
        let tensor =
            |start: usize| Tensor::from_le_file(DType::F32, &SHAPE, file, start..start + bytes).unwrap();
        let (mut a, mut b) = (tensor(0), tensor(bytes));
        seal_known(&mut [&mut a, &mut b], folder);
        [&a, &b].map(|t| t.sealed().unwrap())
    }

    fn mapped(path: &Path) -> Arc<Mapped> {
        Arc::new(Mapped::new(&File::open(path).unwrap()).unwrap())
    }

    #[test]
    fn roots_are_taken_from_the_last_time_unless_the_file_changed() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("weights");
        let write = |by: f32| {
            let numbers = (0..2 * SHAPE[0] * SHAPE[1]).flat_map(|i| (i as f32 * by).to_le_bytes());
            fs::write(&weights, numbers.collect::<Vec<u8>>()).unwrap();
        };
        let known = folder.path().join("known");
        write(1.0);
        let expected = sealed(&mapped(&weights), &known);
        assert_ne!(expected[0], expected[1]);
        assert!(!known.exists(), "of a file that was just written nothing is kept");

        // Until it was left alone for long enough.
        while mapped(&weights).identity().is_none() {
            std::thread::sleep(Duration::from_millis(200));
        }
        let file = mapped(&weights);
        assert_eq!(sealed(&file, &known), expected);
        let kept = path(&known, &file.identity().unwrap());
        let roots = read(&kept).unwrap();
        assert_eq!(roots.len(), 2);
        assert_eq!(sealed(&file, &known), expected);

        // What is kept is used: with other roots there they are the tensors'.
        let other = Hash::of(b"another");
        let planted: Roots = roots.keys().map(|&key| (key, other)).collect();
        super::write(&kept, &planted).unwrap();
        assert_eq!(sealed(&mapped(&weights), &known), [other; 2]);
        // A spoiled file is as good as none, and replaced.
        let mut spoiled = fs::read(&kept).unwrap();
        spoiled[100] ^= 1;
        for bytes in [&spoiled[..], &spoiled[..50], &[]] {
            fs::write(&kept, bytes).unwrap();
            assert_eq!(sealed(&file, &known), expected);
            assert_eq!(read(&kept).unwrap(), roots);
        }

        // Of a file with other content they are not asked for.
        super::write(&kept, &planted).unwrap();
        write(2.0);
        let changed = sealed(&mapped(&weights), &known);
        assert!(changed.iter().all(|root| *root != other && !expected.contains(root)));
    }

    #[test]
    fn entries_are_whole_or_none() {
        assert_eq!(entries(&[]), None);
        let mut file = MAGIC.to_vec();
        file.extend(Hash::of(&[7; 63]).0);
        file.extend([7; 63]);
        assert_eq!(entries(&file), None);
    }
}
