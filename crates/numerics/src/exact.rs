//! Sums whose error is known, and what rounds them a second time without harm.

/// The sum of two f64 of any size, and its exact error.
#[inline(always)]
pub(crate) fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let s = a + b;
    let t = s - a;
    (s, (a - (s - t)) + (b - t))
}

/// Rounds to odd: `sum` if it is exact or its last bit is 1, else its neighbour toward the `error`. Rounding that again, to two bits
/// less or more, gives what rounding the exact sum would. A `sum` whose error is NaN stays as it is.
#[inline(always)]
pub(crate) fn to_odd(sum: f64, error: f64) -> f64 {
    let bits = sum.to_bits();
    f64::from_bits(if error.abs() > 0.0 && bits & 1 == 0 {
        if (error > 0.0) == (sum > 0.0) { bits + 1 } else { bits - 1 }
    } else {
        bits
    })
}
