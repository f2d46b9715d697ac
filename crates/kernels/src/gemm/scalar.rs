use isobit_numerics::fma;

use super::{Epilogue, View};

/// The definition: one chain an element, then the epilogue.
#[allow(clippy::too_many_arguments)] // the BLAS argument list
pub(super) fn gemm(
    m: usize,
    n: usize,
    k: usize,
    a: View<'_>,
    b: View<'_>,
    c: &mut [f32],
    ldc: usize,
    e: &Epilogue<'_>,
) {
    for i in 0..m {
        let row = &mut c[i * ldc..i * ldc + n];
        for (j, c) in row.iter_mut().enumerate() {
            *c = (0..k).fold(0.0, |acc, p| fma(a.at(i, p), b.at(p, j), acc));
        }
        e.apply(crate::KernelSet::Scalar, i, 0, ldc, row);
    }
}
