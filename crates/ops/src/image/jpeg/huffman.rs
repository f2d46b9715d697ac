//! Huffman tables.

use super::State;

/// The codes of each length are consecutive.
pub(super) struct Table {
    /// For each length: its first code, how many there are, and where their symbols start.
    lengths: [(u32, u32, usize); 17],
    symbols: Vec<u8>,
}

impl Table {
    pub(super) fn symbol(&self, length: usize, code: u32) -> Option<u8> {
        let (first, count, start) = self.lengths[length];
        let i = code.checked_sub(first).filter(|&i| i < count)?;
        self.symbols.get(start + i as usize).copied()
    }
}

/// The tables of a segment.
pub(super) fn tables(mut segment: &[u8], state: &mut State) -> Option<()> {
    while let [head, rest @ ..] = segment {
        let (counts, rest) = rest.split_at_checked(16)?;
        let total = counts.iter().map(|&c| usize::from(c)).sum();
        let (symbols, after) = rest.split_at_checked(total)?;
        let mut lengths = [(0, 0, 0); 17];
        let (mut code, mut start) = (0u32, 0);
        for (length, &count) in (1..).zip(counts) {
            lengths[length] = (code, count.into(), start);
            code = (code + u32::from(count)) << 1;
            start += usize::from(count);
        }
        let class = if head >> 4 == 0 { &mut state.dc } else { &mut state.ac };
        *class.get_mut(usize::from(head & 15))? = Some(Table { lengths, symbols: symbols.to_vec() });
        segment = after;
    }
    Some(())
}
