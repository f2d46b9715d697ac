//! What a client is told of over a WebSocket as it happens.

use std::sync::{Arc, Weak};
use std::time::Duration;

use alloy_rpc_types_eth::Filter;
use alloy_rpc_types_eth::pubsub::{Params as Topic, SubscriptionKind};
use isobit_chain::Chain;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::{PendingSubscriptionSink, RpcModule, SubscriptionMessage, SubscriptionSink};
use serde::Serialize;
use tokio::sync::watch;

use crate::Context;
use crate::blocks::rpc_header;
use crate::error::invalid;
use crate::logs::find;
use crate::params::Args;

/// Tells of each new block's number. The thread ends with the chain.
pub(crate) fn watch(chain: &Arc<Chain>) -> watch::Receiver<u64> {
    let (told, hears) = watch::channel(chain.head().header.number);
    let chain: Weak<Chain> = Arc::downgrade(chain);
    std::thread::spawn(move || {
        let mut last = *told.borrow();
        while let Some(chain) = chain.upgrade() {
            let now = chain.wait(last, Duration::from_millis(500));
            if now > last && told.send(now).is_err() {
                return;
            }
            if now <= last {
                // Stopped or idle: do not spin on a chain that returns at once.
                std::thread::sleep(Duration::from_millis(20));
            }
            last = now;
        }
    });
    hears
}

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_subscription(
        "eth_subscribe",
        "eth_subscription",
        "eth_unsubscribe",
        |params, pending, context, _| async move {
            let what = Args::new(&params).and_then(|mut args| {
                let kind: SubscriptionKind =
                    args.required("subscription (newHeads, logs, newPendingTransactions)")?;
                Ok((kind, args.optional::<Topic>("filter")?))
            });
            match what {
                Ok((SubscriptionKind::Syncing, _)) => {
                    pending.reject(invalid("there is no subscription to syncing")).await;
                }
                Ok((kind, topic)) => tell(pending, &context, kind, topic).await,
                Err(e) => pending.reject(e).await,
            }
        },
    )?;
    Ok(())
}

async fn tell(pending: PendingSubscriptionSink, c: &Context, kind: SubscriptionKind, topic: Option<Topic>) {
    let filter = match topic {
        Some(Topic::Logs(filter)) => *filter,
        _ => Filter::default(),
    };
    let Ok(sink) = pending.accept().await else { return };
    let mut blocks = c.blocks.clone();
    let mut next = c.chain.head().header.number + 1;
    loop {
        let changed = tokio::select! {
            () = sink.closed() => return,
            changed = blocks.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let last = *blocks.borrow();
        for n in next..=last {
            if tell_block(&sink, c, &kind, &filter, n).await.is_none() {
                return;
            }
        }
        next = next.max(last + 1);
    }
}

/// `None` if nobody listens any more, or the block cannot be read.
async fn tell_block(
    sink: &SubscriptionSink,
    c: &Context,
    kind: &SubscriptionKind,
    filter: &Filter,
    n: u64,
) -> Option<()> {
    match kind {
        SubscriptionKind::Logs => {
            for log in find(c, filter, n, n).ok()? {
                send(sink, &log).await?;
            }
        }
        SubscriptionKind::NewPendingTransactions => {
            for tx in c.chain.store().block(n).ok()??.txs {
                send(sink, tx.inner().hash()).await?;
            }
        }
        _ => send(sink, &rpc_header(&c.chain.store().block(n).ok()??, None)).await?,
    }
    Some(())
}

async fn send(sink: &SubscriptionSink, what: &impl Serialize) -> Option<()> {
    let text = serde_json::value::to_raw_value(what).ok()?;
    sink.send(SubscriptionMessage::from(text)).await.ok()
}
