//! Ethereum JSON-RPC over HTTP and WebSocket, so that wallets, contracts' tools and Ethereum's libraries work as they are.
//!
//! Blocks are final when they are there, so `latest`, `safe`, `finalized` and `pending` are the same block. The states of the
//! last 128 blocks can be asked for, those of older blocks are refused with a clear error; blocks, transactions, receipts and logs are all kept.
//! Unknown methods answer -32601, as clients fall back on that.

#![forbid(unsafe_code)]

mod blocks;
mod error;
mod fees;
mod filters;
mod logs;
mod params;
mod server;
mod state;
mod subscriptions;
mod txs;

use std::sync::Arc;

use isobit_chain::Chain;
use jsonrpsee::RpcModule;

pub use server::{Service, service};

use filters::Filters;

/// What every method reaches.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) chain: Arc<Chain>,
    pub(crate) filters: Filters,
    pub(crate) blocks: tokio::sync::watch::Receiver<u64>,
}

/// All methods of a chain. Call it within a tokio runtime; the subscriptions end with the chain.
pub fn methods(chain: Arc<Chain>) -> RpcModule<()> {
    let blocks = subscriptions::watch(&chain);
    let context = Context { chain, filters: Filters::default(), blocks };
    let mut module = RpcModule::new(context);
    let registered = state::register(&mut module)
        .and_then(|()| blocks::register(&mut module))
        .and_then(|()| txs::register(&mut module))
        .and_then(|()| fees::register(&mut module))
        .and_then(|()| logs::register(&mut module))
        .and_then(|()| filters::register(&mut module))
        .and_then(|()| subscriptions::register(&mut module));
    registered.expect("each name is registered once");
    module.remove_context()
}
