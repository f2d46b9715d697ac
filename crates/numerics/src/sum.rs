//! Sums in 32 virtual lanes (SEMANTICS.md, section 3).

use crate::{fma, fma64};

/// The number of virtual lanes.
pub const LANES: usize = 32;

macro_rules! lanes {
    ($t:ty, $fma:ident, $fold:ident, $sum:ident, $sum_squares:ident, $sum_abs:ident) => {
        /// Adds 32 lanes in halves: 16, 8, 4, 2, 1.
        pub fn $fold(mut lanes: [$t; LANES]) -> $t {
            let mut half = LANES / 2;
            while half > 0 {
                for l in 0..half {
                    lanes[l] += lanes[l + half];
                }
                half /= 2;
            }
            lanes[0]
        }

        /// The sum of the elements in order.
        pub fn $sum(elements: impl IntoIterator<Item = $t>) -> $t {
            let mut lanes = [0.0; LANES];
            for (i, x) in elements.into_iter().enumerate() {
                lanes[i % LANES] += x;
            }
            $fold(lanes)
        }

        /// The sum of the elements' squares: each lane is a chain of fused multiply-adds.
        pub fn $sum_squares(elements: impl IntoIterator<Item = $t>) -> $t {
            let mut lanes = [0.0; LANES];
            for (i, x) in elements.into_iter().enumerate() {
                lanes[i % LANES] = $fma(x, x, lanes[i % LANES]);
            }
            $fold(lanes)
        }

        /// The sum of the elements' absolute values.
        pub fn $sum_abs(elements: impl IntoIterator<Item = $t>) -> $t {
            $sum(elements.into_iter().map(|x| x.abs()))
        }
    };
}

lanes!(f32, fma, fold_lanes, sum, sum_squares, sum_abs);
lanes!(f64, fma64, fold_lanes64, sum64, sum_squares64, sum_abs64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_small_integers_are_exact() {
        for n in [0usize, 1, 31, 32, 33, 1000] {
            let expected = (n * n.saturating_sub(1) / 2) as f32;
            assert_eq!(sum((0..n).map(|i| i as f32)), expected);
            assert_eq!(sum64((0..n).map(|i| i as f64)), f64::from(expected));
        }
        assert_eq!(sum_squares([3.0, 4.0]), 25.0);
        assert_eq!(sum_abs([3.0, -4.0]), 7.0);
    }

    #[test]
    fn an_element_goes_to_its_index_mod_32() {
        // 2^24 in lane 0 absorbs a 1 added to the same lane, but not two ones that meet first.
        let mut x = [0f32; 65];
        x[0] = 16777216.0;
        x[32] = 1.0;
        x[64] = 1.0;
        assert_eq!(sum(x), 16777216.0);
        x[32] = 0.0;
        x[64] = 0.0;
        x[1] = 1.0;
        x[33] = 1.0;
        assert_eq!(sum(x), 16777218.0);
    }
}
