//! Constant weights in the form that kernels read them in.

use isobit_kernels::blocked::{self, Weights};
use isobit_kernels::gemm::{PackedB, View};
use isobit_kernels::{Exec, KernelSet, Panels};
use isobit_tensor::Tensor;

use crate::OpError;

/// A form of constant weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The right side of products, a matrix; `turned`: what is packed is its transpose.
    Right {
        /// Whether the transpose is packed.
        turned: bool,
    },
    /// The filters of a convolution of images in blocks.
    Filters(Weights),
}

impl Form {
    /// The form of `weights`, of f32, for the kernel set of `exec`.
    ///
    /// # Errors
    /// Weights of another type or rank than the form is one of.
    pub fn pack(&self, exec: Exec<'_>, weights: &Tensor) -> Result<Panels, OpError> {
        let w = weights.as_slice::<f32>()?;
        Ok(match *self {
            Form::Right { turned } => {
                let [k, n] = product(weights, turned)?;
                let view = if turned { View::transposed(w, k) } else { View::row_major(w, n) };
                PackedB::panels(exec, k, n, view)
            }
            Form::Filters(extents) => blocked::pack(exec, &extents, w),
        })
    }

    /// Elements of the form.
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

/// Who packs, or has at hand what was packed before.
pub trait Packs {
    /// Where packing is done.
    fn exec(&self) -> Exec<'_>;

    /// What [`Form::pack`] gives.
    ///
    /// # Errors
    /// What [`Form::pack`] says.
    fn panels(&self, form: &Form, weights: &Tensor) -> Result<Panels, OpError>;
}

impl dyn Packs + '_ {
    /// The right side `b` of products, or its transpose.
    pub(crate) fn right(&self, b: &Tensor, turned: bool) -> Result<PackedB, OpError> {
        let panels = self.panels(&Form::Right { turned }, b)?;
        let [k, n] = product(b, turned)?;
        let packed = PackedB::of(self.exec().set(), k, n, panels);
        packed.ok_or_else(|| OpError::shape(format!("panels of another matrix than {k} by {n}")))
    }
}

/// Packs, and keeps nothing.
impl Packs for Exec<'_> {
    fn exec(&self) -> Exec<'_> {
        *self
    }

    fn panels(&self, form: &Form, weights: &Tensor) -> Result<Panels, OpError> {
        form.pack(*self, weights)
    }
}
