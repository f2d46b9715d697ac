use isobit_kernels::Exec;
use isobit_tensor::{Element, Tensor};

use crate::{Fact, Memory, OpError};

/// An operator, built from its node and ready to run any number of times, from any thread.
pub trait Op: Send + Sync {
    /// Type, extents and (for shape arithmetic on constants) content of each result, from what is
    /// known of the operands. Unknown operands give unknown results, never an error; what contradicts
    /// the standard (types, ranks, extents that cannot fit) is an error.
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError>;

    /// Metered cost of one run: about one unit a multiply-add or an element written. It is a function
    /// of shapes alone, never of values, machine or kernel set. Saturates.
    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let _ = inputs;
        outputs.iter().map(|f| f.numel().unwrap_or(0) as u64).fold(0, u64::saturating_add)
    }

    /// Computes the results, one for each output the node declares, in order.
    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError>;
}

/// What a run may use besides its operands.
#[derive(Clone, Copy)]
pub struct RunCtx<'a> {
    /// Instruction set and threads.
    pub exec: Exec<'a>,
    /// Where results are allocated.
    pub memory: &'a Memory,
    /// The job's seed: the only source of randomness.
    pub seed: u64,
    /// Index of the step in the canonical graph: the stream of a random operator.
    pub step: u64,
}

/// The operands of one run. They are owned: an operand that nobody else needs any more can be taken
/// and its buffer reused for the result ([`Inputs::take`], then [`Tensor::try_unique`]).
#[derive(Debug, Default)]
pub struct Inputs(Vec<Option<Tensor>>);

impl Inputs {
    /// Operands in the node's order.
    pub fn new(tensors: Vec<Option<Tensor>>) -> Self {
        Self(tensors)
    }

    /// How many operand positions there are, empty ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any operand.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Operand `i`, which must be there.
    pub fn get(&self, i: usize) -> Result<&Tensor, OpError> {
        self.opt(i).ok_or_else(|| OpError::input(format!("input {i} is missing")))
    }

    /// Operand `i`, where given.
    pub fn opt(&self, i: usize) -> Option<&Tensor> {
        self.0.get(i).and_then(Option::as_ref)
    }

    /// Takes operand `i` out, which must be there.
    pub fn take(&mut self, i: usize) -> Result<Tensor, OpError> {
        self.take_opt(i).ok_or_else(|| OpError::input(format!("input {i} is missing")))
    }

    /// Takes operand `i` out, where given.
    pub fn take_opt(&mut self, i: usize) -> Option<Tensor> {
        self.0.get_mut(i).and_then(Option::take)
    }

    /// The elements of operand `i`, which must be there and of type `T`.
    pub fn slice<T: Element>(&self, i: usize) -> Result<&[T], OpError> {
        Ok(self.get(i)?.as_slice()?)
    }
}
