//! The numeric element types under one trait, for operators that are written once for all of them.

use isobit_numerics::{max, max64, min, min64};
use isobit_tensor::{Element, bf16, f16};

/// A numeric element: integers wrap, f16 and bf16 compute in f32 and round once, NaN and signed zero
/// follow `isobit_numerics`.
pub(crate) trait Number: Element + Copy + PartialOrd {
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Sum.
    fn plus(self, other: Self) -> Self;
    /// Difference.
    fn minus(self, other: Self) -> Self;
    /// Product.
    fn times(self, other: Self) -> Self;
    /// The larger; NaN if either is.
    fn larger(self, other: Self) -> Self;
    /// The smaller; NaN if either is.
    fn smaller(self, other: Self) -> Self;
    /// Whether it is a NaN.
    fn nan(self) -> bool;
    /// As f64: exact for everything but 64-bit integers, which round to nearest even.
    fn wide(self) -> f64;
}

/// |x|; the most negative integer wraps to itself.
pub(crate) fn magnitude<T: Number>(x: T) -> T {
    if x < T::ZERO { T::ZERO.minus(x) } else { x }
}

macro_rules! ints {
    ($($t:ty),*) => {$(
        impl Number for $t {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
            fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
            fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
            fn larger(self, other: Self) -> Self { Ord::max(self, other) }
            fn smaller(self, other: Self) -> Self { Ord::min(self, other) }
            fn nan(self) -> bool { false }
            fn wide(self) -> f64 { self as f64 }
        }
    )*};
}

macro_rules! floats {
    ($($t:ty, $max:path, $min:path);*) => {$(
        impl Number for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            fn plus(self, other: Self) -> Self { self + other }
            fn minus(self, other: Self) -> Self { self - other }
            fn times(self, other: Self) -> Self { self * other }
            fn larger(self, other: Self) -> Self { $max(self, other) }
            fn smaller(self, other: Self) -> Self { $min(self, other) }
            fn nan(self) -> bool { self.is_nan() }
            fn wide(self) -> f64 { self.into() }
        }
    )*};
}

macro_rules! halves {
    ($($t:ty),*) => {$(
        impl Number for $t {
            const ZERO: Self = <$t>::ZERO;
            const ONE: Self = <$t>::ONE;
            fn plus(self, other: Self) -> Self { <$t>::from_f32(self.to_f32() + other.to_f32()) }
            fn minus(self, other: Self) -> Self { <$t>::from_f32(self.to_f32() - other.to_f32()) }
            fn times(self, other: Self) -> Self { <$t>::from_f32(self.to_f32() * other.to_f32()) }
            fn larger(self, other: Self) -> Self { <$t>::from_f32(max(self.to_f32(), other.to_f32())) }
            fn smaller(self, other: Self) -> Self { <$t>::from_f32(min(self.to_f32(), other.to_f32())) }
            fn nan(self) -> bool { self.is_nan() }
            fn wide(self) -> f64 { self.to_f64() }
        }
    )*};
}

ints!(i8, i16, i32, i64, u8, u16, u32, u64);
floats!(f32, max, min; f64, max64, min64);
halves!(f16, bf16);
