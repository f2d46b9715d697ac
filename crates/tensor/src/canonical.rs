//! The canonical encoding of a tensor, and its root.
//!
//! ```text
//! head: 1024 bytes (one BLAKE3 chunk, so that the content's chunks are aligned with the file's)
//!   0..8    "isobitT1"
//!   8..12   element type, ONNX's number, u32 little-endian
//!   12..16  rank, u32 little-endian, at most 126
//!   16..    extents, u64 little-endian each; the rest zero
//! content:
//!   numbers    little-endian, row-major; a NaN is the canonical quiet NaN; bool is 0 or 1;
//!              complex: real part, imaginary part; elements of 2, 4 and 6 bits follow one another
//!              from the least significant bit of the first byte, the last byte filled up with zeros
//!   strings    for each: length in bytes as u64 little-endian, then UTF-8
//! ```
//! The root is BLAKE3 of head and content together, so a slice of the content can be opened against
//! it (bao) and neither dtype nor shape can be swapped.

use std::ops::Range;
use std::sync::Arc;

use blake3::hazmat::{ChainingValue, HasherExt};
use isobit_mapped::{Elements, Mapped};

use crate::seal::PIECE;
use crate::shape::MAX_RANK;
use crate::small::*;
use crate::{Buf, DType, Data, Element, Hash, Shape, Tensor, TensorError, bf16, f16, numel};

/// Bytes from which it is worth leaving elements in a file.
const IN_PLACE: usize = 1 << 16;
const MAGIC: &[u8; 8] = b"isobitT1";
const HEAD: usize = 1024;
const _: () = assert!(16 + MAX_RANK * 8 == HEAD);
/// Elements converted at a time while hashing.
const STEP: usize = 4096;
/// Bytes hashed at a time, and then looked at again.
const NEAR: usize = 1 << 18;

impl Tensor {
    /// The commitment: BLAKE3 of the canonical encoding.
    pub fn root(&self) -> Hash {
        if let Some(root) = self.sealed() {
            return root;
        }
        if let Some(root) = self.root_without_nan() {
            return root;
        }
        let mut hasher = blake3::Hasher::new();
        self.encode(&mut |bytes| {
            hasher.update(bytes);
        });
        hasher.finalize().into()
    }

    /// The commitment of what most weights are: integers, or f32 without a NaN that would have to be made canonical, hashed as
    /// they lie in memory.
    fn root_without_nan(&self) -> Option<Hash> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.head());
        self.hash_without_nan(&mut hasher, HEAD, self.as_they_lie()?).then(|| hasher.finalize().into())
    }

    /// Elements whose bytes are those of the canonical encoding unless there is a NaN.
    fn as_they_lie(&self) -> Option<&[u8]> {
        Some(match self.data() {
            _ if cfg!(target_endian = "big") => return None,
            Data::F32(elements) => bytemuck::cast_slice(elements),
            Data::I8(elements) => bytemuck::cast_slice(elements),
            Data::I16(elements) => bytemuck::cast_slice(elements),
            Data::I32(elements) => bytemuck::cast_slice(elements),
            Data::I64(elements) => bytemuck::cast_slice(elements),
            Data::U8(elements) => elements,
            Data::U16(elements) => bytemuck::cast_slice(elements),
            Data::U32(elements) => bytemuck::cast_slice(elements),
            Data::U64(elements) => bytemuck::cast_slice(elements),
            _ => return None,
        })
    }

    /// Hashes bytes that lie in memory as in the encoding, after `before` others, or finds a NaN among them. BLAKE3 is fastest where
    /// parts begin at multiples of their own length; what was hashed is still in the cache when it is searched.
    fn hash_without_nan(&self, hasher: &mut blake3::Hasher, before: usize, bytes: &[u8]) -> bool {
        let floats = self.dtype() == DType::F32;
        let (first, rest) = bytes.split_at(bytes.len().min(NEAR - before));
        std::iter::once(first).chain(rest.chunks(NEAR)).all(|part| {
            hasher.update(part);
            !(floats && any_nan(bytemuck::cast_slice(part)))
        })
    }

    /// How many pieces it is best hashed in.
    pub(crate) fn pieces(&self) -> usize {
        self.as_they_lie().map_or(1, |bytes| (HEAD + bytes.len()).div_ceil(PIECE))
    }

    /// What piece `i` of several adds to the root; `None` where there is a NaN in it. Then the piece is released.
    pub(crate) fn piece(&self, i: usize) -> Option<ChainingValue> {
        let bytes = self.as_they_lie()?;
        let start = (i * PIECE).saturating_sub(HEAD);
        let end = ((i + 1) * PIECE - HEAD).min(bytes.len());
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset((i * PIECE) as u64);
        let before = if i == 0 { HEAD } else { 0 };
        hasher.update(&self.head()[..before]);
        let is_sound = self.hash_without_nan(&mut hasher, before, &bytes[start..end]);
        if let Data::F32(elements) = self.data() {
            elements.release(start / size_of::<f32>()..end / size_of::<f32>());
        }
        is_sound.then(|| hasher.finalize_non_root())
    }

    /// The canonical encoding in one piece.
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + self.byte_len());
        self.encode(&mut |bytes| out.extend_from_slice(bytes));
        out
    }

    /// Reads a canonical encoding back. Anything that [`Tensor::to_canonical`] would not write is refused.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, TensorError> {
        let err = TensorError::Encoding;
        let (head, content) = bytes.split_at_checked(HEAD).ok_or(err("shorter than its head"))?;
        if &head[..8] != MAGIC {
            return Err(err("no tensor magic"));
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let dtype = DType::from_onnx(word(8) as i32).ok_or(err("unknown element type"))?;
        let rank = word(12) as usize;
        if rank > MAX_RANK {
            return Err(err("rank above 126"));
        }
        let (dims, rest) = head[16..].split_at(rank * 8);
        if rest.iter().any(|&b| b != 0) {
            return Err(err("head not padded with zeros"));
        }
        let shape: Shape = dims
            .chunks_exact(8)
            .map(|d| usize::try_from(u64::from_le_bytes(d.try_into().expect("eight bytes"))))
            .collect::<Result<_, _>>()
            .map_err(|_| err("extent above the address space"))?;
        let tensor = Self::from_le_bytes(dtype, &shape, content)?;
        // Catches NaN payloads, booleans other than 0 and 1: one tensor has one encoding.
        if tensor.root() != Hash::of(bytes) {
            return Err(err("not canonical"));
        }
        Ok(tensor)
    }

    /// A tensor from little-endian elements (strings: as in the canonical encoding).
    pub fn from_le_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self, TensorError> {
        let n = numel(shape).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        let expected = n.checked_mul(dtype.bits()).map(|b| b.div_ceil(8)).unwrap_or(usize::MAX);
        if dtype != DType::String && expected != bytes.len() {
            return Err(TensorError::Bytes { dtype, shape: shape.to_vec(), expected, actual: bytes.len() });
        }
        // As they lie in memory; by one copy where that is how they lie in the file.
        macro_rules! read {
            ($t:ty) => {
                <$t as Element>::wrap(Buf::from(match cfg!(target_endian = "little") {
                    true => bytemuck::pod_collect_to_vec::<u8, $t>(bytes),
                    false => read_le::<$t, { size_of::<$t>() }>(bytes, <$t>::from_le_bytes),
                }))
            };
        }
        let data = match dtype {
            DType::F32 => read!(f32),
            DType::F64 => read!(f64),
            DType::F16 => read!(f16),
            DType::BF16 => read!(bf16),
            DType::I8 => read!(i8),
            DType::I16 => read!(i16),
            DType::I32 => read!(i32),
            DType::I64 => read!(i64),
            DType::U8 => Data::U8(bytes.to_vec().into()),
            DType::U16 => read!(u16),
            DType::U32 => read!(u32),
            DType::U64 => read!(u64),
            DType::Bool => Data::Bool(bytes.iter().map(|&b| b != 0).collect::<Vec<_>>().into()),
            DType::String => Data::String(read_strings(bytes, n)?.into()),
            DType::F8E4M3FN => <F8E4M3FN as Element>::wrap(unpack::<F8E4M3FN>(bytes, n).into()),
            DType::F8E4M3FNUZ => <F8E4M3FNUZ as Element>::wrap(unpack::<F8E4M3FNUZ>(bytes, n).into()),
            DType::F8E5M2 => <F8E5M2 as Element>::wrap(unpack::<F8E5M2>(bytes, n).into()),
            DType::F8E5M2FNUZ => <F8E5M2FNUZ as Element>::wrap(unpack::<F8E5M2FNUZ>(bytes, n).into()),
            DType::F8E8M0 => <F8E8M0 as Element>::wrap(unpack::<F8E8M0>(bytes, n).into()),
            DType::F6E2M3 => <F6E2M3 as Element>::wrap(unpack::<F6E2M3>(bytes, n).into()),
            DType::F6E3M2 => <F6E3M2 as Element>::wrap(unpack::<F6E3M2>(bytes, n).into()),
            DType::F4E2M1 => <F4E2M1 as Element>::wrap(unpack::<F4E2M1>(bytes, n).into()),
            DType::U4 => <U4 as Element>::wrap(unpack::<U4>(bytes, n).into()),
            DType::I4 => <I4 as Element>::wrap(unpack::<I4>(bytes, n).into()),
            DType::U2 => <U2 as Element>::wrap(unpack::<U2>(bytes, n).into()),
            DType::I2 => <I2 as Element>::wrap(unpack::<I2>(bytes, n).into()),
            DType::Complex64 => <Complex<f32> as Element>::wrap(Buf::from(read_le::<_, 8>(bytes, |b| {
                let [a, b, c, d, e, f, g, h] = b;
                let (re, im) = ([a, b, c, d], [e, f, g, h]);
                Complex { re: f32::from_le_bytes(re), im: f32::from_le_bytes(im) }
            }))),
            DType::Complex128 => <Complex<f64> as Element>::wrap(Buf::from(read_le::<_, 16>(bytes, |b| {
                let part = |at: usize| f64::from_le_bytes(std::array::from_fn(|i| b[at + i]));
                Complex { re: part(0), im: part(8) }
            }))),
        };
        Ok(Self::from_parts(shape, data))
    }

    /// As [`Tensor::from_le_bytes`], from `bytes` of a file, where long runs of numbers stay that lie there as in memory.
    ///
    /// # Errors
    /// What [`Tensor::from_le_bytes`] says; [`TensorError::Encoding`] where the file has no such bytes.
    pub fn from_le_file(
        dtype: DType,
        shape: &[usize],
        file: &Arc<Mapped>,
        bytes: Range<usize>,
    ) -> Result<Self, TensorError> {
        macro_rules! stay {
            ($t:ty) => {
                if let Some(elements) = Elements::<$t>::new(file.clone(), bytes.clone())
                    && numel(shape) == Some(elements.as_ref().len())
                {
                    return Self::from_buf(shape, Buf::from(elements));
                }
            };
        }
        if cfg!(target_endian = "little") && bytes.len() >= IN_PLACE {
            match dtype {
                DType::F32 => stay!(f32),
                DType::F64 => stay!(f64),
                DType::I8 => stay!(i8),
                DType::I16 => stay!(i16),
                DType::I32 => stay!(i32),
                DType::I64 => stay!(i64),
                DType::U8 => stay!(u8),
                DType::U16 => stay!(u16),
                DType::U32 => stay!(u32),
                DType::U64 => stay!(u64),
                _ => {}
            }
        }
        let short = TensorError::Encoding("beyond the end of the file");
        Self::from_le_bytes(dtype, shape, file.get(bytes).ok_or(short)?)
    }

    /// The elements as little-endian bytes in canonical form (no head).
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.byte_len());
        self.encode_content(&mut |bytes| out.extend_from_slice(bytes));
        out
    }

    pub(crate) fn head(&self) -> [u8; HEAD] {
        let mut head = [0u8; HEAD];
        head[..8].copy_from_slice(MAGIC);
        head[8..12].copy_from_slice(&(self.dtype().onnx() as u32).to_le_bytes());
        head[12..16].copy_from_slice(&(self.rank() as u32).to_le_bytes());
        for (slot, &d) in head[16..].chunks_exact_mut(8).zip(self.shape()) {
            slot.copy_from_slice(&(d as u64).to_le_bytes());
        }
        head
    }

    fn encode(&self, sink: &mut dyn FnMut(&[u8])) {
        sink(&self.head());
        self.encode_content(sink);
    }

    fn encode_content(&self, sink: &mut dyn FnMut(&[u8])) {
        macro_rules! write {
            ($buf:expr, $size:literal, $map:expr) => {{
                let mut out = [0u8; STEP * $size];
                for part in $buf.chunks(STEP) {
                    for (o, &v) in out.chunks_exact_mut($size).zip(part) {
                        o.copy_from_slice(&$map(v).to_le_bytes());
                    }
                    sink(&out[..part.len() * $size]);
                }
            }};
        }
        match self.data() {
            Data::F32(b) => write!(b, 4, bits32),
            Data::F64(b) => write!(b, 8, bits64),
            Data::Complex64(b) => {
                write!(b, 8, |v: Complex<f32>| u64::from(bits32(v.re)) | u64::from(bits32(v.im)) << 32)
            }
            Data::Complex128(b) => {
                write!(b, 16, |v: Complex<f64>| u128::from(bits64(v.re)) | u128::from(bits64(v.im)) << 64)
            }
            Data::F16(b) => write!(b, 2, |v: f16| if v.is_nan() { 0x7e00 } else { v.to_bits() }),
            Data::BF16(b) => write!(b, 2, |v: bf16| if v.is_nan() { 0x7fc0 } else { v.to_bits() }),
            Data::I8(b) => write!(b, 1, |v: i8| v),
            Data::I16(b) => write!(b, 2, |v: i16| v),
            Data::I32(b) => write!(b, 4, |v: i32| v),
            Data::I64(b) => write!(b, 8, |v: i64| v),
            Data::U8(b) => sink(b),
            Data::U16(b) => write!(b, 2, |v: u16| v),
            Data::U32(b) => write!(b, 4, |v: u32| v),
            Data::U64(b) => write!(b, 8, |v: u64| v),
            Data::Bool(b) => write!(b, 1, u8::from),
            Data::F8E4M3FN(b) => packed(b, sink),
            Data::F8E4M3FNUZ(b) => packed(b, sink),
            Data::F8E5M2(b) => packed(b, sink),
            Data::F8E5M2FNUZ(b) => packed(b, sink),
            Data::F8E8M0(b) => packed(b, sink),
            Data::F6E2M3(b) => packed(b, sink),
            Data::F6E3M2(b) => packed(b, sink),
            Data::F4E2M1(b) => packed(b, sink),
            Data::U4(b) => packed(b, sink),
            Data::I4(b) => packed(b, sink),
            Data::U2(b) => packed(b, sink),
            Data::I2(b) => packed(b, sink),
            Data::String(b) => {
                for s in b.iter() {
                    sink(&(s.len() as u64).to_le_bytes());
                    sink(s.as_bytes());
                }
            }
        }
    }
}

/// A NaN is what is above infinity without its sign; seen by an addition that then reaches the sign, so that many numbers are looked
/// at at once.
fn any_nan(values: &[f32]) -> bool {
    let reach = (1 << 31) - 1 - f32::INFINITY.to_bits();
    values.iter().fold(0, |any, v| any | ((v.to_bits() & 0x7fff_ffff) + reach)) >> 31 != 0
}

fn bits32(v: f32) -> u32 {
    if v.is_nan() { 0x7fc0_0000 } else { v.to_bits() }
}

fn bits64(v: f64) -> u64 {
    if v.is_nan() { 0x7ff8 << 48 } else { v.to_bits() }
}

/// Packed elements; a step is a whole number of bytes for every width.
fn packed<T: Small>(elements: &[T], sink: &mut dyn FnMut(&[u8])) {
    elements.chunks(STEP).for_each(|part| sink(&pack(part)));
}

fn read_le<T, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    bytes.chunks_exact(N).map(|c| read(c.try_into().expect("chunks of N"))).collect()
}

fn read_strings(mut bytes: &[u8], n: usize) -> Result<Vec<String>, TensorError> {
    let err = TensorError::Encoding;
    // Eight bytes a string at least: a hostile count cannot ask for more than was sent.
    if n > bytes.len() / 8 {
        return Err(err("fewer strings than declared"));
    }
    let mut out = Vec::with_capacity(n);
    for _ in 0..n {
        let (len, rest) = bytes.split_at_checked(8).ok_or(err("string without a length"))?;
        let len = u64::from_le_bytes(len.try_into().expect("eight bytes"));
        let len = usize::try_from(len).map_err(|_| err("string too long"))?;
        let (text, rest) = rest.split_at_checked(len).ok_or(err("string cut short"))?;
        out.push(std::str::from_utf8(text).map_err(|_| err("string is not UTF-8"))?.to_owned());
        bytes = rest;
    }
    if bytes.is_empty() { Ok(out) } else { Err(err("bytes after the last string")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_round_trip() {
        let tensors = [
            Tensor::new(&[2, 2], vec![1.0f32, -0.0, f32::INFINITY, 1e-45]).unwrap(),
            Tensor::new(&[0, 3], Vec::<i64>::new()).unwrap(),
            Tensor::scalar(f16::from_f32(1.5)),
            Tensor::vector(vec![true, false, true]),
            Tensor::vector(vec!["a".to_owned(), String::new(), "ü".to_owned()]),
            Tensor::new(&[5000], (0..5000u16).collect()).unwrap(),
            Tensor::vector((0..5001u16).map(|i| F6E3M2::from_bits(i as u8)).collect()),
            Tensor::vector((0..9).map(I4::from_bits).collect()),
            Tensor::vector((0..7).map(U2::from_bits).collect()),
            Tensor::vector(
                (0..=255u8).map(|i| F8E5M2::from_bits(F8E5M2::from_bits(i).canonical_bits())).collect(),
            ),
            Tensor::vector(vec![Complex { re: 1.0f32, im: -2.0 }, Complex::default()]),
            Tensor::scalar(Complex { re: 0.1f64, im: 1e300 }),
        ];
        for t in tensors {
            let bytes = t.to_canonical();
            assert_eq!(Tensor::from_canonical(&bytes).unwrap(), t);
            assert_eq!(t.root(), Hash::of(&bytes));
        }
    }

    #[test]
    fn nan_payload_and_sign_are_not_content() {
        let quiet = Tensor::scalar(f32::from_bits(0x7fc0_0000));
        let odd = Tensor::scalar(f32::from_bits(0xffc0_1234));
        assert_eq!(quiet.root(), odd.root());
        let mut bytes = quiet.to_canonical();
        bytes[1024] = 1;
        assert!(Tensor::from_canonical(&bytes).is_err());
    }

    #[test]
    fn root_covers_dtype_shape_and_content() {
        let base = Tensor::new(&[2, 3], vec![0f32; 6]).unwrap();
        let mut roots = vec![base.root()];
        roots.push(base.clone().reshape(&[3, 2]).unwrap().root());
        roots.push(Tensor::new(&[2, 3], vec![0i32; 6]).unwrap().root());
        roots.push(Tensor::new(&[2, 3], vec![0.0f32, 0.0, 0.0, 0.0, 0.0, -0.0]).unwrap().root());
        roots.sort();
        roots.dedup();
        assert_eq!(roots.len(), 4);
    }

    #[test]
    fn malformed_encodings_are_refused() {
        let good = Tensor::vector(vec!["abc".to_owned()]).to_canonical();
        for cut in [0, 10, 1024, 1030, good.len() - 1] {
            assert!(Tensor::from_canonical(&good[..cut]).is_err(), "cut at {cut}");
        }
        let mut long = good.clone();
        long[1024..1032].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(Tensor::from_canonical(&long).is_err());
        let mut rank = good;
        rank[12] = 200;
        assert!(Tensor::from_canonical(&rank).is_err());
    }
}
