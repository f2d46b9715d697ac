//! Slices that prove themselves: part of a blob together with the hashes that tie it to the blob's root (bao).

use std::io::Cursor;

use bao_tree::io::outboard::{EmptyOutboard, PreOrderMemOutboard};
use bao_tree::io::round_up_to_chunks;
use bao_tree::io::sync::{decode_ranges, encode_ranges_validated};
use bao_tree::{BaoTree, BlockSize, ByteRanges};
use isobit_tensor::Hash;

/// One chunk of BLAKE3, 1,024 bytes: the finest slices.
const BLOCK: BlockSize = BlockSize::ZERO;

/// Bytes `start..end` of a blob (rounded out to chunks) with their proof. The encoding is bao's, without a length.
pub fn encode_slice(blob: &[u8], start: u64, end: u64) -> Option<Vec<u8>> {
    if start >= end || end > blob.len() as u64 {
        return None;
    }
    let outboard = PreOrderMemOutboard::create(blob, BLOCK);
    let ranges = round_up_to_chunks(&ByteRanges::from(start..end));
    let mut out = Vec::new();
    encode_ranges_validated(blob, &outboard, &ranges, &mut out).ok()?;
    Some(out)
}

/// The bytes `start..end` of the blob with this root and length, if `slice` proves them.
pub fn verify_slice(root: &Hash, length: u64, start: u64, end: u64, slice: &[u8]) -> Option<Vec<u8>> {
    if start >= end || end > length {
        return None;
    }
    let tree = BaoTree::new(length, BLOCK);
    let ranges = round_up_to_chunks(&ByteRanges::from(start..end));
    let from = start / 1024 * 1024;
    let mut part = Part { from, bytes: Vec::new() };
    let outboard = EmptyOutboard { tree, root: root.0.into() };
    decode_ranges(Cursor::new(slice), &ranges, &mut part, outboard).ok()?;
    let (start, end) = (usize::try_from(start - from).ok()?, usize::try_from(end - from).ok()?);
    part.bytes.get(start..end).map(<[u8]>::to_vec)
}

/// Only the slice is kept in memory, wherever in the blob it lies.
struct Part {
    from: u64,
    bytes: Vec<u8>,
}

impl positioned_io::WriteAt for Part {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> std::io::Result<usize> {
        let at = at.checked_sub(self.from).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|&at| at == self.bytes.len()).ok_or(std::io::ErrorKind::InvalidInput)?;
        debug_assert_eq!(at, self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_numerics::rng::Rng;

    #[test]
    fn slices_prove_themselves_and_nothing_else() {
        let mut rng = Rng::new(1, 0);
        for length in [1usize, 1000, 1024, 1025, 5000, 100_000] {
            let blob: Vec<u8> = (0..length).map(|_| rng.next_u32() as u8).collect();
            let root = Hash::of(&blob);
            for _ in 0..20 {
                let start = rng.below(length);
                let end = start + 1 + rng.below(length - start);
                let slice = encode_slice(&blob, start as u64, end as u64).unwrap();
                let verify = |s: &[u8]| verify_slice(&root, length as u64, start as u64, end as u64, s);
                assert_eq!(verify(&slice).as_deref(), Some(&blob[start..end]));
                let mut bad = slice.clone();
                let at = rng.below(bad.len());
                bad[at] ^= 1 << rng.below(8);
                assert_eq!(verify(&bad), None);
                assert_eq!(verify(&slice[..slice.len() - 1]), None);
            }
        }
        assert_eq!(encode_slice(b"abc", 2, 2), None);
        assert_eq!(encode_slice(b"abc", 0, 4), None);
    }
}
