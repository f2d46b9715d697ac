use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Elements of a cache line.
const LINE: usize = 16;

/// Weights in the form that a kernel reads them in: its own, or somebody else's. They are numbers, or words of 32 bits of anything.
#[derive(Clone)]
pub struct Panels(Held);

#[derive(Clone)]
enum Held {
    /// Those in the range, which starts with a cache line.
    Own(Vec<f32>, Range<usize>),
    Lent(Arc<dyn AsRef<[f32]> + Send + Sync>),
}

impl Panels {
    /// `len` numbers that `fill` writes over zeros.
    pub(crate) fn fill(len: usize, fill: impl FnOnce(&mut [f32])) -> Self {
        let mut elements = vec![0.0; len + LINE];
        let start = elements.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        fill(&mut elements[start..start + len]);
        Self(Held::Own(elements, start..start + len))
    }

    /// As [`Panels::fill`], of words.
    pub(crate) fn fill_words(len: usize, fill: impl FnOnce(&mut [i32])) -> Self {
        Self::fill(len, |numbers| fill(as_words_mut(numbers)))
    }

    /// The bits of all.
    pub(crate) fn words(&self) -> &[i32] {
        // SAFETY: of one size and alignment, and every pattern is a number of either.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast(), self.len()) }
    }

    /// Numbers elsewhere, which stay as they are. They are best at the start of a cache line.
    pub fn lent(numbers: Arc<dyn AsRef<[f32]> + Send + Sync>) -> Self {
        Self(Held::Lent(numbers))
    }
}

/// 32 bits of anything as words.
pub(crate) fn as_words_mut(x: &mut [f32]) -> &mut [i32] {
    // SAFETY: of one size and alignment, and every pattern is a number of either.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), x.len()) }
}

/// Words as their bytes, the first of a word first.
pub(crate) fn as_bytes(x: &[i32]) -> &[u8] {
    // SAFETY: the same memory, of which every byte is initialised.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

/// As [`as_bytes`].
pub(crate) fn as_bytes_mut(x: &mut [i32]) -> &mut [u8] {
    // SAFETY: the same memory, and every byte makes words.
    unsafe { std::slice::from_raw_parts_mut(x.as_mut_ptr().cast(), size_of_val(x)) }
}

impl Deref for Panels {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        match &self.0 {
            Held::Own(elements, range) => &elements[range.clone()],
            Held::Lent(numbers) => (**numbers).as_ref(),
        }
    }
}

impl AsRef<[f32]> for Panels {
    fn as_ref(&self) -> &[f32] {
        self
    }
}

impl fmt::Debug for Panels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Panels({})", self.len())
    }
}
