//! Random elements of every type, special ones among them. Only bits and exact operations are used, so a case is the
//! same everywhere.

use isobit_tensor::*;

use crate::draw::Draw;

/// What the elements of one tensor are like.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    /// Uniform in [-2, 2) or the like.
    Ordinary,
    /// Small whole numbers, with ties and repeats.
    Whole,
    /// Ordinary, with a special one now and then.
    Mixed,
    /// Any bits, often special ones.
    Wild,
}

/// Elements of `dtype`, special ones included.
pub(crate) fn tensor(d: &mut Draw, dtype: DType, shape: &[usize]) -> Tensor {
    let style = match d.below(8) {
        0..=2 => Style::Ordinary,
        3..=4 => Style::Whole,
        5..=6 => Style::Mixed,
        _ => Style::Wild,
    };
    styled(d, dtype, shape, style)
}

fn styled(d: &mut Draw, dtype: DType, shape: &[usize], style: Style) -> Tensor {
    let n: usize = shape.iter().product();
    macro_rules! fill {
        ($f:expr) => {{
            let f = $f;
            Tensor::new(shape, (0..n).map(|_| f(&mut *d)).collect())
        }};
    }
    macro_rules! small {
        ($t:ty) => {
            fill!(|d: &mut Draw| <$t>::from_bits(d.bits() as u8))
        };
    }
    let made = match dtype {
        DType::F32 => fill!(|d: &mut Draw| single(d, style)),
        DType::F64 => fill!(|d: &mut Draw| double(d, style)),
        DType::F16 => fill!(|d: &mut Draw| match wild(d, style) {
            true => f16::from_bits(half_bits(d, 0x7c00)),
            false => f16::from_f32(single(d, tame(style))),
        }),
        DType::BF16 => fill!(|d: &mut Draw| match wild(d, style) {
            true => bf16::from_bits(half_bits(d, 0x7f80)),
            false => bf16::from_f32(single(d, tame(style))),
        }),
        DType::I8 => fill!(|d: &mut Draw| whole(d, style, i8::MIN.into(), i8::MAX.into()) as i8),
        DType::I16 => fill!(|d: &mut Draw| whole(d, style, i16::MIN.into(), i16::MAX.into()) as i16),
        DType::I32 => fill!(|d: &mut Draw| whole(d, style, i32::MIN.into(), i32::MAX.into()) as i32),
        DType::I64 => fill!(|d: &mut Draw| whole(d, style, i64::MIN, i64::MAX)),
        DType::U8 => fill!(|d: &mut Draw| whole(d, style, 0, u8::MAX.into()) as u8),
        DType::U16 => fill!(|d: &mut Draw| whole(d, style, 0, u16::MAX.into()) as u16),
        DType::U32 => fill!(|d: &mut Draw| whole(d, style, 0, u32::MAX.into()) as u32),
        DType::U64 => fill!(|d: &mut Draw| whole(d, style, 0, -1) as u64),
        DType::Bool => fill!(|d: &mut Draw| d.coin()),
        DType::String => fill!(|d: &mut Draw| text(d)),
        DType::F8E4M3FN => small!(F8E4M3FN),
        DType::F8E4M3FNUZ => small!(F8E4M3FNUZ),
        DType::F8E5M2 => small!(F8E5M2),
        DType::F8E5M2FNUZ => small!(F8E5M2FNUZ),
        DType::F8E8M0 => small!(F8E8M0),
        DType::F6E2M3 => small!(F6E2M3),
        DType::F6E3M2 => small!(F6E3M2),
        DType::F4E2M1 => small!(F4E2M1),
        DType::U4 => small!(U4),
        DType::I4 => small!(I4),
        DType::U2 => small!(U2),
        DType::I2 => small!(I2),
        DType::Complex64 => fill!(|d: &mut Draw| Complex { re: single(d, style), im: single(d, style) }),
        DType::Complex128 => fill!(|d: &mut Draw| Complex { re: double(d, style), im: double(d, style) }),
        other => unreachable!("{other} is drawn above"),
    };
    made.expect("as many elements as the shape has")
}

/// Whether this element is drawn from all bits.
fn wild(d: &mut Draw, style: Style) -> bool {
    match style {
        Style::Wild => true,
        Style::Mixed => d.once_in(12),
        _ => false,
    }
}

fn tame(style: Style) -> Style {
    if style == Style::Whole { style } else { Style::Ordinary }
}

fn single(d: &mut Draw, style: Style) -> f32 {
    const SPECIAL: [u32; 13] = [
        0,
        0x8000_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        1,
        0x8000_0001,
        0x007f_ffff,
        0x0080_0000,
        0x7f7f_ffff,
        0xff7f_ffff,
        0x3f80_0000,
        0x3f00_0000,
    ];
    if wild(d, style) {
        return f32::from_bits(if d.coin() { d.pick(&SPECIAL) } else { d.bits() });
    }
    match style {
        Style::Whole => d.between(-4, 4) as f32,
        _ => d.unit() * 4.0 - 2.0,
    }
}

fn double(d: &mut Draw, style: Style) -> f64 {
    const SPECIAL: [u64; 11] = [
        0,
        1 << 63,
        0x7ff0 << 48,
        0xfff0 << 48,
        0x7ff8 << 48,
        1,
        (1 << 63) | 1,
        (1 << 52) - 1,
        1 << 52,
        0x7fef_ffff_ffff_ffff,
        0x3ff0 << 48,
    ];
    if wild(d, style) {
        return f64::from_bits(if d.coin() { d.pick(&SPECIAL) } else { d.bits64() });
    }
    match style {
        Style::Whole => d.between(-4, 4) as f64,
        _ => (d.bits64() >> 11) as f64 * (4.0 / 9_007_199_254_740_992.0) - 2.0,
    }
}

/// Any 16 bits, often special ones: zeros, infinities (whose bits are given), NaN, subnormals.
fn half_bits(d: &mut Draw, infinity: u16) -> u16 {
    let special = [0, 0x8000, infinity, infinity | 0x8000, infinity | 0x0040, 1, 0x8001, infinity - 1];
    if d.coin() { d.pick(&special) } else { d.bits() as u16 }
}

/// `high` of -1 with `low` of 0 stands for all 64 bits.
fn whole(d: &mut Draw, style: Style, low: i64, high: i64) -> i64 {
    if wild(d, style) || style == Style::Ordinary && d.once_in(4) {
        return match d.below(4) {
            0 => d.pick(&[low, high, 0, 1]),
            _ => d.bits64() as i64,
        };
    }
    if low == 0 { d.between(0, 7) } else { d.between(-5, 5) }
}

fn text(d: &mut Draw) -> String {
    const WORDS: [&str; 8] = ["", "a", "b", "Isobit", "iso bit", "é", "日本", "0x1.8p3"];
    d.pick(&WORDS).to_owned()
}
