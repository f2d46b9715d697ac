use isobit_kernels::Exec;
use isobit_tensor::{Datum, Element, Tensor};

use crate::tail::{Stage, Tail};
use crate::{Blockwise, Fact, Memory, OpError};

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

    /// Computes the results, one for each output the node declares, in order. An operator whose
    /// operands and results are tensors has this; the runtime calls [`Op::run_any`].
    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let tensor = |d: Datum| {
            d.into_tensor().map_err(|d| OpError::input(format!("{} where a tensor is expected", d.kind())))
        };
        self.run_any(ctx, inputs)?.into_iter().map(tensor).collect()
    }

    /// As [`Op::run`], and then on the one result as many of `tail` from its start as the operator can do in the same pass
    /// over memory, with the bits of the separate operators; how many is returned. Most can do none.
    fn run_tail(
        &self,
        ctx: &RunCtx<'_>,
        inputs: Inputs,
        tail: &[Tail],
    ) -> Result<(Vec<Tensor>, usize), OpError> {
        let _ = tail;
        Ok((self.run(ctx, inputs)?, 0))
    }

    /// Whether [`Op::run_tail`] is more than [`Op::run`].
    fn takes_tail(&self) -> bool {
        false
    }

    /// Positions of constant operands that the operator has taken over in a form of its own: a run may leave them out.
    fn taken(&self) -> &[usize] {
        &[]
    }

    /// This operator on images in blocks of channels, where it knows them.
    fn blockwise(&self) -> Option<&dyn Blockwise> {
        None
    }

    /// Where a batch lies in every result, when it lies along axis `batch[i]` of operand `i` (`None`: not in it): index `j` along
    /// that axis follows from index `j` of the batch in each operand and from all of the others, so that any of them may be
    /// computed by themselves. `None` where they meet. All extents are known.
    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        let _ = (operands, batch);
        None
    }

    /// Whether the one result has the elements of operand 0 in their order.
    fn keeps_order(&self) -> bool {
        false
    }

    /// The operand that says the extents of the result, where one does.
    fn extents_operand(&self) -> Option<usize> {
        None
    }

    /// What this operator is as part of another one's tail, if it can be that.
    fn stage(&self) -> Option<Stage> {
        None
    }

    /// As [`Op::run`]; an operator on sequences, optionals or maps has this instead.
    fn run_any(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Datum>, OpError> {
        inputs.all_tensors()?;
        Ok(self.run(ctx, inputs)?.into_iter().map(Datum::Tensor).collect())
    }
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
    /// The stream of a random operator: the step's index in the canonical graph; in the body of a
    /// control-flow operator plus 2^32 for each run of a body that began before, its own included.
    pub step: u64,
}

/// The operands of one run. They are owned: an operand that nobody else needs any more can be taken
/// and its buffer reused for the result ([`Inputs::take`], then [`Tensor::try_unique`]).
#[derive(Debug, Default)]
pub struct Inputs(Vec<Option<Datum>>);

impl Inputs {
    /// Operands in the node's order, all of them tensors.
    pub fn new(tensors: Vec<Option<Tensor>>) -> Self {
        Self(tensors.into_iter().map(|t| t.map(Datum::Tensor)).collect())
    }

    /// Operands in the node's order, of any kind.
    pub fn of_data(data: Vec<Option<Datum>>) -> Self {
        Self(data)
    }

    /// The operands.
    pub fn into_data(self) -> Vec<Option<Datum>> {
        self.0
    }

    fn all_tensors(&self) -> Result<(), OpError> {
        let other = self.0.iter().flatten().position(|d| d.as_tensor().is_none());
        let kind = other.and_then(|i| Some((i, self.0.iter().flatten().nth(i)?.kind())));
        match kind {
            Some((i, kind)) => Err(OpError::input(format!("input {i} is {kind}; a tensor is expected"))),
            None => Ok(()),
        }
    }

    /// How many operand positions there are, empty ones included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True without any operand.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Operand `i` of any kind, where given.
    pub fn datum(&self, i: usize) -> Option<&Datum> {
        self.0.get(i).and_then(Option::as_ref)
    }

    /// Takes operand `i` of any kind out, where given.
    pub fn take_datum(&mut self, i: usize) -> Option<Datum> {
        self.0.get_mut(i).and_then(Option::take)
    }

    /// Operand `i`, which must be there.
    pub fn get(&self, i: usize) -> Result<&Tensor, OpError> {
        self.opt(i).ok_or_else(|| OpError::input(format!("input {i} is missing")))
    }

    /// Operand `i`, where given and a tensor.
    pub fn opt(&self, i: usize) -> Option<&Tensor> {
        self.datum(i).and_then(Datum::as_tensor)
    }

    /// Takes operand `i` out, which must be there.
    pub fn take(&mut self, i: usize) -> Result<Tensor, OpError> {
        self.take_opt(i).ok_or_else(|| OpError::input(format!("input {i} is missing")))
    }

    /// Takes operand `i` out, where given and a tensor.
    pub fn take_opt(&mut self, i: usize) -> Option<Tensor> {
        match self.0.get_mut(i) {
            Some(slot @ Some(Datum::Tensor(_))) => slot.take().and_then(|d| d.into_tensor().ok()),
            _ => None,
        }
    }

    /// The elements of operand `i`, which must be there and of type `T`.
    pub fn slice<T: Element>(&self, i: usize) -> Result<&[T], OpError> {
        Ok(self.get(i)?.as_slice()?)
    }
}
