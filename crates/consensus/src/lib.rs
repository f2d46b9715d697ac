//! Agreement of many validators on one chain: Malachite's core over our executor.
//!
//! The core is a state machine without clock, network or disk: it takes inputs (votes, proposals, timeouts) and asks for effects (sign,
//! publish, store, decide). [`Validator`] carries them out for one validator, on its chain and its write-ahead log; who owns it
//! moves the messages and the time. The simulation in `tests/` does so in one thread from a seed.
//!
//! What is agreed on is a block's hash; the block itself travels beside the proposal, and is executed before it is voted for. Along
//! with its vote a validator says what it knows of prices ([`Prices`]).

#![forbid(unsafe_code)]

mod book;
mod disk;
#[cfg(feature = "network")]
mod engine;
mod prices;
mod types;
mod validator;
mod wire;

pub use disk::Disk;
#[cfg(feature = "network")]
pub use engine::{Config, Engine, Multiaddr};
pub use prices::{Prices, Report};
pub use types::{Addr, BlockId, Height, Member, Members, Part, Proposal, Protocol, Scheme, Vote};
pub use validator::{Effects, Message, Offer, Timer, Validator};
pub use wire::{Gossip, MAX_MESSAGE, WireError};
