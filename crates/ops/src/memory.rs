use isobit_mapped::filled;
use isobit_tensor::{Element, numel, recycle};

use crate::{Code, OpError};

/// Where operators get the memory for their results: bounded, so that no model can ask for more than
/// the node allows. The bound is part of the run's limits and so the same on every node.
#[derive(Debug)]
pub struct Memory {
    max_bytes: u64,
}

/// Bytes that an element counts for: its own, and where it is made of pointers and lengths (a string) those of a machine of
/// 64 bits on every machine.
const fn width<T>() -> u64 {
    let own = size_of::<T>();
    (if std::mem::needs_drop::<T>() { own / size_of::<usize>() * 8 } else { own }) as u64
}

/// A buffer of `n` elements of unspecified content, for what is known to be within the limit.
pub(crate) fn buffer<T: Element>(n: usize) -> Vec<T> {
    recycle::take(n).unwrap_or_else(|| filled(n, T::default()))
}

impl Memory {
    /// Memory in which no single tensor may exceed `max_bytes`.
    pub fn new(max_bytes: u64) -> Self {
        Self { max_bytes }
    }

    /// A buffer for a tensor of `shape`. Its content is unspecified (initialised, but of no meaning):
    /// the operator writes every element.
    pub fn alloc<T: Element>(&self, shape: &[usize]) -> Result<Vec<T>, OpError> {
        Ok(buffer(self.check::<T>(shape)?))
    }

    /// A buffer of at least `n` elements of unspecified content, within the limit on a tensor's bytes.
    pub(crate) fn at_least(&self, n: usize) -> Result<Vec<f32>, OpError> {
        self.check::<f32>(&[n])?;
        Ok(recycle::at_least(n).unwrap_or_else(|| filled(n, 0.0)))
    }

    /// A buffer for a tensor of `shape` in which every element is `value`.
    pub fn filled<T: Element>(&self, shape: &[usize], value: T) -> Result<Vec<T>, OpError> {
        Ok(filled(self.check::<T>(shape)?, value))
    }

    /// The number of elements of `shape`, if a buffer for them is within the bound.
    pub fn check<T>(&self, shape: &[usize]) -> Result<usize, OpError> {
        let fits = |n: &usize| (*n as u64).saturating_mul(width::<T>()) <= self.max_bytes;
        numel(shape).filter(fits).ok_or_else(|| {
            let limit = self.max_bytes;
            OpError::new(Code::LimitExceeded, format!("a result of shape {shape:?} exceeds {limit} bytes"))
        })
    }
}
