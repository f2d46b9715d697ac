//! Dispatch from an element type known at run time to a Rust type.

/// Evaluates `$body` with `$t` naming the Rust element type of `$dtype`; the body is a `Result` whose
/// error is an `OpError`. `numbers`, `floats` and `ints` limit the types; others are an unsupported-type error.
macro_rules! typed {
    ($dtype:expr, $t:ident => $body:expr) => {
        $crate::typed::typed!(@ $dtype, $t => $body,
            F32: f32, F64: f64, F16: isobit_tensor::f16, BF16: isobit_tensor::bf16,
            I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64,
            Bool: bool, String: String)
    };
    (numbers $dtype:expr, $t:ident => $body:expr) => {
        $crate::typed::typed!(@ $dtype, $t => $body,
            F32: f32, F64: f64, F16: isobit_tensor::f16, BF16: isobit_tensor::bf16,
            I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64)
    };
    (floats $dtype:expr, $t:ident => $body:expr) => {
        $crate::typed::typed!(@ $dtype, $t => $body,
            F32: f32, F64: f64, F16: isobit_tensor::f16, BF16: isobit_tensor::bf16)
    };
    (ints $dtype:expr, $t:ident => $body:expr) => {
        $crate::typed::typed!(@ $dtype, $t => $body,
            I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64)
    };
    (@ $dtype:expr, $t:ident => $body:expr, $($v:ident: $ty:ty),*) => {
        match $dtype {
            $(isobit_tensor::DType::$v => { type $t = $ty; $body })*
            other => Err($crate::OpError::unsupported_type(other)),
        }
    };
}

pub(crate) use typed;
