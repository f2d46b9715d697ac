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

pub use driver::{COLUMNS, gemm, gemm_batch, gemm_columns, gemm_packed};
pub(crate) use driver::{Left, Right, product};
pub use epilogue::{Bias, Epilogue};
pub(crate) use pack::{Columns, pack_transposed};
pub use pack::{PackedA, PackedB};
pub use peak::peak;

/// A matrix in memory: element (i, j) is at `offset + i * row_stride + j * col_stride`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T = f32> {
    /// The elements.
    pub data: &'a [T],
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub col_stride: usize,
}

impl<'a, T: Copy> View<'a, T> {
    /// A row-major matrix with `cols` columns.
    pub fn row_major(data: &'a [T], cols: usize) -> Self {
        Self { data, row_stride: cols, col_stride: 1 }
    }

    /// The transpose of a row-major matrix that has `cols` columns.
    pub fn transposed(data: &'a [T], cols: usize) -> Self {
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

    /// Element (i, j).
    ///
    /// # Panics
    /// When it does not lie inside the elements.
    #[inline(always)]
    pub fn at(&self, i: usize, j: usize) -> T {
        self.data[i * self.row_stride + j * self.col_stride]
    }
}
