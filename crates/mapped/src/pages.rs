//! Large pages.

/// Memory below this many bytes is the allocator's business: it keeps what is given back (glibc's up to this).
const LEAST: usize = 32 << 20;
/// A large page, or a multiple of one.
#[cfg(target_os = "linux")]
const PAGE: usize = 2 << 20;

/// A vector of `n` times `value`. If it is long and of zeros, which the operating system gives and nobody has touched yet, it is in
/// large pages where there are some: fresh memory costs a fault for each page, when that is first touched.
pub fn filled<T: Clone>(n: usize, value: T) -> Vec<T> {
    let memory = vec![value; n];
    if n.saturating_mul(size_of::<T>()) >= LEAST {
        advise(&memory);
    }
    memory
}

/// Asks for large pages.
#[cfg(target_os = "linux")]
fn advise<T>(memory: &[T]) {
    let start = memory.as_ptr().addr();
    let end = start + size_of_val(memory);
    let (first, last) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    if first < last {
        // SAFETY: whole pages of this vector, and advice about their size, which changes nothing of what is in them. Where there
        // are none, they stay small.
        let _ = unsafe {
            let at = memory.as_ptr().cast_mut().cast::<u8>().wrapping_add(first - start);
            rustix::mm::madvise(at.cast(), last - first, rustix::mm::Advice::LinuxHugepage)
        };
    }
}

#[cfg(not(target_os = "linux"))]
fn advise<T>(_: &[T]) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_filled_whatever_their_length() {
        for n in [0, 5, LEAST / 4 - 1, LEAST / 4, LEAST / 4 + 12_345] {
            for x in [0.0f32, 7.0] {
                let v = filled(n, x);
                assert!(v.len() == n && v.iter().all(|&y| y == x), "{n}");
            }
        }
        let many = LEAST / size_of::<String>() + 1;
        assert_eq!(filled(many, String::new()).len(), many);
    }
}
