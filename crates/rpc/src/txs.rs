//! Transactions and receipts.

use alloy_consensus::{ReceiptEnvelope, Transaction as _};
use alloy_eips::BlockId;
use alloy_primitives::{Address, B256, Bytes, U64};
use alloy_rpc_types_eth::{Log, Transaction, TransactionReceipt};
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use serde_json::{Value, json};

use crate::Context;
use crate::blocks::transaction;
use crate::error::{Answer, chain};
use crate::params::{Args, head, number};

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module.register_blocking_method("eth_sendRawTransaction", |params, c, _| -> Answer<B256> {
        let raw: Bytes = Args::new(&params)?.required("signed transaction")?;
        c.chain.submit(&raw).map_err(chain)
    })?;
    module.register_blocking_method("eth_getTransactionCount", |params, c, _| -> Answer<U64> {
        let mut args = Args::new(&params)?;
        let address: Address = args.required("address")?;
        let block: Option<Value> = args.optional("block")?;
        if block == Some(json!("pending")) {
            return Ok(U64::from(c.chain.pending_nonce(address).map_err(chain)?));
        }
        let mut args = Args::new(&params)?;
        let address: Address = args.required("address")?;
        Ok(U64::from(head(&c.chain, &mut args)?.nonce(address).map_err(chain)?))
    })?;
    module.register_blocking_method(
        "eth_getTransactionByHash",
        |params, c, _| -> Answer<Option<Transaction>> {
            let hash: B256 = Args::new(&params)?.required("transaction hash")?;
            if let Some((n, at)) = c.chain.store().tx(hash).map_err(chain)? {
                return Ok(c.chain.store().block(n).map_err(chain)?.and_then(|b| transaction(&b, at)));
            }
            Ok(c.chain.waiting(hash).map(|inner| Transaction {
                inner,
                block_hash: None,
                block_number: None,
                transaction_index: None,
                effective_gas_price: None,
                block_timestamp: None,
            }))
        },
    )?;
    for name in ["eth_getTransactionByBlockNumberAndIndex", "eth_getTransactionByBlockHashAndIndex"] {
        module.register_blocking_method(name, |params, c, _| -> Answer<Option<Transaction>> {
            let mut args = Args::new(&params)?;
            let id: BlockId = args.required("block")?;
            let at = args.quantity("index")?;
            let Some(n) = number(&c.chain, id)? else { return Ok(None) };
            let block = c.chain.store().block(n).map_err(chain)?;
            Ok(block.and_then(|b| transaction(&b, usize::try_from(at).ok()?)))
        })?;
    }
    module.register_blocking_method(
        "eth_getTransactionReceipt",
        |params, c, _| -> Answer<Option<TransactionReceipt>> {
            let hash: B256 = Args::new(&params)?.required("transaction hash")?;
            let store = c.chain.store();
            let Some((n, at)) = store.tx(hash).map_err(chain)? else { return Ok(None) };
            let Some(block) = store.block(n).map_err(chain)? else { return Ok(None) };
            let all = store.receipts(n).map_err(chain)?;
            Ok(receipts(&block, all).into_iter().nth(at))
        },
    )?;
    module.register_method(
        "txpool_status",
        |_, c, _| json!({ "pending": U64::from(c.chain.pool_size()), "queued": U64::ZERO }),
    )?;
    Ok(())
}

/// The receipts of a block as RPC has them.
pub(crate) fn receipts(block: &isobit_chain::Block, all: Vec<ReceiptEnvelope>) -> Vec<TransactionReceipt> {
    let (mut gas_before, mut log_index) = (0, 0);
    let mut rpc = Vec::with_capacity(all.len());
    for (at, (tx, receipt)) in block.txs.iter().zip(all).enumerate() {
        let gas_used = receipt.cumulative_gas_used() - gas_before;
        gas_before = receipt.cumulative_gas_used();
        let inner = receipt.map_logs(|inner| {
            log_index += 1;
            Log {
                inner,
                block_hash: Some(block.hash),
                block_number: Some(block.header.number),
                block_timestamp: Some(block.header.timestamp),
                transaction_hash: Some(*tx.inner().hash()),
                transaction_index: Some(at as u64),
                log_index: Some(log_index - 1),
                removed: false,
            }
        });
        rpc.push(TransactionReceipt {
            inner,
            transaction_hash: *tx.inner().hash(),
            transaction_index: Some(at as u64),
            block_hash: Some(block.hash),
            block_number: Some(block.header.number),
            gas_used,
            effective_gas_price: tx.effective_gas_price(block.header.base_fee_per_gas),
            blob_gas_used: None,
            blob_gas_price: None,
            from: tx.signer(),
            to: tx.to(),
            contract_address: tx.is_create().then(|| tx.signer().create(tx.nonce())),
        });
    }
    rpc
}
