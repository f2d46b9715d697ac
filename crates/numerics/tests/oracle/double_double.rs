//! e^x and ln(1 + e^x) to about 90 bits, as unevaluated sums of two f64: plain series, to be checked at a glance rather than fast.

use std::ops::{Add, Div, Mul};

/// hi + lo, lo being at most half a unit in the last place of hi.
#[derive(Clone, Copy, Debug)]
pub struct Double {
    pub hi: f64,
    pub lo: f64,
}

const LN_2: Double =
    Double { hi: f64::from_bits(0x3fe6_2e42_fefa_39ef), lo: f64::from_bits(0x3c7a_bc9e_3b39_803f) };

fn fast_sum(a: f64, b: f64) -> Double {
    let hi = a + b;
    Double { hi, lo: b - (hi - a) }
}

fn sum(a: f64, b: f64) -> Double {
    let hi = a + b;
    let c = hi - a;
    Double { hi, lo: (a - (hi - c)) + (b - c) }
}

impl From<f64> for Double {
    fn from(hi: f64) -> Self {
        Self { hi, lo: 0.0 }
    }
}

impl Add for Double {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let (s, t) = (sum(self.hi, other.hi), sum(self.lo, other.lo));
        let c = fast_sum(s.hi, s.lo + t.hi);
        fast_sum(c.hi, t.lo + c.lo)
    }
}

impl Mul for Double {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let hi = self.hi * other.hi;
        let lo = self.hi.mul_add(other.hi, -hi);
        fast_sum(hi, lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Div for Double {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let q = self.hi / other.hi;
        let rest = self + other * Self::from(-q);
        let r = rest.hi / other.hi;
        let rest = rest + other * Self::from(-r);
        fast_sum(q, r) + Self::from(rest.hi / other.hi)
    }
}

impl Double {
    /// The nearest f64, where an error of 2^-80 of the value leaves no doubt.
    pub fn nearest(self) -> Option<f64> {
        let doubt = self.hi.abs() * f64::from_bits((1023 - 80) << 52);
        let (a, b) = (self.hi + (self.lo - doubt), self.hi + (self.lo + doubt));
        (a == b).then_some(a)
    }
}

/// e^x for |x| of at most 700: e^(k ln 2 + 512 r), e^r - 1 by its series, and nine times (1 + m)^2 - 1.
pub fn exp(x: f64) -> Double {
    let k = (x / LN_2.hi).round();
    let r = Double::from(x) + LN_2 * Double::from(-k);
    let r = Double { hi: r.hi / 512.0, lo: r.lo / 512.0 };
    let mut m = Double::from(0.0);
    for n in (1..=11).rev() {
        m = r * (Double::from(1.0) + m) / Double::from(f64::from(n));
    }
    for _ in 0..9 {
        m = Double { hi: 2.0 * m.hi, lo: 2.0 * m.lo } + m * m;
    }
    let y = Double::from(1.0) + m;
    let scale = f64::from_bits(((1023 + k as i64) as u64) << 52);
    Double { hi: y.hi * scale, lo: y.lo * scale }
}

/// ln(1 + a) for a from 0 to 1: the series of a small a, else one step of Newton's from an f64.
pub fn log1p(a: Double) -> Double {
    if a.hi < 1.0 / 1024.0 {
        let mut s = Double::from(0.0);
        for n in (1..=11).rev() {
            let sign = if n % 2 == 0 { -1.0 } else { 1.0 };
            s = (Double::from(sign) / Double::from(f64::from(n))) + a * s;
        }
        return a * s;
    }
    let y = core_math::log1p(a.hi);
    // y + ((1 + a) e^-y - 1) is off by half the square of what is left.
    let rest = (Double::from(1.0) + a) * exp(-y) + Double::from(-1.0);
    Double::from(y) + rest
}
