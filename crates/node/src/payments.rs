//! Payments by signature, as x402 (version 2, scheme `exact`) has them: what is asked for, whether a payment is good, and settling it.
//!
//! The asset is Wrapped ISO, whose transfers are authorized by EIP-3009 signatures, so the payer needs neither coins nor gas. A
//! payment for an inference goes to the till, which puts it into the job's escrow; any other payee is paid directly.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use alloy_sol_types::{Eip712Domain, SolCall, SolStruct, eip712_domain};
use isobit_chain::{IInferenceTill, IWrappedIso, Order, TILL, TransferWithAuthorization, WISO};
use isobit_ledger::Level;
use isobit_proof::Key;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Client, Gateway, Local, NodeError};

/// The version of x402.
const VERSION: u64 = 2;
/// How long a payment may take, in seconds.
const TIMEOUT: u64 = 120;
/// A payment that ends sooner than this may be over when its block is made, in seconds.
const MARGIN: u64 = 6;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Requirements {
    scheme: String,
    /// CAIP-2.
    network: String,
    asset: Address,
    /// Base units, decimal.
    pub(crate) amount: String,
    pay_to: Address,
    max_timeout_seconds: u64,
    #[serde(default)]
    extra: Value,
}

/// What is offered for it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Payment {
    x402_version: u64,
    accepted: Requirements,
    payload: Payload,
}

#[derive(Debug, Clone, Deserialize)]
struct Payload {
    signature: Bytes,
    authorization: Authorization,
}

/// EIP-3009; numbers are decimal text.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    from: Address,
    to: Address,
    value: String,
    valid_after: String,
    valid_before: String,
    nonce: B256,
}

/// What `/verify` and `/settle` are asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Question {
    payment_payload: Payment,
    payment_requirements: Requirements,
}

/// Why a payment is not good: x402's own word for it, and for people.
#[derive(Debug)]
pub(crate) struct Invalid {
    reason: &'static str,
    message: String,
    payer: Option<Address>,
}

/// A payment that is good as things are now.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    signed: TransferWithAuthorization,
    signature: Bytes,
}

/// Settles payments, and pays the gas for it.
#[derive(Debug)]
pub struct Till {
    key: Key,
    /// One is sent at a time, so that nonces follow one another.
    turn: Mutex<()>,
}

fn network(local: &Local) -> String {
    format!("eip155:{}", local.chain.genesis().params.chain_id)
}

fn domain(local: &Local) -> Eip712Domain {
    eip712_domain! {
        name: "Wrapped ISO",
        version: "1",
        chain_id: local.chain.genesis().params.chain_id,
        verifying_contract: WISO,
    }
}

fn view<C: SolCall>(local: &Local, call: &C) -> Result<C::Return, NodeError> {
    let returned = local.eth_call(WISO, call.abi_encode().into())?;
    C::abi_decode_returns(&returned).map_err(|e| NodeError::Malformed(e.to_string()))
}

impl Checked {
    /// Who pays.
    pub(crate) fn payer(&self) -> Address {
        self.signed.from
    }
}

/// What an inference costs, as x402 asks for it.
pub(crate) fn requirements(local: &Local, amount: u128) -> Requirements {
    Requirements {
        scheme: "exact".into(),
        network: network(local),
        asset: WISO,
        amount: amount.to_string(),
        pay_to: TILL,
        max_timeout_seconds: TIMEOUT,
        extra: json!({ "name": "Wrapped ISO", "version": "1" }),
    }
}

/// The body of an answer 402, which its header has too.
pub(crate) fn payment_required(requirements: &Requirements, url: &str, description: &str) -> Value {
    json!({
        "x402Version": VERSION,
        "error": "Payment required",
        "resource": { "url": url, "description": description, "mimeType": "application/json" },
        "accepts": [requirements],
    })
}

/// Whether a payment does what is asked for, is signed, and can be had.
pub(crate) fn check(local: &Local, payment: &Payment, asked: &Requirements) -> Result<Checked, Invalid> {
    let a = &payment.payload.authorization;
    let invalid = |reason, message: String| Invalid { reason, message, payer: Some(a.from) };
    let number = |text: &str| {
        let value = U256::from_str_radix(text, 10);
        value.map_err(|_| invalid("invalid_payload", format!("{text} is no decimal number")))
    };
    if payment.x402_version != VERSION {
        return Err(invalid("invalid_x402_version", format!("version {} is not 2", payment.x402_version)));
    }
    if [&payment.accepted.scheme, &asked.scheme].iter().any(|s| *s != "exact") {
        return Err(invalid("unsupported_scheme", "the scheme is exact".into()));
    }
    let here = network(local);
    if [&payment.accepted.network, &asked.network].iter().any(|n| **n != here) {
        return Err(invalid("network_mismatch", format!("this is {here}")));
    }
    if payment.accepted.asset != WISO || asked.asset != WISO {
        return Err(invalid("invalid_payment_requirements", format!("the asset is Wrapped ISO, {WISO}")));
    }
    if a.to != asked.pay_to {
        let why = format!("it pays {}, and {} is to be paid", a.to, asked.pay_to);
        return Err(invalid("invalid_exact_evm_payload_recipient_mismatch", why));
    }
    let (value, amount) = (number(&a.value)?, number(&asked.amount)?);
    if value != amount {
        let why = format!("{value} base units are authorized, {amount} are asked for");
        return Err(invalid("invalid_exact_evm_payload_authorization_value_mismatch", why));
    }
    let (valid_after, valid_before) = (number(&a.valid_after)?, number(&a.valid_before)?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    if valid_before <= U256::from(now + MARGIN) {
        let why = format!("it is valid until {valid_before}, and now is {now}");
        return Err(invalid("invalid_exact_evm_payload_authorization_valid_before", why));
    }
    if valid_after >= U256::from(now) {
        let why = format!("it is valid after {valid_after}, and now is {now}");
        return Err(invalid("invalid_exact_evm_payload_authorization_valid_after", why));
    }
    let signed = TransferWithAuthorization {
        from: a.from,
        to: a.to,
        value,
        validAfter: valid_after,
        validBefore: valid_before,
        nonce: a.nonce,
    };
    let signature = Signature::from_raw(&payment.payload.signature).ok();
    let digest = signed.eip712_signing_hash(&domain(local));
    let signer = signature.and_then(|s| isobit_proof::recover(digest, &s));
    if signer != Some(a.from) {
        let why = "the signature is not the payer's; contracts cannot sign here".into();
        return Err(invalid("invalid_exact_evm_payload_signature", why));
    }
    let unreachable = |e: NodeError| invalid("unexpected_verify_error", e.to_string());
    let used = IWrappedIso::authorizationStateCall { authorizer: a.from, nonce: a.nonce };
    if view(local, &used).map_err(unreachable)? {
        let why = "it was used or cancelled before; sign another".into();
        return Err(invalid("invalid_exact_evm_nonce_already_used", why));
    }
    let balance = view(local, &IWrappedIso::balanceOfCall { owner: a.from }).map_err(unreachable)?;
    if balance < value {
        let why = format!("{} has {balance} base units of Wrapped ISO, {value} are needed", a.from);
        return Err(invalid("invalid_exact_evm_insufficient_balance", why));
    }
    // As the token reads it: v is 27 or 28.
    let signature = signature.map(|s| Bytes::from(s.as_bytes().to_vec())).unwrap_or_default();
    Ok(Checked { signed, signature })
}

impl Invalid {
    /// For people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    fn verification(&self) -> Value {
        json!({
            "isValid": false, "invalidReason": self.reason, "invalidMessage": self.message, "payer": self.payer,
        })
    }

    /// As the answer to a settlement.
    pub(crate) fn settlement(&self, local: &Local) -> Value {
        json!({
            "success": false, "errorReason": self.reason, "errorMessage": self.message, "payer": self.payer,
            "transaction": "", "network": network(local),
        })
    }
}

/// As the answer to a settlement that happened.
pub(crate) fn settled(local: &Local, payment: &Checked, transaction: B256) -> Value {
    json!({
        "success": true, "payer": payment.payer(), "transaction": transaction, "network": network(local),
        "amount": payment.signed.value.to_string(),
    })
}

impl Till {
    /// A till whose transactions this key sends.
    pub fn new(key: Key) -> Self {
        Self { key, turn: Mutex::new(()) }
    }

    /// `GET /supported`.
    pub(crate) fn supported(&self, local: &Local) -> Value {
        let kind = json!({
            "x402Version": VERSION, "scheme": "exact", "network": network(local),
            "extra": { "asset": WISO, "name": "Wrapped ISO", "version": "1" },
        });
        json!({ "kinds": [kind], "extensions": [], "signers": { "eip155:*": [self.key.address()] } })
    }

    /// `POST /verify`.
    pub(crate) fn verify(&self, local: &Local, question: &Question) -> Value {
        match check(local, &question.payment_payload, &question.payment_requirements) {
            Ok(checked) => json!({ "isValid": true, "payer": checked.payer() }),
            Err(invalid) => invalid.verification(),
        }
    }

    /// `POST /settle`: moves the tokens and waits until they are there.
    pub(crate) fn settle(&self, local: &Local, question: &Question) -> Value {
        let done =
            check(local, &question.payment_payload, &question.payment_requirements).and_then(|checked| {
                let call = IWrappedIso::transferWithAuthorizationCall {
                    from: checked.signed.from,
                    to: checked.signed.to,
                    value: checked.signed.value,
                    validAfter: checked.signed.validAfter,
                    validBefore: checked.signed.validBefore,
                    nonce: checked.signed.nonce,
                    signature: checked.signature.clone(),
                };
                let sent = self.send(local, WISO, call.abi_encode().into());
                let payer = Some(checked.payer());
                sent.map(|hash| settled(local, &checked, hash)).map_err(|e| Invalid {
                    reason: "transaction_failed",
                    message: e.to_string(),
                    payer,
                })
            });
        done.unwrap_or_else(|invalid| invalid.settlement(local))
    }

    /// Asks for an inference with a payment; returns the transaction, which is in a block.
    pub(crate) fn request(
        &self,
        local: &Local,
        payment: &Checked,
        model: B256,
        tensors: Bytes,
        level: Level,
    ) -> Result<B256, NodeError> {
        let signed = &payment.signed;
        let paid = IInferenceTill::Authorization {
            from: signed.from,
            value: signed.value,
            validAfter: signed.validAfter,
            validBefore: signed.validBefore,
            nonce: signed.nonce,
            signature: payment.signature.clone(),
        };
        let call = IInferenceTill::requestCall { paid, model, tensors, seed: 0, level: level.code() };
        self.send(local, TILL, call.abi_encode().into())
    }

    fn send(&self, local: &Local, to: Address, data: Bytes) -> Result<B256, NodeError> {
        let client = Client::new(local, self.key.clone())?;
        let order = Order::new(TxKind::Call(to), 0, data);
        let hash = {
            let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
            client.send_order(order)?
        };
        client.wait_for(hash)?;
        Ok(hash)
    }

    /// What an inference of this cost is to be paid with, the callback that gives the rest back included.
    pub(crate) fn price(local: &Local, model: B256, cost: u64, replicas: u8) -> Result<u128, NodeError> {
        let returned = local.eth_call(TILL, IInferenceTill::callbackGasCall {}.abi_encode().into())?;
        let gas = IInferenceTill::callbackGasCall::abi_decode_returns(&returned);
        let gas = gas.map_err(|e| NodeError::Malformed(e.to_string()))?;
        Ok(local.price(model, cost, replicas)?.saturating_add(local.params()?.callback_fee(gas)))
    }
}
