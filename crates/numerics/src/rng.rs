//! Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). A number is a function of seed, stream and
//! position, so it does not depend on who draws it or in which order.

/// One Philox4x32-10 block.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let p0 = u64::from(c[0]) * 0xD251_1F53;
        let p1 = u64::from(c[2]) * 0xCD9E_8D57;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// The numbers of one stream, in order: block `i` has the counter (i, stream) and the seed as its key.
#[derive(Debug, Clone)]
pub struct Rng {
    key: [u32; 2],
    stream: u64,
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Rng {
    /// The stream `stream` of `seed`, from its beginning.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], stream, block: 0, words: [0; 4], used: 4 }
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            let (i, s) = (self.block, self.stream);
            self.words = philox([i as u32, (i >> 32) as u32, s as u32, (s >> 32) as u32], self.key);
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// The next 64 bits, the low half first.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        u64::from(self.next_u32()) << 32 | low
    }

    /// Uniform in `[0, 1)`: the top 24 bits of one word, times 2^-24.
    pub fn f32_unit(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[0, 1)`: the top 53 bits of 64, times 2^-53.
    pub fn f64_unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// A standard normal number, by Box and Muller's transform in f32: with u and v the next two of
    /// [`Rng::f32_unit`], `sqrt(-2 * ln(1 - u)) * cos(v * 2pi)`, each step rounded, 2pi rounded to f32.
    pub fn f32_normal(&mut self) -> f32 {
        let (u, v) = (self.f32_unit(), self.f32_unit());
        (-2.0 * crate::ln(1.0 - u)).sqrt() * crate::cos(v * std::f32::consts::TAU)
    }

    /// Uniform in `0..n`: the high half of a 64 by 64 bit product (its bias is below `n * 2^-64`).
    ///
    /// # Panics
    /// When `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0);
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Any f32, often a special one: for tests.
    pub fn f32_any(&mut self) -> f32 {
        const SPECIAL: [u32; 12] = [
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
            0x3f80_0000,
            0xbf80_0000,
        ];
        match self.below(4) {
            0 => f32::from_bits(SPECIAL[self.below(SPECIAL.len())]),
            _ => f32::from_bits(self.next_u32()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_known_answers() {
        // Random123, kat_vectors, philox4x32 with 10 rounds.
        let max = u32::MAX;
        for (counter, key, expected) in [
            ([0; 4], [0; 2], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]),
            ([max; 4], [max; 2], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]),
            (
                [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
                [0xa4093822, 0x299f31d0],
                [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
            ),
        ] {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn normal_numbers_have_the_normal_moments() {
        let mut r = Rng::new(3, 0);
        let x: Vec<f64> = (0..100_000).map(|_| f64::from(r.f32_normal())).collect();
        let moment = |n: i32| x.iter().map(|&x| (0..n).fold(1.0, |y, _| y * x)).sum::<f64>() / x.len() as f64;
        for (n, expected, deviation) in [(1, 0.0, 0.02), (2, 1.0, 0.03), (3, 0.0, 0.06), (4, 3.0, 0.2)] {
            assert!((moment(n) - expected).abs() < deviation, "moment {n}: {}", moment(n));
        }
    }

    #[test]
    fn streams_are_apart_and_repeatable() {
        let draw = |seed, stream| {
            let mut r = Rng::new(seed, stream);
            [r.next_u64(), r.next_u64(), r.next_u64()]
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }
}
