//! Mod: the remainder with the divisor's sign, or with `fmod` the dividend's. Both are exact for integers;
//! for floats the remainder of the dividend's sign is exact, and the other adds the divisor where signs differ.

use isobit_tensor::{Element, Tensor, bf16, f16};

use crate::axes::fact;
use crate::broadcast::{broadcast, broadcast_facts, zip};
use crate::fold::fold;
use crate::typed::typed;
use crate::{Code, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] =
    &[OpDef::onnx("Mod", 13, |ctx| ctx.one(Mod { truncated: ctx.flag("fmod", false)? }))];

struct Mod {
    truncated: bool,
}

trait Remainder: Element + Copy {
    const EXACT: bool;
    fn zero(self) -> bool;
    fn truncated(self, by: Self) -> Self;
    fn floored(self, by: Self) -> Self;
}

macro_rules! ints {
    ($($t:ty),*) => {$(
        impl Remainder for $t {
            const EXACT: bool = true;
            fn zero(self) -> bool { self == 0 }
            fn truncated(self, by: Self) -> Self { self.wrapping_rem(by) }
            fn floored(self, by: Self) -> Self {
                let r = self.wrapping_rem(by);
                let apart = r != 0 && (i128::from(r) < 0) != (i128::from(by) < 0);
                if apart { r.wrapping_add(by) } else { r }
            }
        }
    )*};
}
ints!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! floats {
    ($($t:ty, $to:expr, $from:expr);*) => {$(
        impl Remainder for $t {
            const EXACT: bool = false;
            fn zero(self) -> bool { false }
            fn truncated(self, by: Self) -> Self { $from($to(self) % $to(by)) }
            fn floored(self, by: Self) -> Self {
                let (a, b) = ($to(self), $to(by));
                let r = a % b;
                $from(if r != 0.0 && (r < 0.0) != (b < 0.0) { r + b } else { r })
            }
        }
    )*};
}
floats!(f32, f32::from, f32::from; f64, f64::from, f64::from; f16, f16::to_f32, f16::from_f32; bf16, bf16::to_f32, bf16::from_f32);

fn remainder<T: Remainder>(
    ctx: &RunCtx<'_>,
    a: &Tensor,
    b: &Tensor,
    truncated: bool,
) -> Result<Tensor, OpError> {
    let shape = broadcast(&[a.shape(), b.shape()])?;
    let mut out = ctx.memory.alloc::<T>(&shape)?;
    let (x, y) = (a.as_slice::<T>()?, b.as_slice::<T>()?);
    if T::EXACT && !out.is_empty() && y.iter().any(|y| y.zero()) {
        return Err(OpError::new(Code::DivisionByZero, "the remainder of a division by 0"));
    }
    let f = if truncated { T::truncated } else { T::floored };
    zip(ctx.exec, &shape, (x, a.shape()), (y, b.shape()), &mut out, |x, y| f(*x, *y));
    Ok(Tensor::new(&shape, out)?)
}

impl Op for Mod {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        fold(self, inputs, || {
            let (a, b) = (fact(inputs, 0), fact(inputs, 1));
            Ok(vec![Fact::new(a.dtype.or(b.dtype), broadcast_facts(&[a, b])?)])
        })
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (inputs.get(0)?, inputs.get(1)?);
        let out = typed!(numbers a.dtype(), T => remainder::<T>(ctx, a, b, self.truncated))?;
        Ok(vec![out])
    }
}
