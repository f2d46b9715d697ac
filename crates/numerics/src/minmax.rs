//! Maximum, minimum and Relu with written rules for NaN and signed zero (SEMANTICS.md, section 6).

macro_rules! minmax {
    ($t:ty, $max:ident, $min:ident, $relu:ident) => {
        /// The larger: NaN if either is NaN; +0 is larger than -0.
        #[inline(always)]
        pub fn $max(a: $t, b: $t) -> $t {
            if a.is_nan() || b.is_nan() {
                <$t>::NAN
            } else if a > b || (a == b && b.is_sign_negative()) {
                a
            } else {
                b
            }
        }

        /// The smaller: NaN if either is NaN; -0 is smaller than +0.
        #[inline(always)]
        pub fn $min(a: $t, b: $t) -> $t {
            if a.is_nan() || b.is_nan() {
                <$t>::NAN
            } else if a < b || (a == b && a.is_sign_negative()) {
                a
            } else {
                b
            }
        }

        /// `max(x, +0)`: NaN stays NaN, -0 becomes +0.
        #[inline(always)]
        pub fn $relu(x: $t) -> $t {
            if x <= 0.0 { 0.0 } else { x }
        }
    };
}

minmax!(f32, max, min, relu);
minmax!(f64, max64, min64, relu64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges() {
        assert!(max(f32::NAN, 1.0).is_nan() && max(1.0, f32::NAN).is_nan());
        assert!(min(f32::NAN, 1.0).is_nan() && min(1.0, f32::NAN).is_nan());
        for (a, b) in [(0.0f32, -0.0f32), (-0.0, 0.0)] {
            assert_eq!(max(a, b).to_bits(), 0);
            assert_eq!(min(a, b).to_bits(), 1 << 31);
        }
        assert_eq!(max(-1.0, 2.0), 2.0);
        assert_eq!(min64(-1.0, 2.0), -1.0);
        assert_eq!(relu(-0.0).to_bits(), 0);
        assert!(relu(f32::NAN).is_nan());
    }
}
