//! The chain: an EVM whose precompile is the ledger, its state on disk, and the sequencer.

#![forbid(unsafe_code)]

pub mod abi;
mod block;
mod call;
mod chain;
mod error;
mod execute;
mod genesis;
mod opengradient;
mod pool;
mod precompile;
mod predeploys;
mod prices;
mod sign;
mod slots;
mod snapshot;
mod state;
mod store;
mod trie;

pub use block::{Block, Built, LEDGER, Refused, SYSTEM, decode_tx, is_system};
pub use call::{Call, CallError};
pub use chain::{AccountProof, Chain, Head, Sequencing};
pub use error::ChainError;
pub use execute::Proposal;
pub use genesis::{Genesis, params_from_json, params_to_json};
pub use opengradient::{HUB, Missing, PRECOMPILE};
pub use predeploys::{
    IInferenceTill, IPriceFeed, IWorkflowScheduler, IWrappedIso, PRICES, SCHEDULER, TILL,
    TransferWithAuthorization, WISO,
};
pub use prices::{MAX_PAIRS, Minute, PairPrice, PriceSource, SignedPrices};
pub use sign::{Order, ledger_call, ledger_order};
pub use store::Store;
