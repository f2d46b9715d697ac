use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, Weak};

use bytemuck::Pod;
use isobit_mapped::{Elements, Mapped};

use crate::recycle::{self, Spares};

/// A shared, immutable run of elements. Cloning is a reference count.
#[derive(Debug, Clone)]
pub struct Buf<T: 'static>(Held<T>);

#[derive(Debug, Clone)]
enum Held<T: 'static> {
    Own(Arc<Own<T>>),
    /// In a file.
    Lent(Arc<dyn Lent<T>>),
}

/// The elements; long runs of f32 go back to [`recycle`] when nobody holds them any more.
#[derive(Debug)]
struct Own<T: 'static> {
    elements: Vec<T>,
    home: Option<Weak<Spares>>,
}

impl<T> Drop for Own<T> {
    fn drop(&mut self) {
        let home = self.home.take().and_then(|home| home.upgrade());
        recycle::give_back(std::mem::take(&mut self.elements), home.as_deref());
    }
}

/// Elements that are somebody else's.
trait Lent<T>: AsRef<[T]> + fmt::Debug + Send + Sync {
    fn release(&self, elements: Range<usize>);

    /// The file and the bytes of it.
    fn place(&self) -> Option<(&Arc<Mapped>, Range<usize>)> {
        None
    }
}

/// Some elements of another buffer.
#[derive(Debug)]
struct Part<T: 'static> {
    of: Buf<T>,
    range: Range<usize>,
}

impl<T> AsRef<[T]> for Part<T> {
    fn as_ref(&self) -> &[T] {
        &self.of[self.range.clone()]
    }
}

impl<T: fmt::Debug + Send + Sync> Lent<T> for Part<T> {
    fn release(&self, elements: Range<usize>) {
        self.of.release(self.range.start + elements.start..self.range.start + elements.end);
    }
}

impl<T: Pod + fmt::Debug + Send + Sync> Lent<T> for Elements<T> {
    fn release(&self, elements: Range<usize>) {
        self.release(elements);
    }

    fn place(&self) -> Option<(&Arc<Mapped>, Range<usize>)> {
        Some(self.place())
    }
}

impl<T> Buf<T> {
    /// The vector itself when this is the only holder, else `self` back.
    pub fn try_into_vec(self) -> Result<Vec<T>, Self> {
        match self.0 {
            Held::Own(own) => Arc::try_unwrap(own)
                .map(|mut own| std::mem::take(&mut own.elements))
                .map_err(|own| Buf(Held::Own(own))),
            lent => Err(Buf(lent)),
        }
    }

    /// Mutable access when this is the only holder.
    pub fn get_mut(&mut self) -> Option<&mut Vec<T>> {
        match &mut self.0 {
            Held::Own(own) => Arc::get_mut(own).map(|own| &mut own.elements),
            Held::Lent(_) => None,
        }
    }

    /// True when no other tensor shares these elements, nor a file.
    pub fn is_unique(&self) -> bool {
        matches!(&self.0, Held::Own(own) if Arc::strong_count(own) == 1)
    }

    /// Says where the elements go when nobody holds them any more and no run on that thread has use for them. Of what is shared
    /// nothing is said.
    pub(crate) fn come_back(&mut self, home: &Arc<Spares>) {
        if let Held::Own(own) = &mut self.0
            && let Some(own) = Arc::get_mut(own)
        {
            own.home = Some(Arc::downgrade(home));
        }
    }

    /// Some of the elements, shared.
    ///
    /// # Panics
    /// When there are not as many.
    pub fn part(&self, range: Range<usize>) -> Self
    where
        T: Clone + fmt::Debug + Send + Sync,
    {
        assert!(range.start <= range.end && range.end <= self.len());
        Buf(Held::Lent(Arc::new(Part { of: self.clone(), range })))
    }

    /// The file that the elements lie in, and where.
    pub(crate) fn place(&self) -> Option<(&Arc<Mapped>, Range<usize>)> {
        match &self.0 {
            Held::Own(_) => None,
            Held::Lent(lent) => lent.place(),
        }
    }

    /// Where the elements lie in a file: lets go of the memory that some took when they were looked at.
    pub fn release(&self, elements: Range<usize>) {
        if let Held::Lent(lent) = &self.0 {
            lent.release(elements);
        }
    }
}

impl<T> From<Vec<T>> for Buf<T> {
    fn from(v: Vec<T>) -> Self {
        Buf(Held::Own(Arc::new(Own { elements: v, home: None })))
    }
}

impl<T: Pod + fmt::Debug + Send + Sync> From<Elements<T>> for Buf<T> {
    fn from(elements: Elements<T>) -> Self {
        Buf(Held::Lent(Arc::new(elements)))
    }
}

impl<T> Default for Buf<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T: PartialEq> PartialEq for Buf<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T> Deref for Buf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        match &self.0 {
            Held::Own(own) => &own.elements,
            Held::Lent(lent) => (**lent).as_ref(),
        }
    }
}
