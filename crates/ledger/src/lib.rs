//! The rules of the network as a pure state machine: accounts, registries, stake, jobs, escrow, slashing, settlement.
//!
//! No I/O, no clock, no floating point, no randomness: a [`State`] and a [`Block`] give the next state, or a typed error.
//! Whoever orders the transactions (one sequencer in process today) and whoever stores the result is outside.
//!
//! A job's life: `posted -> assigned -> committed -> revealed -> settled | refunded`. Posting puts the fee in escrow and draws
//! the nodes. Each commits to its receipt, sealed by its address and a salt; when all have, each reveals. More than half of the
//! drawn nodes with one outcome and cost settle the job: they are paid, whoever revealed something else loses the whole stake,
//! whoever stayed silent a part of it. Without such a majority the requester gets everything back. Every phase has a deadline
//! in block time, so every path ends; the sum of coins never changes ([`State::total_coins`]).

#![forbid(unsafe_code)]

mod block;
mod error;
mod job;
mod params;
mod state;
mod tx;

pub use block::{Block, Executed};
pub use error::TxError;
pub use job::{End, Job, Phase, Reveal, Seat, commitment};
pub use params::Params;
pub use state::{Account, ModelEntry, NodeEntry, NodeStatus, State};
pub use tx::{Action, SignedTx, Tx};

/// Base units in one coin: 1 ISO = 10^18.
pub const COIN: u128 = 1_000_000_000_000_000_000;
