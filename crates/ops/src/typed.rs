//! Dispatch from an element type known at run time to a Rust type.

/// Evaluates `$body` with `$t` naming the Rust element type of `$dtype`; the body is a `Result` whose
/// error is an `OpError`. `plain` leaves out small and complex types, `small` takes nothing else, `numbers`, `floats`
/// and `ints` limit the types further; others are an unsupported-type error.
macro_rules! typed {
    ($dtype:expr, $t:ident => $body:expr) => {
        $crate::typed::typed!(@ $dtype, $t => $body,
            F32: f32, F64: f64, F16: isobit_tensor::f16, BF16: isobit_tensor::bf16,
            I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64,
            Bool: bool, String: String,
            F8E4M3FN: isobit_tensor::F8E4M3FN, F8E4M3FNUZ: isobit_tensor::F8E4M3FNUZ,
            F8E5M2: isobit_tensor::F8E5M2, F8E5M2FNUZ: isobit_tensor::F8E5M2FNUZ,
            F8E8M0: isobit_tensor::F8E8M0, F6E2M3: isobit_tensor::F6E2M3, F6E3M2: isobit_tensor::F6E3M2,
            F4E2M1: isobit_tensor::F4E2M1,
            U4: isobit_tensor::U4, I4: isobit_tensor::I4, U2: isobit_tensor::U2, I2: isobit_tensor::I2,
            Complex64: isobit_tensor::Complex<f32>, Complex128: isobit_tensor::Complex<f64>)
    };
    (plain $dtype:expr, $t:ident => $body:expr) => {
        $crate::typed::typed!(@ $dtype, $t => $body,
            F32: f32, F64: f64, F16: isobit_tensor::f16, BF16: isobit_tensor::bf16,
            I8: i8, I16: i16, I32: i32, I64: i64, U8: u8, U16: u16, U32: u32, U64: u64,
            Bool: bool, String: String)
    };
    (small $dtype:expr, $t:ident => $body:expr) => {
        $crate::typed::typed!(@ $dtype, $t => $body,
            F8E4M3FN: isobit_tensor::F8E4M3FN, F8E4M3FNUZ: isobit_tensor::F8E4M3FNUZ,
            F8E5M2: isobit_tensor::F8E5M2, F8E5M2FNUZ: isobit_tensor::F8E5M2FNUZ,
            F8E8M0: isobit_tensor::F8E8M0, F6E2M3: isobit_tensor::F6E2M3, F6E3M2: isobit_tensor::F6E3M2,
            F4E2M1: isobit_tensor::F4E2M1,
            U4: isobit_tensor::U4, I4: isobit_tensor::I4, U2: isobit_tensor::U2, I2: isobit_tensor::I2)
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
