//! Element types, shapes, tensors, canonical bytes and their BLAKE3 commitment.
