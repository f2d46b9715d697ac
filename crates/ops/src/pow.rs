//! Pow, with operands of different types.

use isobit_kernels::math::{Unary, unary_in_place};
use isobit_numerics as num;
use isobit_tensor::{DType, Tensor};

use crate::arith::{narrow, number, through_f32, widen};
use crate::axes::{fact, ints};
use crate::broadcast::{broadcast, broadcast_facts, zip};
use crate::entries::of_broadcast;
use crate::fold::fold;
use crate::number::Number;
use crate::typed::typed;
use crate::{Fact, Inputs, Op, OpDef, OpError, RunCtx, Stage};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Pow", 15, |ctx| ctx.one(Pow))];

/// x^y, of x's type. f32 (f16 and bf16 through it) as `isobit_numerics::pow`, f64 as `pow64`, with the exponent converted
/// to that type, through f64. An integer to an integer power multiplies, wrapping; a negative power fails. An integer to
/// a float power is `pow64` of both converted to f64, converted back as Cast does: toward zero, saturated, NaN to 0.
struct Pow;

impl Op for Pow {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let (a, b) = (fact(inputs, 0), fact(inputs, 1));
        let base = |t: &DType| {
            use DType::*;
            matches!(t, F32 | F16 | BF16 | F64 | I32 | I64)
        };
        let refused = a.dtype.filter(|t| !base(t)).or(b.dtype.filter(|&t| !number(t)));
        if let Some(t) = refused {
            return Err(OpError::unsupported_type(t));
        }
        fold(self, inputs, || Ok(vec![Fact::new(a.dtype, broadcast_facts(&[a, b])?)]))
    }

    fn cost(&self, _: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        outputs.iter().map(|f| 8 * f.numel().unwrap_or(0) as u64).fold(0, u64::saturating_add)
    }

    fn stage(&self) -> Option<Stage> {
        Some(Stage::Pow)
    }

    fn batch_axis(&self, operands: &[Option<Fact>], batch: &[Option<usize>]) -> Option<usize> {
        of_broadcast(operands, batch)
    }

    fn run(&self, ctx: &RunCtx<'_>, mut inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, y) = (inputs.take(0)?, inputs.take(1)?);
        let shape = broadcast(&[x.shape(), y.shape()])?;
        Ok(vec![match x.dtype() {
            DType::I32 | DType::I64 if y.dtype().is_int() => integer(ctx, &shape, &x, &y)?,
            DType::I32 | DType::I64 | DType::F64 => {
                let (base, exponent) = (wide(&x)?, wide(&y)?);
                let mut out = ctx.memory.alloc::<f64>(&shape)?;
                let operands = ((&base[..], x.shape()), (&exponent[..], y.shape()));
                zip(ctx.exec, &shape, operands.0, operands.1, &mut out, |&a, &b| match b {
                    2.0 => a * a,
                    b => num::pow64(a, b),
                });
                match x.dtype() {
                    DType::I32 => Tensor::new(&shape, out.iter().map(|&v| v as i32).collect())?,
                    DType::I64 => Tensor::new(&shape, out.iter().map(|&v| v as i64).collect())?,
                    _ => Tensor::new(&shape, out)?,
                }
            }
            _ => single(ctx, &shape, &x, &y)?,
        }])
    }
}

fn wide(t: &Tensor) -> Result<Vec<f64>, OpError> {
    typed!(numbers t.dtype(), T => Ok(t.as_slice::<T>()?.iter().map(|v| v.wide()).collect()))
}

fn single(ctx: &RunCtx<'_>, shape: &[usize], x: &Tensor, y: &Tensor) -> Result<Tensor, OpError> {
    let exponent: Vec<f32> = wide(y)?.into_iter().map(|v| v as f32).collect();
    let function = match exponent[..] {
        [2.0] => Some(Unary::Square),
        [3.0] => Some(Unary::Cube),
        _ => None,
    };
    if let Some(f) = function.filter(|_| x.shape() == shape) {
        return through_f32(ctx, x.clone(), |x| {
            unary_in_place(ctx.exec, f, x);
            Ok(())
        });
    }
    let base = widen(x)?;
    let mut out = ctx.memory.alloc::<f32>(shape)?;
    let each = |out: &mut [f32], f: fn(f32) -> f32| out.iter_mut().zip(&base).for_each(|(o, x)| *o = f(*x));
    match exponent[..] {
        [0.5] if x.shape() == shape => each(&mut out, root),
        _ => zip(ctx.exec, shape, (&base, x.shape()), (&exponent, y.shape()), &mut out, |&a, &b| {
            num::pow(a, b)
        }),
    }
    narrow(x.dtype(), shape, out)
}

/// `pow(x, 0.5)`: the square root, except where the two differ (-0, -infinity).
fn root(x: f32) -> f32 {
    if x > 0.0 { x.sqrt() } else { num::pow(x, 0.5) }
}

fn integer(ctx: &RunCtx<'_>, shape: &[usize], x: &Tensor, y: &Tensor) -> Result<Tensor, OpError> {
    let exponent = match y.dtype() {
        DType::I32 | DType::I64 => ints(y)?,
        _ => typed!(ints y.dtype(), T => {
            let all = y.as_slice::<T>()?.iter().map(|&e| i64::try_from(i128::from(e)));
            all.collect::<Result<Vec<_>, _>>().map_err(|_| OpError::input("an exponent of 2^63 or more"))
        })?,
    };
    if let Some(e) = exponent.iter().find(|e| **e < 0) {
        return Err(OpError::input(format!("an integer to the power {e}; cast it to a float type first")));
    }
    macro_rules! go {
        ($t:ty) => {{
            let mut out = ctx.memory.alloc::<$t>(shape)?;
            zip(
                ctx.exec,
                shape,
                (x.as_slice::<$t>()?, x.shape()),
                (&exponent, y.shape()),
                &mut out,
                |&a, &e| {
                    let (mut result, mut base, mut e) = (1 as $t, a, e);
                    while e > 0 {
                        if e & 1 == 1 {
                            result = result.wrapping_mul(base);
                        }
                        base = base.wrapping_mul(base);
                        e >>= 1;
                    }
                    result
                },
            );
            Ok(Tensor::new(shape, out)?)
        }};
    }
    if x.dtype() == DType::I32 { go!(i32) } else { go!(i64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cubes_and_roots_are_powers() {
        let mut rng = num::rng::Rng::new(5, 0);
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -1.0, f32::MAX, 1e-45];
        let random = (0..200_000).map(|_| rng.f32_any()).collect::<Vec<_>>();
        for x in special.into_iter().chain(random) {
            for (a, b) in [
                (num::elementary::cube(x), num::pow(x, 3.0)),
                (root(x), num::pow(x, 0.5)),
                (x * x, num::pow(x, 2.0)),
            ] {
                assert!(a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(), "{x:e}");
            }
        }
    }
}
