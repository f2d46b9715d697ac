//! MaxUnpool: what MaxPool took, back at its places among zeros.

use isobit_tensor::{Element, Tensor};

use crate::axes::{bounded, extents, fact, index, ints, known_ints};
use crate::broadcast::{Walk, strides};
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("MaxUnpool", 22, max_unpool)];

/// Indices count in the tensor that the attributes give; a larger output_shape has zeros after it along each axis. Of
/// several values at one place the last stays.
struct MaxUnpool {
    kernel: Vec<i64>,
    strides: Vec<i64>,
    pads: Vec<i64>,
}

fn max_unpool(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let kernel = ctx.opt_ints("kernel_shape")?.unwrap_or_default().to_vec();
    let n = kernel.len();
    let list = |name: &str, len: usize, default: i64| {
        let v = ctx.opt_ints(name)?.map_or_else(|| vec![default; len], <[i64]>::to_vec);
        match v.len() == len && v.iter().all(|v| (default..1 << 31).contains(v)) {
            true => Ok(v),
            false => {
                Err(OpError::attribute(format!("{name} {v:?}; {len} numbers from {default} on are needed")))
            }
        }
    };
    if n == 0 || kernel.iter().any(|k| !(1..1 << 31).contains(k)) {
        return Err(OpError::attribute(format!("kernel_shape {kernel:?}; it must have positive numbers")));
    }
    ctx.one(MaxUnpool { strides: list("strides", n, 1)?, pads: list("pads", 2 * n, 0)?, kernel })
}

impl MaxUnpool {
    /// The shape that the attributes give.
    fn shape(&self, x: &[usize]) -> Result<Vec<usize>, OpError> {
        let n = self.kernel.len();
        if x.len() != n + 2 {
            return Err(OpError::shape(format!("an input of shape {x:?} for a kernel of {n} extents")));
        }
        let mut out = x[..2].to_vec();
        for (d, &extent) in x[2..].iter().enumerate() {
            let pads = self.pads[d] + self.pads[n + d];
            let length = i64::try_from(extent).ok().and_then(|e| (e - 1).checked_mul(self.strides[d]));
            let length = length.and_then(|l| usize::try_from(l - pads + self.kernel[d]).ok());
            out.push(
                length.ok_or_else(|| OpError::shape(format!("the window does not fit an input of {x:?}")))?,
            );
        }
        Ok(out)
    }
}

impl Op for MaxUnpool {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        let shape = match (x.known_shape(), inputs.get(2).is_some_and(Option::is_some)) {
            (_, true) => known_ints(inputs, 2)?.map(|s| extents(&s)).transpose()?,
            (Some(shape), false) => Some(self.shape(&shape)?),
            _ => None,
        };
        Ok(vec![Fact::new(x.dtype, shape.map(|s| s.into_iter().map(Some).collect()))])
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let (x, places) = (inputs.get(0)?, inputs.get(1)?);
        bounded([x])?;
        if x.shape() != places.shape() {
            return Err(OpError::shape(format!("values {:?} and indices {:?}", x.shape(), places.shape())));
        }
        let own = self.shape(x.shape())?;
        let shape = inputs.opt(2).map(|s| extents(&ints(s)?)).transpose()?.unwrap_or_else(|| own.clone());
        if shape.len() != own.len() || shape.iter().zip(&own).any(|(s, o)| s < o) {
            return Err(OpError::shape(format!(
                "output_shape {shape:?}; each extent must be at least that of {own:?}"
            )));
        }
        let places = ints(places)?;
        let out = typed!(x.dtype(), T => unpool::<T>(ctx, x.as_slice()?, &places, &own, &shape))?;
        Ok(vec![out])
    }
}

fn unpool<T: Element>(
    ctx: &RunCtx<'_>,
    x: &[T],
    places: &[i64],
    own: &[usize],
    shape: &[usize],
) -> Result<Tensor, OpError> {
    let mut out = ctx.memory.filled::<T>(own, T::default())?;
    for (value, &at) in x.iter().zip(places) {
        let at = index(at, out.len())?;
        out[at].clone_from(value);
    }
    if own == shape {
        return Ok(Tensor::new(shape, out)?);
    }
    let mut wide = ctx.memory.filled::<T>(shape, T::default())?;
    let walk = Walk::new(own, [&strides(own), &strides(shape)], [0, 0]);
    let (run, [from_step, to_step]) = (walk.run_len(), walk.run_strides());
    walk.for_each(|[from, to]| {
        for i in 0..run as isize {
            let (from, to) = (from.wrapping_add_signed(from_step * i), to.wrapping_add_signed(to_step * i));
            wide[to].clone_from(&out[from]);
        }
    });
    Ok(Tensor::new(shape, wide)?)
}
