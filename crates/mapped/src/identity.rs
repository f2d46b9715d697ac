use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

/// So long must a file have been left alone that a later change is sure to give it another time: a clock's step on the coarsest of
/// file systems, and some more.
const SETTLED: Duration = Duration::from_secs(4);

/// What the operating system says of a file and what changes with its content: device, number, length, and the times of the last
/// change of its content and of its entry. Nobody but the system sets the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity([u8; 56]);

impl Identity {
    /// Of a file that was not changed of late.
    pub(crate) fn of(file: &File) -> Option<Self> {
        Self::at(file, SystemTime::now()).ok().flatten()
    }

    #[cfg(unix)]
    fn at(file: &File, now: SystemTime) -> io::Result<Option<Self>> {
        use std::os::unix::fs::MetadataExt;
        let meta = file.metadata()?;
        let long_ago = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(SETTLED);
        let settled = |seconds: i64| u64::try_from(seconds).is_ok_and(|s| s < long_ago.as_secs());
        let words = [
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime() as u64,
            meta.mtime_nsec() as u64,
            meta.ctime() as u64,
            meta.ctime_nsec() as u64,
        ];
        let mut bytes = [0; 56];
        for (to, word) in bytes.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let sound = meta.is_file() && settled(meta.mtime()) && settled(meta.ctime());
        Ok(sound.then_some(Self(bytes)))
    }

    #[cfg(not(unix))]
    fn at(_: &File, _: SystemTime) -> io::Result<Option<Self>> {
        let _ = SETTLED;
        Ok(None)
    }

    /// Its bytes, to be told from others by.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// Seen in an hour, so that everything that happens now was long ago.
    fn later(path: &std::path::Path) -> Option<Identity> {
        Identity::at(&File::open(path).unwrap(), SystemTime::now() + Duration::from_secs(3600)).unwrap()
    }

    #[test]
    fn a_change_gives_a_file_another_identity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        std::fs::write(&path, [1; 100]).unwrap();
        let first = later(&path).unwrap();
        assert_eq!(later(&path), Some(first));
        let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        // Other content of the same length, and the time set back to what it was.
        std::fs::write(&path, [2; 100]).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let second = later(&path).unwrap();
        assert_ne!(second, first);
        // Another file in its place.
        std::fs::write(folder.path().join("new"), [2; 100]).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert_ne!(later(&path), Some(second));
    }

    #[test]
    fn a_file_that_was_just_written_has_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Identity::of(file.as_file()), None);
        assert!(later(file.path()).is_some());
        assert_eq!(Identity::at(&File::open("/").unwrap(), SystemTime::now()).unwrap(), None);
    }
}
