use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// Where a model's external data is found.
pub trait External {
    /// Bytes `offset..offset + length` of the file at `location` (to its end without a length), at most `limit`: how many
    /// there are, and where to read them.
    fn open(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
        limit: u64,
    ) -> Result<(u64, Box<dyn Read + '_>), String>;

    /// The bytes that [`External::open`] gives.
    fn read(&self, location: &str, offset: u64, length: Option<u64>, limit: u64) -> Result<Vec<u8>, String> {
        let (length, mut reader) = self.open(location, offset, length, limit)?;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        reader.read_to_end(&mut bytes).map_err(|e| format!("'{location}': {e}"))?;
        if bytes.len() as u64 != length {
            return Err(format!("'{location}' was cut short while it was read"));
        }
        Ok(bytes)
    }
}

/// A model that must hold all its data itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoExternal;

impl External for NoExternal {
    fn open(
        &self,
        location: &str,
        _: u64,
        _: Option<u64>,
        _: u64,
    ) -> Result<(u64, Box<dyn Read + '_>), String> {
        Err(format!("'{location}' is not at hand; give the model as a file in its folder"))
    }
}

/// Files in one folder, and nowhere else.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder; empty means the current one.
    pub fn new(path: &Path) -> Self {
        Self(if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() })
    }
}

impl External for Folder {
    fn open(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
        limit: u64,
    ) -> Result<(u64, Box<dyn Read + '_>), String> {
        let relative = Path::new(location);
        let inside = |c: Component<'_>| matches!(c, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !relative.components().all(inside) {
            return Err(format!("'{location}' is not a path inside the model's folder"));
        }
        let text = |e: std::io::Error| format!("'{location}': {e}");
        // Links are followed, but not out of the folder.
        let root = self.0.canonicalize().map_err(text)?;
        let path = self.0.join(relative).canonicalize().map_err(text)?;
        if !path.starts_with(&root) {
            return Err(format!("'{location}' is a link out of the model's folder"));
        }
        let mut file = File::open(&path).map_err(text)?;
        let size = file.metadata().map_err(text)?.len();
        let available =
            size.checked_sub(offset).ok_or_else(|| format!("'{location}' ends before byte {offset}"))?;
        let length = length.unwrap_or(available);
        if length > available {
            return Err(format!("'{location}' has {available} bytes from {offset}, {length} are declared"));
        }
        if length > limit {
            return Err(format!("{length} bytes are above the limit of {limit}"));
        }
        file.seek(SeekFrom::Start(offset)).map_err(text)?;
        Ok((length, Box::new(file.take(length))))
    }
}

/// Named byte strings.
#[derive(Debug, Clone, Default)]
pub struct Memory(pub BTreeMap<String, Vec<u8>>);

impl External for Memory {
    fn open(
        &self,
        location: &str,
        offset: u64,
        length: Option<u64>,
        limit: u64,
    ) -> Result<(u64, Box<dyn Read + '_>), String> {
        let bytes = self.0.get(location).ok_or_else(|| format!("'{location}' is missing"))?;
        let start = usize::try_from(offset).map_err(|_| "offset too large".to_owned())?;
        let end = match length {
            None => Some(bytes.len()),
            Some(n) => usize::try_from(n).ok().and_then(|n| start.checked_add(n)),
        };
        let part = end.and_then(|end| bytes.get(start..end));
        let part = part.ok_or_else(|| format!("'{location}' has only {} bytes", bytes.len()))?;
        if part.len() as u64 > limit {
            return Err(format!("{} bytes are above the limit of {limit}", part.len()));
        }
        Ok((part.len() as u64, Box::new(part)))
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
        assert_eq!(folder.read("w.bin", 2, Some(3), 99).unwrap(), b"234");
        assert_eq!(folder.read("./w.bin", 8, None, 99).unwrap(), b"89");
        for location in ["../secret", "/etc/hostname", "", "a/../../secret"] {
            assert!(folder.read(location, 0, None, 99).is_err(), "{location}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(outer.path().join("secret"), dir.join("link")).unwrap();
            assert!(folder.read("link", 0, None, 99).unwrap_err().contains("out of the model's folder"));
        }
        assert!(folder.read("w.bin", 0, Some(11), 99).is_err());
        assert!(folder.read("w.bin", 11, None, 99).is_err());
        assert!(folder.read("w.bin", 0, None, 9).is_err());
    }
}
