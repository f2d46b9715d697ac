//! Values as they are during a run: images may be in blocks of channels between operators that know them. That is a matter
//! of memory alone: extents, cost and bits are those of the tensor.

use isobit_kernels::Exec;
use isobit_kernels::blocked::{self, Blocks, to_planes};
use isobit_kernels::elementwise::Binary;
use isobit_tensor::{Buf, DType, Datum, Tensor};

use crate::{Fact, Inputs, Memory, OpError, Packs, RunCtx, Tail};

/// A value of a run.
#[derive(Debug, Clone)]
pub enum Value {
    /// As everybody knows it.
    Datum(Datum),
    /// Images in blocks of channels.
    Blocked(Blocked),
    /// The same, still to be multiplied.
    Gated(Gated),
}

impl Value {
    /// The tensor, where it is one.
    pub fn as_tensor(&self) -> Option<&Tensor> {
        match self {
            Value::Datum(d) => d.as_tensor(),
            Value::Blocked(_) | Value::Gated(_) => None,
        }
    }

    /// Whether it is images in blocks, whatever is still to be done to them.
    pub fn in_blocks(&self) -> bool {
        !matches!(self, Value::Datum(_))
    }

    /// What is known of it.
    pub fn fact(&self) -> Fact {
        match self {
            Value::Datum(d) => Fact::of(d),
            Value::Blocked(images) | Value::Gated(Gated { images, .. }) => {
                Fact::fixed(DType::F32, &images.shape())
            }
        }
    }

    /// Bytes of the tensor that it is; 0 for a container.
    pub fn byte_len(&self) -> u64 {
        match self {
            Value::Datum(d) => d.as_tensor().map_or(0, |t| t.byte_len() as u64),
            Value::Blocked(images) | Value::Gated(Gated { images, .. }) => {
                images.shape().iter().fold(4, |n: u64, &d| n.saturating_mul(d as u64))
            }
        }
    }

    /// The same with nothing left to be done.
    pub fn settled(self, ctx: &RunCtx<'_>) -> Result<Self, OpError> {
        match self {
            Value::Gated(gated) => Ok(Value::Blocked(gated.multiplied(ctx)?)),
            settled => Ok(settled),
        }
    }

    /// As everybody knows it.
    pub fn into_datum(self, ctx: &RunCtx<'_>) -> Result<Datum, OpError> {
        match self {
            Value::Datum(d) => Ok(d),
            Value::Blocked(images) => Ok(Datum::Tensor(images.planes(ctx)?)),
            Value::Gated(gated) => Ok(Datum::Tensor(gated.multiplied(ctx)?.planes(ctx)?)),
        }
    }
}

impl From<Datum> for Value {
    fn from(d: Datum) -> Self {
        Value::Datum(d)
    }
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Self {
        Value::Datum(Datum::Tensor(t))
    }
}

/// Operands as everybody knows them.
pub fn plain(ctx: &RunCtx<'_>, operands: Vec<Option<Value>>) -> Result<Inputs, OpError> {
    let datum = |v: Option<Value>| v.map(|v| v.into_datum(ctx)).transpose();
    Ok(Inputs::of_data(operands.into_iter().map(datum).collect::<Result<_, _>>()?))
}

/// Images of f32 in blocks of channels: `[batch, channels, height, width]` for all but those who read them.
#[derive(Debug, Clone)]
pub struct Blocked {
    layout: Blocks,
    elements: Buf<f32>,
    /// The first element that is used: the start of a cache line.
    start: usize,
}

/// Elements of a cache line.
const LINE: usize = 16;

/// Elements that blocks may take beyond twice those of the tensor: borders weigh more than small images (4 MiB).
const SLACK: usize = 1 << 20;

impl Blocked {
    /// Images of `layout` that `fill` writes; `None` where they would take far more memory than the tensor.
    pub(crate) fn make(
        memory: &Memory,
        layout: Blocks,
        fill: impl FnOnce(&mut [f32]),
    ) -> Result<Option<Self>, OpError> {
        let [height, width] = layout.size;
        let tensor = memory.check::<f32>(&[layout.batch, layout.channels, height, width])?;
        let most = tensor.saturating_mul(2).saturating_add(SLACK);
        let Some(n) = layout.elements().filter(|&n| n <= most) else { return Ok(None) };
        let Ok(mut elements) = memory.at_least(n + LINE) else { return Ok(None) };
        let start = Self::start(&elements);
        fill(&mut elements[start..start + n]);
        Ok(Some(Self { layout, elements: elements.into(), start }))
    }

    fn start(elements: &[f32]) -> usize {
        let start = elements.as_ptr().align_offset(LINE * size_of::<f32>());
        if start < LINE { start } else { 0 }
    }

    /// Extents of the tensor that it is.
    pub fn shape(&self) -> [usize; 4] {
        let Blocks { batch, channels, size: [height, width], .. } = self.layout;
        [batch, channels, height, width]
    }

    pub(crate) fn layout(&self) -> &Blocks {
        &self.layout
    }

    pub(crate) fn elements(&self) -> &[f32] {
        &self.elements[self.start..][..self.layout.elements().expect("images in memory")]
    }

    /// The tensor.
    pub(crate) fn planes(&self, ctx: &RunCtx<'_>) -> Result<Tensor, OpError> {
        let mut out = ctx.memory.alloc::<f32>(&self.shape())?;
        to_planes(ctx.exec, &self.layout, self.elements(), &mut out);
        Ok(Tensor::new(&self.shape(), out)?)
    }

    /// Images of one layout one after the other; `None` where the layouts differ, or are too large.
    pub(crate) fn together(ctx: &RunCtx<'_>, parts: &[Self]) -> Result<Option<Self>, OpError> {
        let Some(first) = parts.first() else { return Ok(None) };
        let alike = |part: &Self| Blocks { batch: first.layout.batch, ..part.layout } == first.layout;
        if !parts.iter().all(alike) {
            return Ok(None);
        }
        let layout = Blocks { batch: parts.iter().map(|part| part.layout.batch).sum(), ..first.layout };
        Self::make(ctx.memory, layout, |mut y| {
            for part in parts {
                let (own, rest) = y.split_at_mut(part.elements().len());
                own.copy_from_slice(part.elements());
                y = rest;
            }
        })
    }

    /// Images of the same extents, with a border, that `fill` makes of these.
    pub(crate) fn map(
        &self,
        ctx: &RunCtx<'_>,
        border: usize,
        fill: impl FnOnce(Exec<'_>, &Blocks, &mut [f32]),
    ) -> Result<Option<Self>, OpError> {
        let layout = Blocks { border, ..self.layout };
        Self::make(ctx.memory, layout, |y| fill(ctx.exec, &layout, y))
    }

    /// The elements to write to, where nobody else holds them.
    fn elements_mut(&mut self) -> Result<&mut [f32], OpError> {
        let n = self.layout.elements().expect("images in memory");
        let elements = self.elements.get_mut().ok_or_else(|| OpError::input("images that others hold"))?;
        Ok(&mut elements[self.start..][..n])
    }

    /// `f` of each element and the value of its channel: `[batch, channels, 1, 1]`.
    pub(crate) fn gated(self, ctx: &RunCtx<'_>, f: Binary, gate: &Tensor) -> Result<Self, OpError> {
        let mut y = self.unique(ctx)?;
        let layout = y.layout;
        blocked::gate(ctx.exec, f, &layout, y.elements_mut()?, gate.as_slice()?);
        Ok(y)
    }

    /// These, or a copy that nobody else holds.
    fn unique(self, ctx: &RunCtx<'_>) -> Result<Self, OpError> {
        if self.elements.is_unique() {
            return Ok(self);
        }
        let copy = Self::make(ctx.memory, self.layout, |y| y.copy_from_slice(self.elements()))?;
        copy.ok_or_else(|| OpError::input("images too large for another copy"))
    }
}

/// Images in blocks that are still to be multiplied by one value for each of their channels, because whoever reads them
/// can do so on the way.
#[derive(Debug, Clone)]
pub struct Gated {
    pub(crate) images: Blocked,
    /// f32, `[batch, channels, 1, 1]`.
    pub(crate) gate: Tensor,
}

impl Gated {
    /// The products.
    fn multiplied(self, ctx: &RunCtx<'_>) -> Result<Blocked, OpError> {
        self.images.gated(ctx, Binary::Mul, &self.gate)
    }
}

/// What an operator does with images in blocks of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Operand 0 may be in blocks, best with a border of this many zeros; the result can be whatever operand 0 is.
    Makes {
        /// How far windows reach beyond the image.
        border: usize,
    },
    /// Operands from the first may be in blocks, and then the result can be.
    Keeps {
        /// How many of them.
        operands: usize,
    },
    /// Operand 0 may be in blocks; the result is not.
    Ends,
}

/// How a result in blocks is best given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Zeros around each image.
    pub border: usize,
    /// Whether all who read it take gates.
    pub gated: bool,
}

/// An operator that knows images in blocks of channels.
pub trait Blockwise {
    /// What it does with them.
    fn role(&self) -> Role;

    /// Whether operand 0 may be [`Gated`].
    fn takes_gates(&self) -> bool {
        false
    }

    /// Makes ready for runs in blocks; `constants` are the operands that are constant.
    ///
    /// # Errors
    /// What packing says.
    fn prepare(&self, constants: &[Option<Tensor>], packs: &dyn Packs) -> Result<(), OpError> {
        let _ = (constants, packs);
        Ok(())
    }

    /// As [`crate::Op::run_tail`], on values of any layout. The result may be in blocks where there is a `to`.
    fn run_blocked(
        &self,
        ctx: &RunCtx<'_>,
        operands: Vec<Option<Value>>,
        tail: &[Tail],
        to: Option<Wanted>,
    ) -> Result<(Value, usize), OpError>;
}

/// The operands as everybody knows them, for an operator that finds nothing to do in blocks.
pub(crate) fn run_plain(
    op: &dyn crate::Op,
    ctx: &RunCtx<'_>,
    operands: Vec<Option<Value>>,
    tail: &[Tail],
) -> Result<(Value, usize), OpError> {
    let (mut results, done) = op.run_tail(ctx, plain(ctx, operands)?, tail)?;
    let result = results.pop().ok_or_else(|| OpError::input("an operator without a result"))?;
    Ok((result.into(), done))
}
