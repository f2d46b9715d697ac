//! How much an ABI encoding unfolds to. Offsets may point to the same bytes again and again, so that 100 kB of calldata can mean
//! gigabytes: what an encoder writes uses each byte once, and nothing else is decoded.

/// A type as its encoding is laid out.
pub(super) enum Layout {
    /// One word.
    Word,
    /// `bytes` or `string`.
    Bytes,
    /// `T[]`.
    List(&'static Layout),
    /// A tuple; whether it is dynamic, and its fields.
    Tuple(bool, &'static [Layout]),
}

use Layout::{Bytes, List, Tuple, Word};

const NUMBER: Layout = Tuple(false, &[Word, Word]);
const NUMBER_TENSOR: Layout = Tuple(true, &[Bytes, List(&NUMBER), List(&Word)]);
const STRING_TENSOR: Layout = Tuple(true, &[Bytes, List(&Bytes)]);
const INPUT: Layout = Tuple(true, &[List(&NUMBER_TENSOR), List(&STRING_TENSOR)]);
/// Arguments of the hub's `run`.
pub(super) const RUN: Layout = Tuple(true, &[Bytes, Word, INPUT]);
/// Arguments of the precompile's `runModelInference`.
pub(super) const REQUEST: Layout = Tuple(true, &[Tuple(true, &[Word, Bytes, INPUT])]);

impl Layout {
    fn is_dynamic(&self) -> bool {
        match self {
            Word => false,
            Bytes | List(_) => true,
            Tuple(dynamic, _) => *dynamic,
        }
    }

    /// Words in the head of whatever holds it.
    fn head(&self) -> usize {
        match self {
            Tuple(false, fields) => fields.iter().map(Layout::head).sum(),
            _ => 1,
        }
    }

    /// Whether the arguments in `data`, without the selector, unfold to no more than `data` itself.
    pub(super) fn fits(&self, data: &[u8]) -> bool {
        let mut budget = data.len();
        self.walk(data, 0, &mut budget).is_some()
    }

    /// Takes what is at `at` off the budget; `None` if it is not there, or is too much.
    fn walk(&self, data: &[u8], at: usize, budget: &mut usize) -> Option<()> {
        match self {
            Word => spend(budget, 32),
            Bytes => {
                let length = word(data, at)?;
                (at.checked_add(32)?.checked_add(length)? <= data.len()).then_some(())?;
                spend(budget, 32 + length.div_ceil(32) * 32)
            }
            List(item) => {
                let length = word(data, at)?;
                spend(budget, 32)?;
                let items = at.checked_add(32)?;
                let head = item.head() * 32;
                (length.checked_mul(head)?.checked_add(items)? <= data.len()).then_some(())?;
                for i in 0..length {
                    item.field(data, items, items + i * head, budget)?;
                }
                Some(())
            }
            Tuple(_, fields) => {
                let mut head = at;
                for field in *fields {
                    field.field(data, at, head, budget)?;
                    head = head.checked_add(field.head() * 32)?;
                }
                Some(())
            }
        }
    }

    /// A field whose head is at `head`, in something whose offsets count from `base`.
    fn field(&self, data: &[u8], base: usize, head: usize, budget: &mut usize) -> Option<()> {
        if self.is_dynamic() {
            spend(budget, 32)?;
            self.walk(data, base.checked_add(word(data, head)?)?, budget)
        } else {
            self.walk(data, head, budget)
        }
    }
}

fn spend(budget: &mut usize, bytes: usize) -> Option<()> {
    *budget = budget.checked_sub(bytes)?;
    Some(())
}

/// A word that is a length or an offset.
fn word(data: &[u8], at: usize) -> Option<usize> {
    let word = data.get(at..at.checked_add(32)?)?;
    let (high, low) = word.split_at(28);
    high.iter().all(|b| *b == 0).then(|| u32::from_be_bytes(low.try_into().expect("four bytes")) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[usize]) -> Vec<u8> {
        words.iter().flat_map(|w| [vec![0; 24], (*w as u64).to_be_bytes().to_vec()].concat()).collect()
    }

    /// A list of lists that all point to the same one.
    #[test]
    fn sharing_is_refused() {
        const LISTS: Layout = Tuple(true, &[List(&List(&Bytes))]);
        // One list with one list with one string of 32 bytes: what an encoder writes.
        let honest = words(&[32, 1, 32, 1, 32, 32, 7]);
        assert!(LISTS.fits(&honest));
        // Two outer items at one inner list, whose two items are at one string.
        let shared = words(&[32, 2, 64, 64, 2, 64, 64, 32, 7]);
        assert!(!LISTS.fits(&shared));
        for cut in 0..honest.len() {
            assert!(!LISTS.fits(&honest[..cut]), "cut at {cut}");
        }
        let mut endless = honest.clone();
        endless[32 + 31] = 0xff;
        assert!(!LISTS.fits(&endless));
    }
}
