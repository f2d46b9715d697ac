//! One file an operator family: check, shape inference, cost, execution.
