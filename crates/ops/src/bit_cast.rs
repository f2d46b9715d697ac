//! BitCast: the same bits read as another type of the same width.

use isobit_tensor::{DType, Tensor};

use crate::axes::fact;
use crate::create::dtype_attr_of;
use crate::fold::fold;
use crate::{Fact, Inputs, Op, OpDef, OpError, RunCtx};

pub(crate) static FAMILY: &[OpDef] = &[OpDef::onnx("BitCast", 26, |ctx| {
    let to = dtype_attr_of(ctx, "to")?;
    let to = to.ok_or_else(|| OpError::attribute("attribute 'to' is missing; it must be an element type"))?;
    if to == DType::String {
        return Err(OpError::unsupported_type(to));
    }
    ctx.one(BitCast(to))
})];

/// Through the content bytes of the canonical form, in which every NaN is the quiet one.
struct BitCast(DType);

impl BitCast {
    fn check(&self, from: DType) -> Result<(), OpError> {
        if from == DType::String {
            return Err(OpError::unsupported_type(from));
        }
        match from.bits() == self.0.bits() {
            true => Ok(()),
            false => Err(OpError::attribute(format!("{from} and {} are not of the same width", self.0))),
        }
    }
}

impl Op for BitCast {
    fn infer(&self, inputs: &[Option<Fact>]) -> Result<Vec<Fact>, OpError> {
        let x = fact(inputs, 0);
        x.dtype.map(|t| self.check(t)).transpose()?;
        fold(self, inputs, || Ok(vec![Fact::new(Some(self.0), x.shape.clone())]))
    }

    fn run(&self, ctx: &RunCtx<'_>, inputs: Inputs) -> Result<Vec<Tensor>, OpError> {
        let x = inputs.get(0)?;
        self.check(x.dtype())?;
        ctx.memory.check::<u128>(x.shape())?;
        Ok(vec![Tensor::from_le_bytes(self.0, x.shape(), &x.to_le_bytes())?])
    }
}

#[cfg(test)]
mod tests {
    use isobit_kernels::{Exec, KernelSet, Serial};
    use isobit_tensor::{Complex, I4, Small as _, U4};

    use super::*;
    use crate::Memory;

    #[test]
    fn widths_of_half_a_byte_and_of_sixteen() {
        let memory = Memory::new(1 << 20);
        let ctx = RunCtx { exec: Exec::new(KernelSet::Scalar, &Serial), memory: &memory, seed: 0, step: 0 };
        let run = |to: DType, x: Tensor| BitCast(to).run(&ctx, Inputs::new(vec![Some(x)])).unwrap().remove(0);
        let signed = Tensor::vector([0x0, 0x7, 0x8, 0xf, 0x9].map(I4::from_bits).to_vec());
        let unsigned = run(DType::U4, signed);
        let values: Vec<u8> = unsigned.as_slice::<U4>().unwrap().iter().map(|v| v.value()).collect();
        assert_eq!(values, [0, 7, 8, 15, 9]);
        let x = Tensor::vector(vec![Complex { re: 1.5, im: -0.0 }, Complex { re: f64::INFINITY, im: 2.0 }]);
        assert_eq!(run(DType::Complex128, x.clone()).root(), x.root());
        assert!(BitCast(DType::U4).run(&ctx, Inputs::new(vec![Some(x)])).is_err());
    }
}
