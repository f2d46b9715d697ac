//! Double-double numbers: an unevaluated sum of two f64, about 106 bits.

use std::ops::{Add, Div, Mul, Sub};

/// `hi + lo`, with `lo` at most half a unit in the last place of `hi`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dd {
    pub(super) hi: f64,
    pub(super) lo: f64,
}

/// Exact sum of two f64 of any size.
fn two_sum(a: f64, b: f64) -> Dd {
    let s = a + b;
    let t = s - a;
    Dd { hi: s, lo: (a - (s - t)) + (b - t) }
}

/// Exact sum where |a| is at least |b|.
fn quick_two_sum(a: f64, b: f64) -> Dd {
    let s = a + b;
    Dd { hi: s, lo: b - (s - a) }
}

/// Exact product.
fn two_product(a: f64, b: f64) -> Dd {
    let p = a * b;
    Dd { hi: p, lo: crate::fma64(a, b, -p) }
}

impl Dd {
    pub(super) const ONE: Dd = Dd::new(1.0, 0.0);

    pub(super) const fn new(hi: f64, lo: f64) -> Self {
        Self { hi, lo }
    }

    /// This times a power of two.
    pub(super) fn scale(self, by: f64) -> Self {
        Self { hi: self.hi * by, lo: self.lo * by }
    }

    pub(super) fn neg(self) -> Self {
        Self { hi: -self.hi, lo: -self.lo }
    }

    /// Square root of a positive number.
    pub(super) fn sqrt(self) -> Self {
        let root = self.hi.sqrt();
        let rest = self - two_product(root, root);
        quick_two_sum(root, rest.hi / (2.0 * root))
    }

    /// Rounded to f64.
    pub(super) fn to_f64(self) -> f64 {
        self.hi + self.lo
    }

    /// Rounded once to f32. Rounding `hi` to odd in the light of `lo` first makes the second rounding harmless.
    pub(super) fn to_f32(self) -> f32 {
        let Dd { hi, lo } = quick_two_sum(self.hi, self.lo);
        let bits = hi.to_bits();
        let odd = if lo != 0.0 && bits & 1 == 0 {
            if (lo > 0.0) == (hi > 0.0) { bits + 1 } else { bits - 1 }
        } else {
            bits
        };
        f64::from_bits(odd) as f32
    }
}

impl From<f64> for Dd {
    fn from(x: f64) -> Self {
        Self::new(x, 0.0)
    }
}

impl Add for Dd {
    type Output = Dd;
    fn add(self, other: Dd) -> Dd {
        let s = two_sum(self.hi, other.hi);
        let t = two_sum(self.lo, other.lo);
        let s = quick_two_sum(s.hi, s.lo + t.hi);
        quick_two_sum(s.hi, s.lo + t.lo)
    }
}

impl Sub for Dd {
    type Output = Dd;
    #[allow(clippy::suspicious_arithmetic_impl)] // a difference is the sum with the opposite
    fn sub(self, other: Dd) -> Dd {
        self + other.neg()
    }
}

impl Mul for Dd {
    type Output = Dd;
    fn mul(self, other: Dd) -> Dd {
        let p = two_product(self.hi, other.hi);
        quick_two_sum(p.hi, p.lo + (self.hi * other.lo + self.lo * other.hi))
    }
}

impl Div for Dd {
    type Output = Dd;
    fn div(self, other: Dd) -> Dd {
        let q1 = self.hi / other.hi;
        let r = self - other * Dd::from(q1);
        let q2 = r.hi / other.hi;
        let r = r - other * Dd::from(q2);
        let q3 = r.hi / other.hi;
        quick_two_sum(q1, q2) + Dd::from(q3)
    }
}
