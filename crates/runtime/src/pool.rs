use isobit_kernels::Threads;

use crate::LoadError;

/// A session's threads, 1 to 1024: the caller's own and workers.
pub(crate) fn pool(threads: usize) -> Result<Threads, LoadError> {
    let refuse = |reason: String| LoadError::Threads { threads, reason };
    if !(1..=1024).contains(&threads) {
        return Err(refuse("give a number from 1 to 1024".into()));
    }
    Threads::new(threads).map_err(|e| refuse(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_thread_counts_are_refused() {
        assert!(pool(0).is_err());
        assert!(pool(100_000).is_err());
    }
}
