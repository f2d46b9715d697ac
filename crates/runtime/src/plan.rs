use isobit_graph::{Graph, ValueId};

/// For each step, what nobody needs after it: buffers that may be reused for its results, or freed.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `last[step][operand]`.
    pub(crate) last: Vec<Vec<bool>>,
    /// `frees[step]`: values that only bodies of the step still needed, and results nobody needs.
    pub(crate) frees: Vec<Vec<ValueId>>,
}

/// What is wrong with the order of a graph.
#[derive(Debug)]
pub(crate) enum Disorder {
    /// A step uses a value that nothing before it defines.
    Undefined { step: usize, operand: usize },
    /// A graph output that nothing defines.
    NoOutput(String),
}

impl Plan {
    /// Checks that every operand is defined before use, and finds last uses.
    pub(crate) fn new(graph: &Graph) -> Result<Self, Disorder> {
        let mut defined = vec![false; graph.values.len()];
        let captured = graph.captures.iter().map(|(inner, _)| inner);
        for v in graph.inputs.iter().chain(graph.initializers.keys()).chain(captured) {
            defined[v.0 as usize] = true;
        }
        let is_defined = |defined: &[bool], v: ValueId| defined.get(v.0 as usize).copied().unwrap_or(false);
        for (step, node) in graph.nodes.iter().enumerate() {
            let operands = node.inputs.iter().flatten().copied();
            let needed = operands.chain(node.captured());
            if let Some(operand) = needed.clone().position(|v| !is_defined(&defined, v)) {
                return Err(Disorder::Undefined { step, operand });
            }
            for v in node.outputs.iter().flatten() {
                defined[v.0 as usize] = true;
            }
        }
        if let Some(v) = graph.outputs.iter().find(|v| !is_defined(&defined, **v)) {
            return Err(Disorder::NoOutput(graph.value(*v).name.clone()));
        }
        Ok(Self::last_uses(graph))
    }

    /// For each value of the graph, the last step that needs it; beyond all of them for what the caller gets.
    pub(crate) fn ends(&self, graph: &Graph) -> Vec<usize> {
        let mut ends = vec![usize::MAX; graph.values.len()];
        for (step, node) in graph.nodes.iter().enumerate() {
            let last = node.inputs.iter().zip(&self.last[step]).filter(|(_, last)| **last);
            for v in last.filter_map(|(v, _)| *v).chain(self.frees[step].iter().copied()) {
                ends[v.0 as usize] = step;
            }
        }
        ends
    }

    fn last_uses(graph: &Graph) -> Self {
        let mut needed = vec![false; graph.values.len()];
        for v in &graph.outputs {
            needed[v.0 as usize] = true;
        }
        let mut last = Vec::with_capacity(graph.nodes.len());
        let mut frees = Vec::with_capacity(graph.nodes.len());
        for node in graph.nodes.iter().rev() {
            let mut claim = |v: ValueId| !std::mem::replace(&mut needed[v.0 as usize], true);
            // What bodies capture is not moved into them: it is freed after the step.
            let unused = node.outputs.iter().flatten().copied().filter(|&v| claim(v)).collect::<Vec<_>>();
            let captured = node.captured().filter(|&v| claim(v)).collect::<Vec<_>>();
            frees.push([unused, captured].concat());
            // From the right: where a value is an operand twice, the later position is its last use.
            let mut flags: Vec<bool> = node.inputs.iter().rev().map(|v| v.is_some_and(&mut claim)).collect();
            flags.reverse();
            last.push(flags);
        }
        last.reverse();
        frees.reverse();
        Self { last, frees }
    }
}
