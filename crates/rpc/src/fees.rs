//! What a unit of gas costs.

use alloy_consensus::Transaction as _;
use alloy_eips::BlockNumberOrTag;
use alloy_primitives::U256;
use alloy_rpc_types_eth::FeeHistory;
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::Params;

use crate::Context;
use crate::error::{Answer, chain, invalid, refused};
use crate::params::{Args, number};

/// The tip that is proposed: any is enough while blocks are not full.
const TIP: u64 = 1_000_000;
/// Most blocks in a fee history, and percentiles.
const MAX_BLOCKS: u64 = 1_024;
const MAX_PERCENTILES: usize = 100;

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_method("eth_gasPrice", |_, c, _| {
        // The base fee rises by an eighth a block at most: enough for some blocks.
        Answer::Ok(U256::from(2 * c.chain.head().next_base_fee() + TIP))
    })?;
    module.register_method("eth_maxPriorityFeePerGas", |_, _, _| Answer::Ok(U256::from(TIP)))?;
    module.register_method("eth_blobBaseFee", |_, _, _| Answer::Ok(U256::from(1)))?;
    module.register_blocking_method("eth_feeHistory", |params, c, _| history(&params, &c))?;
    Ok(())
}

fn history(params: &Params<'_>, c: &Context) -> Answer<FeeHistory> {
    let mut args = Args::new(params)?;
    let count = args.quantity("number of blocks")?.min(MAX_BLOCKS);
    let newest: BlockNumberOrTag = args.required("block")?;
    let percentiles: Option<Vec<f64>> = args.optional("list of percentiles")?;
    let sorted = |p: &[f64]| p.iter().all(|v| (0.0..=100.0).contains(v)) && p.is_sorted();
    if percentiles.as_ref().is_some_and(|p| p.len() > MAX_PERCENTILES || !sorted(p)) {
        return Err(invalid("percentiles must be 0 to 100, ascending, at most 100 of them"));
    }
    let newest = number(&c.chain, newest.into())?.ok_or_else(|| refused("request beyond head block"))?;
    let oldest = (newest + 1).saturating_sub(count);
    let mut history = FeeHistory { oldest_block: oldest, ..FeeHistory::default() };
    let mut rewards = Vec::new();
    let store = c.chain.store();
    for n in oldest..=newest {
        let Some(header) = store.header(n).map_err(chain)? else { break };
        history.base_fee_per_gas.push(header.base_fee_per_gas.unwrap_or_default().into());
        history.gas_used_ratio.push(header.gas_used as f64 / header.gas_limit as f64);
        if let Some(percentiles) = &percentiles {
            let tips = tips(c, n)?;
            rewards.push(percentiles.iter().map(|p| at_percentile(&tips, header.gas_used, *p)).collect());
        }
    }
    let next = match store.header(newest + 1).map_err(chain)? {
        Some(header) => header.base_fee_per_gas.unwrap_or_default(),
        None => c.chain.head().next_base_fee(),
    };
    history.base_fee_per_gas.push(next.into());
    history.base_fee_per_blob_gas = vec![1; history.base_fee_per_gas.len()];
    history.blob_gas_used_ratio = vec![0.0; history.gas_used_ratio.len()];
    history.reward = percentiles.is_some().then_some(rewards);
    Ok(history)
}

/// The tip a unit and the gas of each transaction of a block, lowest tip first.
fn tips(c: &Context, n: u64) -> Answer<Vec<(u128, u64)>> {
    let Some(block) = c.chain.store().block(n).map_err(chain)? else { return Ok(Vec::new()) };
    let receipts = c.chain.store().receipts(n).map_err(chain)?;
    let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
    let mut before = 0;
    let mut tips: Vec<(u128, u64)> = block
        .txs
        .iter()
        .zip(receipts)
        .map(|(tx, receipt)| {
            let gas = receipt.cumulative_gas_used() - before;
            before = receipt.cumulative_gas_used();
            (tx.effective_tip_per_gas(base_fee).unwrap_or(0), gas)
        })
        .collect();
    tips.sort_unstable();
    Ok(tips)
}

fn at_percentile(tips: &[(u128, u64)], gas_used: u64, percentile: f64) -> u128 {
    let threshold = gas_used as f64 * percentile / 100.0;
    let mut sum = 0.0;
    for (tip, gas) in tips {
        sum += *gas as f64;
        if sum >= threshold {
            return *tip;
        }
    }
    tips.last().map_or(0, |t| t.0)
}
