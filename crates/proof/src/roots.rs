use isobit_tensor::{Hash, Tensor};

/// The root of an ordered set of named tensors: BLAKE3 of `isobitN1`, then for each its name's length (u64
/// little-endian), its name in UTF-8, its tensor's root.
pub fn tensors_root<'a>(tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Hash {
    let mut bytes = b"isobitN1".to_vec();
    for (name, tensor) in tensors {
        bytes.extend_from_slice(&(name.len() as u64).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(tensor.root().as_bytes());
    }
    Hash::of(&bytes)
}
