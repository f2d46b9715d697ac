use std::fmt;

use crate::small::*;
use crate::{Buf, Data, bf16, f16};

macro_rules! dtypes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $bits:literal;)*) => {
        /// An ONNX element type (`TensorProto.DataType`), under ONNX's own number.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum DType { $($(#[$doc])* $name = $code,)* }

        impl DType {
            /// Every element type, in ONNX's numbering.
            pub const ALL: &'static [DType] = &[$(DType::$name,)*];

            /// The type with this `TensorProto.DataType` number.
            pub fn from_onnx(code: i32) -> Option<Self> {
                match code { $($code => Some(DType::$name),)* _ => None }
            }

            /// ONNX's name in lower case, which is also NumPy's where NumPy has one.
            pub fn name(self) -> &'static str {
                match self { $(DType::$name => $text,)* }
            }

            /// The type of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(DType::$name),)* _ => None }
            }

            /// Width of one element in bits; 0 for strings.
            pub fn bits(self) -> usize {
                match self { $(DType::$name => $bits,)* }
            }
        }
    };
}

dtypes! {
    /// IEEE 754 binary32.
    F32 = 1, "float32", 32;
    /// Unsigned 8-bit.
    U8 = 2, "uint8", 8;
    /// Signed 8-bit.
    I8 = 3, "int8", 8;
    /// Unsigned 16-bit.
    U16 = 4, "uint16", 16;
    /// Signed 16-bit.
    I16 = 5, "int16", 16;
    /// Signed 32-bit.
    I32 = 6, "int32", 32;
    /// Signed 64-bit.
    I64 = 7, "int64", 64;
    /// UTF-8 string.
    String = 8, "string", 0;
    /// Boolean, one byte.
    Bool = 9, "bool", 8;
    /// IEEE 754 binary16.
    F16 = 10, "float16", 16;
    /// IEEE 754 binary64.
    F64 = 11, "float64", 64;
    /// Unsigned 32-bit.
    U32 = 12, "uint32", 32;
    /// Unsigned 64-bit.
    U64 = 13, "uint64", 64;
    /// Two binary32.
    Complex64 = 14, "complex64", 64;
    /// Two binary64.
    Complex128 = 15, "complex128", 128;
    /// bfloat16.
    BF16 = 16, "bfloat16", 16;
    /// 8-bit float, E4M3, finite and NaN.
    F8E4M3FN = 17, "float8e4m3fn", 8;
    /// 8-bit float, E4M3, finite, NaN, no negative zero.
    F8E4M3FNUZ = 18, "float8e4m3fnuz", 8;
    /// 8-bit float, E5M2.
    F8E5M2 = 19, "float8e5m2", 8;
    /// 8-bit float, E5M2, finite, NaN, no negative zero.
    F8E5M2FNUZ = 20, "float8e5m2fnuz", 8;
    /// Unsigned 4-bit.
    U4 = 21, "uint4", 4;
    /// Signed 4-bit.
    I4 = 22, "int4", 4;
    /// 4-bit float, E2M1.
    F4E2M1 = 23, "float4e2m1", 4;
    /// 8-bit float, E8M0 (a power of two).
    F8E8M0 = 24, "float8e8m0", 8;
    /// Unsigned 2-bit.
    U2 = 25, "uint2", 2;
    /// Signed 2-bit.
    I2 = 26, "int2", 2;
    /// 6-bit float, E2M3.
    F6E2M3 = 27, "float6e2m3", 6;
    /// 6-bit float, E3M2.
    F6E3M2 = 28, "float6e3m2", 6;
}

impl DType {
    /// The `TensorProto.DataType` number.
    pub fn onnx(self) -> i32 {
        self as i32
    }

    /// True for the float types of any width.
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(
            self,
            F32 | F16
                | F64
                | BF16
                | F8E4M3FN
                | F8E4M3FNUZ
                | F8E5M2
                | F8E5M2FNUZ
                | F4E2M1
                | F8E8M0
                | F6E2M3
                | F6E3M2
        )
    }

    /// True for the types that are kept as bits in one byte and packed in their canonical bytes.
    pub fn is_small(self) -> bool {
        use DType::*;
        matches!(self, F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | F6E2M3 | F6E3M2 | F4E2M1)
            || matches!(self, U4 | I4 | U2 | I2)
    }

    /// True for signed and unsigned integers of any width (not for `bool`).
    pub fn is_int(self) -> bool {
        use DType::*;
        matches!(self, U8 | I8 | U16 | I16 | I32 | I64 | U32 | U64 | U4 | I4 | U2 | I2)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is the element of a [`Tensor`](crate::Tensor).
pub trait Element: Clone + Default + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The ONNX element type.
    const DTYPE: DType;
    /// Wraps a buffer.
    fn wrap(buf: Buf<Self>) -> Data;
    /// The buffer, where `data` holds this type.
    fn view(data: &Data) -> Option<&Buf<Self>>;
    /// Takes the buffer out, or hands `data` back.
    fn unwrap(data: Data) -> Result<Buf<Self>, Data>;
}

macro_rules! elements {
    ($($t:ty => $v:ident,)*) => {$(
        impl Element for $t {
            const DTYPE: DType = DType::$v;
            fn wrap(buf: Buf<Self>) -> Data { Data::$v(buf) }
            fn view(data: &Data) -> Option<&Buf<Self>> {
                match data { Data::$v(b) => Some(b), _ => None }
            }
            fn unwrap(data: Data) -> Result<Buf<Self>, Data> {
                match data { Data::$v(b) => Ok(b), other => Err(other) }
            }
        }
    )*};
}

elements! {
    f32 => F32, f64 => F64, f16 => F16, bf16 => BF16,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
    bool => Bool, String => String,
    F8E4M3FN => F8E4M3FN, F8E4M3FNUZ => F8E4M3FNUZ, F8E5M2 => F8E5M2, F8E5M2FNUZ => F8E5M2FNUZ,
    F8E8M0 => F8E8M0, F6E2M3 => F6E2M3, F6E3M2 => F6E3M2, F4E2M1 => F4E2M1,
    U4 => U4, I4 => I4, U2 => U2, I2 => I2,
    Complex<f32> => Complex64, Complex<f64> => Complex128,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onnx_numbers_round_trip() {
        for &t in DType::ALL {
            assert_eq!(DType::from_onnx(t.onnx()), Some(t));
        }
        assert_eq!(DType::from_onnx(0), None);
        assert_eq!(DType::from_onnx(99), None);
        assert_eq!(DType::ALL.len(), 28);
    }
}
