//! What a run has used, and the failures that everybody agrees on when it uses too much.

use std::time::Duration;

use isobit_kernels::Exec;
use isobit_ops::{Code, Memory, OpError, Value};

use crate::portions::Part;
use crate::{Limits, RunOptions};

/// Why a program stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A limit of the run is reached.
    Limit { what: &'static str, limit: u64 },
    /// A step of the graph failed.
    Step { step: usize, error: OpError },
}

/// Time and cost of one step of the outermost graph.
pub(crate) struct Timed {
    pub(crate) step: usize,
    pub(crate) time: Duration,
    pub(crate) cost: u64,
    pub(crate) fused: bool,
}

/// One run: what it may use and what it has used.
pub(crate) struct Run<'a> {
    pub(crate) exec: Exec<'a>,
    pub(crate) memory: &'a Memory,
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    /// Whether the cost is counted step by step: it does not follow from the shapes of the inputs.
    pub(crate) metered: bool,
    pub(crate) profile: bool,
    pub(crate) cost: u64,
    steps: u64,
    /// Bodies of control flow begun so far.
    pub(crate) iterations: u64,
    held: u64,
    /// How many bodies enclose the current step.
    pub(crate) depth: usize,
    pub(crate) times: Vec<Timed>,
    /// The portion of a batch that it is of.
    pub(crate) part: Option<Part<'a>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(exec: Exec<'a>, memory: &'a Memory, options: &RunOptions, metered: bool) -> Self {
        Self {
            exec,
            memory,
            seed: options.seed,
            limits: options.limits,
            metered,
            profile: options.profile,
            cost: 0,
            steps: 0,
            iterations: 0,
            held: 0,
            depth: 0,
            times: Vec::new(),
            part: None,
        }
    }

    /// A run of its own for part of this one, of which nothing is counted that follows from the shapes.
    pub(crate) fn part<'p>(&self, exec: Exec<'p>, part: Part<'p>) -> Run<'p>
    where
        'a: 'p,
    {
        let options = RunOptions { seed: self.seed, limits: self.limits, profile: self.profile };
        Run { part: Some(part), ..Run::new(exec, self.memory, &options, false) }
    }

    /// Counts a step.
    pub(crate) fn step(&mut self) -> Result<(), Stop> {
        self.steps += 1;
        within("steps", self.steps, self.limits.steps)
    }

    /// Counts a run of a body.
    pub(crate) fn iteration(&mut self) -> Result<(), Stop> {
        self.iterations += 1;
        within("iterations", self.iterations, self.limits.iterations)
    }

    /// Whether a step of this cost may begin.
    pub(crate) fn affords(&self, cost: u64) -> Result<(), Stop> {
        within("units of metered cost", self.cost.saturating_add(cost), self.limits.cost)
    }

    /// Charges a cost.
    pub(crate) fn charge(&mut self, cost: u64) -> Result<(), Stop> {
        self.cost = self.cost.saturating_add(cost);
        if self.metered { self.affords(0) } else { Ok(()) }
    }

    /// Counts a result that is kept.
    pub(crate) fn hold(&mut self, value: &Value) -> Result<(), Stop> {
        self.held = self.held.saturating_add(value.byte_len());
        within("bytes held", self.held, self.limits.held_bytes)
    }

    /// A result that nobody needs any more.
    pub(crate) fn release(&mut self, value: &Value) {
        self.held = self.held.saturating_sub(value.byte_len());
    }
}

fn within(what: &'static str, used: u64, limit: u64) -> Result<(), Stop> {
    if used > limit { Err(Stop::Limit { what, limit }) } else { Ok(()) }
}

impl Stop {
    /// As an error of the step whose body stopped; a limit stays what it is.
    pub(crate) fn in_body(self, body: &isobit_graph::Graph, outer: usize) -> Self {
        match self {
            Stop::Limit { .. } => self,
            Stop::Step { step, error: OpError { code, message } } => {
                let op = body.nodes.get(step).map_or_else(String::new, isobit_graph::Node::qualified);
                let message = format!("in its body, step {step} ({op}): {message}");
                Stop::Step { step: outer, error: OpError { code, message } }
            }
        }
    }

    /// An error of inference or loading, where no run has limits.
    pub(crate) fn into_error(self) -> OpError {
        match self {
            Stop::Step { error, .. } => error,
            Stop::Limit { what, limit } => {
                OpError::new(Code::LimitExceeded, format!("more than {limit} {what}"))
            }
        }
    }
}
