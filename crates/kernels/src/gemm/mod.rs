//! Matrix multiplication: `C[m,n] = A[m,k] * B[k,n]` under the contraction rule.
//!
//! Every output element is one chain: `acc = +0; acc = fma(a_k, b_k, acc)` for k ascending. Blocking over k
//! carries the accumulators through C in memory, which changes no bit; m and n are blocked and spread
//! over threads at will.

mod driver;
mod epilogue;
mod micro;
mod pack;
mod peak;
mod scalar;

pub(crate) use driver::{Left, Right, product};
pub use driver::{gemm, gemm_batch, gemm_packed};
pub use epilogue::{Bias, Epilogue};
pub(crate) use pack::Columns;
pub use pack::{PackedA, PackedB};
pub use peak::peak;

/// A matrix in memory: element (i, j) is at `offset + i * row_stride + j * col_stride`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub col_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix with `cols` columns.
    pub fn row_major(data: &'a [f32], cols: usize) -> Self {
        Self { data, row_stride: cols, col_stride: 1 }
    }

    /// The transpose of a row-major matrix that has `cols` columns.
    pub fn transposed(data: &'a [f32], cols: usize) -> Self {
        Self { data, row_stride: 1, col_stride: cols }
    }

    /// Whether an `m` by `n` matrix lies inside the elements.
    pub(crate) fn holds(&self, m: usize, n: usize) -> bool {
        if m == 0 || n == 0 {
            return true;
        }
        let last = (m - 1)
            .checked_mul(self.row_stride)
            .zip((n - 1).checked_mul(self.col_stride))
            .and_then(|(r, c)| r.checked_add(c));
        last.is_some_and(|last| last < self.data.len())
    }

    #[inline(always)]
    pub(crate) fn at(&self, i: usize, j: usize) -> f32 {
        self.data[i * self.row_stride + j * self.col_stride]
    }
}
