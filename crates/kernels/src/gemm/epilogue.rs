use isobit_numerics as num;

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

/// The function applied last.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Activation {
    /// None.
    #[default]
    None,
    /// `max(x, +0)` by the profile's rule.
    Relu,
}

/// What happens to each element of a product once its chain is complete: the same roundings as the separate
/// operators, without another pass over memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added first.
    pub bias: Bias<'a>,
    /// Applied last.
    pub activation: Activation,
}

impl<'a> Epilogue<'a> {
    /// The same for a part of the rows that begins at `first`.
    pub(crate) fn rows_from(&self, first: usize) -> Epilogue<'a> {
        let bias = match self.bias {
            Bias::Rows(b) => Bias::Rows(&b[first..]),
            other => other,
        };
        Epilogue { bias, ..*self }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.bias, Bias::None) && self.activation == Activation::None
    }

    /// Applies itself to part of row `i`, from column `j0`.
    #[inline(always)]
    pub(crate) fn apply(&self, i: usize, j0: usize, row: &mut [f32]) {
        match self.bias {
            Bias::None => {}
            Bias::Columns(b) => {
                for (x, &b) in row.iter_mut().zip(&b[j0..]) {
                    *x += b;
                }
            }
            Bias::Rows(b) => {
                let b = b[i];
                for x in row.iter_mut() {
                    *x += b;
                }
            }
        }
        if self.activation == Activation::Relu {
            for x in row.iter_mut() {
                *x = num::relu(*x);
            }
        }
    }
}
