//! Files seen as memory: what is read of them is fetched when it is looked at, and its pages can be let go of again. And memory of
//! large pages ([`filled`]).
//!
//! Beside the kernels this is the only crate with `unsafe` in it: the operating system does not promise that nobody writes to a
//! file that is mapped. Whoever maps one must do so only with files that are replaced (a new file under the old name), never
//! written to, while they are in use; one that is cut short meanwhile ends the process (SIGBUS), as it does in every program that
//! maps its weights.

// What cannot be mapped is read anew each time, and has none.
#[cfg_attr(not(any(unix, windows)), allow(dead_code))]
mod identity;
mod pages;
mod replace;

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytemuck::Pod;

pub use identity::Identity;
pub use pages::filled;
pub use replace::replace;

/// The content of a file.
#[derive(Debug)]
pub struct Mapped {
    memory: Memory,
    identity: Option<Identity>,
}

#[cfg(any(unix, windows))]
type Memory = memmap2::Mmap;
/// Where nothing can be mapped, the content is read.
#[cfg(not(any(unix, windows)))]
type Memory = Vec<u8>;

impl Mapped {
    /// The content of `file`, from its first byte to its last.
    ///
    /// # Errors
    /// What the operating system says.
    #[cfg(any(unix, windows))]
    pub fn new(file: &File) -> io::Result<Self> {
        // Before anything of it is looked at: what is written later gives the file another one.
        let identity = Identity::of(file);
        // SAFETY: nobody writes to the file while it is mapped; that is the contract of this crate.
        let memory = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self { memory, identity })
    }

    /// The content of `file`, from its first byte to its last.
    ///
    /// # Errors
    /// What the operating system says.
    #[cfg(not(any(unix, windows)))]
    pub fn new(mut file: &File) -> io::Result<Self> {
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes)?;
        Ok(Self { memory: bytes, identity: None })
    }

    /// Which file it is, with which content; `None` where that cannot be told.
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Says that these bytes are not looked at for a while: their pages no longer count as the process's memory. They come
    /// back by themselves.
    pub fn release(&self, bytes: Range<usize>) {
        #[cfg(target_os = "linux")]
        {
            let bytes = bytes.start.min(self.len())..bytes.end.min(self.len());
            // SAFETY: the mapping is one of a file and for reading only: what is dropped is read again.
            let _ = unsafe {
                self.memory.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    bytes.start,
                    bytes.len(),
                )
            };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Elements that lie in a file as they do in memory.
#[derive(Debug, Clone)]
pub struct Elements<T> {
    file: Arc<Mapped>,
    bytes: Range<usize>,
    element: PhantomData<T>,
}

impl<T: Pod> Elements<T> {
    /// The elements in `bytes` of `file`. `None` where these are not in the file, no whole number of elements or do not lie as `T`
    /// must.
    pub fn new(file: Arc<Mapped>, bytes: Range<usize>) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, T>(file.get(bytes.clone())?).ok()?;
        Some(Self { file, bytes, element: PhantomData })
    }

    /// The file, and where in it they lie.
    pub fn place(&self) -> (&Arc<Mapped>, Range<usize>) {
        (&self.file, self.bytes.clone())
    }

    /// As [`Mapped::release`], for some of these elements.
    pub fn release(&self, elements: Range<usize>) {
        let byte = |element: usize| element.saturating_mul(size_of::<T>()).min(self.bytes.len());
        self.file.release(self.bytes.start + byte(elements.start)..self.bytes.start + byte(elements.end));
    }
}

impl<T: Pod> AsRef<[T]> for Elements<T> {
    fn as_ref(&self) -> &[T] {
        bytemuck::cast_slice(&self.file[self.bytes.clone()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(content: &[u8]) -> Arc<Mapped> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        Arc::new(Mapped::new(file.as_file()).unwrap())
    }

    #[test]
    fn elements_are_those_of_the_file_before_and_after_their_pages_are_dropped() {
        let numbers: Vec<f32> = (0..100_000).map(|i| i as f32).collect();
        let file = mapped(bytemuck::cast_slice(&numbers));
        let all = Elements::<f32>::new(file.clone(), 0..file.len()).unwrap();
        assert_eq!(all.as_ref(), numbers);
        all.release(0..numbers.len());
        assert_eq!(all.as_ref(), numbers);
        let some = Elements::<f32>::new(file, 40..400).unwrap();
        some.release(3..50);
        some.release(50..usize::MAX);
        assert_eq!(some.as_ref(), &numbers[10..100]);
    }

    #[test]
    fn what_does_not_lie_as_elements_do_is_none() {
        let file = mapped(&[0; 64]);
        for bytes in [0..65, 1..5, 0..6, 64..68, usize::MAX - 3..usize::MAX] {
            assert!(Elements::<f32>::new(file.clone(), bytes.clone()).is_none(), "{bytes:?}");
        }
        assert!(Elements::<f32>::new(file.clone(), 64..64).is_some());
        file.release(60..1000);
        let (late, early) = (100, 10);
        file.release(late..early);
        assert!(mapped(&[]).is_empty());
    }
}
