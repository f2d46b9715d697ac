//! Accounts, calls and the node itself.

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U64, U256, keccak256};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, EIP1186StorageProof, TransactionRequest};
use isobit_chain::{Call, Head};
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;

use crate::Context;
use crate::error::{Answer, call, chain, invalid};
use crate::params::{Args, head};

/// Most slots in one proof.
const MAX_SLOTS: usize = 1_024;

pub(crate) fn register(module: &mut RpcModule<Context>) -> Result<(), RegisterMethodError> {
    module
        .register_method("eth_chainId", |_, c, _| Answer::Ok(U64::from(c.chain.genesis().params.chain_id)))?;
    module.register_method("net_version", |_, c, _| c.chain.genesis().params.chain_id.to_string())?;
    module.register_method("net_listening", |_, _, _| true)?;
    module.register_method("net_peerCount", |_, _, _| Answer::Ok(U64::ZERO))?;
    module.register_method("web3_clientVersion", |_, _, _| concat!("isobit/v", env!("CARGO_PKG_VERSION")))?;
    module.register_method("web3_sha3", |params, _, _| -> Answer<B256> {
        Ok(keccak256(Args::new(&params)?.required::<Bytes>("byte string")?))
    })?;
    module.register_method("eth_syncing", |_, _, _| false)?;
    module.register_method("eth_accounts", |_, _, _| Vec::<Address>::new())?;
    module.register_method("eth_protocolVersion", |_, _, _| Answer::Ok(U64::from(68)))?;
    module.register_blocking_method("eth_getBalance", |params, c, _| -> Answer<U256> {
        let (mut args, c) = (Args::new(&params)?, &c.chain);
        let address: Address = args.required("address")?;
        Ok(U256::from(head(c, &mut args)?.balance(address).map_err(chain)?))
    })?;
    module.register_blocking_method("eth_getCode", |params, c, _| -> Answer<Bytes> {
        let (mut args, c) = (Args::new(&params)?, &c.chain);
        let address: Address = args.required("address")?;
        head(c, &mut args)?.code(address).map_err(chain)
    })?;
    module.register_blocking_method("eth_getStorageAt", |params, c, _| -> Answer<B256> {
        let (mut args, c) = (Args::new(&params)?, &c.chain);
        let address: Address = args.required("address")?;
        let slot: U256 = args.required("slot")?;
        head(c, &mut args)?.slot(address, slot.into()).map_err(chain)
    })?;
    module.register_blocking_method("eth_getProof", |params, c, _| proof(&params, &c))?;
    module.register_blocking_method("eth_call", |params, c, _| -> Answer<Bytes> {
        let (request, head) = request(&params, &c)?;
        head.call(&request).map_err(call)
    })?;
    module.register_blocking_method("eth_estimateGas", |params, c, _| -> Answer<U64> {
        let (request, head) = request(&params, &c)?;
        Ok(U64::from(head.estimate(&request).map_err(call)?))
    })?;
    Ok(())
}

fn proof(params: &jsonrpsee::types::Params<'_>, c: &Context) -> Answer<EIP1186AccountProofResponse> {
    let mut args = Args::new(params)?;
    let address: Address = args.required("address")?;
    let slots: Vec<U256> = args.optional("list of slots")?.unwrap_or_default();
    if slots.len() > MAX_SLOTS {
        return Err(invalid(format!("at most {MAX_SLOTS} slots in one proof")));
    }
    let head = head(&c.chain, &mut args)?;
    let slots: Vec<B256> = slots.into_iter().map(B256::from).collect();
    let proof = head.proof(address, &slots).map_err(chain)?;
    let (nonce, balance, code_hash, storage_hash) = proof.account;
    let storage_proof = proof.slots.into_iter().map(|(key, value, proof)| EIP1186StorageProof {
        key: key.into(),
        value,
        proof,
    });
    Ok(EIP1186AccountProofResponse {
        address,
        balance: U256::from(balance),
        code_hash,
        nonce,
        storage_hash,
        account_proof: proof.proof,
        storage_proof: storage_proof.collect(),
    })
}

/// The call in `[request, block, overrides]`, and the block after which it is made.
fn request(params: &jsonrpsee::types::Params<'_>, c: &Context) -> Answer<(Call, Arc<Head>)> {
    let mut args = Args::new(params)?;
    let request: TransactionRequest = args.required("call")?;
    let head = head(&c.chain, &mut args)?;
    let overrides: Option<StateOverride> = args.optional("state override")?;
    let price = request.max_fee_per_gas.or(request.gas_price);
    let call = Call {
        from: request.from.unwrap_or_default(),
        to: request.to.and_then(|to| to.to().copied()),
        gas: request.gas,
        gas_price: price.filter(|p| *p > 0),
        value: request.value.unwrap_or_default(),
        data: request.input.into_input().unwrap_or_default(),
        access_list: request.access_list.unwrap_or_default(),
        overrides: overrides.unwrap_or_default(),
    };
    Ok((call, head))
}
