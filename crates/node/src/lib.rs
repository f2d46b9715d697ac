//! The network in one process: workers that run jobs, an HTTP API, and its client.
//!
//! Workers and clients reach the network through [`Gateway`]: in the same process ([`Local`]) or over HTTP ([`Remote`]),
//! with the same code on either side.

#![forbid(unsafe_code)]

#[cfg(not(target_pointer_width = "64"))]
compile_error!(
    "a node's failures must be those of every other node, and a machine of 32 bits has limits of its own"
);

mod api;
mod broker;
mod error;
mod faucet;
mod gateway;
mod hub_api;
mod json;
mod keeper;
mod metrics;
mod model_hub;
mod network;
mod objects;
mod opengradient;
mod payments;
mod prices;
mod remote;
mod serving;
mod sessions;
mod validators;
mod worker;

pub use api::{Offers, serve};
pub use error::NodeError;
pub use faucet::Faucet;
pub use gateway::{Account, Gateway, Local, Sent, Status};
pub use json::{tensor_from_json, tensor_to_json};
pub use model_hub::ModelHub;
pub use network::{Network, read_genesis, write_genesis};
pub use objects::{
    Client, fetch_model, fetch_tensors, is_registered, publish_model, store_tensors, wait_for_job,
};
pub use payments::Till;
pub use prices::price_source;
pub use remote::Remote;
pub use serving::Serving;
pub use validators::{Blocks, Making};
pub use worker::{Honest, Run, Worker};
