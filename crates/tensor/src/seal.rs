//! The roots of many tensors, computed on all cores: BLAKE3 is a tree, so a long tensor is hashed in pieces.

use std::sync::Mutex;

use blake3::hazmat::{ChainingValue, Mode, merge_subtrees_non_root, merge_subtrees_root};

use crate::{Hash, Tensor, cores};

/// Bytes of a piece: a power of two of BLAKE3's chunks.
pub(crate) const PIECE: usize = 1 << 22;

/// What is hashed by itself: a tensor, or a piece of one.
struct Part {
    tensor: usize,
    /// Of how many pieces, and which. A single one is the whole tensor.
    pieces: usize,
    piece: usize,
}

/// As [`Tensor::seal`] and then [`Tensor::release`], for each of them.
pub fn seal(tensors: &mut [&mut Tensor]) {
    let bytes = tensors.iter().map(|t| t.byte_len()).sum();
    let mut parts: Vec<Part> = Vec::new();
    for (tensor, t) in tensors.iter().enumerate() {
        let pieces = if t.sealed().is_none() { t.pieces() } else { 0 };
        parts.extend((0..pieces).map(|piece| Part { tensor, pieces, piece }));
    }
    // The last are worked on first: many small ones at the end are shared out evenly.
    parts.sort_by_key(|part| if part.pieces > 1 { PIECE } else { tensors[part.tensor].byte_len() });
    // Of a tensor that is one piece, its root.
    let values: Mutex<Vec<Vec<Option<ChainingValue>>>> =
        Mutex::new(tensors.iter().map(|_| Vec::new()).collect());
    let shared: &[&mut Tensor] = tensors;
    cores::each(parts, bytes, |part| {
        let tensor = &shared[part.tensor];
        let value = match part.pieces {
            1 => {
                let root = tensor.root();
                tensor.release();
                Some(root.0)
            }
            _ => tensor.piece(part.piece),
        };
        let values = &mut values.lock().unwrap_or_else(|e| e.into_inner())[part.tensor];
        values.resize(part.pieces, None);
        values[part.piece] = value;
    });
    let values = values.into_inner().unwrap_or_else(|e| e.into_inner());
    for (tensor, values) in tensors.iter_mut().zip(values) {
        match values.into_iter().collect::<Option<Vec<_>>>().as_deref() {
            Some(&[root]) => tensor.seal_as(Hash(root)),
            Some(pieces @ [_, _, ..]) => tensor.seal_as(root(pieces)),
            // Sealed before, or with a NaN among its numbers.
            _ => tensor.seal(),
        }
    }
}

/// The hash of a whole of two pieces or more.
fn root(pieces: &[ChainingValue]) -> Hash {
    let (left, right) = halves(pieces);
    merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).into()
}

fn subtree(pieces: &[ChainingValue]) -> ChainingValue {
    match pieces {
        [piece] => *piece,
        _ => {
            let (left, right) = halves(pieces);
            merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
        }
    }
}

/// The left one is the largest power of two that leaves something for the right one.
fn halves(pieces: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    pieces.split_at(1 << (pieces.len() - 1).ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_in_pieces_have_the_root_of_the_whole() {
        let long = |n: usize| Tensor::vector((0..n).map(|i| (i % 9973) as f32 - 0.5).collect::<Vec<_>>());
        let piece = PIECE / 4;
        let head = 256;
        let mut all: Vec<Tensor> = [
            0,
            1,
            piece - head - 1,
            piece - head,
            piece - head + 1,
            piece,
            2 * piece - head,
            2 * piece - head + 1,
            3 * piece + 77,
            4 * piece - head,
            7 * piece + 300,
        ]
        .map(long)
        .into();
        all.push(Tensor::vector(vec![1i64; PIECE]));
        let mut with_nan = vec![1f32; 3 * piece];
        with_nan[2 * piece + 5] = f32::from_bits(0xffc0_1234);
        all.push(Tensor::vector(with_nan));
        let expected: Vec<Hash> = all.iter().map(|t| Hash::of(&t.to_canonical())).collect();
        seal(&mut all.iter_mut().collect::<Vec<_>>());
        for (t, expected) in all.iter().zip(expected) {
            assert_eq!((t.sealed(), t.root()), (Some(expected), expected), "{:?}", t.shape());
        }
        seal(&mut all.iter_mut().collect::<Vec<_>>());
    }
}
