//! Buffers of dropped tensors, kept for the next ones of the same run: a run asks for the same extents again and again,
//! and fresh memory is slow memory.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

/// Buffers below this many elements are the allocator's business.
const SHORTEST: usize = 1 << 12;
/// Buffers kept.
const KEPT: usize = 128;
/// Elements of all of them (1 GiB) during a run.
const KEPT_ELEMENTS: usize = 1 << 28;
/// Elements of all of them (512 MiB) between runs: a session at rest must not hold what its largest run did.
const AT_REST: usize = 1 << 27;

/// The buffers that a sequence of runs keeps.
#[derive(Debug, Default)]
struct Spare(Vec<Vec<f32>>);

impl Spare {
    /// Lets go of those that were dropped first, until the others have at most `elements`.
    fn trim(&mut self, elements: usize) {
        let list = &mut self.0;
        while list.len() > KEPT || list.iter().map(Vec::capacity).sum::<usize>() > elements {
            list.remove(0);
        }
    }
}

/// The buffers of runs that may go on side by side: one set for each at a time.
#[derive(Debug, Default)]
pub struct Spares(Mutex<Vec<Spare>>);

impl Spares {
    /// Runs `f`, in which the f32 buffers that this thread drops are kept in a set that nobody else uses meanwhile, and [`take`] gives
    /// them out again. Inside of another such call they go there.
    pub fn with<R>(&self, f: impl FnOnce() -> R) -> R {
        let sets = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut spare = sets().pop().unwrap_or_default();
        let result = with(&mut spare, f);
        sets().push(spare);
        result
    }
}

thread_local! {
    static SPARE: RefCell<Option<Spare>> = const { RefCell::new(None) };
}

/// Runs `f`, in which dropped f32 buffers of this thread are kept in `spare`, and [`take`] gives them out again.
/// Inside of another such call they go there.
fn with<R>(spare: &mut Spare, f: impl FnOnce() -> R) -> R {
    struct Restore<'a>(Option<&'a mut Spare>);
    impl Drop for Restore<'_> {
        fn drop(&mut self) {
            if let Some(spare) = self.0.take() {
                *spare = SPARE.with_borrow_mut(Option::take).unwrap_or_default();
                spare.trim(AT_REST);
            }
        }
    }
    let outermost = SPARE.with_borrow_mut(|current| {
        let outermost = current.is_none();
        if outermost {
            *current = Some(std::mem::take(spare));
        }
        outermost
    });
    let _restore = Restore(outermost.then_some(spare));
    f()
}

/// Keeps a buffer of f32, inside of [`Spares::with`].
pub fn give<T: 'static>(buffer: Vec<T>) {
    give_back(buffer, None);
}

/// As [`give`]; outside of such a call for the next one of `home`.
pub(crate) fn give_back<T: 'static>(mut buffer: Vec<T>, home: Option<&Spares>) {
    let buffer: &mut dyn Any = &mut buffer;
    let Some(buffer) = buffer.downcast_mut::<Vec<f32>>().map(std::mem::take) else { return };
    if !(SHORTEST..=KEPT_ELEMENTS).contains(&buffer.capacity()) {
        return;
    }
    let mut buffer = Some(buffer);
    // A thread that ends has no list any more.
    let _ = SPARE.try_with(|spare| {
        if let Ok(mut spare) = spare.try_borrow_mut()
            && let Some(spare) = spare.as_mut()
        {
            spare.0.extend(buffer.take());
            spare.trim(KEPT_ELEMENTS);
        }
    });
    if let (Some(home), Some(buffer)) = (home, buffer) {
        let mut sets = home.0.lock().unwrap_or_else(PoisonError::into_inner);
        // While all sets are in use there is none to keep it in.
        if let Some(spare) = sets.last_mut() {
            spare.0.push(buffer);
            spare.trim(AT_REST);
        }
    }
}

/// A buffer of `n` elements of unspecified content, if `T` is f32 and one is kept that is not much too large: the one that was
/// dropped last, as it is the warmest.
pub fn take<T: 'static>(n: usize) -> Option<Vec<T>> {
    if TypeId::of::<T>() != TypeId::of::<f32>() {
        return None;
    }
    let mut buffer = kept(n, false)?;
    buffer.truncate(n);
    let buffer: &mut dyn Any = &mut buffer;
    buffer.downcast_mut::<Vec<T>>().map(std::mem::take)
}

/// As [`take`], with as many elements more as it has: one that is cut short would have to be filled before it is long again.
/// Rather than none it is one that is several times too large, which nobody else needs as long as it lies here.
pub fn at_least(n: usize) -> Option<Vec<f32>> {
    kept(n, true)
}

/// How many times too large a buffer may be that is better than a fresh one.
const LOOSE: usize = 16;

fn kept(n: usize, loose: bool) -> Option<Vec<f32>> {
    if n < SHORTEST {
        return None;
    }
    let mut buffer = SPARE.with_borrow_mut(|spare| {
        let list = &mut spare.as_mut()?.0;
        let fits = |b: &Vec<f32>| b.capacity() >= n && b.capacity() / 2 <= n;
        // One that has had no more elements would have to be filled.
        let whole = list.iter().rposition(|b| fits(b) && b.len() >= n);
        let large = |b: &Vec<f32>| loose && b.len() >= n && b.capacity() / LOOSE <= n;
        let large = || {
            let found = list.iter().enumerate().filter(|(_, b)| large(b)).min_by_key(|(_, b)| b.capacity());
            found.map(|(i, _)| i)
        };
        let best = whole.or_else(|| list.iter().rposition(fits)).or_else(large)?;
        Some(list.remove(best))
    })?;
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    if cfg!(debug_assertions) {
        // Whoever reads before writing shall notice.
        buffer.fill(f32::from_bits(0x7fc0_dead));
    }
    Some(buffer)
}

/// A copy of `x`, in a kept buffer where there is one.
pub fn copy<T: Clone + 'static>(x: &[T]) -> Vec<T> {
    match take::<T>(x.len()) {
        Some(mut kept) => {
            kept.clone_from_slice(x);
            kept
        }
        None => x.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Tensor;

    #[test]
    fn dropped_buffers_come_back_and_only_inside() {
        let mut spare = Spare::default();
        let tensor = || Tensor::vector(vec![1.0f32; 5000]);
        drop(tensor());
        assert!(take::<f32>(5000).is_none());
        with(&mut spare, || {
            let t = tensor();
            let shared = t.clone();
            drop(t);
            assert!(take::<f32>(5000).is_none());
            drop(shared);
            assert!(take::<f32>(20_000).is_none() && take::<f32>(100).is_none());
            assert_eq!(take::<f32>(4500).map(|b| b.len()), Some(4500));
            assert!(take::<f32>(4500).is_none());
            drop(tensor());
        });
        assert!(take::<f32>(5000).is_none());
        with(&mut spare, || {
            assert!(take::<i32>(5000).is_none());
            assert!(take::<f32>(5000).is_some());
        });
    }

    #[test]
    fn results_come_back_when_their_last_holder_drops_them() {
        let home = Arc::new(Spares::default());
        let taken = |home: &Spares| home.with(|| take::<f32>(5000).is_some());
        let mut result = home.with(|| Tensor::vector(vec![1.0f32; 5000]));
        result.come_back(&home);
        let shared = result.clone();
        drop(result);
        assert!(!taken(&home));
        drop(shared);
        assert!(taken(&home) && !taken(&home));
        // Inside of another's run they are of use there; what is shared stays as it was.
        let mut inside = Tensor::vector(vec![1.0f32; 5000]);
        inside.come_back(&home);
        let other = Spares::default();
        other.with(|| drop(inside));
        assert!(taken(&other) && !taken(&home));
        let mut first = Tensor::vector(vec![1.0f32; 5000]);
        let second = first.clone();
        first.come_back(&home);
        drop((first, second));
        assert!(!taken(&home));
        // A home that is gone is none.
        let mut last = Tensor::vector(vec![1.0f32; 5000]);
        last.come_back(&home);
        drop(home);
        drop(last);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut spare = Spare::default();
        with(&mut spare, || {
            for n in [KEPT_ELEMENTS + 1, KEPT_ELEMENTS / 2, KEPT_ELEMENTS / 2 + 1, AT_REST / 2, 5000] {
                give(Vec::<f32>::with_capacity(n));
            }
            let within = |list: &[Vec<f32>]| list.iter().map(Vec::capacity).collect::<Vec<_>>();
            let list = SPARE.with_borrow(|spare| within(&spare.as_ref().unwrap().0));
            assert_eq!(list, [KEPT_ELEMENTS / 2 + 1, AT_REST / 2, 5000]);
        });
        let kept: Vec<usize> = spare.0.iter().map(Vec::capacity).collect();
        assert_eq!(kept, [AT_REST / 2, 5000]);
    }
}
