//! Packed weights, kept on disk from load to load.
//!
//! A file belongs to the weights of one model, a kernel set and a way of packing; its name is a hash of these three. It is
//! mapped, so that a model's packed weights are in memory once however many processes run it, and only as far as they are
//! used.
//!
//! ```text
//! 0..8      "isobitP1"
//! 8..16     number of entries, u64 little-endian
//! 16..32    sum of the entries' heads
//! 32..      for each entry its key (32 bytes), where its numbers start (bytes, a multiple of 64), how many they are (u64
//!           little-endian each), and their sum
//! then      the numbers, f32 or words of 32 bits, little-endian
//! ```
//!
//! A sum is XXH3 of 128 bits, little-endian: it finds what a disk or a copy has spoiled. Against somebody who can write to the folder no
//! hash inside of it would help, so a faster one than BLAKE3 does. Nothing in a file is believed before it was summed, and one that is not
//! what it should be is as good as none: any of them may be deleted at any time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use isobit_graph::Graph;
use isobit_kernels::blocked::Weights;
use isobit_kernels::{Exec, KernelSet, Panels};
use isobit_mapped::{Elements, Mapped, replace};
use isobit_ops::{Form, OpError, Packs};
use isobit_tensor::known::EXTENSION;
use isobit_tensor::{DType, Hash, Tensor, cores};
use twox_hash::XxHash3_128;

const MAGIC: &[u8; 8] = b"isobitP1";
const HEAD: usize = 32;
const ENTRY: usize = 64;
/// Numbers start at multiples of a cache line.
const LINE: usize = 64;
/// Bytes of weights that are packed faster than they are found.
const SMALLEST: usize = 1 << 16;
/// Bytes of a file that is worth writing.
const WORTH: usize = 1 << 20;
/// Bytes that a folder of packed weights may hold; the files that were not used for longest make way.
const BUDGET: u64 = 16 << 30;
/// After this long a file that is still being written is one that was given up.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// What became of the packed weights at load.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kept {
    /// They are not kept: no folder was given, or they are packed faster than they are found.
    Not,
    /// They came from a file.
    Found,
    /// They were packed, and written to a file.
    Written,
    /// They were packed, and could not be written.
    Failed(String),
}

/// Packs weights, or finds them packed.
pub(crate) struct Packer<'a> {
    exec: Exec<'a>,
    /// The file that there should be.
    path: Option<PathBuf>,
    entries: RefCell<BTreeMap<Hash, Panels>>,
    /// Whether there is an entry that is not in the file.
    grown: Cell<bool>,
}

impl<'a> Packer<'a> {
    /// Someone who packs for a graph, with the files in `folder`.
    pub(crate) fn new(exec: Exec<'a>, graph: &Graph, folder: Option<&Path>) -> Self {
        let path = folder.filter(|_| cfg!(target_endian = "little")).and_then(|folder| {
            let roots: Vec<Hash> = graph.initializers.values().filter_map(kept).collect();
            (!roots.is_empty()).then(|| folder.join(file_name(exec.set(), &roots)))
        });
        let entries = path.as_ref().and_then(|path| open(path)).unwrap_or_default();
        Self { exec, path, entries: RefCell::new(entries), grown: false.into() }
    }

    /// Writes what was packed.
    pub(crate) fn keep(self) -> Kept {
        let entries = self.entries.into_inner();
        let bytes: usize = entries.values().map(|panels| size_of_val(&**panels)).sum();
        match self.path {
            Some(path) if !self.grown.get() && !entries.is_empty() => {
                // When it was last used; where that cannot be written it goes earlier.
                let _ = File::open(&path).and_then(|f| f.set_modified(SystemTime::now()));
                Kept::Found
            }
            Some(path) if bytes >= WORTH && bytes as u64 <= BUDGET => match write(&path, &entries) {
                Ok(()) => Kept::Written,
                Err(e) => Kept::Failed(format!("{}: {e}", path.display())),
            },
            _ => Kept::Not,
        }
    }
}

impl Packs for Packer<'_> {
    fn exec(&self) -> Exec<'_> {
        self.exec
    }

    fn panels(&self, form: &Form<'_>, weights: &Tensor) -> Result<Panels, OpError> {
        let Some(root) = kept(weights).filter(|_| self.path.is_some()) else {
            return form.pack(self.exec, weights);
        };
        let key = key(form, &root);
        let found = self.entries.borrow().get(&key).cloned();
        if let Some(panels) = found.filter(|p| Ok(p.len()) == form.elements(self.exec.set(), weights)) {
            return Ok(panels);
        }
        let panels = Panels::lent(Arc::new(form.pack(self.exec, weights)?));
        weights.release();
        self.entries.borrow_mut().insert(key, panels.clone());
        self.grown.set(true);
        Ok(panels)
    }
}

/// The root of weights whose packed form is kept.
fn kept(weights: &Tensor) -> Option<Hash> {
    let packed = matches!(weights.dtype(), DType::F32 | DType::I8 | DType::U8);
    weights.sealed().filter(|_| packed && weights.byte_len() >= SMALLEST)
}

/// What a packed form is found by.
fn key(form: &Form<'_>, root: &Hash) -> Hash {
    let mut hasher = blake3::Hasher::new();
    let zeros = |hasher: &mut blake3::Hasher, zero: Option<&Tensor>| {
        hasher.update(&[zero.is_some().into()]);
        if let Some(zero) = zero {
            hasher.update(zero.root().as_bytes());
        }
    };
    match *form {
        Form::Right { turned } => {
            hasher.update(&[0, turned.into()]);
        }
        Form::Filters(Weights { groups, .. }) => {
            // The other extents are the weights' own.
            hasher.update(&[1, 0]).update(&(groups as u64).to_le_bytes());
        }
        Form::RightOfBytes { zero } => {
            hasher.update(&[2]);
            zeros(&mut hasher, zero);
        }
        Form::FiltersOfBytes { groups, zero } => {
            hasher.update(&[3]).update(&(groups as u64).to_le_bytes());
            zeros(&mut hasher, zero);
        }
    }
    hasher.update(root.as_bytes()).finalize().into()
}

/// The name of the file of a model's weights.
fn file_name(set: KernelSet, roots: &[Hash]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(way_of_packing(set).as_bytes());
    for root in roots {
        hasher.update(root.as_bytes());
    }
    format!("{}.packed", Hash::from(hasher.finalize()))
}

/// A hash of how this program packs for a kernel set: that of small matrices whose numbers are all different, packed. A program
/// that packs otherwise takes no file of this one.
fn way_of_packing(set: KernelSet) -> Hash {
    let exec = Exec::new(set, &isobit_kernels::Serial);
    let floats = |shape: &[usize]| {
        let numbers = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
        Tensor::new(shape, numbers).ok()
    };
    let bytes = |shape: &[usize]| {
        let numbers = (0..shape.iter().product::<usize>()).map(|i| (i * 7 % 251) as u8).collect();
        Tensor::new::<u8>(shape, numbers).ok()
    };
    let filters = |groups, filters, channels, kernel| {
        let form = Form::Filters(Weights { groups, filters, channels, kernel });
        (form, floats(&[filters, channels * kernel[0] * kernel[1]]))
    };
    let (zero, zeros) = (bytes(&[1]), bytes(&[40]));
    let middle = Tensor::vector(vec![128u8]);
    let of_bytes = |groups, filters, channels, zero| {
        (Form::FiltersOfBytes { groups, zero }, bytes(&[filters, channels, 3, 2]))
    };
    let forms = [
        (Form::Right { turned: false }, floats(&[37, 77])),
        (Form::Right { turned: true }, floats(&[77, 37])),
        filters(1, 77, 5, [3, 2]),
        filters(2, 96, 16, [1, 2]),
        filters(19, 19, 1, [2, 3]),
        (Form::RightOfBytes { zero: zero.as_ref() }, bytes(&[37, 77])),
        (Form::RightOfBytes { zero: zeros.as_ref() }, bytes(&[18, 40])),
        of_bytes(1, 40, 5, zeros.as_ref()),
        of_bytes(2, 38, 7, Some(&middle)),
        of_bytes(19, 19, 1, zero.as_ref()),
    ];
    let mut hasher = blake3::Hasher::new();
    hasher.update(set.name().as_bytes());
    for (form, weights) in forms {
        let packed = weights.and_then(|t| form.pack(exec, &t).ok());
        for number in packed.iter().flat_map(|panels| panels.iter()) {
            hasher.update(&number.to_le_bytes());
        }
    }
    hasher.finalize().into()
}

/// Where the numbers of an entry lie, and their sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The entry's key.
    pub key: Hash,
    /// The first byte.
    pub start: usize,
    /// Bytes.
    pub len: usize,
    /// XXH3 of the bytes.
    pub sum: u128,
}

/// The entries of a file, none of which reaches beyond its end. Their numbers are not looked at.
pub fn places(file: &[u8]) -> Option<Vec<Place>> {
    let (head, rest) = file.split_at_checked(HEAD)?;
    let word = |bytes: &[u8]| usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok();
    let sum = |bytes: &[u8]| Some(u128::from_le_bytes(bytes.try_into().ok()?));
    if &head[..8] != MAGIC {
        return None;
    }
    let entries = rest.get(..word(&head[8..16])?.checked_mul(ENTRY)?)?;
    if XxHash3_128::oneshot(entries) != sum(&head[16..])? {
        return None;
    }
    let place = |entry: &[u8]| {
        let start = word(&entry[32..40])?;
        let len = word(&entry[40..48])?.checked_mul(size_of::<f32>())?;
        let inside = start.is_multiple_of(LINE) && start.checked_add(len)? <= file.len();
        let key = Hash(entry[..32].try_into().ok()?);
        inside.then_some(Place { key, start, len, sum: sum(&entry[48..])? })
    };
    entries.chunks_exact(ENTRY).map(place).collect()
}

/// The entries of a file, if it is whole.
fn open(path: &Path) -> Option<BTreeMap<Hash, Panels>> {
    let file = Arc::new(Mapped::new(&File::open(path).ok()?).ok()?);
    let mut places = places(&file)?;
    places.sort_by_key(|place| place.len);
    let panels = |place: &Place| {
        let elements = Elements::<f32>::new(file.clone(), place.start..place.start + place.len)?;
        Some((place.key, Panels::lent(Arc::new(elements))))
    };
    let entries: Option<BTreeMap<_, _>> = places.iter().map(panels).collect();
    let sound = AtomicBool::new(true);
    let bytes = places.iter().map(|place| place.len).sum();
    cores::each(places, bytes, |place| {
        let bytes = &file[place.start..place.start + place.len];
        if sound.load(Ordering::Relaxed) && XxHash3_128::oneshot(bytes) != place.sum {
            sound.store(false, Ordering::Relaxed);
        }
    });
    entries.filter(|_| sound.into_inner())
}

fn write(path: &Path, entries: &BTreeMap<Hash, Panels>) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let bytes: u64 = entries.values().map(|panels| size_of_val(&**panels) as u64).sum();
    make_room(folder, BUDGET.saturating_sub(bytes))?;
    replace(path, |new| write_to(new, entries))
}

fn write_to(path: &Path, entries: &BTreeMap<Hash, Panels>) -> io::Result<()> {
    let mut heads = Vec::with_capacity(entries.len() * ENTRY);
    let mut at = (HEAD + entries.len() * ENTRY).next_multiple_of(LINE);
    let sums = sums(entries);
    for (key, panels) in entries {
        heads.extend_from_slice(key.as_bytes());
        heads.extend_from_slice(&(at as u64).to_le_bytes());
        heads.extend_from_slice(&(panels.len() as u64).to_le_bytes());
        heads.extend_from_slice(&sums[key].to_le_bytes());
        at = (at + size_of_val(&**panels)).next_multiple_of(LINE);
    }
    let mut out = BufWriter::with_capacity(1 << 20, File::create_new(path)?);
    out.write_all(MAGIC)?;
    out.write_all(&(entries.len() as u64).to_le_bytes())?;
    out.write_all(&XxHash3_128::oneshot(&heads).to_le_bytes())?;
    out.write_all(&heads)?;
    let mut at = HEAD + heads.len();
    for panels in entries.values() {
        let bytes: &[u8] = bytemuck::cast_slice(panels);
        out.write_all(&[0; LINE][..at.next_multiple_of(LINE) - at])?;
        out.write_all(bytes)?;
        at = at.next_multiple_of(LINE) + bytes.len();
    }
    out.flush()
}

fn sums(entries: &BTreeMap<Hash, Panels>) -> BTreeMap<Hash, u128> {
    let mut list: Vec<_> = entries.iter().collect();
    list.sort_by_key(|(_, panels)| panels.len());
    let bytes = list.iter().map(|(_, panels)| size_of_val(&***panels)).sum();
    let sums = Mutex::new(BTreeMap::new());
    cores::each(list, bytes, |(key, panels)| {
        let sum = XxHash3_128::oneshot(bytemuck::cast_slice(panels));
        sums.lock().unwrap_or_else(|e| e.into_inner()).insert(*key, sum);
    });
    sums.into_inner().unwrap_or_else(|e| e.into_inner())
}

/// Deletes the files that were not used for longest until the others are at most `budget` bytes, and what was given up.
fn make_room(folder: &Path, budget: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is = |extension: &str| path.extension().is_some_and(|e| e == extension);
        // Another process may have deleted it.
        let Ok(meta) = fs::metadata(&path) else { continue };
        let used = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        if is("new") && used.elapsed().is_ok_and(|age| age > GIVEN_UP) {
            let _ = fs::remove_file(&path);
        } else if is("packed") || is(EXTENSION) {
            files.push((used, meta.len(), path));
        }
    }
    files.sort();
    let mut bytes: u64 = files.iter().map(|(_, len, _)| len).sum();
    for (_, len, path) in files {
        if bytes <= budget {
            break;
        }
        if fs::remove_file(path).is_ok() {
            bytes -= len;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_makes_way() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let file = |name: &str, hours: u64| {
            let path = folder.path().join(name);
            fs::write(&path, [0; 100]).unwrap();
            let used = now - Duration::from_secs(3600 * hours);
            File::options().write(true).open(&path).unwrap().set_modified(used).unwrap();
        };
        for (name, hours) in [("a.packed", 3), ("b.packed", 9), ("c.packed", 1), ("d.packed", 5)] {
            file(name, hours);
        }
        file("given_up.new", 2);
        file("being_written.new", 0);
        file("somebody_elses.txt", 99);
        let left = || {
            let mut names: Vec<_> = fs::read_dir(folder.path())
                .unwrap()
                .map(|e| e.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        make_room(folder.path(), 400).unwrap();
        let others = ["being_written.new", "somebody_elses.txt"];
        assert_eq!(left(), ["a.packed", "b.packed", others[0], "c.packed", "d.packed", others[1]]);
        make_room(folder.path(), 299).unwrap();
        assert_eq!(left(), ["a.packed", others[0], "c.packed", others[1]]);
        make_room(folder.path(), 0).unwrap();
        assert_eq!(left(), others);
    }

    /// Of two programs that pack alike, one takes the other's files; kernel sets that pack differently have their own.
    #[test]
    fn the_way_of_packing_is_the_kernel_sets() {
        let ways: Vec<Hash> = KernelSet::available().into_iter().map(way_of_packing).collect();
        let distinct: std::collections::BTreeSet<_> = ways.iter().collect();
        assert_eq!(distinct.len(), ways.len());
    }
}
