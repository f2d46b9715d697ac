//! Buffers that a thread keeps from one kernel to the next.

use std::cell::RefCell;

thread_local! {
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers kept, and the most elements of one.
const KEPT: usize = 4;
const LARGEST: usize = 1 << 20;

/// A buffer of any length and content.
pub(crate) fn take() -> Vec<f32> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Gives a buffer back.
pub(crate) fn give(buffer: Vec<f32>) {
    if buffer.capacity() <= LARGEST {
        FREE.with_borrow_mut(|free| {
            if free.len() < KEPT {
                free.push(buffer);
            }
        });
    }
}
