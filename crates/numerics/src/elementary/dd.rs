//! Double-double numbers: an unevaluated sum of two f64, about 106 bits.

use std::ops::{Add, Div, Mul, Sub};

use crate::exact;

/// `hi + lo`, with `lo` at most half a unit in the last place of `hi`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dd {
    pub(super) hi: f64,
    pub(super) lo: f64,
}

/// Exact sum of two f64 of any size.
fn two_sum(a: f64, b: f64) -> Dd {
    let (hi, lo) = exact::two_sum(a, b);
    Dd { hi, lo }
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

    /// This divided by an integer from 1 to 2^26.
    pub(super) const fn over(self, n: u32) -> Self {
        let n = n as f64;
        let q = self.hi / n;
        // Both products are exact: the upper half of q has 26 bits. So is the remainder.
        let upper = f64::from_bits(q.to_bits() & !((1 << 27) - 1));
        let rest = (self.hi - upper * n) - (q - upper) * n + self.lo;
        let below = rest / n;
        let hi = q + below;
        Self { hi, lo: below - (hi - q) }
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

    /// Rounded to odd.
    fn odd(self) -> f64 {
        let Dd { hi, lo } = quick_two_sum(self.hi, self.lo);
        exact::to_odd(hi, lo)
    }

    /// `base` and this rounded once to f64, where this is less than `base`, whatever lies between the two.
    pub(super) fn beside(self, base: f64) -> f64 {
        let sum = two_sum(base, self.hi);
        sum.hi + Self::new(sum.lo, self.lo).odd()
    }

    /// Rounded once to f32.
    pub(super) fn to_f32(self) -> f32 {
        self.odd() as f32
    }

    /// This times 2^k, rounded once to f64, for a number from 1/2 to 2: infinity and subnormal results included.
    pub(super) fn to_f64_scaled(self, k: f64) -> f64 {
        let scaled = |v: f64| {
            // In two steps, neither of which leaves the range of f64.
            let half = (k * 0.5).floor();
            v * power_of_two(half) * power_of_two(k - half)
        };
        match k {
            k if k > 1030.0 => f64::INFINITY,
            k if k < -1080.0 => 0.0,
            k if k >= -1021.0 || k == -1022.0 && self.hi >= 1.0 => scaled(self.to_f64()),
            k => {
                // Above this, so that the sum's unit in the last place becomes the least f64.
                let unit = power_of_two(-1074.0 - k) * (1u64 << 52) as f64;
                scaled(self.beside(unit) - unit)
            }
        }
    }
}

/// 2^k for -1022 <= k <= 1023.
pub(super) fn power_of_two(k: f64) -> f64 {
    f64::from_bits(((k as i64 + 1023) as u64) << 52)
}

/// 1 / n! at n.
pub(super) static INVERSE_FACTORIALS: [Dd; 36] = {
    let mut all = [Dd::ONE; 36];
    let mut n = 1;
    while n < all.len() {
        all[n] = all[n - 1].over(n as u32);
        n += 1;
    }
    all
};

/// 1 / (2n + 1) at n.
pub(super) static INVERSE_ODD: [Dd; 256] = {
    let mut all = [Dd::ONE; 256];
    let mut n = 0;
    while n < all.len() {
        all[n] = Dd::ONE.over(2 * n as u32 + 1);
        n += 1;
    }
    all
};

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
