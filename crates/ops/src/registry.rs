use crate::{BuildCtx, Op, OpError};

/// An operator as the registry lists it.
#[derive(Clone, Copy)]
pub struct OpDef {
    /// Operator set domain; empty for `ai.onnx`.
    pub domain: &'static str,
    /// Operator name.
    pub name: &'static str,
    /// The newest operator set version whose form is implemented (older forms are upgraded to it).
    pub since: u32,
    /// Parses attributes and packs constants.
    pub build: fn(&BuildCtx<'_>) -> Result<Box<dyn Op>, OpError>,
}

impl OpDef {
    /// An operator of the default domain.
    pub(crate) const fn onnx(
        name: &'static str,
        since: u32,
        build: fn(&BuildCtx<'_>) -> Result<Box<dyn Op>, OpError>,
    ) -> Self {
        Self { domain: "", name, since, build }
    }
}

impl std::fmt::Debug for OpDef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}::{}-{}", self.domain, self.name, self.since)
    }
}

/// Every family's table. A family adds its own line here.
static FAMILIES: &[&[OpDef]] = &[
    crate::shape::FAMILY,
    crate::transpose::FAMILY,
    crate::slice::FAMILY,
    crate::concat::FAMILY,
    crate::pad::FAMILY,
    crate::gather::FAMILY,
    crate::scatter::FAMILY,
    crate::logic::FAMILY,
    crate::cast::FAMILY,
    crate::create::FAMILY,
    crate::select::FAMILY,
    crate::arith::FAMILY,
    crate::pow::FAMILY,
    crate::unary::FAMILY,
    crate::matmul::FAMILY,
    crate::einsum::FAMILY,
    crate::conv::FAMILY,
    crate::pool::FAMILY,
    crate::norm::FAMILY,
    crate::local_norm::FAMILY,
    crate::softmax::FAMILY,
    crate::reduce::FAMILY,
    crate::recurrent::FAMILY,
    crate::resize::FAMILY,
    crate::random::FAMILY,
    crate::modulo::FAMILY,
    crate::dropout::FAMILY,
    crate::attention::FAMILY,
    crate::rotary::FAMILY,
    crate::quantize::FAMILY,
    crate::quantized_matmul::FAMILY,
    crate::sequence::FAMILY,
    crate::split_sequence::FAMILY,
    crate::loss::FAMILY,
    crate::nms::FAMILY,
    crate::crop::FAMILY,
    crate::col2im::FAMILY,
    crate::det::FAMILY,
    crate::grid_sample::FAMILY,
    crate::affine_grid::FAMILY,
    crate::strings::FAMILY,
    crate::tfidf::FAMILY,
    crate::bit_cast::FAMILY,
    crate::swiglu::FAMILY,
    crate::tensor_scatter::FAMILY,
    crate::linear_attention::FAMILY,
    crate::causal_conv::FAMILY,
    crate::spectrum::FAMILY,
    crate::spectral_windows::FAMILY,
    crate::roi_align::FAMILY,
    crate::max_unpool::FAMILY,
    crate::deform_conv::FAMILY,
    crate::integer_conv::FAMILY,
    crate::optimizers::FAMILY,
    crate::batch_norm::FAMILY,
    crate::ml::encode::FAMILY,
    crate::ml::features::FAMILY,
    crate::ml::linear::FAMILY,
    crate::ml::maps::FAMILY,
    crate::ml::svm::FAMILY,
    crate::ml::trees::FAMILY,
    crate::image::FAMILY,
    crate::max_roi_pool::FAMILY,
];

/// Every operator, family by family.
pub fn all() -> impl Iterator<Item = &'static OpDef> {
    FAMILIES.iter().copied().flatten()
}

/// The operator of this domain and name.
pub fn find(domain: &str, name: &str) -> Option<&'static OpDef> {
    all().find(|d| d.name == name && d.domain == domain)
}
