//! Argument reduction modulo pi/2 for arguments of any size (Payne and Hanek, 1983).

use super::dd::Dd;

/// 64 zero bits, then the fraction bits of 2/pi.
#[rustfmt::skip]
const TWO_OVER_PI: [u64; 21] = [
    0, 0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561, 0xb7246e3a424dd2e0,
    0x06492eea09d1921c, 0xfe1deb1cb129a73e, 0xe88235f52ebb4484, 0xe99c7026b45f7e41, 0x3991d639835339f4,
    0x9c845f8bbdf9283b, 0x1ff897ffde05980f, 0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b6bab, 0xf0cfbc209af4361d,
];
const PI_2: Dd = Dd::new(std::f64::consts::FRAC_PI_2, 6.123233995736766e-17);

/// (r, k) with a = k pi/2 + r and |r| at most pi/4, for a finite a >= 0; k counts modulo 4.
pub(super) fn reduce(a: f64) -> (Dd, u64) {
    if a < 0.785 {
        return (Dd::from(a), 0);
    }
    let bits = a.to_bits();
    let m = bits & ((1 << 52) - 1) | 1 << 52;
    let exponent = (bits >> 52) as i64 - 1075;
    // a = m 2^exponent. Bits of 2/pi worth a multiple of 4 after the product do not matter; 256 follow them.
    let skip = (exponent - 2 + 64) as usize;
    let mut product = [0u64; 4];
    let mut carry = 0u128;
    for i in 0..4 {
        let at = skip + 192 - 64 * i;
        let (word, shift) = (at / 64, at % 64);
        let next = TWO_OVER_PI.get(word + 1).map_or(0, |&w| (u128::from(w) << shift >> 64) as u64);
        let window = TWO_OVER_PI[word] << shift | next;
        let sum = u128::from(window) * u128::from(m) + carry;
        product[3 - i] = sum as u64;
        carry = sum >> 64;
    }
    // Two bits of quadrant, 254 of fraction.
    let mut k = product[0] >> 62;
    let high =
        u128::from(product[0] << 2 | product[1] >> 62) << 64 | u128::from(product[1] << 2 | product[2] >> 62);
    let low = u128::from(product[2] << 2 | product[3] >> 62) << 64 | u128::from(product[3] << 2);
    let up = high >> 127 == 1;
    let (high, low) = if up {
        k += 1;
        (!high + u128::from(low == 0), low.wrapping_neg())
    } else {
        (high, low)
    };
    let zeros = high.leading_zeros();
    let top = if zeros == 0 { high } else { high << zeros | low >> (128 - zeros) };
    // 53 bits, then 53 more, both exact.
    let unit = f64::from_bits((1023 - u64::from(zeros) - 53) << 52);
    let first = (top >> 75) as f64 * unit;
    let second = (top >> 22 & ((1 << 53) - 1)) as f64 * (unit * (1.0 / (1u64 << 53) as f64));
    let r = (Dd::from(first) + Dd::from(second)) * PI_2;
    (if up { r.neg() } else { r }, k & 3)
}
