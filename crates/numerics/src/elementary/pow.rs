use super::accurate::{exp_dd, ln_dd};
use super::dd::{Dd, power_of_two};

/// x^y. Results that are exact, or exactly halfway between two f32, are found in integers and rounded to even; all
/// others are computed to about 2^-64 and rounded once, which is the correct rounding unless the real value lies
/// within 2^-64 (relative) of such a midpoint. Special values as in ISO C Annex F.
pub fn pow(x: f32, y: f32) -> f32 {
    if y == 0.0 || x == 1.0 {
        return 1.0;
    }
    if x.is_nan() || y.is_nan() {
        return f32::NAN;
    }
    let integer = y.trunc() == y;
    let odd = integer && y.abs() < 16_777_216.0 && (y as i64) % 2 != 0;
    if y.is_infinite() {
        let a = x.abs();
        return match () {
            () if a == 1.0 => 1.0,
            () if (a > 1.0) == (y > 0.0) => f32::INFINITY,
            () => 0.0,
        };
    }
    let negative = x.is_sign_negative() && odd;
    let signed = |v: f32| if negative { -v } else { v };
    if x == 0.0 || x.is_infinite() {
        let grows = (x == 0.0) != (y > 0.0);
        return signed(if grows { f32::INFINITY } else { 0.0 });
    }
    if x < 0.0 && !integer {
        return f32::NAN;
    }
    if y == 2.0 {
        return x * x;
    }
    let a = x.abs();
    if let Some((m, e)) = exact(f64::from(a), f64::from(y), 25) {
        return signed((m as f64 * power_of_two(e.clamp(-400, 400) as f64)) as f32);
    }
    // Without exact cases left, underflow and overflow can be cut off by the logarithm alone.
    let log = ln_dd(f64::from(a)) * Dd::from(f64::from(y));
    let value = match log.hi {
        l if l > 100.0 => f32::INFINITY,
        l if l < -110.0 => 0.0,
        _ => exp_dd(log).to_f32(),
    };
    signed(value)
}

/// `pow(x, 3)`: the product in f64 rounded to odd, so that rounding it to f32 is rounding the exact cube. Free of branches.
#[inline(always)]
pub fn cube(x: f32) -> f32 {
    let d = f64::from(x);
    // Exact: 48 bits.
    let square = d * d;
    let y = square * d;
    // The error of y, exactly: both halves of the square have 24 bits.
    let high = f64::from_bits(square.to_bits() & !((1 << 29) - 1));
    let error = (square - high) * d - (y - high * d);
    // Toward zero, with a last bit that says whether anything is missing. An infinity has an error of NaN.
    let (above, below) = (error > 0.0, error < 0.0);
    let beyond = if y < 0.0 { above } else { below };
    f64::from_bits((y.to_bits() - u64::from(beyond)) | u64::from(above | below)) as f32
}

/// a^y as m 2^e, where it has at most `bits` significant bits: with one more than a type has, the cases in which it is one of
/// the type's numbers or halfway between two.
pub(super) fn exact(a: f64, y: f64, bits: u32) -> Option<(u64, i64)> {
    let (mut m, mut e) = odd_parts(a);
    let (n, k) = odd_parts(y.abs());
    if m == 1 {
        // A power of two: 2^(e y), if e y is an integer.
        let power = e as f64 * y;
        return (power.trunc() == power && power.abs() < 1e6).then_some((1, power as i64));
    }
    if y < 0.0 {
        return None; // 1/m is no finite binary fraction
    }
    for _ in k..0 {
        let root = integer_root(m)?;
        if e % 2 != 0 {
            return None;
        }
        (m, e) = (root, e / 2);
    }
    // m was odd and above 1, and so is its root: 3^34 has more than 53 bits.
    let n = n.checked_shl(u32::try_from(k.max(0)).ok()?).filter(|&n| n <= 34)?;
    let mut power = 1u64;
    for _ in 0..n {
        power = power.checked_mul(m).filter(|p| p >> bits == 0)?;
    }
    Some((power, e * n as i64))
}

/// `x = m * 2^e` with odd m, for a positive finite x.
pub(super) fn odd_parts(x: f64) -> (u64, i64) {
    let bits = x.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52) as i64);
    let (m, e) = if exponent == 0 { (fraction, -1074) } else { (fraction | 1 << 52, exponent - 1075) };
    let zeros = m.trailing_zeros();
    (m >> zeros, e + i64::from(zeros))
}

/// The square root of `m` if it is an integer.
fn integer_root(m: u64) -> Option<u64> {
    let root = (m as f64).sqrt() as u64;
    (root * root == m).then_some(root)
}

#[cfg(test)]
mod tests {
    use super::pow;

    #[test]
    fn special_values() {
        let inf = f32::INFINITY;
        for (x, y, expected) in [
            (2.0, 3.0, 8.0),
            (-2.0, 3.0, -8.0),
            (-2.0, 2.0, 4.0),
            (9.0, 0.5, 3.0),
            (0.25, -0.5, 2.0),
            (27.0, 1.0, 27.0),
            (0.0, -1.0, inf),
            (-0.0, -1.0, -inf),
            (-0.0, 3.0, -0.0),
            (-0.0, 2.0, 0.0),
            (inf, -1.0, 0.0),
            (-inf, 3.0, -inf),
            (-1.0, inf, 1.0),
            (0.5, inf, 0.0),
            (0.5, -inf, inf),
            (f32::NAN, 0.0, 1.0),
            (1.0, f32::NAN, 1.0),
            (2.0, 200.0, inf),
            (2.0, -149.0, 1e-45),
            (2.0, -151.0, 0.0),
            (-8.0, 1.0 / 3.0, f32::NAN),
        ] {
            let got = pow(x, y);
            assert!(
                got.to_bits() == f32::to_bits(expected) || got.is_nan() && expected.is_nan(),
                "{x}^{y} = {got}"
            );
        }
    }
}
