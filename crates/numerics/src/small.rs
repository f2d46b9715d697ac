//! Floats of 4, 6 and 8 bits: what their bits mean, and rounding to them (SEMANTICS.md, sections 5 and 6).

/// What the largest codes of a small float mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Top {
    /// Infinity and NaNs, as in IEEE 754.
    Ieee,
    /// One NaN of either sign; no infinity.
    Fn,
    /// The code of -0 is the NaN; no infinity, no -0.
    Fnuz,
    /// Numbers, like all other codes.
    Finite,
}

/// A small float: sign, exponent and mantissa in the low bits of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    exponent: u32,
    mantissa: u32,
    bias: i32,
    top: Top,
}

/// 8 bits, E4M3, finite and NaN.
pub const E4M3FN: Format = Format { exponent: 4, mantissa: 3, bias: 7, top: Top::Fn };
/// 8 bits, E4M3, finite and one NaN, no negative zero.
pub const E4M3FNUZ: Format = Format { exponent: 4, mantissa: 3, bias: 8, top: Top::Fnuz };
/// 8 bits, E5M2, with infinities.
pub const E5M2: Format = Format { exponent: 5, mantissa: 2, bias: 15, top: Top::Ieee };
/// 8 bits, E5M2, finite and one NaN, no negative zero.
pub const E5M2FNUZ: Format = Format { exponent: 5, mantissa: 2, bias: 16, top: Top::Fnuz };
/// 6 bits, E2M3, finite.
pub const E2M3: Format = Format { exponent: 2, mantissa: 3, bias: 1, top: Top::Finite };
/// 6 bits, E3M2, finite.
pub const E3M2: Format = Format { exponent: 3, mantissa: 2, bias: 3, top: Top::Finite };
/// 4 bits, E2M1, finite.
pub const E2M1: Format = Format { exponent: 2, mantissa: 1, bias: 1, top: Top::Finite };

/// 2^n for -1022 <= n <= 1023.
fn power(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

impl Format {
    fn sign_bit(self) -> u8 {
        1 << (self.exponent + self.mantissa)
    }

    /// The code of the largest finite number.
    fn largest(self) -> u8 {
        let all = self.sign_bit() - 1;
        match self.top {
            Top::Ieee => all - (1 << self.mantissa),
            Top::Fn => all - 1,
            Top::Fnuz | Top::Finite => all,
        }
    }

    fn nan(self, sign: u8) -> u8 {
        match self.top {
            Top::Ieee => sign | (self.largest() + 1) | 1 << (self.mantissa - 1),
            Top::Fn => sign | (self.sign_bit() - 1),
            Top::Fnuz => self.sign_bit(),
            Top::Finite => self.sign_bit(),
        }
    }

    /// The value of a code, exactly.
    pub fn decode(self, bits: u8) -> f32 {
        let negative = bits & self.sign_bit() != 0;
        let code = bits & (self.sign_bit() - 1);
        if self.top == Top::Fnuz && negative && code == 0 || self.top == Top::Fn && code > self.largest() {
            return f32::NAN;
        }
        if self.top == Top::Ieee && code > self.largest() {
            let infinite = code == self.largest() + 1;
            let magnitude = if infinite { f32::INFINITY } else { f32::NAN };
            return if negative { -magnitude } else { magnitude };
        }
        let (e, m) = (code >> self.mantissa, code & ((1 << self.mantissa) - 1));
        let significand = f64::from(if e == 0 { m } else { m | 1 << self.mantissa });
        let scale = i32::from(e.max(1)) - self.bias - self.mantissa as i32;
        let magnitude = (significand * power(scale)) as f32;
        if negative { -magnitude } else { magnitude }
    }

    /// The code nearest to `x`, ties to even. Beyond the largest finite number: that number if `saturate`, else
    /// infinity where there is one, else NaN. The formats without NaN always saturate and make a NaN -0.
    pub fn encode(self, x: f64, saturate: bool) -> u8 {
        let sign = if x.is_sign_negative() { self.sign_bit() } else { 0 };
        if x.is_nan() {
            return self.nan(if self.top == Top::Finite { 0 } else { sign });
        }
        let magnitude = x.abs();
        // The exponent of x, or that of the smallest normal number; zero and subnormals of f64 are far below it.
        let lowest = 1 - self.bias;
        let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(lowest);
        let code = if exponent > lowest + (1 << self.exponent) {
            u32::MAX
        } else {
            // Exact but for the rounding: the scale is a power of two.
            let units = (magnitude * power(self.mantissa as i32 - exponent)).round_ties_even() as u32;
            (((exponent - lowest) as u32) << self.mantissa) + units
        };
        let code = match code > u32::from(self.largest()) {
            false => code as u8,
            true if saturate || self.top == Top::Finite => self.largest(),
            true if self.top == Top::Ieee => self.largest() + 1,
            true => return self.nan(sign),
        };
        match (self.top, code) {
            (Top::Fnuz, 0) => 0,
            _ => sign | code,
        }
    }
}

/// How a number between two powers of two is rounded to E8M0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerRounding {
    /// To the greater.
    Up,
    /// To the lesser.
    Down,
    /// To the nearer, ties to the greater.
    Nearest,
}

/// The value of an E8M0 code: 2^(code - 127), NaN for 255.
pub fn decode_e8m0(bits: u8) -> f32 {
    match bits {
        255 => f32::NAN,
        0 => f32::from_bits(1 << 22),
        n => f32::from_bits(u32::from(n) << 23),
    }
}

/// The E8M0 code of |x|. Outside of 2^-127 to 2^127: the nearer of the two if `saturate`, else NaN.
pub fn encode_e8m0(x: f64, rounding: PowerRounding, saturate: bool) -> u8 {
    if x.is_nan() {
        return 255;
    }
    let bits = x.abs().to_bits();
    let (floor, fraction) = ((bits >> 52) as i32 - 1023, bits << 12);
    let up = match rounding {
        PowerRounding::Up => fraction != 0,
        PowerRounding::Down => false,
        PowerRounding::Nearest => fraction >= 1 << 63,
    };
    let code = floor + i32::from(up) + 127;
    match code {
        0..=254 => code as u8,
        _ if !saturate => 255,
        _ if code < 0 => 0,
        _ => 254,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [(Format, f32, u32); 7] = [
        (E4M3FN, 448.0, 8),
        (E4M3FNUZ, 240.0, 8),
        (E5M2, 57344.0, 8),
        (E5M2FNUZ, 57344.0, 8),
        (E2M3, 7.5, 6),
        (E3M2, 28.0, 6),
        (E2M1, 6.0, 4),
    ];

    #[test]
    fn every_code_round_trips() {
        for (f, largest, bits) in ALL {
            assert_eq!(f.decode(f.largest()), largest);
            for code in 0..1u16 << bits {
                let value = f.decode(code as u8);
                if !value.is_nan() {
                    assert_eq!(f.encode(value.into(), false), code as u8, "{f:?} {code}");
                }
            }
        }
        for code in 0..255 {
            assert_eq!(encode_e8m0(decode_e8m0(code).into(), PowerRounding::Down, false), code);
        }
    }

    /// Rounding is to the nearest code, by looking at all codes.
    #[test]
    fn rounding_is_to_nearest_even() {
        for (f, largest, _) in ALL {
            let mut codes: Vec<(f64, u8)> = (0..=f.largest()).map(|c| (f64::from(f.decode(c)), c)).collect();
            codes.sort_by(|a, b| a.0.total_cmp(&b.0));
            for pair in codes.windows(2) {
                let [(low, a), (high, b)] = [pair[0], pair[1]];
                let middle = (low + high) / 2.0;
                let even = if a % 2 == 0 { a } else { b };
                assert_eq!(f.encode(middle, true), even, "{f:?} {middle}");
                assert_eq!(f.encode(middle - middle * 1e-15, true), a);
                assert_eq!(f.encode(middle + middle * 1e-15, true), b);
            }
            assert_eq!(f.encode(f64::INFINITY, true), f.largest());
            assert_eq!(f.decode(f.encode(-f64::from(largest) * 2.0, true)), -largest);
            assert_eq!(f.encode(f64::from_bits(1), true), 0);
        }
        // The bits that NumPy's ml_dtypes gives.
        assert_eq!([E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ].map(|f| f.encode(1e9, false)), [127, 128, 124, 128]);
        assert_eq!(
            [E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ].map(|f| f.encode(f64::NAN, false)),
            [127, 128, 126, 128]
        );
        assert_eq!([E4M3FN, E4M3FNUZ, E5M2, E5M2FNUZ].map(|f| f.encode(-0.0, false)), [128, 0, 128, 0]);
        assert_eq!([E2M1, E2M3, E3M2].map(|f| f.encode(f64::NAN, false)), [8, 32, 32]);
    }

    #[test]
    fn powers_of_two_round_as_asked() {
        use PowerRounding::*;
        assert_eq!([Up, Down, Nearest].map(|r| encode_e8m0(2.5, r, true)), [129, 128, 128]);
        assert_eq!(encode_e8m0(3.0, Nearest, true), 129);
        assert_eq!([1e300, 0.0].map(|x| encode_e8m0(x, Up, true)), [254, 0]);
        assert_eq!([1e300, 0.0].map(|x| encode_e8m0(x, Nearest, false)), [255, 255]);
    }
}
