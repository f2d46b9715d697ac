//! The cells of recurrent operators: gates and activations of one entry of the batch at one step. P is the projection of
//! the input with its bias, Q that of the state, every operation is rounded, and with a `clip` each activation's
//! operand is first limited to -clip..clip.

use isobit_kernels::math::Unary;

use crate::real::{Real, add};
use crate::{BuildCtx, OpError, RunCtx};

#[derive(Clone, Copy)]
pub(crate) enum Cell {
    /// P = chain(X, W) + (Wb + Rb). i, f: P + Q (+ p * C with peepholes); i = F(i); f = F(f), or 1 - i where coupled;
    /// c = G(P + Q); C' = (f * C) + (i * c); o = F(P + Q (+ p * C')); H' = o * H(C').
    Lstm { coupled: bool },
    /// z = F(P + Q); r = F(P + Q); the candidate is n = G(P + chain(r * H, R)), P with Wb + Rb, or with the reset last
    /// n = G(P + r * (Q + Rb)), P with Wb; H' = ((1 - z) * n) + (z * H).
    Gru { reset_last: bool },
    /// H' = F(P + Q), P with Wb + Rb.
    Plain,
}

impl Cell {
    /// Matrices stacked in W and in R.
    pub(crate) fn gates(self) -> usize {
        match self {
            Cell::Lstm { .. } => 4,
            Cell::Gru { .. } => 3,
            Cell::Plain => 1,
        }
    }

    /// Vectors carried from step to step.
    pub(crate) fn states(self) -> usize {
        if matches!(self, Cell::Lstm { .. }) { 2 } else { 1 }
    }

    /// What is added to P, and to Q of the candidate, from the two halves Wb and Rb of a direction's bias.
    pub(crate) fn biases<T: Real>(self, bias: &[T], h: usize) -> (Vec<T>, &[T]) {
        let (w, r) = bias.split_at(self.gates() * h);
        let mut sums: Vec<T> = w.iter().zip(r).map(|(&w, &r)| w + r).collect();
        if matches!(self, Cell::Gru { reset_last: true }) {
            sums[2 * h..].copy_from_slice(&w[2 * h..]);
            return (sums, &r[2 * h..]);
        }
        (sums, &[])
    }

    fn defaults(self) -> &'static [&'static str] {
        match self {
            Cell::Lstm { .. } => &["Sigmoid", "Tanh", "Tanh"],
            Cell::Gru { .. } => &["Sigmoid", "Tanh"],
            Cell::Plain => &["Tanh"],
        }
    }
}

/// A function that a node chooses for its gates.
#[derive(Clone, Copy)]
pub(crate) enum Activation {
    Unary(Unary),
    /// alpha * x + beta, product and sum rounded.
    Affine(f32, f32),
    /// alpha * tanh(beta * x).
    ScaledTanh(f32, f32),
}

impl Activation {
    pub(crate) fn apply<T: Real>(self, ctx: &RunCtx<'_>, clip: Option<f32>, x: &mut [T]) {
        let wide = |p: f32| T::of(p.into());
        if let Some(clip) = clip.map(wide) {
            x.iter_mut().for_each(|x| *x = x.larger(-clip).smaller(clip));
        }
        match self {
            Activation::Unary(f) => T::apply(ctx.exec, f, x),
            Activation::Affine(alpha, beta) => {
                let (alpha, beta) = (wide(alpha), wide(beta));
                x.iter_mut().for_each(|x| *x = alpha * *x + beta);
            }
            Activation::ScaledTanh(alpha, beta) => {
                let (alpha, beta) = (wide(alpha), wide(beta));
                x.iter_mut().for_each(|x| *x = *x * beta);
                T::apply(ctx.exec, Unary::Tanh, x);
                x.iter_mut().for_each(|x| *x = *x * alpha);
            }
        }
    }
}

/// The activations of each direction. The lists of alphas and betas are taken from in order, by the functions that
/// have such a parameter.
pub(crate) fn activations(
    ctx: &BuildCtx<'_>,
    cell: Cell,
    directions: usize,
) -> Result<Vec<Vec<Activation>>, OpError> {
    let defaults = cell.defaults();
    let names = match ctx.opt_strs("activations")? {
        Some(names) => names,
        None => defaults.repeat(directions),
    };
    if names.len() != defaults.len() * directions {
        return Err(OpError::attribute(format!(
            "activations {names:?}; {} for each of {directions} directions are needed",
            defaults.len()
        )));
    }
    let mut alphas = ctx.opt_floats("activation_alpha")?.unwrap_or(&[]).iter().copied();
    let mut betas = ctx.opt_floats("activation_beta")?.unwrap_or(&[]).iter().copied();
    let mut one = |name: &str| {
        let mut alpha = |default: f32| alphas.next().unwrap_or(default);
        let mut beta = |default: f32| betas.next().unwrap_or(default);
        Ok(match &*name.to_ascii_lowercase() {
            "relu" => Activation::Unary(Unary::Relu),
            "tanh" => Activation::Unary(Unary::Tanh),
            "sigmoid" => Activation::Unary(Unary::Sigmoid),
            "softsign" => Activation::Unary(Unary::Softsign),
            "softplus" => Activation::Unary(Unary::Softplus),
            "affine" => Activation::Affine(alpha(1.0), beta(0.0)),
            "scaledtanh" => Activation::ScaledTanh(alpha(1.0), beta(1.0)),
            "leakyrelu" => Activation::Unary(Unary::LeakyRelu { alpha: alpha(0.01) }),
            "thresholdedrelu" => Activation::Unary(Unary::ThresholdedRelu { alpha: alpha(1.0) }),
            "hardsigmoid" => Activation::Unary(Unary::HardSigmoid { alpha: alpha(0.2), beta: beta(0.5) }),
            "elu" => Activation::Unary(Unary::Elu { alpha: alpha(1.0) }),
            _ => return Err(OpError::attribute(format!("activation '{name}' is none of ONNX's"))),
        })
    };
    let all = names.iter().map(|name| one(name)).collect::<Result<Vec<_>, _>>()?;
    Ok(all.chunks(defaults.len()).map(<[_]>::to_vec).collect())
}

/// States of some entries, one after the other, which a step replaces.
pub(crate) struct State<'a, T> {
    /// Elements of one entry.
    pub(crate) units: usize,
    pub(crate) hidden: &'a mut [T],
    pub(crate) cell: &'a mut [T],
    pub(crate) scratch: &'a mut [T],
}

impl<T: Real> State<'_, T> {
    /// The gates hold P + Q.
    pub(crate) fn lstm(
        &mut self,
        ctx: &RunCtx<'_>,
        (functions, clip): (&[Activation], Option<f32>),
        [i, o, f, c]: [&mut [T]; 4],
        peepholes: &[T],
        coupled: bool,
    ) {
        let peep = |gate: &mut [T], which: usize, cell: &[T]| {
            let Some(p) = peepholes.chunks_exact(self.units).nth(which) else { return };
            for ((g, &c), &p) in gate.iter_mut().zip(cell).zip(p.iter().cycle()) {
                *g = *g + p * c;
            }
        };
        peep(i, 0, self.cell);
        functions[0].apply(ctx, clip, i);
        if coupled {
            f.iter_mut().zip(i.iter()).for_each(|(f, &i)| *f = T::ONE - i);
        } else {
            peep(f, 2, self.cell);
            functions[0].apply(ctx, clip, f);
        }
        functions[1].apply(ctx, clip, c);
        T::keep(ctx.exec, self.cell, f, i, c);
        peep(o, 1, self.cell);
        functions[0].apply(ctx, clip, o);
        self.scratch.copy_from_slice(self.cell);
        functions[2].apply(ctx, clip, self.scratch);
        T::products(ctx.exec, o, self.scratch, self.hidden);
    }

    /// The gates z, r and n hold Q.
    pub(crate) fn gru_reset_last(
        &mut self,
        ctx: &RunCtx<'_>,
        (functions, clip): (&[Activation], Option<f32>),
        [z, r, n]: [&mut [T]; 3],
        projected: [&[T]; 3],
        late: &[T],
    ) {
        add(z, projected[0]);
        functions[0].apply(ctx, clip, z);
        add(r, projected[1]);
        functions[0].apply(ctx, clip, r);
        for (((n, &r), &p), &late) in n.iter_mut().zip(&*r).zip(projected[2]).zip(late.iter().cycle()) {
            *n = p + r * (*n + late);
        }
        functions[1].apply(ctx, clip, n);
        T::mix(ctx.exec, self.hidden, z, n);
    }

    /// The gates z and r are what they are, and of n the candidate holds Q.
    pub(crate) fn gru_reset_first(
        &mut self,
        ctx: &RunCtx<'_>,
        (functions, clip): (&[Activation], Option<f32>),
        z: &[T],
        candidate: &mut [T],
        projected: &[T],
    ) {
        add(candidate, projected);
        functions[1].apply(ctx, clip, candidate);
        T::mix(ctx.exec, self.hidden, z, candidate);
    }
}
