//! The inverse transform of a block: Loeffler, Ligtenberg and Moschytz's algorithm in integers with 13 fractional bits, columns
//! first, as the Independent JPEG Group's accurate method defines it.

const HALF: u32 = 13;
const PASS: u32 = 2;

/// The 64 samples of a block of coefficients, each times its step.
pub(super) fn idct(block: &[i16], steps: &[u16; 64]) -> [u8; 64] {
    let mut columns = [0i64; 64];
    for x in 0..8 {
        let input: [i64; 8] =
            std::array::from_fn(|y| i64::from(block[8 * y + x]) * i64::from(steps[8 * y + x]));
        let output = line(input, HALF - PASS);
        (0..8).for_each(|y| columns[8 * y + x] = output[y]);
    }
    let mut out = [0; 64];
    for y in 0..8 {
        let input: [i64; 8] = std::array::from_fn(|x| columns[8 * y + x]);
        let output = line(input, HALF + PASS + 3);
        (0..8).for_each(|x| out[8 * y + x] = (output[x] + 128).clamp(0, 255) as u8);
    }
    out
}

/// One line of eight, rounded to lose `shift` bits.
fn line(i: [i64; 8], shift: u32) -> [i64; 8] {
    let z1 = (i[2] + i[6]) * 4433;
    let (t2, t3) = (z1 - i[6] * 15_137, z1 + i[2] * 6270);
    let (t0, t1) = ((i[0] + i[4]) << HALF, (i[0] - i[4]) << HALF);
    let even = [t0 + t3, t1 + t2, t1 - t2, t0 - t3];

    let z5 = (i[7] + i[3] + i[5] + i[1]) * 9633;
    let z1 = (i[7] + i[1]) * -7373;
    let z2 = (i[5] + i[3]) * -20_995;
    let z3 = (i[7] + i[3]) * -16_069 + z5;
    let z4 = (i[5] + i[1]) * -3196 + z5;
    let odd =
        [i[1] * 12_299 + z1 + z4, i[3] * 25_172 + z2 + z3, i[5] * 16_819 + z2 + z4, i[7] * 2446 + z1 + z3];
    let round = |v: i64| (v + (1 << (shift - 1))) >> shift;
    std::array::from_fn(|n| if n < 4 { round(even[n] + odd[n]) } else { round(even[7 - n] - odd[7 - n]) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_near_the_exact_transform() {
        let mut block = [0i16; 64];
        for (i, b) in block.iter_mut().enumerate() {
            *b = ((i as i16 * 37) % 41 - 20) / (1 + i as i16 / 8);
        }
        let out = idct(&block, &[3; 64]);
        let pi = std::f64::consts::PI;
        for y in 0..8 {
            for x in 0..8 {
                let mut sum = 0.0;
                for v in 0..8 {
                    for u in 0..8 {
                        let c = |k: usize| if k == 0 { 0.5f64.sqrt() } else { 1.0 };
                        let cos = |n: usize, k: usize| {
                            isobit_numerics::cos64((2 * n + 1) as f64 * k as f64 * pi / 16.0)
                        };
                        sum += c(u) * c(v) * f64::from(block[8 * v + u]) * 3.0 * cos(x, u) * cos(y, v) / 4.0;
                    }
                }
                let exact = (sum + 128.0).clamp(0.0, 255.0);
                assert!((f64::from(out[8 * y + x]) - exact).abs() <= 0.6, "{x}, {y}");
            }
        }
        assert_eq!(idct(&[0; 64], &[1; 64]), [128; 64]);
    }
}
