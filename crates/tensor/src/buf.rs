use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use crate::recycle;

/// A shared, immutable run of elements. Cloning is a reference count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Buf<T: 'static>(Arc<Held<T>>);

/// The elements; long runs of f32 go back to [`recycle`] when nobody holds them any more.
#[derive(Debug, Clone, PartialEq, Default)]
struct Held<T: 'static>(Vec<T>);

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let elements: &mut dyn Any = &mut self.0;
        if let Some(elements) = elements.downcast_mut::<Vec<f32>>() {
            recycle::give(std::mem::take(elements));
        }
    }
}

impl<T> Buf<T> {
    /// The vector itself when this is the only holder, else `self` back.
    pub fn try_into_vec(self) -> Result<Vec<T>, Self> {
        Arc::try_unwrap(self.0).map(|mut held| std::mem::take(&mut held.0)).map_err(Buf)
    }

    /// Mutable access when this is the only holder.
    pub fn get_mut(&mut self) -> Option<&mut Vec<T>> {
        Arc::get_mut(&mut self.0).map(|held| &mut held.0)
    }

    /// True when no other tensor shares these elements.
    pub fn is_unique(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl<T> From<Vec<T>> for Buf<T> {
    fn from(v: Vec<T>) -> Self {
        Buf(Arc::new(Held(v)))
    }
}

impl<T> Deref for Buf<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.0.0
    }
}
