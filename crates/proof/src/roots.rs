use isobit_tensor::{Hash, Tensor};

const MAGIC: &[u8; 8] = b"isobitN1";
/// Most tensors in a set, and longest name, that are read.
const MAX_TENSORS: usize = 4096;
const MAX_NAME: usize = 4096;

/// The root of an ordered set of named tensors: BLAKE3 of [`encode_set`]. So the encoding, as a blob, has the root as its
/// name, and names the tensors' own blobs.
pub fn tensors_root<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Hash {
    set_root(tensors.into_iter().map(|(name, t)| (name, t.root())))
}

/// The root of an ordered set of names and tensor roots, for who has the roots and not the tensors.
pub fn set_root<'a>(set: impl IntoIterator<Item = (&'a str, Hash)>) -> Hash {
    Hash::of(&encode_set(set))
}

/// `isobitN1`, then for each tensor its name's length (u64 little-endian), its name in UTF-8, its root.
pub fn encode_set<'a>(set: impl IntoIterator<Item = (&'a str, Hash)>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, root) in set {
        bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(root.as_bytes());
    }
    bytes
}

/// Reads what [`encode_set`] writes, and nothing else.
pub fn decode_set(bytes: &[u8]) -> Option<Vec<(String, Hash)>> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut set = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok().filter(|&n| n <= MAX_NAME)?;
        let (name, tail) = tail.split_at_checked(length)?;
        let (root, tail) = tail.split_first_chunk::<32>()?;
        set.push((std::str::from_utf8(name).ok()?.to_owned(), Hash(*root)));
        if set.len() > MAX_TENSORS {
            return None;
        }
        rest = tail;
    }
    Some(set)
}

const TENSORS: &[u8; 8] = b"isobitV1";

/// Length of the head of a canonical encoding, which is mostly zeros.
const HEAD: usize = 1024;

/// Named tensors themselves, in order: `isobitV1`, then for each tensor its name's length (u64 little-endian) and its name in
/// UTF-8, ONNX's number of its element type (u32 little-endian), its rank (u32), its extents (u64 each), the length of its
/// content (u64) and its content as in the canonical encoding.
pub fn encode_tensors<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Vec<u8> {
    let mut bytes = TENSORS.to_vec();
    for (name, tensor) in tensors {
        let canonical = tensor.to_canonical();
        let (head, content) = canonical.split_at(HEAD);
        let rank = tensor.shape().len();
        bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(&head[8..16 + 8 * rank]);
        bytes.extend_from_slice(&(content.len() as u64).to_le_bytes());
        bytes.extend_from_slice(content);
    }
    bytes
}

/// Bytes that [`encode_tensors`] does not write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorsError {
    /// Another beginning.
    #[error("they do not begin with isobitV1")]
    Magic,
    /// They end in the middle, or a name is too long or no UTF-8.
    #[error("tensor {0} is cut short, or its name is malformed")]
    Cut(usize),
    /// Too many tensors.
    #[error("there are more than {MAX_TENSORS} tensors")]
    TooMany,
    /// A tensor's own encoding.
    #[error("tensor '{name}': {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        source: isobit_tensor::TensorError,
    },
}

/// Reads what [`encode_tensors`] writes, and nothing else.
pub fn decode_tensors(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, TensorsError> {
    let mut rest = bytes.strip_prefix(TENSORS).ok_or(TensorsError::Magic)?;
    let mut set = Vec::new();
    while !rest.is_empty() {
        if set.len() == MAX_TENSORS {
            return Err(TensorsError::TooMany);
        }
        let (name, canonical, tail) = split_tensor(rest).ok_or(TensorsError::Cut(set.len()))?;
        let tensor = Tensor::from_canonical(&canonical)
            .map_err(|source| TensorsError::Tensor { name: name.to_owned(), source })?;
        set.push((name.to_owned(), tensor));
        rest = tail;
    }
    Ok(set)
}

/// The first tensor's name and canonical encoding, and what follows.
fn split_tensor(bytes: &[u8]) -> Option<(&str, Vec<u8>, &[u8])> {
    fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
        let (length, tail) = bytes.split_first_chunk::<8>()?;
        Some((usize::try_from(u64::from_le_bytes(*length)).ok()?, tail))
    }
    let (n, tail) = length(bytes)?;
    let (name, tail) = tail.split_at_checked(n).filter(|_| n <= MAX_NAME)?;
    let (_, after_type) = tail.split_first_chunk::<4>()?;
    let (rank, _) = after_type.split_first_chunk::<4>()?;
    let dims = usize::try_from(u32::from_le_bytes(*rank)).ok()?.checked_mul(8).filter(|d| *d <= HEAD - 16)?;
    let (head, tail) = tail.split_at_checked(8 + dims)?;
    let (n, tail) = length(tail)?;
    let (content, tail) = tail.split_at_checked(n)?;
    let mut canonical = b"isobitT1".to_vec();
    canonical.extend_from_slice(head);
    canonical.resize(HEAD, 0);
    canonical.extend_from_slice(content);
    Some((std::str::from_utf8(name).ok()?, canonical, tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_round_trip_and_cuts_are_refused() {
        let a = Tensor::new(&[2, 1], vec![1.5f32, -2.0]).unwrap();
        let b = Tensor::new(&[], vec![7i64]).unwrap();
        let bytes = encode_tensors([("a", &a), ("", &b)]);
        let set = decode_tensors(&bytes).unwrap();
        assert_eq!(encode_tensors(set.iter().map(|(n, t)| (n.as_str(), t))), bytes);
        let root = |set: &[(String, Tensor)]| tensors_root(set.iter().map(|(n, t)| (n.as_str(), t)));
        assert_eq!(root(&set), tensors_root([("a", &a), ("", &b)]));
        for cut in 0..bytes.len() {
            assert!(
                decode_tensors(&bytes[..cut]).is_ok_and(|s| s.len() < 2)
                    || decode_tensors(&bytes[..cut]).is_err()
            );
        }
        let mut long = bytes;
        long[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(decode_tensors(&long).err(), Some(TensorsError::Cut(0)));
    }

    #[test]
    fn sets_round_trip_and_cuts_are_refused() {
        let set = [("image", Hash::of(b"a")), ("", Hash::of(b"b"))];
        let bytes = encode_set(set);
        let owned: Vec<_> = set.iter().map(|(n, h)| (n.to_string(), *h)).collect();
        assert_eq!(decode_set(&bytes), Some(owned));
        assert_eq!(decode_set(MAGIC), Some(Vec::new()));
        for cut in 0..bytes.len() {
            // A cut between two tensors is a smaller set; any other is nothing.
            assert!(decode_set(&bytes[..cut]).is_none_or(|s| s.len() < 2), "cut at {cut}");
        }
        let mut long = bytes;
        long[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(decode_set(&long), None);
    }
}
