//! Bits of entropy-coded data.

use super::huffman::Table;

pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    held: u32,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, held: 0, count: 0 }
    }

    pub(super) fn bit(&mut self) -> Option<u32> {
        if self.count == 0 {
            let byte = *self.data.get(self.at)?;
            self.at += 1;
            if byte == 0xff {
                // A 0 is stuffed after each 0xff; anything else is a marker.
                if *self.data.get(self.at)? != 0 {
                    return None;
                }
                self.at += 1;
            }
            (self.held, self.count) = (byte.into(), 8);
        }
        self.count -= 1;
        Some(self.held >> self.count & 1)
    }

    pub(super) fn bits(&mut self, n: u32) -> Option<i32> {
        (0..n).try_fold(0, |v, _| Some(v << 1 | self.bit()? as i32))
    }

    /// A number of `n` bits, whose first says its sign.
    pub(super) fn signed(&mut self, n: u32) -> Option<i32> {
        if n == 0 {
            return Some(0);
        }
        let v = self.bits(n)?;
        Some(if v < 1 << (n - 1) { v - (1 << n) + 1 } else { v })
    }

    pub(super) fn symbol(&mut self, table: &Table) -> Option<u8> {
        let mut code = 0;
        for length in 1..=16 {
            code = code << 1 | self.bit()?;
            if let Some(symbol) = table.symbol(length, code) {
                return Some(symbol);
            }
        }
        None
    }

    /// Drops the rest of a byte and reads the restart marker `n`.
    pub(super) fn restart(&mut self, n: usize) -> Option<()> {
        self.count = 0;
        let marker = self.data.get(self.at..self.at + 2)?;
        self.at += 2;
        (marker == [0xff, 0xd0 + (n % 8) as u8]).then_some(())
    }

    /// Bytes read.
    pub(super) fn position(&self) -> usize {
        self.at
    }
}
