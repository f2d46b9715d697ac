//! One file a command.

pub(crate) mod chain;
pub(crate) mod check;
pub(crate) mod conformance;
pub(crate) mod demo;
pub(crate) mod genesis;
pub(crate) mod hub;
pub(crate) mod infer;
pub(crate) mod inspect;
pub(crate) mod job;
pub(crate) mod node;
pub(crate) mod publish;
pub(crate) mod run;
pub(crate) mod up;
pub(crate) mod validator;
pub(crate) mod verify;
pub(crate) mod wallet;
