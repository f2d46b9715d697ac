//! RotaryEmbedding.

use isobit_tensor::{DType, Tensor};

use crate::arith::{floats, narrow};
use crate::axes::{bounded, fact, index, ints};
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("RotaryEmbedding", 23, rotary)];

/// Rotates pairs (a, b) of each head's first elements by cached angles: (cos * a) - (sin * b), (sin * a) + (cos * b), each
/// operation rounded. A pair lies side by side (interleaved) or half the rotated extent apart; elements past it stay.
struct Rotary {
    interleaved: bool,
    rotated: usize,
    heads: usize,
}

fn rotary(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let size = |name: &str| {
        let n = ctx.int(name, 0)?;
        usize::try_from(n).map_err(|_| OpError::attribute(format!("{name} {n}; accepted: 0 or more")))
    };
    ctx.one(Rotary {
        interleaved: ctx.flag("interleaved", false)?,
        rotated: size("rotary_embedding_dim")?,
        heads: size("num_heads")?,
    })
}

impl Op for Rotary {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        if let Some(t) = x.dtype.filter(|t| !matches!(t, DType::F32 | DType::F16 | DType::BF16)) {
            return Err(OpError::unsupported_type(t));
        }
        if let Some(rank) = x.rank().filter(|r| !(3..=4).contains(r)) {
            return Err(OpError::shape(format!("an input of rank {rank}; it must be 3 or 4")));
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.first().map_or(0, |f| (f.numel().unwrap_or(0) as u64).saturating_mul(3))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, cos, sin) = (inputs.get(0)?, inputs.get(1)?, inputs.get(2)?);
        bounded([x, cos, sin])?;
        // Extents and the steps between batch entries, positions and heads.
        let (batch, length, heads, size, steps) = match *x.shape() {
            [b, s, w] if self.heads > 0 && w % self.heads == 0 => {
                let size = w / self.heads;
                (b, s, self.heads, size, [s * w, w, size])
            }
            [b, h, s, d] => (b, s, h, d, [h * s * d, d, s * d]),
            _ => {
                return Err(OpError::shape(format!(
                    "an input of shape {:?}; it must be of rank 4, or of rank 3 with num_heads {} dividing its last extent",
                    x.shape(),
                    self.heads
                )));
            }
        };
        let rotated = if self.rotated == 0 { size } else { self.rotated };
        if rotated > size || rotated % 2 != 0 {
            return Err(OpError::shape(format!(
                "{rotated} of {size} elements are to be rotated; the number must be even and no larger"
            )));
        }
        let half = rotated / 2;
        let positions = inputs.opt(3).map(ints).transpose()?;
        let expected = match &positions {
            None => vec![batch, length, half],
            Some(p) if p.len() == batch * length => {
                vec![cos.shape().first().copied().unwrap_or(0), half]
            }
            Some(p) => {
                return Err(OpError::shape(format!("{} positions for {batch} x {length} tokens", p.len())));
            }
        };
        if cos.shape() != expected || sin.shape() != expected {
            return Err(OpError::shape(format!(
                "caches of shape {:?} and {:?}; expected {expected:?}",
                cos.shape(),
                sin.shape()
            )));
        }
        let (data, cos, sin) = (floats(x)?, floats(cos)?, floats(sin)?);
        let mut out = ctx.memory.alloc::<f32>(x.shape())?;
        out.copy_from_slice(&data);
        for b in 0..batch {
            for s in 0..length {
                let row = match &positions {
                    None => b * length + s,
                    Some(p) => index(p[b * length + s], expected[0])?,
                };
                let (cos, sin) = (&cos[row * half..][..half], &sin[row * half..][..half]);
                for h in 0..heads {
                    let at = b * steps[0] + s * steps[1] + h * steps[2];
                    let head = &mut out[at..at + rotated];
                    for i in 0..half {
                        let (p, q) = if self.interleaved { (2 * i, 2 * i + 1) } else { (i, i + half) };
                        let (x, y) = (head[p], head[q]);
                        head[p] = (cos[i] * x) - (sin[i] * y);
                        head[q] = (sin[i] * x) + (cos[i] * y);
                    }
                }
            }
        }
        Ok(vec![narrow(x.dtype(), x.shape(), out)?])
    }
}
