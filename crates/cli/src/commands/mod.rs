//! One file a command.

pub(crate) mod check;
pub(crate) mod inspect;
pub(crate) mod run;
