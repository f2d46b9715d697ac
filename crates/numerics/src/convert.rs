//! Conversions between element types (SEMANTICS.md, sections 5 and 6).

/// The canonical quiet NaN in place of any NaN: what is read when bits are read.
#[inline(always)]
pub fn canonical(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(0x7fc0_0000) } else { x }
}

/// The bits of `x`, a NaN's being `0x7fc00000`.
#[inline(always)]
pub fn canonical_bits(x: f32) -> u32 {
    canonical(x).to_bits()
}

/// Nearest integer, ties to even; exact, signed zero kept.
#[inline(always)]
pub fn round_ties_even(x: f32) -> f32 {
    x.round_ties_even()
}
