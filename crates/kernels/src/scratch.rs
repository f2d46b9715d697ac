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

/// The first `n` elements of a buffer, of any content: what is only ever written before it is read need not be cleared.
pub(crate) fn sized(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
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
