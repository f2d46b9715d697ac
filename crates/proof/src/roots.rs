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

#[cfg(test)]
mod tests {
    use super::*;

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
