//! The rules of the network as a pure state machine: accounts, registries, stake, jobs, escrow, slashing, settlement.
//!
//! ```
//! use isobit_ledger::{Action, BlockContext, COIN, Params, State};
//! # use alloy_primitives::{Address, B256};
//! let node = Address::repeat_byte(7);
//! let mut state = State::genesis(Params::default(), [(node, 5_000 * COIN)])?;
//! let block = BlockContext { height: 1, time: 1_800_000_000, parent: B256::ZERO };
//! let events = state.apply(&block, node, &Action::Join { stake: 2_000 * COIN, endpoint: String::new() })?;
//! assert_eq!(state.balance(node), 3_000 * COIN);
//! assert_eq!(state.check_invariants(), Ok(()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! No I/O, no clock, no floating point, no randomness: what is stored, a [`BlockContext`] and an [`Action`] give what is stored
//! next, or a typed error. The rules ([`apply`], [`tick`]) reach what they know, and the coins, through [`Storage`] alone: the
//! slots of the ledger's account on the chain (`isobit-chain`), or [`State`] in memory.
//!
//! # A job's life
//!
//! `posted -> assigned -> committed -> revealed -> settled | refunded`.
//!
//! - **Posting** puts the fee in escrow. At the end of the next block nodes are drawn by stake, with that block's parent as
//!   the beacon, so that the requester does not know it when signing. If there are too few by then, drawing waits for as long
//!   as the commit window, and then the job is refunded.
//! - Each node **commits** to its receipt, sealed by its address and a salt. Commitments close when all have committed, or
//!   when the window (or the requester's own deadline) is over and more than half have.
//! - Each **reveals** answer and receipt. More than half of the drawn nodes with one outcome and cost settle the job.
//! - **Settled**: the agreeing nodes are paid by the cost, the model's owner its fee, never more than the escrow in all; the
//!   rest goes back. Whoever revealed something else is slashed: honest work is the same to the bit, so it was not honest.
//!   The whole stake is split between requester, burn account and treasury. Whoever stayed silent pays a penalty. A failure
//!   code that the majority agrees on settles the job as an output does.
//! - **No majority**: `replicated(n)` is escalated once. n + 1 more nodes are drawn, a majority of the 2n + 1 by themselves;
//!   revealed answers stand, silent nodes are penalised and out. The new nodes see the first answers; they gain nothing by
//!   copying, as one of the contradicting answers will be slashed. `signed` is not escalated: its price is that of one run.
//! - **Refunded**, if there are too few further nodes or no majority after the escalation: the requester gets everything
//!   back, nodes that answered are neither paid nor punished. A requester's own deadline that ends a job before the nodes'
//!   window is over penalises nobody.
//!
//! # Validators
//!
//! A validator votes on blocks with its stake as weight, and is drawn for no jobs. Two ballots of it for one vote that contradict
//! each other cost it a part of the stake, whoever shows them, and its place.
//!
//! Every phase has a deadline in block time, so every path ends; the sum of coins never changes ([`State::total_coins`]).

#![forbid(unsafe_code)]

mod action;
mod ballot;
mod error;
mod event;
mod job;
mod level;
mod params;
mod rules;
mod state;
mod storage;

pub use action::{Action, Inputs};
pub use ballot::{Ballot, BallotKind, SignedBallot, is_signed};
pub use error::TxError;
pub use event::Event;
pub use job::{End, Job, Phase, Reveal, Seat, commitment, job_id};
pub use level::Level;
pub use params::{GenesisError, Params};
pub use rules::{BlockContext, MAX_MANIFEST, apply, tick};
pub use state::{Coins, InvariantError, NodeStatus, State};
pub use storage::{Answer, Callback, ModelEntry, NodeEntry, Storage};

/// Base units in one coin: 1 ISO = 10^18.
pub const COIN: u128 = 1_000_000_000_000_000_000;
