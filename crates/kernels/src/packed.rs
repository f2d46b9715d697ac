use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Weights in the form that a kernel reads them in: its own, or somebody else's.
#[derive(Clone)]
pub enum Panels {
    /// In memory of its own.
    Own(Vec<f32>),
    /// Elsewhere, where they stay as they are.
    Lent(Arc<dyn AsRef<[f32]> + Send + Sync>),
}

impl Deref for Panels {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        match self {
            Panels::Own(panels) => panels,
            Panels::Lent(panels) => (**panels).as_ref(),
        }
    }
}

impl From<Vec<f32>> for Panels {
    fn from(panels: Vec<f32>) -> Self {
        Panels::Own(panels)
    }
}

impl fmt::Debug for Panels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Panels({})", self.len())
    }
}
