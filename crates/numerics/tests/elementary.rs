//! Elementary functions against an independent correctly rounded implementation: here a part of all inputs,
//! spread evenly, and every input around the exponents' edges; all 2^32 by
//! `cargo run --release -p isobit-numerics --example exhaustive`.

mod oracle;

use oracle::{FUNCTIONS, FUNCTIONS64, argument64, distance64, pair64, same};

/// Odd, so that all low bits occur.
const STRIDE: usize = 1021;

#[test]
fn correctly_rounded_on_a_part_of_all_inputs() {
    for f in FUNCTIONS {
        let spread = (0..=u32::MAX).step_by(STRIDE);
        let edges =
            (0..512u32).flat_map(|e| (0..64).map(move |i| (e << 23).wrapping_add(i).wrapping_sub(32)));
        for bits in spread.chain(edges) {
            let x = f32::from_bits(bits);
            let (got, expected) = ((f.ours)(x), (f.oracle)(x));
            assert!(same(got, expected), "{}({x:e}) [{bits:08x}] is {got:e}, expected {expected:e}", f.name);
        }
    }
}

/// Random pairs, and small integer and half-integer exponents, where results are exact or nearly so.
#[test]
fn pow_against_the_oracle() {
    let mut rng = isobit_numerics::rng::Rng::new(9, 0);
    for i in 0..2_000_000u32 {
        let x = match i % 3 {
            0 => rng.f32_any(),
            1 => rng.f32_unit() * 4.0,
            _ => (rng.below(4096) as f32) / 16.0,
        };
        let y = match i % 4 {
            0 => rng.f32_any(),
            1 => rng.below(16) as f32 / 2.0 - 3.0,
            _ => rng.f32_unit() * 20.0 - 10.0,
        };
        // The profile knows one NaN, the quiet one; C tells signalling ones apart.
        let (x, y) = (isobit_numerics::convert::canonical(x), isobit_numerics::convert::canonical(y));
        let (got, expected) = (isobit_numerics::pow(x, y), core_math::powf(x, y));
        assert!(same(got, expected), "pow({x:e}, {y:e}) is {got:e}, expected {expected:e}");
    }
}

/// f64 programs: random and special arguments, each result the correctly rounded one.
#[test]
fn f64_programs_against_the_oracle() {
    let mut rng = isobit_numerics::rng::Rng::new(10, 0);
    for f in FUNCTIONS64 {
        for i in 0..30_000 {
            let x = argument64(i, &mut rng, f.reach);
            let (got, expected) = ((f.ours)(x), (f.oracle)(x));
            assert!(distance64(got, expected) == 0, "{}({x:e}) is {got:e}, expected {expected:e}", f.name);
        }
    }
    for i in 0..100_000 {
        let (x, y) = pair64(i, &mut rng);
        let (got, expected) = (isobit_numerics::pow64(x, y), core_math::pow(x, y));
        assert!(distance64(got, expected) == 0, "pow64({x:e}, {y:e}) is {got:e}, expected {expected:e}");
    }
}
