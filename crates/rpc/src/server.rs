//! The methods as a service that an HTTP server mounts: POST for calls and batches, GET with an upgrade for WebSockets.

use std::sync::Arc;

use alloy_primitives::B128;
use isobit_chain::Chain;
use jsonrpsee::Methods;
use jsonrpsee::core::traits::IdProvider;
use jsonrpsee::server::{BatchRequestConfig, Server, ServerConfig, StopHandle, TowerService};
use jsonrpsee::types::SubscriptionId;

/// Longest request, and answer, in bytes.
const MAX_REQUEST: u32 = 4 << 20;
const MAX_RESPONSE: u32 = 64 << 20;
/// Most calls in a batch, connections, and subscriptions of one.
const MAX_BATCH: u32 = 1_000;
const MAX_CONNECTIONS: u32 = 2_000;
const MAX_SUBSCRIPTIONS: u32 = 256;

/// Ethereum JSON-RPC, for a `tower` server. Clone it for each request.
pub type Service = TowerService<tower::layer::util::Identity, tower::layer::util::Identity>;

/// Ids of subscriptions as Ethereum's nodes have them: clients expect quantities as text.
#[derive(Debug)]
struct Ids;

impl IdProvider for Ids {
    fn next_id(&self) -> SubscriptionId<'static> {
        SubscriptionId::Str(format!("{}", B128::random()).into())
    }
}

/// The service of a chain, which ends with `stop`. Call it within a tokio runtime.
pub fn service(chain: Arc<Chain>, stop: StopHandle) -> Service {
    let methods: Methods = crate::methods(chain).into();
    let config = ServerConfig::builder()
        .max_request_body_size(MAX_REQUEST)
        .max_response_body_size(MAX_RESPONSE)
        .max_connections(MAX_CONNECTIONS)
        .max_subscriptions_per_connection(MAX_SUBSCRIPTIONS)
        .set_id_provider(Ids)
        .set_batch_request_config(BatchRequestConfig::Limit(MAX_BATCH))
        .build();
    Server::builder().set_config(config).to_service_builder().build(methods, stop)
}
