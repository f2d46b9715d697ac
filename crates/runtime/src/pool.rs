use isobit_kernels::{Parallel, Threads};

use crate::LoadError;

/// A session's threads: the caller's own and `threads - 1` workers.
#[derive(Debug)]
pub struct Pool(Threads);

impl Pool {
    /// A pool of `threads` threads (1 to 1024), the caller of each run included.
    pub fn new(threads: usize) -> Result<Self, LoadError> {
        let refuse = |reason: String| LoadError::Threads { threads, reason };
        if !(1..=1024).contains(&threads) {
            return Err(refuse("give a number from 1 to 1024".into()));
        }
        Ok(Self(Threads::new(threads).map_err(|e| refuse(e.to_string()))?))
    }
}

impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.0.threads()
    }

    fn for_each(&self, pieces: usize, f: &(dyn Fn(usize) + Sync)) {
        self.0.for_each(pieces, f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_thread_counts_are_refused() {
        assert!(Pool::new(0).is_err());
        assert!(Pool::new(100_000).is_err());
    }
}
