use std::path::PathBuf;
use std::time::Duration;

use isobit_kernels::KernelSet;
use isobit_tensor::{Datum, Tensor};

use crate::NodeRef;

/// How to load a model. Nothing here can change a result.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Instruction set; by default the best this machine has.
    pub kernel_set: KernelSet,
    /// Threads of one run, the caller's included; by default 1.
    pub threads: usize,
    /// Entries of a batch that a thread computes at a time, in operators that allow it, up to the first that does not; by default
    /// as many, and as far, as suits the cache.
    pub portion: Option<usize>,
    /// A folder where weights are kept as they were packed, so that the next load of the model finds them; by default none. Files
    /// in it may be deleted at any time, and must not be written to.
    pub packed: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { kernel_set: KernelSet::best(), threads: 1, portion: None, packed: None }
    }
}

impl Options {
    /// These options with another instruction set.
    pub fn kernel_set(mut self, set: KernelSet) -> Self {
        self.kernel_set = set;
        self
    }

    /// These options with another number of threads.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// These options with so many entries of a batch at a time.
    pub fn portion(mut self, entries: usize) -> Self {
        self.portion = Some(entries);
        self
    }

    /// These options with a folder for packed weights.
    pub fn packed(mut self, folder: impl Into<PathBuf>) -> Self {
        self.packed = Some(folder.into());
        self
    }
}

/// Bounds of one run. They are part of what nodes agree on: reaching one is an agreed failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Metered cost, in units of about one multiply-add.
    pub cost: u64,
    /// Steps executed, those in bodies of control flow included.
    pub steps: u64,
    /// Runs of bodies of control flow.
    pub iterations: u64,
    /// Bytes of any one tensor.
    pub tensor_bytes: u64,
    /// Bytes of all results that a later step may still need, counted as if none shared memory; what went
    /// into a sequence counts to the end of the run.
    pub held_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cost: 1 << 50,
            steps: 1 << 28,
            iterations: 1 << 24,
            tensor_bytes: 8 << 30,
            held_bytes: 32 << 30,
        }
    }
}

/// What a run depends on besides model and inputs.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// The only source of randomness.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
    /// Whether to take the time of each step.
    pub profile: bool,
}

/// The outcome of a run whose outputs are tensors.
#[derive(Debug, Clone)]
pub struct RunResult {
    /// Name and tensor of each graph output, in the model's order.
    pub outputs: Vec<(String, Tensor)>,
    /// Metered cost in units: a function of the model and the shapes.
    pub cost: u64,
    /// Time of each step, when asked for.
    pub steps: Vec<StepTime>,
}

/// The outcome of a run.
#[derive(Debug, Clone)]
pub struct DataResult {
    /// Name and value of each graph output, in the model's order.
    pub outputs: Vec<(String, Datum)>,
    /// Metered cost in units: a function of the model and the shapes.
    pub cost: u64,
    /// Time of each step, when asked for.
    pub steps: Vec<StepTime>,
}

/// Time of one step.
#[derive(Debug, Clone)]
pub struct StepTime {
    /// Which step.
    pub node: NodeRef,
    /// Wall time of this run's execution of it.
    pub time: Duration,
    /// Its metered cost in units.
    pub cost: u64,
    /// Whether an earlier step did its work in the same pass over memory, in whose time it then is.
    pub fused: bool,
}
