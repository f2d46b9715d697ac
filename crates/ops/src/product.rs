//! Matrix products of the types that operators contract in.

use isobit_kernels::Exec;
use isobit_kernels::double::{self, Panels};
use isobit_kernels::gemm::{Bias, Epilogue, View, gemm};
use isobit_kernels::integer::{self, PackedInts};
use isobit_tensor::Element;

/// An element type with a matrix product by the contraction rule; integers wrap.
pub(crate) trait Product: Element + Copy {
    /// `c` = the product of `a` [m, k] and `b` [k, n].
    fn product(exec: Exec<'_>, m: usize, n: usize, k: usize, a: &[Self], b: &[Self], c: &mut [Self]);
}

impl Product for f32 {
    fn product(exec: Exec<'_>, m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
        let (a, b) = (View::row_major(a, k), View::row_major(b, n));
        gemm(exec, m, n, k, a, b, c, n, &Epilogue { bias: Bias::None, ..Epilogue::default() });
    }
}

impl Product for f64 {
    fn product(exec: Exec<'_>, m: usize, n: usize, k: usize, a: &[f64], b: &[f64], c: &mut [f64]) {
        let right = Panels::new(k, n, View::row_major(b, n));
        double::product(exec, m, View::row_major(a, k), &right, c, n);
    }
}

impl Product for i32 {
    fn product(exec: Exec<'_>, m: usize, n: usize, k: usize, a: &[i32], b: &[i32], c: &mut [i32]) {
        if let (Some(a), Some(b)) = (narrow(&a[..m * k]), narrow(&b[..k * n])) {
            return integer::gemm(exec, m, &a, &PackedInts::new(exec, k, n, &b), &mut c[..m * n]);
        }
        for (i, row) in c.chunks_exact_mut(n.max(1)).enumerate() {
            row.fill(0);
            for (p, b) in b.chunks_exact(n.max(1)).enumerate() {
                let a = a[i * k + p];
                row.iter_mut().zip(b).for_each(|(c, &b)| *c = c.wrapping_add(a.wrapping_mul(b)));
            }
        }
    }
}

/// As i16, where they all fit (all but the least).
fn narrow(values: &[i32]) -> Option<Vec<i16>> {
    let fits = values.iter().all(|v| (-32_767..=32_767).contains(v));
    fits.then(|| values.iter().map(|&v| v as i16).collect())
}
