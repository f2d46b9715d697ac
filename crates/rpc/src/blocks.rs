//! Blocks.

use alloy_consensus::Transaction as _;
use alloy_eips::BlockId;
use alloy_primitives::{B256, U64, U256};
use alloy_rpc_types_eth::{Block, BlockTransactions, Header, Transaction, TransactionReceipt};
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::Params;

use crate::Context;
use crate::error::{Answer, chain};
use crate::params::{Args, number};
use crate::txs::receipts;

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module
        .register_method("eth_blockNumber", |_, c, _| Answer::Ok(U64::from(c.chain.head().header.number)))?;
    for name in ["eth_getBlockByNumber", "eth_getBlockByHash"] {
        module.register_blocking_method(name, |params, c, _| -> Answer<Option<Block>> {
            let mut args = Args::new(&params)?;
            let Some(n) = number(&c.chain, args.required::<BlockId>("block")?)? else { return Ok(None) };
            let full = args.optional("boolean")?.unwrap_or(false);
            let block = c.chain.store().block(n).map_err(chain)?;
            Ok(block.map(|b| to_rpc(b, full)))
        })?;
    }
    for name in ["eth_getBlockTransactionCountByNumber", "eth_getBlockTransactionCountByHash"] {
        module.register_blocking_method(name, |params, c, _| -> Answer<Option<U64>> {
            Ok(block(&params, &c)?.map(|b| U64::from(b.txs.len())))
        })?;
    }
    for name in ["eth_getUncleCountByBlockNumber", "eth_getUncleCountByBlockHash"] {
        module.register_blocking_method(name, |params, c, _| -> Answer<Option<U64>> {
            Ok(block(&params, &c)?.map(|_| U64::ZERO))
        })?;
    }
    module.register_blocking_method(
        "eth_getBlockReceipts",
        |params, c, _| -> Answer<Option<Vec<TransactionReceipt>>> {
            let Some(block) = block(&params, &c)? else { return Ok(None) };
            let all = c.chain.store().receipts(block.header.number).map_err(chain)?;
            Ok(Some(receipts(&block, all)))
        },
    )?;
    Ok(())
}

fn block(params: &Params<'_>, c: &Context) -> Answer<Option<isobit_chain::Block>> {
    let id: BlockId = Args::new(params)?.required("block")?;
    let Some(n) = number(&c.chain, id)? else { return Ok(None) };
    c.chain.store().block(n).map_err(chain)
}

fn to_rpc(block: isobit_chain::Block, full: bool) -> Block {
    let size = U256::from(block.encode().len());
    let hashes = || block.txs.iter().map(|tx| *tx.inner().hash()).collect::<Vec<B256>>();
    let transactions = if full {
        BlockTransactions::Full((0..block.txs.len()).filter_map(|i| transaction(&block, i)).collect())
    } else {
        BlockTransactions::Hashes(hashes())
    };
    Block {
        header: rpc_header(&block, Some(size)),
        uncles: Vec::new(),
        transactions,
        withdrawals: Some(Default::default()),
    }
}

pub(crate) fn rpc_header(block: &isobit_chain::Block, size: Option<U256>) -> Header {
    Header { hash: block.hash, inner: block.header.clone(), total_difficulty: Some(U256::ZERO), size }
}

/// A transaction of a block.
pub(crate) fn transaction(block: &isobit_chain::Block, at: usize) -> Option<Transaction> {
    let inner = block.txs.get(at)?.clone();
    Some(Transaction {
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        transaction_index: Some(at as u64),
        effective_gas_price: Some(inner.effective_gas_price(block.header.base_fee_per_gas)),
        block_timestamp: Some(block.header.timestamp),
        inner,
    })
}
