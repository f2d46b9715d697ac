//! Slices that prove themselves: part of a blob together with the hashes that tie it to the blob's root (bao).

use std::io::{self, Cursor, Read};

use bao_tree::io::outboard::{EmptyOutboard, PreOrderOutboard};
use bao_tree::io::sync::{decode_ranges, encode_ranges_validated, outboard};
use bao_tree::io::{round_up_to_chunks, round_up_to_chunks_groups};
use bao_tree::{BaoTree, BlockSize, ByteRanges, ChunkRanges};
use isobit_tensor::Hash;
use positioned_io::ReadAt;

/// Groups of 16 chunks of BLAKE3, 16 KiB: the finest slices. The inner hashes above them are 0.4 % of a blob.
const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
const GROUP: u64 = 16 << 10;
/// Longest blob whose slices are checked: 2^53 bytes.
const MAX_LENGTH: u64 = 1 << 53;

/// The inner hashes of a blob's tree.
pub(crate) struct Tree {
    pub(crate) root: Hash,
    pub(crate) length: u64,
    /// Pairs of hashes in pre-order; none for a blob of one group.
    pub(crate) pairs: Vec<u8>,
}

impl Tree {
    /// The tree of the `length` bytes that a reader gives.
    pub(crate) fn of(reader: impl Read, length: u64) -> io::Result<Self> {
        let tree = BaoTree::new(length, BLOCK);
        let size = usize::try_from(tree.outboard_size()).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut pairs = PreOrderOutboard { root: blake3_of_nothing(), tree, data: vec![0; size] };
        let root = outboard(reader, tree, &mut pairs)?;
        Ok(Self { root: root.into(), length, pairs: pairs.data })
    }
}

/// A placeholder: the root is not known before the tree is.
fn blake3_of_nothing() -> bao_tree::blake3::Hash {
    Hash::of(b"").0.into()
}

fn groups(start: u64, end: u64) -> ChunkRanges {
    round_up_to_chunks_groups(round_up_to_chunks(&ByteRanges::from(start..end)), BLOCK)
}

/// A slice of a blob whose tree is known; `None` if blob or tree are not what the root says.
pub(crate) fn encode(data: impl ReadAt, tree: &Tree, start: u64, end: u64) -> Option<Vec<u8>> {
    let bao = BaoTree::new(tree.length, BLOCK);
    if tree.pairs.len() as u64 != bao.outboard_size() {
        return None;
    }
    let outboard = PreOrderOutboard { root: tree.root.0.into(), tree: bao, data: &tree.pairs[..] };
    let mut out = Vec::new();
    encode_ranges_validated(data, &outboard, &groups(start, end), &mut out).ok()?;
    Some(out)
}

/// Bytes `start..end` of a blob (rounded out to 16 KiB) with their proof. The encoding is bao's for chunk groups of 16
/// chunks, without a length. `None` for a range that is empty or reaches beyond the end.
pub fn encode_slice(blob: &[u8], start: u64, end: u64) -> Option<Vec<u8>> {
    if start >= end || end > blob.len() as u64 {
        return None;
    }
    encode(blob, &Tree::of(blob, blob.len() as u64).ok()?, start, end)
}

/// The bytes `start..end` of the blob with this root and length, if `slice` proves them and has nothing after it. Memory is
/// bounded by the slice's length.
pub fn verify_slice(root: &Hash, length: u64, start: u64, end: u64, slice: &[u8]) -> Option<Vec<u8>> {
    if start >= end || end > length || length > MAX_LENGTH {
        return None;
    }
    let from = start / GROUP * GROUP;
    let mut part = Part { from, bytes: Vec::new() };
    let outboard = EmptyOutboard { tree: BaoTree::new(length, BLOCK), root: root.0.into() };
    let mut reader = Cursor::new(slice);
    decode_ranges(&mut reader, &groups(start, end), &mut part, outboard).ok()?;
    if reader.position() != slice.len() as u64 {
        return None;
    }
    let (start, end) = (usize::try_from(start - from).ok()?, usize::try_from(end - from).ok()?);
    part.bytes.get(start..end).map(<[u8]>::to_vec)
}

/// Only the slice is kept in memory, wherever in the blob it lies.
struct Part {
    from: u64,
    bytes: Vec<u8>,
}

impl positioned_io::WriteAt for Part {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        if at.checked_sub(self.from) != Some(self.bytes.len() as u64) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
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
        for length in [1usize, 1000, 1024, 1025, 16_384, 16_385, 32_768, 100_000, 1_000_000] {
            let blob: Vec<u8> = (0..length).map(|_| rng.next_u32() as u8).collect();
            let root = Hash::of(&blob);
            assert_eq!(Tree::of(&blob[..], length as u64).unwrap().root, root);
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
                assert_eq!(verify(&[&slice[..], &[0]].concat()), None);
            }
        }
        for (start, end) in [(2, 2), (0, 4), (3, 2), (u64::MAX, 0)] {
            assert_eq!(encode_slice(b"abc", start, end), None);
        }
    }

    /// Whatever is sent, and whatever length and range it is sent for: bytes of the blob or nothing, never a panic.
    #[test]
    fn verifying_is_total() {
        let mut rng = Rng::new(2, 0);
        let blob: Vec<u8> = (0..70_000).map(|_| rng.next_u32() as u8).collect();
        let root = Hash::of(&blob);
        let slice = encode_slice(&blob, 20_000, 40_000).unwrap();
        let far = [0, 1, 16_384, 69_999, 70_000, 70_001, 1 << 40, MAX_LENGTH, u64::MAX - 1, u64::MAX];
        for _ in 0..3_000 {
            let mut bytes = slice.clone();
            for _ in 0..rng.below(3) {
                let (at, to) = (rng.below(bytes.len()), rng.below(bytes.len()));
                match rng.below(3) {
                    0 => bytes[at] = rng.next_u32() as u8,
                    1 => bytes.truncate(at + 1),
                    _ => bytes.swap(at, to),
                }
            }
            let mut pick = |usual: u64| match rng.below(3) {
                0 => far[rng.below(far.len())],
                1 => rng.below(80_000) as u64,
                _ => usual,
            };
            let (length, start, end) = (pick(70_000), pick(20_000), pick(40_000));
            if let Some(found) = verify_slice(&root, length, start, end, &bytes) {
                assert_eq!(found, blob[start as usize..end as usize]);
            }
        }
    }
}
