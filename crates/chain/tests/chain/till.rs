//! Payments by signature: the token, and the till that turns them into jobs.

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall, SolStruct, eip712_domain};
use isobit_chain::{Call, IInferenceTill, IWrappedIso, TILL, TransferWithAuthorization, WISO};
use isobit_ledger::{COIN, Level};
use isobit_tensor::Tensor;

use crate::world::{MODEL, World};

/// Key 0 pays, key 5 hands payments in, 1 to 4 are nodes.
fn world() -> World {
    let mut w = World::new(5);
    w.call(0, WISO, 100 * COIN, IWrappedIso::depositCall {}.abi_encode());
    w.block();
    w
}

fn tokens(w: &World, of: Address) -> u128 {
    let data = IWrappedIso::balanceOfCall { owner: of }.abi_encode().into();
    let call = Call { to: Some(WISO), data, ..Call::default() };
    let returned = w.chain.head().call(&call).unwrap();
    IWrappedIso::balanceOfCall::abi_decode_returns(&returned).unwrap().to()
}

fn authorization(
    w: &World,
    key: usize,
    to: Address,
    value: u128,
    nonce: u8,
) -> IInferenceTill::Authorization {
    let domain = eip712_domain! {
        name: "Wrapped ISO", version: "1", chain_id: 1729, verifying_contract: WISO,
    };
    let signed = TransferWithAuthorization {
        from: w.keys[key].address(),
        to,
        value: U256::from(value),
        validAfter: U256::ZERO,
        validBefore: U256::from(10_000),
        nonce: B256::repeat_byte(nonce),
    };
    let signature = w.keys[key].sign(signed.eip712_signing_hash(&domain)).as_bytes();
    IInferenceTill::Authorization {
        from: signed.from,
        value: signed.value,
        validAfter: signed.validAfter,
        validBefore: signed.validBefore,
        nonce: signed.nonce,
        signature: signature.to_vec().into(),
    }
}

fn request(paid: IInferenceTill::Authorization) -> Vec<u8> {
    let image = Tensor::new(&[1], vec![1.0f32]).unwrap();
    let tensors = isobit_proof::encode_tensors([("image", &image)]).into();
    let level = Level::Replicated(3).code();
    IInferenceTill::requestCall { paid, model: MODEL, tensors, seed: 0, level }.abi_encode()
}

/// Hands a payment in; whether it succeeded.
fn pay(w: &mut World, paid: IInferenceTill::Authorization) -> bool {
    w.call(5, TILL, 0, request(paid));
    w.block().receipts[0].status()
}

#[test]
fn a_signature_pays_for_an_inference_and_the_rest_comes_back() {
    let mut w = world();
    let (payer, before) = (w.keys[0].address(), w.chain.head().balance(w.keys[0].address()).unwrap());
    let paid = authorization(&w, 0, TILL, 10 * COIN, 1);
    w.call(5, TILL, 0, request(paid.clone()));
    let posted = World::posted(&w.block());
    assert_eq!((posted.requester, tokens(&w, payer), tokens(&w, TILL)), (TILL, 90 * COIN, 0));
    let escrow = w.chain.head().coins().unwrap().escrow;
    assert!(escrow > 9 * COIN && escrow < 10 * COIN, "the callback is paid: {escrow}");
    w.block();
    w.answer(posted.job, &|_| B256::repeat_byte(7));
    w.block();
    let answer = w.chain.head().answer(posted.job).unwrap();
    assert!(answer.settled && answer.paid > 0);
    // To the last unit: what was in escrow less what the inference cost.
    assert_eq!(tokens(&w, payer), 90 * COIN + escrow - answer.paid);
    assert_eq!(w.chain.head().balance(payer).unwrap(), before, "the payer needs no coins");
    assert_eq!((tokens(&w, TILL), w.chain.head().balance(TILL).unwrap()), (0, 0));
    // Once.
    assert!(!pay(&mut w, paid));
    w.replay();
}

#[test]
fn what_was_handed_in_at_the_token_still_pays_and_nothing_else_does() {
    let mut w = world();
    w.call(3, WISO, 100 * COIN, IWrappedIso::depositCall {}.abi_encode());
    w.block();
    let direct = |w: &mut World, a: &IInferenceTill::Authorization, to: Address| {
        let call = IWrappedIso::transferWithAuthorizationCall {
            from: a.from,
            to,
            value: a.value,
            validAfter: a.validAfter,
            validBefore: a.validBefore,
            nonce: a.nonce,
            signature: a.signature.clone(),
        };
        w.call(5, WISO, 0, call.abi_encode());
        w.block().receipts[0].status()
    };
    // Somebody is faster, at the token: the tokens are in the till.
    let paid = authorization(&w, 0, TILL, 10 * COIN, 1);
    assert!(direct(&mut w, &paid, TILL));
    assert_eq!(tokens(&w, TILL), 10 * COIN);
    // Another one cannot claim them: not by an authorization that it used for itself under the same nonce,
    let friend = w.keys[4].address();
    let elsewhere = authorization(&w, 3, friend, 10 * COIN, 2);
    assert!(direct(&mut w, &elsewhere, friend));
    assert_eq!(tokens(&w, friend), 10 * COIN);
    let claim = authorization(&w, 3, TILL, 10 * COIN, 2);
    assert!(!pay(&mut w, claim));
    // nor by changing what was signed.
    let mut more = paid.clone();
    more.value += U256::ONE;
    assert!(!pay(&mut w, more));
    let mut forged = authorization(&w, 4, TILL, 10 * COIN, 3);
    forged.from = w.keys[3].address();
    assert!(!pay(&mut w, forged));
    let mut stale = authorization(&w, 3, TILL, 10 * COIN, 4);
    stale.validBefore = U256::from(1);
    assert!(!pay(&mut w, stale));
    assert_eq!(tokens(&w, TILL), 10 * COIN);
    // Whose they are gets an inference for them, once.
    assert!(pay(&mut w, paid.clone()));
    assert_eq!((tokens(&w, TILL), w.chain.head().open_jobs()), (0, 1));
    assert!(!pay(&mut w, paid));
    // Too little for the least fee: nothing moves.
    let little = authorization(&w, 0, TILL, 1, 9);
    assert!(!pay(&mut w, little));
    assert_eq!(tokens(&w, w.keys[0].address()), 90 * COIN);
    // As many tokens as the contract has coins.
    assert_eq!(w.chain.head().balance(WISO).unwrap(), 190 * COIN);
    // Only the ledger calls back.
    let (job, callback) = (B256::ZERO, isobit_chain::abi::IInferenceCallback::onInferenceCall::SELECTOR);
    let mut data = callback.to_vec();
    data.extend([job.as_slice(), &[0; 96], &[0; 32]].concat());
    w.call(5, TILL, 0, data);
    assert!(!w.block().receipts[0].status());
}
