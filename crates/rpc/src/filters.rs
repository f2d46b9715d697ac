//! Filters that a client installs and polls.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use alloy_primitives::{B256, U256};
use alloy_rpc_types_eth::{Filter, Log};
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use serde::Serialize;

use crate::Context;
use crate::error::{Answer, chain, refused};
use crate::logs::{find, range};
use crate::params::Args;

/// Most filters; beyond, the one that was not asked for the longest goes.
const MAX_FILTERS: usize = 10_000;
/// A filter that is not asked for goes after this time, as in geth.
const LIFE: Duration = Duration::from_secs(300);

#[derive(Debug)]
enum Kind {
    Logs(Box<Filter>),
    Blocks,
    /// Transactions that wait are not told of before they are in a block.
    Pending,
}

#[derive(Debug)]
struct Installed {
    kind: Kind,
    next: u64,
    asked: Instant,
}

/// The installed filters.
#[derive(Debug, Default)]
pub(crate) struct Filters(Mutex<(u64, BTreeMap<u64, Installed>)>);

#[derive(Serialize, Clone)]
#[serde(untagged)]
enum Changes {
    Logs(Vec<Log>),
    Hashes(Vec<B256>),
}

impl Filters {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<u64, Installed>)> {
        let mut inner = self.0.lock().unwrap_or_else(|e| e.into_inner());
        inner.1.retain(|_, f| f.asked.elapsed() < LIFE);
        inner
    }

    fn install(&self, kind: Kind, next: u64) -> U256 {
        let mut inner = self.lock();
        if inner.1.len() >= MAX_FILTERS {
            let oldest = inner.1.iter().min_by_key(|(_, f)| f.asked).map(|(id, _)| *id);
            oldest.and_then(|id| inner.1.remove(&id));
        }
        inner.0 += 1;
        let id = inner.0;
        inner.1.insert(id, Installed { kind, next, asked: Instant::now() });
        U256::from(id)
    }
}

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_method("eth_newFilter", |params, c, _| -> Answer<U256> {
        let filter: Filter = Args::new(&params)?.required("filter")?;
        let next = c.chain.head().header.number + 1;
        Ok(c.filters.install(Kind::Logs(Box::new(filter)), next))
    })?;
    module.register_method("eth_newBlockFilter", |_, c, _| -> Answer<U256> {
        Ok(c.filters.install(Kind::Blocks, c.chain.head().header.number + 1))
    })?;
    module.register_method("eth_newPendingTransactionFilter", |_, c, _| -> Answer<U256> {
        Ok(c.filters.install(Kind::Pending, c.chain.head().header.number + 1))
    })?;
    module.register_method("eth_uninstallFilter", |params, c, _| -> Answer<bool> {
        let id: U256 = Args::new(&params)?.required("filter id")?;
        Ok(c.filters.lock().1.remove(&id.saturating_to()).is_some())
    })?;
    module.register_blocking_method("eth_getFilterChanges", |params, c, _| -> Answer<Changes> {
        let id: U256 = Args::new(&params)?.required("filter id")?;
        changes(&c, id.saturating_to(), false)
    })?;
    module.register_blocking_method("eth_getFilterLogs", |params, c, _| -> Answer<Changes> {
        let id: U256 = Args::new(&params)?.required("filter id")?;
        changes(&c, id.saturating_to(), true)
    })?;
    Ok(())
}

/// What a filter has found since it was last asked, or (`all`) in all of its blocks.
fn changes(c: &Context, id: u64, all: bool) -> Answer<Changes> {
    let head = c.chain.head().header.number;
    let (filter, next, hashes_of_txs) = {
        let mut inner = c.filters.lock();
        let installed = inner.1.get_mut(&id).ok_or_else(|| refused("filter not found"))?;
        installed.asked = Instant::now();
        let next = installed.next;
        if !all {
            installed.next = head + 1;
        }
        match &installed.kind {
            Kind::Logs(filter) => (Some(filter.clone()), next, false),
            Kind::Blocks => (None, next, false),
            Kind::Pending => (None, next, true),
        }
    };
    if let Some(filter) = filter {
        let (from, to) = range(c, &filter)?;
        let from = if all { from } else { from.max(next).min(next.max(from)) };
        return Ok(Changes::Logs(find(c, &filter, from, to)?));
    }
    if all {
        return Err(refused("filter is not about logs"));
    }
    let mut hashes = Vec::new();
    for n in next..=head {
        let Some(block) = c.chain.store().block(n).map_err(chain)? else { break };
        if hashes_of_txs {
            hashes.extend(block.txs.iter().map(|tx| *tx.inner().hash()));
        } else {
            hashes.push(block.hash);
        }
    }
    Ok(Changes::Hashes(hashes))
}
