use std::fmt;
use std::str::FromStr;

/// Which instruction set the kernels use. Every set computes the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KernelSet {
    /// Plain Rust; the definitions of `isobit-numerics` as they stand. Runs everywhere, slowly.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AArch64 with NEON.
    Neon,
}

impl KernelSet {
    /// Every set that exists, on any machine.
    pub const ALL: &'static [KernelSet] =
        &[KernelSet::Scalar, KernelSet::Avx2, KernelSet::Avx512, KernelSet::Neon];

    /// Whether this machine (and this build) can run the set.
    pub fn is_available(self) -> bool {
        match self {
            KernelSet::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            KernelSet::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
                    && std::arch::is_x86_feature_detected!("f16c")
            }
            #[cfg(all(target_arch = "x86_64", isobit_avx512))]
            KernelSet::Avx512 => {
                KernelSet::Avx2.is_available()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512dq")
                    && std::arch::is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "aarch64")]
            KernelSet::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The sets this machine can run, slowest first.
    pub fn available() -> Vec<KernelSet> {
        Self::ALL.iter().copied().filter(|s| s.is_available()).collect()
    }

    /// The fastest set this machine can run.
    pub fn best() -> KernelSet {
        Self::available().pop().unwrap_or(KernelSet::Scalar)
    }

    /// Its name in lower case, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            KernelSet::Scalar => "scalar",
            KernelSet::Avx2 => "avx2",
            KernelSet::Avx512 => "avx512",
            KernelSet::Neon => "neon",
        }
    }
}

impl fmt::Display for KernelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no kernel set, or one this machine cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKernelSet(String);

impl fmt::Display for UnknownKernelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = KernelSet::available().iter().map(|s| s.name()).collect();
        write!(f, "no kernel set '{}' on this machine; it has: {}", self.0, names.join(", "))
    }
}

impl std::error::Error for UnknownKernelSet {}

impl FromStr for KernelSet {
    type Err = UnknownKernelSet;

    fn from_str(s: &str) -> Result<Self, UnknownKernelSet> {
        Self::available().into_iter().find(|k| k.name() == s).ok_or_else(|| UnknownKernelSet(s.to_owned()))
    }
}

/// Spreads independent pieces of work over threads. The pieces write disjoint outputs, so how they
/// are spread cannot change a result.
pub trait Parallel: Sync {
    /// How many threads may run at once, the caller included; at least 1.
    fn threads(&self) -> usize;

    /// Calls `f(0)`, ..., `f(pieces - 1)`, each once, in any order, and returns when all are done.
    fn for_each(&self, pieces: usize, f: &(dyn Fn(usize) + Sync));
}

/// Everything on the calling thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Serial;

impl Parallel for Serial {
    fn threads(&self) -> usize {
        1
    }

    fn for_each(&self, pieces: usize, f: &(dyn Fn(usize) + Sync)) {
        (0..pieces).for_each(f);
    }
}

/// How to execute: an instruction set and a way to use threads.
#[derive(Clone, Copy)]
pub struct Exec<'a> {
    set: KernelSet,
    pool: &'a dyn Parallel,
}

impl<'a> Exec<'a> {
    /// Execution with `set` on `pool`.
    ///
    /// # Panics
    /// When this machine cannot run `set`: every `unsafe` call of a kernel relies on it.
    pub fn new(set: KernelSet, pool: &'a dyn Parallel) -> Self {
        assert!(set.is_available(), "kernel set {set} is not available on this machine");
        Self { set, pool }
    }

    /// The instruction set; always one that this machine can run.
    pub fn set(&self) -> KernelSet {
        self.set
    }

    /// The thread pool.
    pub fn pool(&self) -> &'a dyn Parallel {
        self.pool
    }
}
