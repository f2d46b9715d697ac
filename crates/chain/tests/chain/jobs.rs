//! Jobs as transactions: their life, their callbacks, and every way of calling that is refused.

use alloy_consensus::Transaction;
use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall, SolEvent, sol};
use isobit_chain::abi::{IInferenceCallback, IIsobit};
use isobit_chain::{Call, CallError, LEDGER, SYSTEM};
use isobit_ledger::{COIN, Level, Phase};
use isobit_tensor::Tensor;

use crate::world::{MODEL, World, bytecode};

sol! {
    interface DigitReader {
        function ask(uint8[64] pixels) external payable returns (bytes32 job);
        function askAndRevert(uint8[64] pixels) external payable;
        function askAndCatch(uint8[64] pixels) external payable;
        function onInference(bytes32 job, bool settled, uint16 failure, bytes tensors) external;
        event Read(address indexed asker, bytes32 indexed job, uint256 digit, int256 confidence);
        event Failed(address indexed asker, bytes32 indexed job, bool settled, uint16 failure);
    }
}

fn pixels() -> [u8; 64] {
    std::array::from_fn(|i| (i % 17) as u8)
}

#[test]
fn a_job_is_settled_and_its_blocks_replay() {
    let mut w = World::new(4);
    w.send(0, &w.post_action(Level::Replicated(3)));
    let posted = World::posted(&w.block());
    assert_eq!(posted.requester, w.keys[0].address());
    assert_eq!(w.chain.head().coins().unwrap().escrow, 30 * COIN);
    w.block();
    assert_eq!(w.chain.job(posted.job).unwrap().unwrap().phase(), Phase::Assigned);
    w.answer(posted.job, &|i| B256::repeat_byte(if i == 1 { 8 } else { 7 }));
    let job = w.chain.job(posted.job).unwrap().unwrap();
    assert_eq!(job.phase(), Phase::Settled);
    assert_eq!(w.chain.head().node(job.seats[1].node).unwrap().stake, 0, "the liar is slashed");
    let answer = w.chain.head().answer(posted.job).unwrap();
    assert_eq!((answer.settled, answer.outputs), (true, B256::repeat_byte(7)));
    assert_eq!(w.chain.head().coins().unwrap().escrow, 0);
    // The end of the block has a transaction of its own, from nobody, with the logs of what it did.
    let last = w.blocks.last().unwrap();
    let end = last.txs.last().unwrap();
    assert_eq!((end.signer(), end.to()), (SYSTEM, Some(LEDGER)));
    w.replay();
}

/// The contract asks with a float tensor made in Solidity, is called back with the outputs, reads them and says so.
#[test]
fn a_contract_is_called_back() {
    let mut w = World::new(4);
    let reader = w.create(0, bytecode("DigitReader", MODEL.as_slice()));
    let ask = DigitReader::askCall { pixels: pixels() }.abi_encode();
    w.call(0, reader, COIN, ask);
    let posted = World::posted(&w.block());
    let pixels: Vec<f32> = pixels().iter().map(|&p| f32::from(p) / 16.0).collect();
    let image = Tensor::new(&[1, 1, 8, 8], pixels).unwrap();
    assert_eq!(posted.tensors[..], isobit_proof::encode_tensors([("image", &image)]), "as Rust encodes it");
    assert_eq!(posted.requester, reader);
    w.block();
    let outputs = Tensor::new(&[1, 10], vec![0.0f32, 0.0, 0.25, 0.0, 0.5, 0.0, 0.0, 0.25, 0.0, 0.0]).unwrap();
    let set = isobit_proof::encode_tensors([("probabilities", &outputs)]);
    let root = B256::from(isobit_proof::tensors_root([("probabilities", &outputs)]).0);
    w.send(1, &isobit_ledger::Action::Provide { tensors: set.clone().into() });
    w.answer(posted.job, &|_| root);
    let built = w.chain.store().receipts(w.chain.head().header.number).unwrap();
    let read = built.last().unwrap().logs();
    let read = DigitReader::Read::decode_log(&read[0]).unwrap();
    assert_eq!((read.job, read.digit), (posted.job, U256::from(4)));
    assert_eq!(read.confidence.to_string(), "500000");
    assert_eq!(read.asker, w.keys[0].address());
    let call = Call {
        to: Some(LEDGER),
        data: IIsobit::answerCall { job: posted.job }.abi_encode().into(),
        ..Call::default()
    };
    let answer = w.chain.head().call(&call).unwrap();
    let answer = IIsobit::answerCall::abi_decode_returns(&answer).unwrap();
    assert_eq!(answer.tensors, set);
    w.replay();
}

/// A callback that fails leaves the job settled; one about a refund tells of it.
#[test]
fn callbacks_fail_alone_and_refunds_are_told() {
    let mut w = World::new(3);
    let reader = w.create(0, bytecode("DigitReader", MODEL.as_slice()));
    w.call(0, reader, COIN, DigitReader::askCall { pixels: pixels() }.abi_encode());
    let posted = World::posted(&w.block());
    w.block();
    // Tensors of another type than the contract expects: it reads garbage, or reverts.
    let outputs = Tensor::new(&[1], vec![7u8]).unwrap();
    let root = B256::from(isobit_proof::tensors_root([("x", &outputs)]).0);
    let tensors = isobit_proof::encode_tensors([("x", &outputs)]).into();
    w.send(1, &isobit_ledger::Action::Provide { tensors });
    w.answer(posted.job, &|_| root);
    let receipts = w.chain.store().receipts(w.chain.head().header.number).unwrap();
    assert!(!receipts.last().unwrap().status(), "the callback reverted");
    assert!(w.chain.head().answer(posted.job).unwrap().settled);

    w.call(0, reader, COIN, DigitReader::askCall { pixels: pixels() }.abi_encode());
    let posted = World::posted(&w.block());
    let mut told = None;
    for _ in 0..110 {
        let built = w.block();
        let logs = built.receipts.iter().flat_map(|r| r.logs()).filter(|l| l.address == reader);
        told = told.or_else(|| logs.filter_map(|l| DigitReader::Failed::decode_log(l).ok()).next());
    }
    let told = told.expect("the refund is told");
    assert_eq!((told.job, told.settled), (posted.job, false));
    w.replay();
}

#[test]
fn inner_reverts_unwind_job_and_escrow() {
    let mut w = World::new(3);
    let reader = w.create(0, bytecode("DigitReader", MODEL.as_slice()));
    let before = w.chain.head();
    w.call(0, reader, COIN, DigitReader::askAndCatchCall { pixels: pixels() }.abi_encode());
    let built = w.block();
    assert!(built.receipts[0].status());
    assert!(built.receipts[0].logs().is_empty());
    let after = w.chain.head();
    assert_eq!(after.open_jobs(), 0);
    assert_eq!(after.posted(reader), 0);
    assert_eq!(after.balance(LEDGER).unwrap(), before.balance(LEDGER).unwrap());
    assert_eq!(after.balance(reader).unwrap(), 0);
    w.replay();
}

/// Each way of calling that is refused, by the reason that `eth_call` and `eth_estimateGas` give.
#[test]
fn refusals_have_reasons() {
    let w = World::new(3);
    let head = w.chain.head();
    let from = w.keys[0].address();
    let quote = IIsobit::quoteCall { model: B256::ZERO, cost: 1, level: 0, callbackGas: 0 }.abi_encode();
    let post = |level| {
        IIsobit::postCall { model: MODEL, inputs: B256::ZERO, seed: 0, level, deadline: 0 }.abi_encode()
    };
    let request = IIsobit::requestCall {
        model: MODEL,
        tensors: vec![1, 2, 3].into(),
        seed: 0,
        level: 0,
        deadline: 0,
        callbackGas: 0,
    };
    let cases: Vec<(u128, Vec<u8>, &str)> = vec![
        (0, vec![1, 2, 3, 4], "no such function"),
        (0, vec![], "no such function"),
        (0, quote, "is not published"),
        (0, post(0), "the least for these replicas"),
        (COIN, post(0x0300), "level attested is not settled"),
        (COIN, post(0x0101), "replicated(1)"),
        (COIN, post(0x9999), "no level"),
        (COIN, request.abi_encode(), "no set of tensors"),
        (5, IIsobit::joinCall { endpoint: String::new() }.abi_encode(), "a stake of 5 base units"),
        (5, IIsobit::unbondCall {}.abi_encode(), "has not joined"),
        (5, IIsobit::nextJobCall { requester: from }.abi_encode(), "a view takes no coins"),
        (0, IIsobit::answerCall { job: B256::ZERO }.abi_encode(), "no job"),
        (0, [post(0), vec![0; 7]].concat(), ""),
    ];
    for (value, data, why) in cases {
        let call =
            Call { from, to: Some(LEDGER), value: U256::from(value), data: data.into(), ..Call::default() };
        let error = head.call(&call).expect_err(why).to_string();
        assert!(error.starts_with("execution reverted: ") && error.contains(why), "{error}");
        assert_eq!(head.estimate(&call).expect_err(why).to_string(), error);
    }
    // With any gas at all a call succeeds, is refused, or runs out of it; never more.
    let tensor = isobit_tensor::Tensor::new(&[4_000], vec![1.5f32; 4_000]).unwrap();
    let tensors = isobit_proof::encode_tensors([("x", &tensor)]).into();
    let data: alloy_primitives::Bytes = IIsobit::provideCall { tensors }.abi_encode().into();
    let with = |gas| {
        let call = Call { from, to: Some(LEDGER), gas: Some(gas), data: data.clone(), ..Call::default() };
        head.call(&call)
    };
    let needs =
        head.estimate(&Call { from, to: Some(LEDGER), data: data.clone(), ..Call::default() }).unwrap();
    assert!(needs > 500 * 20_000, "each word of it is a new slot: {needs}");
    for gas in (500_000..needs - needs / 32).step_by(1_000_000) {
        assert_eq!(with(gas), Err(CallError::Halted("out of gas".into())), "{gas} of {needs}");
    }
    assert!(with(needs).is_ok());
    // Too little gas is no reason of the ledger's.
    let data = IIsobit::nextJobCall { requester: from }.abi_encode().into();
    let call = Call { from, to: Some(LEDGER), gas: Some(25_000), data, ..Call::default() };
    assert_eq!(head.call(&call), Err(CallError::Halted("out of gas".into())));
}

/// Bytecode that passes its input on to the ledger by the given opcode and returns, or reverts with, what comes back.
fn proxy(opcode: u8) -> Vec<u8> {
    let mut code = vec![0x36, 0x5f, 0x5f, 0x37]; // calldatacopy(0, 0, calldatasize)
    code.extend([0x5f, 0x5f, 0x36, 0x5f]); // return area, input
    if opcode == 0xf1 || opcode == 0xf2 {
        code.push(0x34); // callvalue
    }
    code.push(0x73);
    code.extend(LEDGER);
    code.extend([0x5a, opcode, 0x3d, 0x5f, 0x5f, 0x3e]); // gas, call, returndatacopy
    let at = code.len() as u8;
    code.extend([0x60, at + 7, 0x57, 0x3d, 0x5f, 0xfd, 0x00]); // jump to the return if it succeeded, else revert
    code.extend([0x5b, 0x3d, 0x5f, 0xf3]);
    let mut init =
        vec![0x60, code.len() as u8, 0x60, 11, 0x5f, 0x39, 0x60, code.len() as u8, 0x5f, 0xf3, 0x00];
    init.extend(code);
    init
}

#[test]
fn only_direct_calls_are_taken_and_static_ones_change_nothing() {
    let mut w = World::new(3);
    let from = w.keys[0].address();
    let publish = IIsobit::publishCall {
        model: B256::repeat_byte(5),
        name: "n".into(),
        uri: String::new(),
        unitFee: U256::ZERO,
    };
    let next = IIsobit::nextJobCall { requester: from };
    for (opcode, change, view) in [
        (0xf1, None, None),
        (0xf2, Some("directly"), Some("directly")),
        (0xf4, Some("directly"), Some("directly")),
        (0xfa, Some("static call"), None),
    ] {
        let to = w.create(0, proxy(opcode));
        for (data, refused) in [(publish.abi_encode(), change), (next.abi_encode(), view)] {
            let call = Call { from, to: Some(to), data: data.into(), ..Call::default() };
            match (w.chain.head().call(&call), refused) {
                (Ok(_), None) => {}
                (Err(e), Some(why)) if e.to_string().contains(why) => {}
                other => panic!("{opcode:#x}: {other:?}"),
            }
        }
    }
}

/// What is only for the end of a block cannot be sent by anybody.
#[test]
fn nobody_is_the_system() {
    let mut w = World::new(3);
    let to = w.create(0, bytecode("DigitReader", MODEL.as_slice()));
    let end = [0xd8, 0xb7, 0x8b, 0x4a]; // any selector: endBlock's is not the ledger's for others
    let call =
        Call { from: w.keys[0].address(), to: Some(LEDGER), data: end.to_vec().into(), ..Call::default() };
    assert!(w.chain.head().call(&call).is_err());
    let call = Call { from: SYSTEM, ..call };
    assert!(w.chain.head().call(&call).unwrap_err().to_string().contains("nobody calls as"));
    let fake = IInferenceCallback::onInferenceCall {
        job: B256::ZERO,
        settled: true,
        failure: 0,
        tensors: Default::default(),
    };
    let call =
        Call { from: w.keys[0].address(), to: Some(to), data: fake.abi_encode().into(), ..Call::default() };
    assert!(w.chain.head().call(&call).unwrap_err().to_string().contains("only the ledger tells"));
    // A transaction without a signature is one of a block's own, and not taken from anybody.
    w.send(0, &w.post_action(Level::Signed));
    w.block();
    w.block();
    let system = w.blocks.iter().flat_map(|b| &b.txs).find(|tx| tx.signer() == SYSTEM).unwrap();
    let raw = alloy_eips::eip2718::Encodable2718::encoded_2718(system.inner());
    assert!(w.chain.submit(&raw).unwrap_err().to_string().contains("invalid signature"));
    assert_eq!(w.chain.head().nonce(Address::ZERO).unwrap(), 0);
}
