//! Logs of past blocks.

use alloy_eips::BlockNumberOrTag;
use alloy_rpc_types_eth::{Filter, FilterBlockOption, Log};
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;

use crate::Context;
use crate::error::{Answer, chain, invalid, refused};
use crate::params::{Args, number};
use crate::txs::receipts;

/// Most blocks that one request looks through, and most logs that it returns.
const MAX_RANGE: u64 = 100_000;
const MAX_LOGS: usize = 20_000;

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("eth_getLogs", |params, c, _| -> Answer<Vec<Log>> {
        let filter: Filter = Args::new(&params)?.required("filter")?;
        let (from, to) = range(&c, &filter)?;
        find(&c, &filter, from, to)
    })?;
    Ok(())
}

/// The blocks that a filter is about, both ends included; empty if `from` is above `to`.
pub(crate) fn range(c: &Context, filter: &Filter) -> Answer<(u64, u64)> {
    let head = c.chain.head().header.number;
    match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            let n = c.chain.store().number(hash).map_err(chain)?.ok_or_else(|| refused("unknown block"))?;
            Ok((n, n))
        }
        FilterBlockOption::Range { from_block, to_block } => {
            let at = |tag: Option<BlockNumberOrTag>| match tag.unwrap_or_default() {
                BlockNumberOrTag::Number(n) => Answer::Ok(n),
                tag => Ok(number(&c.chain, tag.into())?.unwrap_or(head)),
            };
            Ok((at(from_block)?, at(to_block)?.min(head)))
        }
    }
}

/// The logs in some blocks that match.
pub(crate) fn find(c: &Context, filter: &Filter, from: u64, to: u64) -> Answer<Vec<Log>> {
    if to.saturating_sub(from) > MAX_RANGE {
        return Err(invalid(format!("block range is too wide: at most {MAX_RANGE} blocks in one request")));
    }
    let store = c.chain.store();
    let mut logs = Vec::new();
    for n in from..=to {
        let Some(header) = store.header(n).map_err(chain)? else { break };
        if !filter.matches_bloom(header.logs_bloom) {
            continue;
        }
        let Some(block) = store.block(n).map_err(chain)? else { break };
        let all = receipts(&block, store.receipts(n).map_err(chain)?);
        let found = all.into_iter().flat_map(|r| r.inner.logs().to_vec());
        logs.extend(found.filter(|log| filter.matches(&log.inner)));
        if logs.len() > MAX_LOGS {
            return Err(invalid(format!(
                "query returned more than {MAX_LOGS} results; ask for fewer blocks"
            )));
        }
    }
    Ok(logs)
}
