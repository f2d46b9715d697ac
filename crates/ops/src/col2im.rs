//! Col2Im: columns of blocks added up to an image.

use isobit_tensor::{Complex, DType, Element, Tensor};

use crate::arith::narrow;
use crate::axes::{extents, fact, ints, known_ints};
use crate::cast::convert;
use crate::number::Number;
use crate::typed::typed;
use crate::{BuildCtx, Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("Col2Im", 18, col2im)];

struct Col2Im {
    strides: Option<Vec<usize>>,
    pads: Option<Vec<usize>>,
    dilations: Option<Vec<usize>>,
}

fn col2im(ctx: &BuildCtx<'_>) -> Result<Box<dyn Op>, OpError> {
    let list = |name: &str, least: i64| -> Result<Option<Vec<usize>>, OpError> {
        let Some(values) = ctx.opt_ints(name)? else { return Ok(None) };
        if let Some(v) = values.iter().find(|&&v| v < least || v > 1 << 31) {
            return Err(OpError::attribute(format!("{name} has {v}; it must be at least {least}")));
        }
        Ok(Some(values.iter().map(|&v| v as usize).collect()))
    };
    ctx.one(Col2Im { strides: list("strides", 1)?, pads: list("pads", 0)?, dilations: list("dilations", 1)? })
}

/// One spatial axis.
#[derive(Clone, Copy)]
struct Axis {
    image: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    /// Positions of the block.
    blocks: usize,
}

impl Col2Im {
    fn axes(&self, image: &[i64], block: &[i64]) -> Result<Vec<Axis>, OpError> {
        let (image, block) = (extents(image)?, extents(block)?);
        let n = image.len();
        let list = |v: &Option<Vec<usize>>, name: &str, len: usize, default: usize| match v {
            None => Ok(vec![default; len]),
            Some(v) if v.len() == len => Ok(v.clone()),
            Some(v) => Err(OpError::attribute(format!("{name} has {} numbers; {len} are needed", v.len()))),
        };
        let (strides, dilations) =
            (list(&self.strides, "strides", n, 1)?, list(&self.dilations, "dilations", n, 1)?);
        let pads = list(&self.pads, "pads", 2 * n, 0)?;
        if block.len() != n || block.contains(&0) {
            return Err(OpError::shape(format!("a block of shape {block:?} for an image of {image:?}")));
        }
        (0..n)
            .map(|i| {
                let reach = dilations[i].checked_mul(block[i] - 1).and_then(|r| r.checked_add(1));
                let room = image[i].checked_add(pads[i]).and_then(|d| d.checked_add(pads[n + i]));
                let blocks = match (reach, room) {
                    (Some(reach), Some(room)) if reach <= room => (room - reach) / strides[i] + 1,
                    _ => {
                        return Err(OpError::shape(format!("a block of {block:?} in an image of {image:?}")));
                    }
                };
                let (stride, dilation) = (strides[i], dilations[i]);
                Ok(Axis { image: image[i], kernel: block[i], stride, dilation, before: pads[i], blocks })
            })
            .collect()
    }
}

/// For the `i`-th kernel position and the `j`-th block, both in row-major order: where in the image, if inside.
fn pixel(axes: &[Axis], mut i: usize, mut j: usize) -> Option<usize> {
    let (mut at, mut step) = (0, 1);
    for a in axes.iter().rev() {
        let (k, b) = (i % a.kernel, j % a.blocks);
        (i, j) = (i / a.kernel, j / a.blocks);
        let p = (b * a.stride + k * a.dilation).checked_sub(a.before).filter(|&p| p < a.image)?;
        at += p * step;
        step *= a.image;
    }
    Some(at)
}

impl Op for Col2Im {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        let shape = match (x.shape.as_deref(), known_ints(inputs, 1)?, known_ints(inputs, 2)?) {
            (Some(&[n, c, _]), Some(image), Some(block)) => {
                let kernel: usize = extents(&block)?.iter().product();
                let image = extents(&image)?.into_iter().map(Some);
                Some([n, c.and_then(|c| c.checked_div(kernel))].into_iter().chain(image).collect())
            }
            _ => None,
        };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn cost(&self, inputs: &[Option<Fact>], outputs: &[Fact]) -> u64 {
        let own = outputs.iter().filter_map(Fact::numel).fold(0, usize::saturating_add);
        fact(inputs, 0).numel().unwrap_or(0).saturating_add(own) as u64
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        let &[n, rows, length] = x.shape() else {
            return Err(OpError::shape(format!(
                "an input of shape {:?}; it must be [N, C * block, L]",
                x.shape()
            )));
        };
        let axes = self.axes(&ints(inputs.get(1)?)?, &ints(inputs.get(2)?)?)?;
        let product = |f: fn(&Axis) -> usize| axes.iter().try_fold(1usize, |n, a| n.checked_mul(f(a)));
        let (Some(kernel), Some(blocks)) = (product(|a| a.kernel), product(|a| a.blocks)) else {
            return Err(OpError::shape("the block or the image is too large"));
        };
        if rows % kernel != 0 || length != blocks {
            return Err(OpError::shape(format!(
                "an input of shape {:?}; these blocks need a multiple of {kernel} rows and {blocks} columns",
                x.shape()
            )));
        }
        let image: Vec<usize> = axes.iter().map(|a| a.image).collect();
        let shape = [&[n, rows / kernel], &image[..]].concat();
        let half = matches!(x.dtype(), DType::F16 | DType::BF16);
        let wide = if half { convert(ctx, x.clone(), DType::F32)? } else { x.clone() };
        let size = (kernel, blocks);
        let out = match wide.dtype() {
            DType::Bool => blocks_added(ctx, &wide, &shape, &axes, size, |a: &bool, b| a | b),
            DType::Complex64 => blocks_added(ctx, &wide, &shape, &axes, size, add_complex::<f32>),
            DType::Complex128 => blocks_added(ctx, &wide, &shape, &axes, size, add_complex::<f64>),
            t => typed!(numbers t, T => blocks_added(ctx, &wide, &shape, &axes, size, |a: &T, b| a.plus(*b))),
        }?;
        match half {
            true => Ok(vec![narrow(x.dtype(), &shape, out.into_vec()?)?]),
            false => Ok(vec![out]),
        }
    }
}

fn add_complex<T: Number>(a: &Complex<T>, b: &Complex<T>) -> Complex<T> {
    Complex { re: a.re.plus(b.re), im: a.im.plus(b.im) }
}

/// Each pixel is +0 (or false) and then, by ascending position in the block, the sum (or) with what falls on it.
fn blocks_added<T: Element + Default>(
    ctx: &RunCtx<'_>,
    x: &Tensor,
    shape: &[usize],
    axes: &[Axis],
    (kernel, blocks): (usize, usize),
    add: impl Fn(&T, &T) -> T,
) -> Result<Tensor, OpError> {
    let (x, mut out) = (x.as_slice::<T>()?, ctx.memory.filled::<T>(shape, T::default())?);
    let plane: usize = axes.iter().map(|a| a.image).product();
    let places: Vec<Option<usize>> =
        (0..kernel).flat_map(|i| (0..blocks).map(move |j| pixel(axes, i, j))).collect();
    for (image, columns) in out.chunks_exact_mut(plane.max(1)).zip(x.chunks_exact((kernel * blocks).max(1))) {
        for (place, v) in places.iter().zip(columns) {
            if let Some(at) = *place {
                image[at] = add(&image[at], v);
            }
        }
    }
    Ok(Tensor::new(shape, out)?)
}
