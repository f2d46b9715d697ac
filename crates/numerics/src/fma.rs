//! Fused multiply-add: `a*b + c` with one rounding, exact on every target.

#[allow(unused_imports)] // for the targets without an instruction
use crate::exact::{to_odd, two_sum};

/// `a*b + c` rounded once, in f32.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    #[cfg(any(
        target_feature = "fma",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "s390x"
    ))]
    #[allow(clippy::disallowed_methods)] // one hardware instruction on these targets
    {
        a.mul_add(b, c)
    }
    #[cfg(not(any(
        target_feature = "fma",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "s390x"
    )))]
    {
        soft_fma(a, b, c)
    }
}

/// The product of two f32 is exact in f64. Its sum with `c` is rounded to odd in f64 (53 bits, more than
/// the 2*24 + 2 that make a second rounding harmless, subnormal results included), then to f32.
#[allow(dead_code)]
#[inline(always)]
fn soft_fma(a: f32, b: f32, c: f32) -> f32 {
    let p = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    // (An infinite or NaN sum has a NaN error and stays as it is.)
    let (sum, error) = two_sum(p, c);
    to_odd(sum, error) as f32
}

/// `a*b + c` rounded once, in f64.
#[inline(always)]
pub fn fma64(a: f64, b: f64, c: f64) -> f64 {
    #[cfg(any(
        target_feature = "fma",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "s390x"
    ))]
    #[allow(clippy::disallowed_methods)] // one hardware instruction on these targets
    {
        a.mul_add(b, c)
    }
    #[cfg(not(any(
        target_feature = "fma",
        target_arch = "aarch64",
        target_arch = "riscv64",
        target_arch = "s390x"
    )))]
    {
        soft_fma64(a, b, c)
    }
}

/// Sign, exponent of the last bit, and 53-bit integer significand of a finite number.
fn parts(x: f64) -> (bool, i32, u64) {
    let bits = x.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let fraction = bits & ((1 << 52) - 1);
    if exponent == 0 {
        (bits >> 63 == 1, -1074, fraction)
    } else {
        (bits >> 63 == 1, exponent - 1075, fraction | 1 << 52)
    }
}

/// In f64 arithmetic where nothing can overflow or become subnormal, else in integers.
#[allow(dead_code)]
fn soft_fma64(a: f64, b: f64, c: f64) -> f64 {
    /// Whether the exponent is from -400 to 400.
    fn is_moderate(x: f64) -> bool {
        (x.to_bits() >> 52 & 0x7ff).wrapping_sub(1023 - 400) <= 800
    }
    if is_moderate(a) && is_moderate(b) && (is_moderate(c) || c == 0.0) {
        moderate_fma64(a, b, c)
    } else {
        exact_fma64(a, b, c)
    }
}

/// After Boldo and Melquiond: of the exact sum of product and addend, what lies below its upper part is rounded to odd, which makes
/// the rounding of both together the only one that shows.
fn moderate_fma64(a: f64, b: f64, c: f64) -> f64 {
    // Halves of 26 bits, whose products are exact.
    fn halves(x: f64) -> (f64, f64) {
        let t = x * 134_217_729.0;
        let high = t - (t - x);
        (high, x - high)
    }
    let ((ah, al), (bh, bl)) = (halves(a), halves(b));
    let product = a * b;
    let below = ((ah * bh - product) + ah * bl + al * bh) + al * bl;
    let (sum, sum_below) = two_sum(c, below);
    let (high, high_below) = two_sum(product, sum);
    let (rest, error) = two_sum(sum_below, high_below);
    high + to_odd(rest, error)
}

/// In integers: the exact product has 106 bits; the addend is aligned to it in a 128-bit window, what falls off
/// is kept as a sticky bit, and the sum is rounded once.
fn exact_fma64(a: f64, b: f64, c: f64) -> f64 {
    // Nothing is rounded twice here: the product is exact (zero, infinite or NaN), or c decides.
    if !a.is_finite() || !b.is_finite() || a == 0.0 || b == 0.0 {
        return a * b + c;
    }
    if !c.is_finite() {
        return c;
    }
    let (sa, ea, ma) = parts(a);
    let (sb, eb, mb) = parts(b);
    let (sc, ec, mc) = parts(c);
    let sign = sa ^ sb;
    let mut product = u128::from(ma) * u128::from(mb);
    let mut exponent = ea + eb;
    // The product's top bit to position 125, so that a sum has room and 19 bits or more stay below.
    let up = product.leading_zeros() as i32 - 2;
    product <<= up;
    exponent -= up;
    let mut addend = u128::from(mc);
    let mut ec = ec;
    if mc != 0 {
        let up = addend.leading_zeros() as i32 - 2;
        addend <<= up;
        ec -= up;
    } else {
        ec = exponent;
    }
    let (mut high, mut low, mut high_sign, mut low_sign, e, distance) = if exponent >= ec {
        (product, addend, sign, sc, exponent, exponent - ec)
    } else {
        (addend, product, sc, sign, ec, ec - exponent)
    };
    let sticky = if distance >= 127 {
        let lost = low != 0;
        low = 0;
        lost
    } else {
        let lost = low & ((1u128 << distance) - 1) != 0;
        low >>= distance;
        lost
    };
    low |= u128::from(sticky);
    if high < low {
        std::mem::swap(&mut high, &mut low);
        std::mem::swap(&mut high_sign, &mut low_sign);
    }
    let sum = if high_sign == low_sign { high + low } else { high - low };
    if sum == 0 {
        // x - x is +0 in round-to-nearest; equal signs keep theirs.
        return if high_sign && low_sign { -0.0 } else { 0.0 };
    }
    compose(high_sign, e, sum)
}

/// `(-1)^sign * sum * 2^e`, rounded to nearest even; bit 0 of `sum` may be sticky.
fn compose(sign: bool, e: i32, sum: u128) -> f64 {
    let top = 127 - sum.leading_zeros() as i32;
    // Exponent of the last kept bit: 53 bits, fewer where the result is subnormal.
    let last = (e + top - 52).max(-1074);
    let shift = last - e;
    let magnitude = if shift <= 0 {
        sum << -shift
    } else if shift > 127 {
        0
    } else {
        let kept = sum >> shift;
        let rest = sum & ((1u128 << shift) - 1);
        let half = 1u128 << (shift - 1);
        kept + u128::from(rest > half || rest == half && kept & 1 == 1)
    };
    // A carry out of 53 bits is absorbed by the exponent field, as is the step from subnormal to normal.
    let mantissa = magnitude as u64;
    let bits = if mantissa >= 1 << 52 {
        let biased = i64::from(last) + 1075;
        let bits = ((biased as u64) << 52).wrapping_add(mantissa - (1 << 52));
        if biased >= 2047 || bits >> 52 >= 2047 { 2047 << 52 } else { bits }
    } else {
        mantissa
    };
    f64::from_bits(bits | u64::from(sign) << 63)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    const SPECIAL: [f64; 12] = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
        f64::MAX,
        f64::MIN_POSITIVE,
        5e-324,
        -5e-324,
        1.0000000000000002,
    ];

    /// The C library's fma is the oracle: IEEE 754 leaves it no choice.
    #[allow(clippy::disallowed_methods)]
    #[test]
    fn software_f32_equals_the_platform() {
        let mut rng = Rng::new(1, 0);
        for i in 0..3_000_000u32 {
            let mut x = || if i % 4 == 0 { rng.f32_any() } else { f32::from_bits(rng.next_u32()) };
            let (a, b) = (x(), x());
            // Often near cancellation, where a double rounding would show.
            let c = if i % 3 == 0 { -(a * b) } else { x() };
            let (soft, hard) = (soft_fma(a, b, c), a.mul_add(b, c));
            assert!(soft.to_bits() == hard.to_bits() || soft.is_nan() && hard.is_nan(), "{a:e} {b:e} {c:e}");
        }
    }

    #[allow(clippy::disallowed_methods)]
    #[test]
    fn software_f64_equals_the_platform() {
        let check = |a: f64, b: f64, c: f64| {
            let (soft, hard) = (soft_fma64(a, b, c), a.mul_add(b, c));
            assert!(
                soft.to_bits() == hard.to_bits() || soft.is_nan() && hard.is_nan(),
                "fma({a:e}, {b:e}, {c:e}): {soft:e}, expected {hard:e}"
            );
        };
        for a in SPECIAL {
            for b in SPECIAL {
                for c in SPECIAL {
                    check(a, b, c);
                }
            }
        }
        let mut rng = Rng::new(2, 0);
        for i in 0..3_000_000u32 {
            let mut x = || {
                let bits = rng.next_u64();
                match i % 5 {
                    0 => f64::from_bits(bits),
                    // Small exponents, where results are subnormal.
                    1 => f64::from_bits(bits & !(0x7ff << 52) | (bits >> 20 & 0x3ff) << 52),
                    // Near one another, where sums cancel.
                    _ => f64::from_bits(bits & !(0x7ff << 52) | (1020 + (bits >> 40 & 7)) << 52),
                }
            };
            let (a, b) = (x(), x());
            let c = match i % 4 {
                0 => -(a * b),
                // Some places above or below the product, up to where nothing of one reaches the other.
                1 => x() * a * b * f64::from_bits((1023 - 120 + u64::from(i / 4 % 240)) << 52),
                _ => x(),
            };
            check(a, b, c);
        }
    }
}
