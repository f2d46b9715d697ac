//! Matrix multiplication equals its definition by bits, on every kernel set and thread count.

mod common;

use common::{cases, elements, machines, same_bits};
use isobit_kernels::double::{Panels, columns, product};
use isobit_kernels::gemm::{Bias, COLUMNS, Epilogue, PackedB, View, gemm, gemm_columns, gemm_packed};
use isobit_kernels::math::Unary;
use isobit_kernels::{Exec, KernelSet};
use isobit_numerics as num;

/// `x` as a matrix of these extents, stored by columns where `transposed`.
fn view<T: Copy>(x: &[T], rows: usize, cols: usize, transposed: bool) -> View<'_, T> {
    if transposed { View::transposed(x, rows) } else { View::row_major(x, cols) }
}

#[test]
fn equals_the_definition() {
    cases("gemm", 120, |rng| {
        let (m, n, k) = match rng.below(4) {
            0 => (rng.below(4), rng.below(4), rng.below(4)),
            1 => (1, rng.below(300), rng.below(600)),
            _ => (rng.below(70), rng.below(140), rng.below(300)),
        };
        let (a, b) = (elements(rng, m * k), elements(rng, k * n));
        let bias = elements(rng, m.max(n));
        let (ta, tb) = (rng.below(2) == 1, rng.below(2) == 1);
        let (av, bv) = (view(&a[..], m, k, ta), view(&b[..], k, n, tb));
        let (bias, activation) = match rng.below(4) {
            0 => (Bias::None, None),
            3 => (Bias::Columns(&bias), None),
            1 => (Bias::Columns(&bias), Some(Unary::Relu)),
            _ => (Bias::Rows(&bias), None),
        };
        let ldc = n + rng.below(3);
        let added = elements(rng, m * ldc);
        let add = (rng.below(2) == 1).then_some(&added[..]);
        let epilogue = Epilogue { bias, add, activation };
        let mut expected = vec![7.0; m * ldc];
        for i in 0..m {
            for j in 0..n {
                let (ar, ac) = (av.row_stride, av.col_stride);
                let pairs = (0..k).map(|p| (a[i * ar + p * ac], b[p * bv.row_stride + j * bv.col_stride]));
                let mut x = num::chain(0.0, pairs);
                match bias {
                    Bias::None => {}
                    Bias::Columns(b) => x += b[j],
                    Bias::Rows(b) => x += b[i],
                }
                if let Some(add) = add {
                    x += add[i * ldc + j];
                }
                expected[i * ldc + j] = if activation.is_some() { num::relu(x) } else { x };
            }
        }
        for (set, pool) in machines() {
            let exec = Exec::new(set, &pool);
            let what = (m, n, k, ta, tb, set, pool.0);
            let mut c = vec![7.0; m * ldc];
            gemm(exec, m, n, k, av, bv, &mut c, ldc, &epilogue);
            same_bits(&c, &expected, what);
            let mut c = vec![7.0; m * ldc];
            gemm_packed(exec, m, av, &PackedB::new(exec, k, n, bv), &mut c, ldc, &epilogue);
            same_bits(&c, &expected, ("packed", what));
        }
    });
}

/// Some columns are those of the whole product, with what is added to them.
#[test]
fn columns_are_the_products() {
    cases("gemm columns", 60, |rng| {
        let (m, n, k) = (1 + rng.below(30), 1 + rng.below(200), rng.below(80));
        let (a, b) = (elements(rng, m * k), elements(rng, k * n));
        let (bias, added) = (elements(rng, n), elements(rng, m * n));
        let start = rng.below(n.div_ceil(COLUMNS)) * COLUMNS;
        let end = [n, start + rng.below(n.div_ceil(COLUMNS)) * COLUMNS][rng.below(2)].min(n);
        let some = start..end;
        let ldc = some.len() + rng.below(3);
        let part = |x: &[f32]| -> Vec<f32> {
            let rows = x.chunks_exact(n).map(|row| &row[some.clone()]);
            rows.flat_map(|row| [row, &vec![7.0; ldc - row.len()]].concat()).collect()
        };
        let (av, bv) = (View::row_major(&a, k), View::row_major(&b, n));
        let own = part(&added);
        for (set, pool) in machines() {
            let exec = Exec::new(set, &pool);
            let packed = PackedB::new(exec, k, n, bv);
            let epilogue =
                |bias, add| Epilogue { bias: Bias::Columns(bias), add: Some(add), activation: None };
            let mut whole = vec![0.0; m * n];
            gemm_packed(exec, m, av, &packed, &mut whole, n, &epilogue(&bias, &added));
            let mut c = vec![7.0; m * ldc];
            let epilogue = epilogue(&bias[some.clone()], &own);
            gemm_columns(exec, m, av, &packed, some.clone(), &mut c, ldc, &epilogue);
            same_bits(&c, &part(&whole), (m, n, k, &some, set));

            let wide = |x: &[f32]| x.iter().map(|&x| x.into()).collect::<Vec<f64>>();
            let (a, b) = (wide(&a), wide(&b));
            let panels = Panels::new(k, n, View::row_major(&b, n));
            let (mut whole, mut c) = (vec![0.0; m * n], vec![7.0; m * ldc]);
            product(exec, m, View::row_major(&a, k), &panels, &mut whole, n);
            columns(exec, m, View::row_major(&a, k), &panels, some.clone(), &mut c, ldc);
            for (c, whole) in c.chunks_exact(ldc.max(1)).zip(whole.chunks_exact(n)) {
                let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&c[..some.len()]), bits(&whole[some.clone()]), "{:?}", (m, n, k, &some, set));
                assert!(c[some.len()..].iter().all(|&c| c == 7.0));
            }
        }
    });
}

/// Long chains cross the blocks of every dimension.
#[test]
fn blocks_do_not_show() {
    let mut rng = num::rng::Rng::new(3, 0);
    let (m, n, k) = (150, 530, 700);
    let (a, b) = (elements(&mut rng, m * k), elements(&mut rng, k * n));
    let run = |set, threads| {
        let pool = common::Threads(threads);
        let mut c = vec![0.0; m * n];
        let (a, b) = (View::row_major(&a, k), View::row_major(&b, n));
        gemm(Exec::new(set, &pool), m, n, k, a, b, &mut c, n, &Epilogue::default());
        c
    };
    let expected = run(KernelSet::Scalar, 1);
    for (set, pool) in machines() {
        same_bits(&run(set, pool.0), &expected, (set, pool.0));
    }
}

#[test]
fn products_of_f64_equal_the_definition() {
    cases("gemm64", 60, |rng| {
        let (m, n, k) = match rng.below(4) {
            0 => (rng.below(4), rng.below(4), rng.below(4)),
            1 => (1, rng.below(100), rng.below(200)),
            2 => (rng.below(40), rng.below(70), 0),
            _ => (rng.below(40), rng.below(70), rng.below(100)),
        };
        // Of more bits than an f32 has.
        let wide = |x: Vec<f32>| x.into_iter().map(|x| f64::from(x) * 1.000_000_007).collect::<Vec<_>>();
        let (a, b) = (wide(elements(rng, m * k)), wide(elements(rng, k * n)));
        let (ta, tb) = (rng.below(2) == 1, rng.below(2) == 1);
        let (av, bv) = (view(&a[..], m, k, ta), view(&b[..], k, n, tb));
        let ldc = n + rng.below(3);
        let mut expected = vec![7.0; m * ldc];
        for (i, row) in expected.chunks_exact_mut(ldc.max(1)).enumerate() {
            for (j, c) in row.iter_mut().enumerate().take(n) {
                *c = num::chain64(0.0, (0..k).map(|p| (av.at(i, p), bv.at(p, j))));
            }
        }
        for (set, pool) in machines() {
            let mut c = vec![7.0; m * ldc];
            product(Exec::new(set, &pool), m, av, &Panels::new(k, n, bv), &mut c, ldc);
            for (i, (got, want)) in c.iter().zip(&expected).enumerate() {
                let same = got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan();
                assert!(same, "{i} of {:?}: {got:e}, not {want:e}", (m, n, k, ta, tb, set, pool.0));
            }
        }
    });
}
