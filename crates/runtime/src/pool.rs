use std::sync::atomic::{AtomicUsize, Ordering};

use isobit_kernels::Parallel;

use crate::LoadError;

/// A session's threads: the caller's own and `threads - 1` workers.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
    workers: Option<rayon_core::ThreadPool>,
}

impl Pool {
    /// A pool of `threads` threads (1 to 1024), the caller of each run included.
    pub fn new(threads: usize) -> Result<Self, LoadError> {
        let refuse = |reason: String| LoadError::Threads { threads, reason };
        if !(1..=1024).contains(&threads) {
            return Err(refuse("give a number from 1 to 1024".into()));
        }
        let workers = if threads == 1 {
            None
        } else {
            let builder = rayon_core::ThreadPoolBuilder::new()
                .num_threads(threads - 1)
                .thread_name(|i| format!("isobit-{i}"));
            Some(builder.build().map_err(|e| refuse(e.to_string()))?)
        };
        Ok(Self { threads, workers })
    }
}

impl Parallel for Pool {
    fn threads(&self) -> usize {
        self.threads
    }

    fn for_each(&self, pieces: usize, f: &(dyn Fn(usize) + Sync)) {
        let Some(workers) = self.workers.as_ref().filter(|_| pieces > 1) else {
            return (0..pieces).for_each(f);
        };
        // Pieces are claimed one by one, so a slow thread holds up no more than its own piece.
        let next = AtomicUsize::new(0);
        let drain = || {
            isobit_kernels::fp::with_profile_env(|| {
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    if piece >= pieces {
                        break;
                    }
                    f(piece);
                }
            })
        };
        workers.in_place_scope(|scope| {
            for _ in 1..self.threads.min(pieces) {
                scope.spawn(|_| drain());
            }
            drain();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for pieces in [0, 1, 2, 3, 100] {
                let counts: Vec<_> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(pieces, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn absurd_thread_counts_are_refused() {
        assert!(Pool::new(0).is_err());
        assert!(Pool::new(100_000).is_err());
    }
}
