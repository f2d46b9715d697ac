use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use isobit_mapped::Mapped;

use crate::recycle::{self, Spares};
use crate::small::*;
use crate::{Buf, DType, Element, Hash, Shape, TensorError, bf16, f16, numel};

/// The elements of a tensor, by type.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // one variant an element type, named like it
pub enum Data {
    F32(Buf<f32>),
    F64(Buf<f64>),
    F16(Buf<f16>),
    BF16(Buf<bf16>),
    I8(Buf<i8>),
    I16(Buf<i16>),
    I32(Buf<i32>),
    I64(Buf<i64>),
    U8(Buf<u8>),
    U16(Buf<u16>),
    U32(Buf<u32>),
    U64(Buf<u64>),
    Bool(Buf<bool>),
    String(Buf<String>),
    F8E4M3FN(Buf<F8E4M3FN>),
    F8E4M3FNUZ(Buf<F8E4M3FNUZ>),
    F8E5M2(Buf<F8E5M2>),
    F8E5M2FNUZ(Buf<F8E5M2FNUZ>),
    F8E8M0(Buf<F8E8M0>),
    F6E2M3(Buf<F6E2M3>),
    F6E3M2(Buf<F6E3M2>),
    F4E2M1(Buf<F4E2M1>),
    U4(Buf<U4>),
    I4(Buf<I4>),
    U2(Buf<U2>),
    I2(Buf<I2>),
    Complex64(Buf<Complex<f32>>),
    Complex128(Buf<Complex<f64>>),
}

/// Runs `$body` with `$b` bound to the typed buffer inside `$data`.
#[macro_export]
macro_rules! with_data {
    ($data:expr, $b:ident => $body:expr) => {
        match $data {
            $crate::Data::F32($b) => $body,
            $crate::Data::F64($b) => $body,
            $crate::Data::F16($b) => $body,
            $crate::Data::BF16($b) => $body,
            $crate::Data::I8($b) => $body,
            $crate::Data::I16($b) => $body,
            $crate::Data::I32($b) => $body,
            $crate::Data::I64($b) => $body,
            $crate::Data::U8($b) => $body,
            $crate::Data::U16($b) => $body,
            $crate::Data::U32($b) => $body,
            $crate::Data::U64($b) => $body,
            $crate::Data::Bool($b) => $body,
            $crate::Data::String($b) => $body,
            $crate::Data::F8E4M3FN($b) => $body,
            $crate::Data::F8E4M3FNUZ($b) => $body,
            $crate::Data::F8E5M2($b) => $body,
            $crate::Data::F8E5M2FNUZ($b) => $body,
            $crate::Data::F8E8M0($b) => $body,
            $crate::Data::F6E2M3($b) => $body,
            $crate::Data::F6E3M2($b) => $body,
            $crate::Data::F4E2M1($b) => $body,
            $crate::Data::U4($b) => $body,
            $crate::Data::I4($b) => $body,
            $crate::Data::U2($b) => $body,
            $crate::Data::I2($b) => $body,
            $crate::Data::Complex64($b) => $body,
            $crate::Data::Complex128($b) => $body,
        }
    };
}

/// A contiguous row-major tensor.
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    data: Data,
    /// Its commitment, where [`Tensor::seal`] computed it.
    root: Option<Arc<Hash>>,
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        self.shape == other.shape && self.data == other.data
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor").field("shape", &self.shape).field("data", &self.data).finish()
    }
}

impl Tensor {
    /// A tensor of `shape` over `elements`; their number must be the shape's product.
    pub fn new<T: Element>(shape: &[usize], elements: Vec<T>) -> Result<Self, TensorError> {
        Self::from_buf(shape, elements.into())
    }

    /// As [`Tensor::new`], sharing a buffer.
    pub fn from_buf<T: Element>(shape: &[usize], elements: Buf<T>) -> Result<Self, TensorError> {
        check_count(shape, elements.len())?;
        Ok(Self { shape: shape.into(), data: T::wrap(elements), root: None })
    }

    pub(crate) fn from_parts(shape: &[usize], data: Data) -> Self {
        let tensor = Self { shape: shape.into(), data, root: None };
        debug_assert_eq!(numel(shape), Some(tensor.len()));
        tensor
    }

    /// A rank-0 tensor.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self { shape: Shape::new(), data: T::wrap(vec![value].into()), root: None }
    }

    /// A rank-1 tensor.
    pub fn vector<T: Element>(elements: Vec<T>) -> Self {
        let shape = Shape::from_slice(&[elements.len()]);
        Self { shape, data: T::wrap(elements.into()), root: None }
    }

    /// A tensor of zeros (`false`, empty strings).
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self, TensorError> {
        let n = numel(shape).ok_or_else(|| TensorError::TooLarge(shape.to_vec()))?;
        fn of<T: Element>(n: usize) -> Data {
            T::wrap(vec![T::default(); n].into())
        }
        let data = match dtype {
            DType::F32 => of::<f32>(n),
            DType::F64 => of::<f64>(n),
            DType::F16 => of::<f16>(n),
            DType::BF16 => of::<bf16>(n),
            DType::I8 => of::<i8>(n),
            DType::I16 => of::<i16>(n),
            DType::I32 => of::<i32>(n),
            DType::I64 => of::<i64>(n),
            DType::U8 => of::<u8>(n),
            DType::U16 => of::<u16>(n),
            DType::U32 => of::<u32>(n),
            DType::U64 => of::<u64>(n),
            DType::Bool => of::<bool>(n),
            DType::String => of::<String>(n),
            DType::F8E4M3FN => of::<F8E4M3FN>(n),
            DType::F8E4M3FNUZ => of::<F8E4M3FNUZ>(n),
            DType::F8E5M2 => of::<F8E5M2>(n),
            DType::F8E5M2FNUZ => of::<F8E5M2FNUZ>(n),
            DType::F8E8M0 => of::<F8E8M0>(n),
            DType::F6E2M3 => of::<F6E2M3>(n),
            DType::F6E3M2 => of::<F6E3M2>(n),
            DType::F4E2M1 => of::<F4E2M1>(n),
            DType::U4 => of::<U4>(n),
            DType::I4 => of::<I4>(n),
            DType::U2 => of::<U2>(n),
            DType::I2 => of::<I2>(n),
            DType::Complex64 => of::<Complex<f32>>(n),
            DType::Complex128 => of::<Complex<f64>>(n),
        };
        Ok(Self { shape: shape.into(), data, root: None })
    }

    /// The extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        with_data!(&self.data, b => b.len())
    }

    /// True when there are no elements (some extent is 0).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        match &self.data {
            Data::F32(_) => DType::F32,
            Data::F64(_) => DType::F64,
            Data::F16(_) => DType::F16,
            Data::BF16(_) => DType::BF16,
            Data::I8(_) => DType::I8,
            Data::I16(_) => DType::I16,
            Data::I32(_) => DType::I32,
            Data::I64(_) => DType::I64,
            Data::U8(_) => DType::U8,
            Data::U16(_) => DType::U16,
            Data::U32(_) => DType::U32,
            Data::U64(_) => DType::U64,
            Data::Bool(_) => DType::Bool,
            Data::String(_) => DType::String,
            Data::F8E4M3FN(_) => DType::F8E4M3FN,
            Data::F8E4M3FNUZ(_) => DType::F8E4M3FNUZ,
            Data::F8E5M2(_) => DType::F8E5M2,
            Data::F8E5M2FNUZ(_) => DType::F8E5M2FNUZ,
            Data::F8E8M0(_) => DType::F8E8M0,
            Data::F6E2M3(_) => DType::F6E2M3,
            Data::F6E3M2(_) => DType::F6E3M2,
            Data::F4E2M1(_) => DType::F4E2M1,
            Data::U4(_) => DType::U4,
            Data::I4(_) => DType::I4,
            Data::U2(_) => DType::U2,
            Data::I2(_) => DType::I2,
            Data::Complex64(_) => DType::Complex64,
            Data::Complex128(_) => DType::Complex128,
        }
    }

    /// The typed elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The elements as `T`, or an error that names both types.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        T::view(&self.data)
            .map(|b| &**b)
            .ok_or(TensorError::Type { expected: T::DTYPE, actual: self.dtype() })
    }

    /// The elements as an owned vector: moved out when this tensor is their only holder, else copied.
    pub fn into_vec<T: Element>(self) -> Result<Vec<T>, TensorError> {
        let actual = self.dtype();
        match T::unwrap(self.data) {
            Ok(buf) => Ok(buf.try_into_vec().unwrap_or_else(|shared| recycle::copy(&shared))),
            Err(_) => Err(TensorError::Type { expected: T::DTYPE, actual }),
        }
    }

    /// The elements as a vector only if nothing is copied: right type, only holder. Else `self` back.
    pub fn try_unique<T: Element>(self) -> Result<(Shape, Vec<T>), Self> {
        let Self { shape, data, root } = self;
        match T::unwrap(data) {
            Ok(buf) => match buf.try_into_vec() {
                Ok(v) => Ok((shape, v)),
                Err(buf) => Err(Self { shape, data: T::wrap(buf), root }),
            },
            Err(data) => Err(Self { shape, data, root }),
        }
    }

    /// The same elements under another shape of equal count.
    pub fn reshape(self, shape: &[usize]) -> Result<Self, TensorError> {
        check_count(shape, self.len())?;
        Ok(Self { shape: shape.into(), data: self.data, root: None })
    }

    /// Some entries along the first axis; they share the elements. `None` where there are not as many.
    pub fn entries(&self, range: Range<usize>) -> Option<Self> {
        fn part<T: Element>(b: &Buf<T>, range: Range<usize>) -> Data {
            T::wrap(b.part(range))
        }
        let (&n, rest) = self.shape.split_first()?;
        if range.start > range.end || range.end > n {
            return None;
        }
        let entry: usize = rest.iter().product();
        let elements = range.start * entry..range.end * entry;
        let mut shape = self.shape.clone();
        shape[0] = range.len();
        let data = with_data!(&self.data, b => part(b, elements));
        Some(Self { shape, data, root: None })
    }

    /// Computes the commitment and keeps it, so that [`Tensor::root`] and [`Tensor::sealed`] have it at hand.
    pub fn seal(&mut self) {
        self.seal_as(self.root());
    }

    pub(crate) fn seal_as(&mut self, root: Hash) {
        self.root = Some(Arc::new(root));
    }

    /// The commitment, where [`Tensor::seal`] computed it.
    pub fn sealed(&self) -> Option<Hash> {
        self.root.as_deref().copied()
    }

    /// Says where the elements go when nobody holds the tensor any more: to the runs that they came from, if these still want them.
    pub fn come_back(&mut self, home: &Arc<Spares>) {
        if let Data::F32(elements) = &mut self.data {
            elements.come_back(home);
        }
    }

    /// The file that the elements lie in, and where.
    pub(crate) fn place(&self) -> Option<(&Arc<Mapped>, Range<usize>)> {
        with_data!(&self.data, b => b.place())
    }

    /// Whether the elements are a file's: sharing some of them holds no memory.
    pub fn is_in_file(&self) -> bool {
        self.place().is_some()
    }

    /// Lets go of the memory that elements in a file took when they were looked at; they come back by themselves.
    pub fn release(&self) {
        with_data!(&self.data, b => b.release(0..b.len()));
    }

    /// Bytes held by the elements in memory (strings: their UTF-8 length).
    pub fn byte_len(&self) -> usize {
        match &self.data {
            Data::String(b) => b.iter().map(String::len).sum(),
            _ => self.len() * self.dtype().bits().div_ceil(8),
        }
    }
}

fn check_count(shape: &[usize], actual: usize) -> Result<(), TensorError> {
    match numel(shape) {
        None => Err(TensorError::TooLarge(shape.to_vec())),
        Some(expected) if expected != actual => {
            Err(TensorError::Count { shape: shape.to_vec(), expected, actual })
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_checked() {
        assert!(Tensor::new(&[2, 2], vec![0f32; 3]).is_err());
        assert!(Tensor::new(&[usize::MAX, 8], Vec::<f32>::new()).is_err());
        assert!(Tensor::new(&[0, 8], Vec::<f32>::new()).unwrap().is_empty());
    }

    #[test]
    fn unique_buffers_move_and_shared_ones_do_not() {
        let t = Tensor::vector(vec![1i64, 2]);
        let shared = t.clone();
        let t = t.try_unique::<i64>().unwrap_err();
        drop(shared);
        assert_eq!(t.try_unique::<i64>().unwrap().1, [1, 2]);
    }

    #[test]
    fn entries_are_those_of_the_first_axis() {
        let t = Tensor::new(&[3, 2], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
        let part = t.entries(1..3).unwrap();
        assert_eq!((part.shape(), part.as_slice::<i32>().unwrap()), (&[2, 2][..], &[3, 4, 5, 6][..]));
        assert_eq!(part.entries(1..2).unwrap().into_vec::<i32>().unwrap(), [5, 6]);
        assert!(part.try_unique::<i32>().is_err());
        assert!(t.entries(2..2).unwrap().is_empty());
        assert!(t.entries(2..4).is_none() && Tensor::scalar(1f32).entries(0..0).is_none());
        assert_eq!(Tensor::zeros(DType::F32, &[2, 0]).unwrap().entries(1..2).unwrap().shape(), [1, 0]);
    }

    #[test]
    fn a_seal_is_the_root_and_no_part_of_the_tensor() {
        let plain = Tensor::new(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]).unwrap();
        let mut sealed = plain.clone();
        sealed.seal();
        assert_eq!((sealed.sealed(), sealed.root()), (Some(plain.root()), plain.root()));
        assert_eq!(sealed, plain);
        assert_eq!(sealed.clone().sealed(), Some(plain.root()));
        // Other extents are another tensor.
        let flat = sealed.reshape(&[4]).unwrap();
        assert_eq!(flat.sealed(), None);
        assert_eq!(flat.root(), Tensor::vector(vec![1f32, 2.0, 3.0, 4.0]).root());
    }

    #[test]
    fn wrong_type_is_an_error_that_names_both() {
        let e = Tensor::scalar(1u8).as_slice::<f32>().unwrap_err();
        assert_eq!(e.to_string(), "expected a float32 tensor, got uint8");
    }
}
