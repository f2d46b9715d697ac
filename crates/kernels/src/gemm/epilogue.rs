use isobit_numerics as num;

use crate::KernelSet;
use crate::math::{self, Unary};

/// What is added to each element after its chain, as one rounded addition.
#[derive(Debug, Clone, Copy, Default)]
pub enum Bias<'a> {
    /// Nothing.
    #[default]
    None,
    /// One value a column.
    Columns(&'a [f32]),
    /// One value a row.
    Rows(&'a [f32]),
}

/// What happens to each element of a product once its chain is complete: the same roundings as the separate
/// operators, without another pass over memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added first.
    pub bias: Bias<'a>,
    /// Added next: as many elements as C, in its layout.
    pub add: Option<&'a [f32]>,
    /// Applied last.
    pub activation: Option<Unary>,
}

impl<'a> Epilogue<'a> {
    /// The same for the part of C that begins `offset` elements into it, at row `first`.
    pub(crate) fn part(&self, first: usize, offset: usize) -> Epilogue<'a> {
        let bias = match self.bias {
            Bias::Rows(b) => Bias::Rows(&b[first..]),
            other => other,
        };
        Epilogue { bias, add: self.add.map(|a| &a[offset..]), ..*self }
    }

    /// Whether tiles do the sums before they store their results: rows of them, where nothing comes between.
    pub(crate) fn in_tiles(&self) -> bool {
        !matches!(self.bias, Bias::Rows(_)) && self.activation != Some(Unary::Relu)
    }

    /// Applies itself to part of row `i`, from column `j0`; rows are `ldc` apart.
    pub(crate) fn apply(&self, set: KernelSet, i: usize, j0: usize, ldc: usize, row: &mut [f32]) {
        self.apply_sums(set, i, j0, ldc, row);
        self.activate(set, row);
    }

    /// The activation alone, but for Relu, which [`Epilogue::apply_sums`] does.
    pub(crate) fn activate(&self, set: KernelSet, x: &mut [f32]) {
        if let Some(f) = self.activation.filter(|&f| f != Unary::Relu) {
            math::apply(set, f, x);
        }
    }

    /// As [`Epilogue::apply`], without an activation other than Relu.
    pub(crate) fn apply_sums(&self, set: KernelSet, i: usize, j0: usize, ldc: usize, row: &mut [f32]) {
        let add = self.add.map(|a| &a[i * ldc + j0..][..row.len()]);
        let relu = self.activation == Some(Unary::Relu);
        match self.bias {
            Bias::Columns(b) => {
                add_many(set, row, &b[j0..j0 + row.len()]);
                finish(set, row, None, add, relu);
            }
            Bias::Rows(b) => finish(set, row, Some(b[i]), add, relu),
            Bias::None => finish(set, row, None, add, relu),
        }
    }
}

crate::dispatch::multiversion! {
    fn add_many(row: &mut [f32], b: &[f32]) {
        for (x, &b) in row.iter_mut().zip(b) {
            *x += b;
        }
    }
}

crate::dispatch::multiversion! {
    fn finish(row: &mut [f32], bias: Option<f32>, add: Option<&[f32]>, relu: bool) {
        match (bias, add, relu) {
            (None, None, false) => {}
            (Some(b), None, false) => row.iter_mut().for_each(|x| *x += b),
            (Some(b), None, true) => row.iter_mut().for_each(|x| *x = num::relu(*x + b)),
            (None, None, true) => row.iter_mut().for_each(|x| *x = num::relu(*x)),
            (Some(b), Some(a), false) => row.iter_mut().zip(a).for_each(|(x, a)| *x = (*x + b) + a),
            (Some(b), Some(a), true) => row.iter_mut().zip(a).for_each(|(x, a)| *x = num::relu((*x + b) + a)),
            (None, Some(a), false) => row.iter_mut().zip(a).for_each(|(x, a)| *x += a),
            (None, Some(a), true) => row.iter_mut().zip(a).for_each(|(x, a)| *x = num::relu(*x + a)),
        }
    }
}
