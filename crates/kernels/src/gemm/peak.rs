use std::time::{Duration, Instant};

use super::micro::{self, Tile};
use crate::KernelSet;

/// How long the peak is measured.
const TIME: Duration = Duration::from_millis(30);

/// Multiply-adds a second of one core, as the inner tile of a product does them on operands in the first-level cache. It
/// takes 30 ms.
///
/// # Panics
/// When this machine cannot run `set`.
pub fn peak(set: KernelSet) -> f64 {
    assert!(set.is_available(), "kernel set {set} is not available on this machine");
    const STEPS: usize = 256;
    let (rows, columns) = micro::tile(set);
    let (a, b) = (vec![0.5f32; rows * STEPS], vec![0.25f32; columns * STEPS]);
    let mut c = vec![0.0f32; rows * columns];
    let mut best = Duration::MAX;
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let start = Instant::now();
        for _ in 0..8 {
            let t = Tile {
                k: STEPS,
                a: a.as_ptr(),
                a_row: 1,
                a_step: rows,
                b: b.as_ptr(),
                b_step: columns,
                b_panel: 0,
                next: b.as_ptr(),
                next_step: 16,
                c: c.as_mut_ptr(),
                ldc: columns,
                resume: true,
                bias: std::ptr::null(),
                add: std::ptr::null(),
            };
            // SAFETY: the set is available; the operands have the extents of a tile.
            unsafe { micro::run(set, rows, micro::Width::Full, t) };
        }
        best = best.min(start.elapsed() / 8);
    }
    (rows * columns * STEPS) as f64 / best.as_secs_f64()
}
