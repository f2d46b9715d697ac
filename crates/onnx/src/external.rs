use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use isobit_mapped::Mapped;

/// Where a model's external data is found.
pub trait External {
    /// Bytes `offset..offset + length` of the file at `location` (to its end without a length), at most `limit`.
    fn find(&self, location: &str, offset: u64, length: Option<u64>, limit: u64)
    -> Result<Found<'_>, String>;

    /// The model's own file and where in it these bytes are, which were read from it without a copy.
    fn place(&self, _bytes: &[u8]) -> Option<(Arc<Mapped>, Range<usize>)> {
        None
    }
}

/// What was asked for of external data.
#[derive(Debug, Clone)]
pub enum Found<'a> {
    /// In memory.
    Memory(&'a [u8]),
    /// Bytes of a file, which has them.
    File(Arc<Mapped>, Range<usize>),
}

impl Found<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Found::Memory(bytes) => bytes,
            Found::File(file, range) => &file[range.clone()],
        }
    }
}

/// The range of what is asked for in a file of `size` bytes.
fn range(
    location: &str,
    size: usize,
    offset: u64,
    length: Option<u64>,
    limit: u64,
) -> Result<Range<usize>, String> {
    let available = (size as u64).checked_sub(offset);
    let available = available.ok_or_else(|| format!("'{location}' ends before byte {offset}"))?;
    let length = length.unwrap_or(available);
    if length > available {
        return Err(format!("'{location}' has {available} bytes from {offset}, {length} are declared"));
    }
    if length > limit {
        return Err(format!("{length} bytes are above the limit of {limit}"));
    }
    // Both are within `size`.
    Ok(offset as usize..(offset + length) as usize)
}

/// A model that must hold all its data itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoExternal;

impl External for NoExternal {
    fn find(&self, location: &str, _: u64, _: Option<u64>, _: u64) -> Result<Found<'_>, String> {
        Err(format!("'{location}' is not at hand; give the model as a file in its folder"))
    }
}

/// Files in one folder, and nowhere else.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    model: Option<Arc<Mapped>>,
    /// Files that were asked for.
    files: Mutex<BTreeMap<String, Arc<Mapped>>>,
}

impl Folder {
    /// The folder; empty means the current one.
    pub fn new(path: &Path) -> Self {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Self { path: path.to_owned(), model: None, files: Mutex::default() }
    }

    /// The folder of a model in this file.
    pub(crate) fn with_model(self, file: Arc<Mapped>) -> Self {
        Self { model: Some(file), ..self }
    }

    fn file(&self, location: &str) -> Result<Arc<Mapped>, String> {
        let mut files = self.files.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(file) = files.get(location) {
            return Ok(file.clone());
        }
        let relative = Path::new(location);
        let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !relative.components().all(inside) {
            return Err(format!("'{location}' is not a path inside the model's folder"));
        }
        let text = |e: std::io::Error| format!("'{location}': {e}");
        // Links are followed, but not out of the folder.
        let root = self.path.canonicalize().map_err(text)?;
        let path = self.path.join(relative).canonicalize().map_err(text)?;
        if !path.starts_with(&root) {
            return Err(format!("'{location}' is a link out of the model's folder"));
        }
        if !path.is_file() {
            return Err(format!("'{location}' is no file"));
        }
        let file = Arc::new(File::open(&path).and_then(|f| Mapped::new(&f)).map_err(text)?);
        files.insert(location.to_owned(), file.clone());
        Ok(file)
    }
}

impl External for Folder {
    fn find(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
        limit: u64,
    ) -> Result<Found<'_>, String> {
        let file = self.file(location)?;
        let range = range(location, file.len(), offset, length, limit)?;
        Ok(Found::File(file, range))
    }

    fn place(&self, bytes: &[u8]) -> Option<(Arc<Mapped>, Range<usize>)> {
        let file = self.model.as_ref()?;
        let start = bytes.as_ptr().addr().checked_sub(file.as_ptr().addr())?;
        let end = start.checked_add(bytes.len()).filter(|&end| end <= file.len())?;
        Some((file.clone(), start..end))
    }
}

/// Named byte strings.
#[derive(Debug, Clone, Default)]
pub struct Memory<'a>(pub BTreeMap<String, &'a [u8]>);

impl External for Memory<'_> {
    fn find(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
        limit: u64,
    ) -> Result<Found<'_>, String> {
        let bytes = self.0.get(location).ok_or_else(|| format!("'{location}' is missing"))?;
        Ok(Found::Memory(&bytes[range(location, bytes.len(), offset, length, limit)?]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_walls() {
        let outer = tempfile::tempdir().unwrap();
        std::fs::write(outer.path().join("secret"), b"secret").unwrap();
        let dir = outer.path().join("model");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("w.bin"), b"0123456789").unwrap();
        let folder = Folder::new(&dir);
        assert_eq!(folder.find("w.bin", 2, Some(3), 99).unwrap().bytes(), b"234");
        assert_eq!(folder.find("./w.bin", 8, None, 99).unwrap().bytes(), b"89");
        for location in ["../secret", "/etc/hostname", "", "a/../../secret", "."] {
            assert!(folder.find(location, 0, None, 99).is_err(), "{location}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(outer.path().join("secret"), dir.join("link")).unwrap();
            assert!(folder.find("link", 0, None, 99).unwrap_err().contains("out of the model's folder"));
        }
        assert!(folder.find("w.bin", 0, Some(11), 99).is_err());
        assert!(folder.find("w.bin", u64::MAX, Some(2), 99).is_err());
        assert!(folder.find("w.bin", 2, Some(u64::MAX), u64::MAX).is_err());
        assert!(folder.find("w.bin", 11, None, 99).is_err());
        assert!(folder.find("w.bin", 0, None, 9).is_err());
    }
}
