//! Shape arithmetic: operators whose operands are all known and small are simply run by inference.

use isobit_kernels::{Exec, KernelSet, Serial};

use crate::{Fact, Inputs, Memory, Op, OpError, RunCtx};

/// Operands of up to this many elements in all are folded.
const MAX_ELEMENTS: usize = 4096;

/// Bytes of the largest result worth knowing.
const MAX_BYTES: u64 = 64 << 10;

/// The results of `op` as constants where every operand is a small constant, else what `otherwise`
/// infers. Not for operators that draw random numbers.
pub(crate) fn fold(
    op: &dyn Op,
    inputs: &[Option<Fact>],
    otherwise: impl FnOnce() -> Result<Vec<Fact>, OpError>,
) -> Result<Vec<Fact>, OpError> {
    match constants(op, inputs) {
        Some(facts) => Ok(facts),
        None => otherwise(),
    }
}

fn constants(op: &dyn Op, inputs: &[Option<Fact>]) -> Option<Vec<Fact>> {
    let mut operands = Vec::with_capacity(inputs.len());
    let mut elements = 0usize;
    for fact in inputs {
        let tensor = match fact {
            Some(fact) => Some(fact.value.clone()?),
            None => None,
        };
        elements = elements.saturating_add(tensor.as_ref().map_or(0, |t| t.len()));
        operands.push(tensor);
    }
    if elements > MAX_ELEMENTS {
        return None;
    }
    let memory = Memory::new(MAX_BYTES);
    let ctx = RunCtx { exec: Exec::new(KernelSet::Scalar, &Serial), memory: &memory, seed: 0, step: 0 };
    // An error is left to the run: inference of shapes alone may still say something useful.
    let results = op.run(&ctx, Inputs::new(operands)).ok()?;
    Some(results.into_iter().map(Fact::constant).collect())
}
