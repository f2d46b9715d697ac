use isobit_graph::{Attr, Graph, Node};
use isobit_kernels::KernelSet;
use isobit_tensor::Tensor;

use crate::{Op, OpError, Packs};

/// What an operator is built from: its node, its constant operands, and who packs those.
#[derive(Clone, Copy)]
pub struct BuildCtx<'a> {
    /// The node.
    pub node: &'a Node,
    /// For each operand: its content, where it is a constant.
    pub constants: &'a [Option<Tensor>],
    /// Where [`crate::takes_turned`] holds: a constant matrix whose transpose is operand 1, which is not at hand itself.
    pub turned: Option<&'a Tensor>,
    /// Who packs weights, for the kernel set that the runs will use.
    pub packs: &'a dyn Packs,
}

impl<'a> BuildCtx<'a> {
    /// The kernel set that the runs will use.
    pub fn set(&self) -> KernelSet {
        self.packs.exec().set()
    }

    /// Operand `i`, where it is a constant.
    pub fn constant(&self, i: usize) -> Option<&'a Tensor> {
        self.constants.get(i).and_then(Option::as_ref)
    }

    /// Whether operand `i` is given at all.
    pub fn has_input(&self, i: usize) -> bool {
        self.node.inputs.get(i).is_some_and(Option::is_some)
    }

    /// How many results the node declares.
    pub fn outputs(&self) -> usize {
        self.node.outputs.len()
    }

    /// `op`, for a node that declares exactly one result.
    pub(crate) fn one(&self, op: impl Op + 'static) -> Result<Box<dyn Op>, OpError> {
        self.at_most(1, op)
    }

    /// `op`, for a node that declares 1 to `most` results.
    pub(crate) fn at_most(&self, most: usize, op: impl Op + 'static) -> Result<Box<dyn Op>, OpError> {
        match self.outputs() {
            n if (1..=most).contains(&n) => Ok(Box::new(op)),
            n => Err(OpError::input(format!("the node declares {n} results; the operator has {most}"))),
        }
    }

    /// The attribute, where given.
    pub fn attr(&self, name: &str) -> Option<&'a Attr> {
        self.node.attrs.get(name)
    }

    /// An integer attribute, where given.
    pub fn opt_int(&self, name: &str) -> Result<Option<i64>, OpError> {
        self.typed(name, "an int", |a| match a {
            Attr::Int(v) => Some(*v),
            _ => None,
        })
    }

    /// An integer attribute with its default.
    pub fn int(&self, name: &str, default: i64) -> Result<i64, OpError> {
        Ok(self.opt_int(name)?.unwrap_or(default))
    }

    /// A 0/1 attribute with its default.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool, OpError> {
        Ok(self.int(name, default.into())? != 0)
    }

    /// A float attribute, where given.
    pub fn opt_float(&self, name: &str) -> Result<Option<f32>, OpError> {
        self.typed(name, "a float", |a| match a {
            Attr::Float(v) => Some(*v),
            _ => None,
        })
    }

    /// A float attribute with its default.
    pub fn float(&self, name: &str, default: f32) -> Result<f32, OpError> {
        Ok(self.opt_float(name)?.unwrap_or(default))
    }

    /// A string attribute, where given.
    pub fn opt_str(&self, name: &str) -> Result<Option<&'a str>, OpError> {
        self.typed(name, "a UTF-8 string", |a| match a {
            Attr::String(v) => std::str::from_utf8(v).ok(),
            _ => None,
        })
    }

    /// A string attribute with its default.
    pub fn str(&self, name: &str, default: &'a str) -> Result<&'a str, OpError> {
        Ok(self.opt_str(name)?.unwrap_or(default))
    }

    /// A string attribute that names one of `choices`; the first is its default.
    pub(crate) fn choice<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, OpError> {
        let given = self.opt_str(name)?.unwrap_or(choices[0].0);
        choices.iter().find(|(text, _)| *text == given).map(|(_, v)| *v).ok_or_else(|| {
            let accepted: Vec<_> = choices.iter().map(|(text, _)| *text).collect();
            OpError::attribute(format!("{name} '{given}'; accepted: {}", accepted.join(", ")))
        })
    }

    /// A list of integers, where given.
    pub fn opt_ints(&self, name: &str) -> Result<Option<&'a [i64]>, OpError> {
        self.typed(name, "a list of ints", |a| match a {
            Attr::Ints(v) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// A list of floats, where given.
    pub fn opt_floats(&self, name: &str) -> Result<Option<&'a [f32]>, OpError> {
        self.typed(name, "a list of floats", |a| match a {
            Attr::Floats(v) => Some(v.as_slice()),
            _ => None,
        })
    }

    /// A list of UTF-8 strings, where given.
    pub fn opt_strs(&self, name: &str) -> Result<Option<Vec<&'a str>>, OpError> {
        self.typed(name, "a list of UTF-8 strings", |a| match a {
            Attr::Strings(v) => v.iter().map(|s| std::str::from_utf8(s).ok()).collect(),
            _ => None,
        })
    }

    /// A tensor attribute, where given.
    pub fn opt_tensor(&self, name: &str) -> Result<Option<&'a Tensor>, OpError> {
        self.typed(name, "a tensor", |a| match a {
            Attr::Tensor(v) => Some(v),
            _ => None,
        })
    }

    /// A graph attribute, where given.
    pub fn opt_graph(&self, name: &str) -> Result<Option<&'a Graph>, OpError> {
        self.typed(name, "a graph", |a| match a {
            Attr::Graph(v) => Some(&**v),
            _ => None,
        })
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &str,
        get: impl FnOnce(&'a Attr) -> Option<T>,
    ) -> Result<Option<T>, OpError> {
        let Some(attr) = self.attr(name) else { return Ok(None) };
        get(attr).map(Some).ok_or_else(|| OpError::attribute(format!("attribute '{name}' is not {expected}")))
    }
}
