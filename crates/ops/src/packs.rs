//! Constant weights in the form that kernels read them in.

use isobit_kernels::blocked::{self, Weights};
use isobit_kernels::gemm::{PackedB, View};
use isobit_kernels::integer::{Bytes, PackedBytes, PackedFilters};
use isobit_kernels::{Exec, KernelSet, Panels};
use isobit_tensor::Tensor;

use crate::OpError;
use crate::quantize::less_zeros;

/// A form of constant weights.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    /// The right side of products, a matrix; `turned`: what is packed is its transpose.
    Right {
        /// Whether the transpose is packed.
        turned: bool,
    },
    /// The filters of a convolution of images in blocks.
    Filters(Weights),
    /// The right side of products of 8-bit integers, a matrix.
    RightOfBytes {
        /// The zero points: one, or one for each column.
        zero: Option<&'a Tensor>,
    },
    /// The filters of a convolution of 8-bit integers.
    FiltersOfBytes {
        /// Parts of the channels that are convolved by themselves.
        groups: usize,
        /// The zero points: one, or one for each filter.
        zero: Option<&'a Tensor>,
    },
}

impl Form<'_> {
    /// The form of `weights`, of f32 or of bytes, for the kernel set of `exec`.
    ///
    /// # Errors
    /// Weights of another type or rank than the form is one of.
    pub fn pack(&self, exec: Exec<'_>, weights: &Tensor) -> Result<Panels, OpError> {
        let floats = || weights.as_slice::<f32>();
        Ok(match *self {
            Form::Right { turned } => {
                let ([k, n], w) = (product(weights, turned)?, floats()?);
                let view = if turned { View::transposed(w, k) } else { View::row_major(w, n) };
                PackedB::panels(exec, k, n, view)
            }
            Form::Filters(extents) => blocked::pack(exec, &extents, floats()?),
            Form::RightOfBytes { zero } => {
                let ([k, n], b) = right_of_bytes(weights, zero)?;
                PackedBytes::panels(exec, k, n, b)
            }
            Form::FiltersOfBytes { groups, zero } => {
                let (extents, w) = filters_of_bytes(weights, zero)?;
                PackedFilters::panels(exec, groups, extents, w)
            }
        })
    }

    /// Numbers or words of the form.
    ///
    /// # Errors
    /// Weights of another rank than the form is one of.
    pub fn elements(&self, set: KernelSet, weights: &Tensor) -> Result<usize, OpError> {
        Ok(match *self {
            Form::Right { turned } => {
                let [k, n] = product(weights, turned)?;
                PackedB::packed(set, k, n)
            }
            Form::Filters(extents) => extents.packed(),
            Form::RightOfBytes { zero } => {
                let ([k, n], _) = right_of_bytes(weights, zero)?;
                PackedBytes::packed(set, k, n)
            }
            Form::FiltersOfBytes { groups, zero } => {
                let (extents, w) = filters_of_bytes(weights, zero)?;
                PackedFilters::packed(set, groups, extents, w)
            }
        })
    }
}

/// Steps and columns of a product whose right side `b` is, or its transpose.
fn product(b: &Tensor, turned: bool) -> Result<[usize; 2], OpError> {
    match (b.shape(), turned) {
        (&[k, n], false) | (&[n, k], true) => Ok([k, n]),
        (shape, _) => Err(OpError::shape(format!("{shape:?} is no matrix"))),
    }
}

/// Rows and columns of a matrix of bytes, and these.
fn right_of_bytes<'a>(b: &'a Tensor, zero: Option<&'a Tensor>) -> Result<([usize; 2], Bytes<'a>), OpError> {
    let [k, n] = product(b, false)?;
    let bytes = less_zeros(b, zero, n, n)?.ok_or_else(|| OpError::unsupported_type(b.dtype()))?;
    Ok(([k, n], bytes))
}

/// Filters, channels and taps of weights in bytes, and these.
fn filters_of_bytes<'a>(w: &'a Tensor, zero: Option<&'a Tensor>) -> Result<([usize; 3], Bytes<'a>), OpError> {
    let &[filters, channels, ref kernel @ ..] = w.shape() else {
        return Err(OpError::shape(format!("weights of shape {:?}", w.shape())));
    };
    let bytes = less_zeros(w, zero, filters, filters)?;
    let bytes = bytes.ok_or_else(|| OpError::unsupported_type(w.dtype()))?;
    Ok(([filters, channels, kernel.iter().product()], bytes))
}

/// Who packs, or has at hand what was packed before.
pub trait Packs {
    /// Where packing is done.
    fn exec(&self) -> Exec<'_>;

    /// What [`Form::pack`] gives.
    ///
    /// # Errors
    /// What [`Form::pack`] says.
    fn panels(&self, form: &Form<'_>, weights: &Tensor) -> Result<Panels, OpError>;
}

impl dyn Packs + '_ {
    /// The right side `b` of products, or its transpose.
    pub(crate) fn right(&self, b: &Tensor, turned: bool) -> Result<PackedB, OpError> {
        let panels = self.panels(&Form::Right { turned }, b)?;
        let [k, n] = product(b, turned)?;
        let packed = PackedB::of(self.exec().set(), k, n, panels);
        packed.ok_or_else(|| OpError::shape(format!("panels of another matrix than {k} by {n}")))
    }

    /// The right side `b` of products of bytes.
    pub(crate) fn right_of_bytes(&self, b: &Tensor, zero: Option<&Tensor>) -> Result<PackedBytes, OpError> {
        let panels = self.panels(&Form::RightOfBytes { zero }, b)?;
        let ([k, n], bytes) = right_of_bytes(b, zero)?;
        let packed = PackedBytes::of(self.exec().set(), k, n, bytes, panels);
        packed.ok_or_else(|| OpError::shape(format!("panels of another matrix than {k} by {n}")))
    }

    /// The filters `w` of a convolution of bytes.
    pub(crate) fn filters_of_bytes(
        &self,
        groups: usize,
        w: &Tensor,
        zero: Option<&Tensor>,
    ) -> Result<PackedFilters, OpError> {
        let panels = self.panels(&Form::FiltersOfBytes { groups, zero }, w)?;
        let (extents, bytes) = filters_of_bytes(w, zero)?;
        let packed = PackedFilters::of(self.exec().set(), groups, extents, bytes, panels);
        packed.ok_or_else(|| OpError::shape(format!("panels of other filters than {extents:?}")))
    }
}

/// Packs, and keeps nothing.
impl Packs for Exec<'_> {
    fn exec(&self) -> Exec<'_> {
        *self
    }

    fn panels(&self, form: &Form<'_>, weights: &Tensor) -> Result<Panels, OpError> {
        form.pack(*self, weights)
    }
}
