//! Elements narrower than a byte, 8-bit floats and complex numbers. Each small element takes one byte in memory;
//! its canonical bytes are packed as ONNX packs them. What the bits of a float mean is the business of
//! `isobit-numerics`; here they are only kept.

/// An element kept as its bit pattern in one byte.
pub trait Small: Copy {
    /// Width in bits: 2, 4, 6 or 8.
    const BITS: u32;
    /// The element with the low [`Small::BITS`] bits of `bits`.
    fn from_bits(bits: u8) -> Self;
    /// Its bits; those above [`Small::BITS`] are zero.
    fn to_bits(self) -> u8;
    /// Its bits with the one canonical NaN where it is any NaN.
    fn canonical_bits(self) -> u8;
}

macro_rules! small {
    ($($(#[$doc:meta])* $name:ident: $bits:literal, $nan:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[repr(transparent)]
        pub struct $name(u8);

        impl Small for $name {
            const BITS: u32 = $bits;
            fn from_bits(bits: u8) -> Self { Self(bits & (0xff >> (8 - $bits))) }
            fn to_bits(self) -> u8 { self.0 }
            fn canonical_bits(self) -> u8 {
                let canonical: fn(u8) -> u8 = $nan;
                canonical(self.0)
            }
        }
    )*};
}

small! {
    /// 8-bit float E4M3, finite and NaN.
    F8E4M3FN: 8, |b| if b & 0x7f == 0x7f { 0x7f } else { b };
    /// 8-bit float E4M3, finite and one NaN, no negative zero.
    F8E4M3FNUZ: 8, |b| b;
    /// 8-bit float E5M2, with infinities.
    F8E5M2: 8, |b| if b & 0x7f > 0x7c { 0x7e } else { b };
    /// 8-bit float E5M2, finite and one NaN, no negative zero.
    F8E5M2FNUZ: 8, |b| b;
    /// 8-bit power of two E8M0, and one NaN.
    F8E8M0: 8, |b| b;
    /// 6-bit float E2M3, finite.
    F6E2M3: 6, |b| b;
    /// 6-bit float E3M2, finite.
    F6E3M2: 6, |b| b;
    /// 4-bit float E2M1, finite.
    F4E2M1: 4, |b| b;
    /// Unsigned 4-bit integer.
    U4: 4, |b| b;
    /// Signed 4-bit integer.
    I4: 4, |b| b;
    /// Unsigned 2-bit integer.
    U2: 2, |b| b;
    /// Signed 2-bit integer.
    I2: 2, |b| b;
}

impl U4 {
    /// Its value, 0 to 15.
    pub fn value(self) -> u8 {
        self.0
    }
}

impl I4 {
    /// Its value, -8 to 7.
    pub fn value(self) -> i8 {
        (self.0 << 4) as i8 >> 4
    }
}

impl U2 {
    /// Its value, 0 to 3.
    pub fn value(self) -> u8 {
        self.0
    }
}

impl I2 {
    /// Its value, -2 to 1.
    pub fn value(self) -> i8 {
        (self.0 << 6) as i8 >> 6
    }
}

/// A complex number.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Complex<T> {
    /// Real part.
    pub re: T,
    /// Imaginary part.
    pub im: T,
}

/// The elements one after another from the least significant bit of the first byte; the last byte is
/// filled up with zeros.
pub(crate) fn pack<T: Small>(elements: &[T]) -> Vec<u8> {
    let mut out = Vec::with_capacity((elements.len() * T::BITS as usize).div_ceil(8));
    let (mut acc, mut held) = (0u32, 0);
    for e in elements {
        acc |= u32::from(e.canonical_bits()) << held;
        held += T::BITS;
        if held >= 8 {
            out.push(acc as u8);
            acc >>= 8;
            held -= 8;
        }
    }
    if held > 0 {
        out.push(acc as u8);
    }
    out
}

/// The first `n` elements of packed `bytes`, which hold that many.
pub(crate) fn unpack<T: Small>(bytes: &[u8], n: usize) -> Vec<T> {
    let (mut acc, mut held) = (0u32, 0);
    let mut rest = bytes.iter();
    (0..n)
        .map(|_| {
            if held < T::BITS {
                acc |= u32::from(rest.next().copied().unwrap_or(0)) << held;
                held += 8;
            }
            let element = T::from_bits(acc as u8);
            acc >>= T::BITS;
            held -= T::BITS;
            element
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_and_crumbs_are_signed() {
        assert_eq!([7, 8, 15].map(|b| I4::from_bits(b).value()), [7, -8, -1]);
        assert_eq!([1, 2, 3].map(|b| I2::from_bits(b).value()), [1, -2, -1]);
    }

    #[test]
    fn packing_is_that_of_onnx() {
        let f: Vec<F6E2M3> = [8, 16, 52, 4, 30].map(F6E2M3::from_bits).to_vec();
        assert_eq!(pack(&f).len(), 4);
        assert_eq!(unpack::<F6E2M3>(&pack(&f), 5), f);
        // onnx.helper.make_tensor("x", INT4, [3], [1, 2, -3]) holds 33, 13.
        assert_eq!(pack(&[1, 2, 13].map(I4::from_bits)), [33, 13]);
        assert_eq!(unpack::<I4>(&[33, 13], 3).iter().map(|v| v.value()).collect::<Vec<_>>(), [1, 2, -3]);
        let two: Vec<U2> = [3, 0, 1, 2, 1].map(U2::from_bits).to_vec();
        assert_eq!(pack(&two), [0b10_01_00_11, 1]);
    }
}
