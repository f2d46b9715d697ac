//! What the process counts, for Prometheus.

use std::sync::atomic::AtomicU64;

use isobit_chain::LEDGER;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::{Gateway, Local, NodeError};

type Real = Gauge<f64, AtomicU64>;

/// All metrics in Prometheus' text format (OpenMetrics), as they are now.
pub(crate) fn text(local: &Local) -> Result<String, NodeError> {
    let status = local.status()?;
    let head = local.chain.head();
    let mut registry = Registry::with_prefix("isobit");
    let mut gauge = |name: &str, help: &str, value: i64| {
        let metric = Gauge::<i64>::default();
        metric.set(value);
        registry.register(name, help, metric);
    };
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    gauge("block_number", "Number of the last block", signed(status.height));
    gauge(
        "block_timestamp_seconds",
        "Time of the last block, seconds since 1970",
        signed(head.header.timestamp),
    );
    gauge("block_gas_used", "Gas used by the last block", signed(head.header.gas_used));
    gauge("block_gas_limit", "Gas that a block can use", signed(head.header.gas_limit));
    gauge("base_fee_wei", "Base fee of the next block, base units a unit of gas", signed(status.base_fee));
    gauge("pool_transactions", "Transactions that wait for a block", local.chain.pool_size() as i64);
    gauge("jobs_open", "Jobs in progress", status.jobs as i64);
    gauge("nodes_active", "Nodes that can be drawn", status.active_nodes as i64);
    gauge("validators", "Who votes on the next block; 0 with one sequencer", head.validators().len() as i64);
    gauge(
        "prices_timestamp_seconds",
        "Minute of the last prices that validators have reported, seconds since 1970; 0 if they never have",
        signed(head.prices_minute()? * 60),
    );
    gauge("models", "Models published", status.models as i64);
    let locked = Real::default();
    locked.set(head.balance(LEDGER)? as f64 / 1e18);
    registry.register("coins_locked", "Coins of stakes and escrow, in ISO", locked);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|e| NodeError::Malformed(e.to_string()))?;
    Ok(text)
}
