//! Steps of gradient descent: Adagrad, Adam, Momentum of `ai.onnx.preview.training`. Each operation of the standard's formulas
//! is rounded, from left to right as it is written there; attributes are f32 and widened for f64.

use isobit_tensor::{DType, Tensor};

use crate::axes::fact;
use crate::real::{Real, read, real, write};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

const DOMAIN: &str = "ai.onnx.preview.training";

pub(crate) static FAMILY: &[OpDef] = &[
    OpDef { domain: DOMAIN, name: "Adagrad", since: 1, build: adagrad },
    OpDef { domain: DOMAIN, name: "Adam", since: 1, build: adam },
    OpDef { domain: DOMAIN, name: "Momentum", since: 1, build: momentum },
];

#[derive(Clone, Copy)]
enum Rule {
    Adagrad { decay: f32, epsilon: f32 },
    Adam { alpha: f32, beta: f32, epsilon: f32, norm_post: f32 },
    Momentum { alpha: f32, beta: f32, nesterov: bool },
}

struct Optimizer {
    rule: Rule,
    norm: f32,
}

fn adagrad(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let rule = Rule::Adagrad { decay: ctx.float("decay_factor", 0.0)?, epsilon: ctx.float("epsilon", 1e-6)? };
    Ok(Box::new(Optimizer { rule, norm: ctx.float("norm_coefficient", 0.0)? }))
}

fn adam(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let rule = Rule::Adam {
        alpha: ctx.float("alpha", 0.9)?,
        beta: ctx.float("beta", 0.999)?,
        epsilon: ctx.float("epsilon", 1e-6)?,
        norm_post: ctx.float("norm_coefficient_post", 0.0)?,
    };
    Ok(Box::new(Optimizer { rule, norm: ctx.float("norm_coefficient", 0.0)? }))
}

fn momentum(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let needed = |name: &str| {
        ctx.opt_float(name)?.ok_or_else(|| OpError::attribute(format!("attribute '{name}' is missing")))
    };
    let nesterov = match ctx.opt_str("mode")? {
        Some("standard") => false,
        Some("nesterov") => true,
        other => return Err(OpError::attribute(format!("mode is {other:?}; accepted: standard, nesterov"))),
    };
    let rule = Rule::Momentum { alpha: needed("alpha")?, beta: needed("beta")?, nesterov };
    Ok(Box::new(Optimizer { rule, norm: needed("norm_coefficient")? }))
}

impl Rule {
    /// Tensors of each variable among the operands: itself, its gradient, its states.
    fn operands(self) -> usize {
        if matches!(self, Rule::Adam { .. }) { 4 } else { 3 }
    }
}

impl Optimizer {
    /// How many variables are optimised.
    fn variables(&self, inputs: usize) -> Result<usize, OpError> {
        let each = self.rule.operands();
        match inputs.checked_sub(2) {
            Some(n) if n > 0 && n % each == 0 => Ok(n / each),
            _ => Err(OpError::input(format!("{inputs} operands; 2 and {each} for each variable are needed"))),
        }
    }

    /// The new values of a variable and of its states.
    fn step<T: Real>(&self, rate: T, count: i64, [x, g]: [&[T]; 2], states: &[Vec<T>]) -> Vec<Vec<T>> {
        let f = |v: f32| T::of(v.into());
        let one = T::ONE;
        let gradients = x.iter().zip(g).map(|(&x, &g)| f(self.norm) * x + g);
        let mut out = vec![Vec::with_capacity(x.len()); states.len() + 1];
        match self.rule {
            Rule::Adagrad { decay, epsilon } => {
                let rate = rate / (one + T::of(count as f64) * f(decay));
                for ((g, &x), &h) in gradients.zip(x).zip(&states[0]) {
                    let h = h + g * g;
                    out[0].push(x - rate * g / (h.root() + f(epsilon)));
                    out[1].push(h);
                }
            }
            Rule::Adam { alpha, beta, epsilon, norm_post } => {
                let (alpha, beta, t) = (f(alpha), f(beta), T::of(count as f64));
                let rate = match count > 0 {
                    true => rate * (one - beta.power(t)).root() / (one - alpha.power(t)),
                    false => rate,
                };
                for (((g, &x), &v), &h) in gradients.zip(x).zip(&states[0]).zip(&states[1]) {
                    let v = alpha * v + (one - alpha) * g;
                    let h = beta * h + (one - beta) * (g * g);
                    let x = x - rate * (v / (h.root() + f(epsilon)));
                    out[0].push((one - f(norm_post)) * x);
                    out[1].push(v);
                    out[2].push(h);
                }
            }
            Rule::Momentum { alpha, beta, nesterov } => {
                let beta = if count > 0 { f(beta) } else { one };
                for ((g, &x), &v) in gradients.zip(x).zip(&states[0]) {
                    let v = f(alpha) * v + beta * g;
                    out[0].push(x - rate * if nesterov { g + f(alpha) * v } else { v });
                    out[1].push(v);
                }
            }
        }
        out
    }

    fn run_in<T: Real>(&self, ctx: &RunCtx<'_>, inputs: &Inputs) -> Result<Vec<Tensor>, OpError> {
        let n = self.variables(inputs.len())?;
        let states = self.rule.operands() - 2;
        let &[rate] = &read::<T>(ctx, inputs.get(0)?)?[..] else {
            return Err(OpError::input("the learning rate must be one number"));
        };
        let count = crate::axes::int(inputs.get(1)?)?;
        let mut out: Vec<Option<Tensor>> = vec![None; n * (states + 1)];
        for i in 0..n {
            let all = (0..states + 2).map(|k| inputs.get(2 + k * n + i)).collect::<Result<Vec<_>, _>>()?;
            if let Some(other) = all.iter().find(|t| t.shape() != all[0].shape()) {
                let message =
                    format!("a state or gradient {:?} of a variable {:?}", other.shape(), all[0].shape());
                return Err(OpError::shape(message));
            }
            let all = all.iter().map(|t| read::<T>(ctx, t)).collect::<Result<Vec<_>, _>>()?;
            let shape = inputs.get(2 + i)?.shape();
            for (k, new) in self.step::<T>(rate, count, [&all[0], &all[1]], &all[2..]).into_iter().enumerate()
            {
                out[k * n + i] = Some(write(ctx, T::DTYPE, shape, new)?);
            }
        }
        Ok(out.into_iter().flatten().collect())
    }
}

impl Op for Optimizer {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let n = self.variables(inputs.len())?;
        let each = self.rule.operands() - 1;
        Ok((0..each)
            .flat_map(|_| (0..n).map(|i| fact(inputs, 2 + i).clone()))
            .map(|f| Fact::new(f.dtype, f.shape))
            .collect())
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.iter().map(|f| f.numel().unwrap_or(0) as u64).fold(0, u64::saturating_add).saturating_mul(6)
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        match inputs.get(2)?.dtype() {
            t @ (DType::F16 | DType::BF16) => Err(OpError::unsupported_type(t)),
            t => real!(t, T => self.run_in::<T>(ctx, &inputs)),
        }
    }
}
