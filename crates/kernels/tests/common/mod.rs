//! What property tests share: seeded cases that can be replayed, threads, comparison by bits.
#![allow(dead_code)] // each test file uses its part
#![allow(unreachable_pub)] // a module of several test programs

use isobit_kernels::{KernelSet, Parallel};
use isobit_numerics::rng::Rng;

/// Runs `check` on `cases` random cases. A failing case prints its seed; set ISOBIT_TEST_SEED to it to run
/// that case alone.
pub fn cases(name: &str, cases: u64, check: impl Fn(&mut Rng)) {
    if let Some(seed) = std::env::var("ISOBIT_TEST_SEED").ok().and_then(|s| s.parse().ok()) {
        return check(&mut Rng::new(seed, 0));
    }
    for seed in 0..cases {
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&mut Rng::new(seed, 0))));
        if let Err(panic) = outcome {
            eprintln!("{name}: replay with ISOBIT_TEST_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A pool of scoped threads, made anew for each use.
pub struct Threads(pub usize);

impl Parallel for Threads {
    fn threads(&self) -> usize {
        self.0
    }

    fn for_each(&self, pieces: usize, f: &(dyn Fn(usize) + Sync)) {
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..self.0 {
                s.spawn(|| {
                    loop {
                        let piece = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        if piece >= pieces {
                            break;
                        }
                        f(piece);
                    }
                });
            }
        });
    }
}

/// Every kernel set of this machine with 1, 2 and 3 threads.
pub fn machines() -> impl Iterator<Item = (KernelSet, Threads)> {
    KernelSet::available().into_iter().flat_map(|set| [1, 2, 3].map(|t| (set, Threads(t))))
}

/// Elements that are mostly ordinary numbers and sometimes special ones.
pub fn elements(rng: &mut Rng, n: usize) -> Vec<f32> {
    let special = rng.below(4) == 0;
    (0..n)
        .map(|_| if special && rng.below(16) == 0 { rng.f32_any() } else { rng.f32_unit() * 4.0 - 2.0 })
        .collect()
}

/// Compares bits; every NaN is the same NaN.
#[track_caller]
pub fn same_bits(got: &[f32], expected: &[f32], what: impl std::fmt::Debug) {
    assert_eq!(got.len(), expected.len(), "{what:?}");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let same = g.to_bits() == e.to_bits() || g.is_nan() && e.is_nan();
        assert!(
            same,
            "{what:?}: element {i} is {g:e} ({:08x}), expected {e:e} ({:08x})",
            g.to_bits(),
            e.to_bits()
        );
    }
}
