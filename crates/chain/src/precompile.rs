//! The ledger's rules as a stateful precompile: calls become actions, refusals become reverts with a reason, events become
//! logs, and slots are paid for as the EVM's own are.

use std::sync::{Arc, Mutex};

use alloy_evm::EvmInternals;
use alloy_evm::precompiles::{DynPrecompile, PrecompileInput, PrecompilesMap};
use alloy_primitives::{Address, B256, Bytes, Log, LogData, U256};
use alloy_sol_types::{Revert, SolCall, SolError, SolEvent, SolInterface, sol};
use isobit_ledger::{
    Action, Answer, Ballot, BallotKind, BlockContext, Callback, Event, Inputs, Job, Level, Params,
    SignedBallot, Storage, TxError, apply, job_id, tick,
};
use revm::precompile::{PrecompileError, PrecompileHalt, PrecompileId, PrecompileOutput};

use crate::abi::IIsobit::{self, IIsobitCalls};
use crate::block::{LEDGER, SYSTEM};
use crate::opengradient::Missing;
use crate::slots::{Ledger, Slots};

sol! {
    /// What a block says to the ledger at its end.
    interface ISystem {
        function endBlock(uint64 callbackGas) external;
    }
}

/// Gas of any call: below it nothing is even read.
const BASE_GAS: u64 = 10_000;
/// Gas of a 32-byte word of calldata, for reading and hashing it.
const WORD_GAS: u64 = 12;
/// Gas of the signature in a reveal, as `ecrecover`'s.
const SIGNATURE_GAS: u64 = 3_000;
/// Gas of a slot as the EVM has it: read cold or warm, written first or again.
const COLD_GAS: u64 = 2_100;
const WARM_GAS: u64 = 100;
const NEW_SLOT_GAS: u64 = 20_000;
const CHANGED_SLOT_GAS: u64 = 2_900;
/// Gas of a log, of a topic of it, of a byte of it.
const LOG_GAS: (u64, u64, u64) = (375, 375, 8);

/// What the rules tell the executor beside the state.
#[derive(Debug, Default)]
pub(crate) struct Side {
    pub(crate) ended: Vec<Job>,
    pub(crate) callbacks: Vec<(Callback, Answer, Bytes)>,
    pub(crate) missing: Vec<Missing>,
}

pub(crate) type Shared = Arc<Mutex<Side>>;

/// Puts the ledger's precompile into an EVM.
pub(crate) fn install(precompiles: &mut PrecompilesMap, params: &Arc<Params>, side: &Shared) {
    let (params, side) = (params.clone(), side.clone());
    let id = PrecompileId::Custom("isobit".into());
    let run = move |input: PrecompileInput<'_>| call(input, &params, &side);
    precompiles.apply_precompile(&LEDGER, |_| Some(DynPrecompile::new_stateful(id, run)));
}

/// The ledger's slots and coins within an EVM, and what using them costs.
pub(crate) struct EvmSlots<'a, 'b> {
    evm: &'a mut EvmInternals<'b>,
    gas: u64,
    limit: u64,
    failed: Option<String>,
}

impl<'a, 'b> EvmSlots<'a, 'b> {
    /// `gas` is used already. Beyond the limit nothing is touched any more and everything is zero: the call will be undone.
    pub(crate) fn new(evm: &'a mut EvmInternals<'b>, gas: u64, limit: u64) -> Self {
        Self { evm, gas, limit, failed: None }
    }

    fn is_out_of_gas(&self) -> bool {
        self.gas > self.limit
    }

    pub(crate) fn charge(&mut self, gas: u64) {
        self.gas += gas;
    }

    pub(crate) fn log(&mut self, log: Log) {
        self.evm.log(log);
    }

    /// The gas that was used, or what failed.
    pub(crate) fn finish(self) -> Result<u64, PrecompileError> {
        match self.failed {
            Some(failed) => Err(PrecompileError::Fatal(failed)),
            None => Ok(self.gas),
        }
    }

    fn check<T: Default>(&mut self, result: Result<T, impl std::fmt::Display>) -> T {
        result.unwrap_or_else(|e| {
            self.failed.get_or_insert(e.to_string());
            T::default()
        })
    }
}

impl Slots for &mut EvmSlots<'_, '_> {
    fn load(&mut self, slot: U256) -> U256 {
        if self.is_out_of_gas() {
            return U256::ZERO;
        }
        let loaded = self.evm.sload(LEDGER, slot).map(|l| (l.data, l.is_cold));
        let (value, is_cold) = self.check(loaded);
        self.gas += if is_cold { COLD_GAS } else { WARM_GAS };
        value
    }

    fn store(&mut self, slot: U256, value: U256) {
        let before = self.load(slot);
        if before == value || self.is_out_of_gas() {
            return;
        }
        self.gas += if before.is_zero() { NEW_SLOT_GAS } else { CHANGED_SLOT_GAS };
        let stored = self.evm.sstore(LEDGER, slot, value).map(|_| ());
        self.check(stored);
    }

    fn pay(&mut self, to: Address, amount: u128) {
        if amount == 0 || self.is_out_of_gas() {
            return;
        }
        self.gas += COLD_GAS + CHANGED_SLOT_GAS;
        let paid = self.evm.transfer(LEDGER, to, U256::from(amount));
        if let Some(e) = self.check(paid) {
            self.failed.get_or_insert(format!("the ledger cannot pay {amount} to {to}: {e:?}"));
        }
    }
}

/// What a call comes to.
enum Outcome {
    Returns(Vec<u8>),
    Reverts(String),
}

fn call(
    mut input: PrecompileInput<'_>,
    params: &Params,
    side: &Shared,
) -> Result<PrecompileOutput, PrecompileError> {
    let (limit, reservoir) = (input.gas, input.reservoir);
    let words = input.data.len().div_ceil(32) as u64;
    let out_of_gas = || Ok(PrecompileOutput::halt(PrecompileHalt::OutOfGas, reservoir));
    let entry = BASE_GAS + WORD_GAS * words;
    if limit < entry {
        return out_of_gas();
    }
    let direct = input.is_direct_call();
    let (data, caller, value, is_static) = (input.data, input.caller, input.value, input.is_static);
    // The end of a block is nobody's to pay.
    let most = if caller == SYSTEM { u64::MAX } else { limit };
    let mut slots = EvmSlots::new(&mut input.internals, entry, most);
    let outcome = if direct {
        dispatch(&mut slots, params, side, Call { data, caller, value, is_static })
    } else {
        Outcome::Reverts("the ledger is called directly, not by DELEGATECALL or CALLCODE".into())
    };
    let gas = slots.finish()?;
    let gas = if caller == SYSTEM { 0 } else { gas };
    if gas > limit {
        return out_of_gas();
    }
    Ok(match outcome {
        Outcome::Returns(bytes) => PrecompileOutput::new(gas, bytes.into(), reservoir),
        Outcome::Reverts(why) => {
            PrecompileOutput::revert(gas, Revert::from(why).abi_encode().into(), reservoir)
        }
    })
}

struct Call<'a> {
    data: &'a [u8],
    caller: Address,
    value: U256,
    is_static: bool,
}

fn dispatch(slots: &mut EvmSlots<'_, '_>, params: &Params, side: &Shared, call: Call<'_>) -> Outcome {
    let reverts = |why: &str| Outcome::Reverts(why.to_owned());
    let block = BlockContext {
        height: slots.evm.block_number().saturating_to(),
        time: slots.evm.block_timestamp().saturating_to(),
        parent: slots.evm.block_env().prevrandao().unwrap_or_default(),
    };
    if call.caller == SYSTEM {
        return match ISystem::endBlockCall::abi_decode(call.data) {
            Ok(end) => end_block(slots, params, side, &block, end.callbackGas),
            Err(_) => reverts("this is no end of a block"),
        };
    }
    let Ok(decoded) = IIsobitCalls::abi_decode_validate(call.data) else {
        return reverts("the ledger has no such function, or the arguments are malformed; see IIsobit.sol");
    };
    let Ok(value) = u128::try_from(call.value) else {
        return reverts("there are not as many coins as are sent");
    };
    let mut ledger = Ledger::new(&mut *slots, params, value);
    if let Some(returned) = view(&ledger, params, &decoded) {
        return if value > 0 { reverts("a view takes no coins") } else { returned };
    }
    if call.is_static {
        return reverts("this changes the ledger, and a static call cannot");
    }
    let action = match action(decoded, params, value) {
        Ok(action) => action,
        Err(why) => return Outcome::Reverts(why),
    };
    let signature = match action {
        Action::Reveal { .. } => SIGNATURE_GAS,
        Action::Accuse { .. } => 2 * SIGNATURE_GAS,
        _ => 0,
    };
    let before = ledger.posted(call.caller);
    match apply(&mut ledger, params, &block, call.caller, &action) {
        Err(e) => Outcome::Reverts(e.to_string()),
        Ok(_) if ledger.attached > 0 => reverts("this function takes no coins"),
        Ok(events) => {
            slots.gas += signature;
            let returned = match (&action, events.last()) {
                (Action::Post { .. }, _) => job_id(call.caller, before).to_vec(),
                (Action::Provide { .. }, Some(Event::Provided { root })) => root.to_vec(),
                _ => Vec::new(),
            };
            events.into_iter().for_each(|e| log(slots, e));
            Outcome::Returns(returned)
        }
    }
}

fn end_block(
    slots: &mut EvmSlots<'_, '_>,
    params: &Params,
    side: &Shared,
    block: &BlockContext,
    callback_gas: u64,
) -> Outcome {
    let mut ledger = Ledger::new(&mut *slots, params, 0);
    let (events, ended) = tick(&mut ledger, params, block);
    let callbacks = ledger.take_callbacks(callback_gas).into_iter().map(|callback| {
        let answer = ledger.answer(callback.job).unwrap_or_default();
        let tensors = ledger.tensors(answer.outputs).unwrap_or_default();
        (callback, answer, tensors)
    });
    let callbacks = callbacks.collect();
    events.into_iter().for_each(|e| log(slots, e));
    let mut side = side.lock().unwrap_or_else(|e| e.into_inner());
    (side.ended, side.callbacks) = (ended, callbacks);
    Outcome::Returns(Vec::new())
}

fn level(code: u16) -> Result<Level, String> {
    Level::from_code(code)
        .ok_or_else(|| format!("{code:#06x} is no level; 0 is signed, 0x0100 + n replicated(n)"))
}

fn amount(value: U256) -> Result<u128, String> {
    value.try_into().map_err(|_| "the amount is above 2^128 - 1".to_owned())
}

fn ballot(ballot: &IIsobit::Ballot, signature: &[u8]) -> Result<SignedBallot, String> {
    Ok(SignedBallot {
        ballot: Ballot {
            kind: BallotKind::from_code(ballot.kind).ok_or("a ballot's kind is 0, 1 or 2")?,
            height: ballot.height,
            round: ballot.round,
            pol_round: ballot.polRound,
            value: ballot.value,
            validator: ballot.validator,
        },
        signature: signature.try_into().map_err(|_| "a ballot's signature has 65 bytes")?,
    })
}

/// The action of a call with this value.
fn action(call: IIsobitCalls, params: &Params, value: u128) -> Result<Action, String> {
    Ok(match call {
        IIsobitCalls::publish(c) => {
            Action::Publish { model: c.model, name: c.name, uri: c.uri, unit_fee: amount(c.unitFee)? }
        }
        IIsobitCalls::join(c) => Action::Join { stake: value, endpoint: c.endpoint },
        IIsobitCalls::validate(c) => Action::Validate { stake: value, endpoint: c.endpoint },
        IIsobitCalls::accuse(c) => Action::Accuse {
            first: ballot(&c.first, &c.firstSignature)?,
            second: ballot(&c.second, &c.secondSignature)?,
        },
        IIsobitCalls::unbond(_) => Action::Leave,
        IIsobitCalls::withdraw(_) => Action::Withdraw,
        IIsobitCalls::post(c) => Action::Post {
            model: c.model,
            inputs: Inputs::Root(c.inputs),
            seed: c.seed,
            level: level(c.level)?,
            max_fee: value,
            deadline: c.deadline,
            callback_gas: 0,
        },
        IIsobitCalls::request(c) => Action::Post {
            model: c.model,
            inputs: Inputs::Tensors(c.tensors),
            seed: c.seed,
            level: level(c.level)?,
            max_fee: value.saturating_sub(params.callback_fee(c.callbackGas)),
            deadline: c.deadline,
            callback_gas: c.callbackGas,
        },
        IIsobitCalls::provide(c) => Action::Provide { tensors: c.tensors },
        IIsobitCalls::describe(c) => Action::Describe { manifest: c.manifest },
        IIsobitCalls::commit(c) => Action::Commit { job: c.job, commitment: c.commitment },
        IIsobitCalls::reveal(c) => Action::Reveal {
            job: c.job,
            outputs: c.outputs,
            failure: c.failure,
            cost: c.cost,
            receipt: c.receipt,
            salt: c.salt,
        },
        _ => return Err("this is a view".into()),
    })
}

/// What a view returns; `None` for a call that is none.
fn view<S: Slots>(ledger: &Ledger<'_, S>, params: &Params, call: &IIsobitCalls) -> Option<Outcome> {
    let bytes = match call {
        IIsobitCalls::quote(c) => match quote(ledger, params, c) {
            Ok(value) => IIsobit::quoteCall::abi_encode_returns(&U256::from(value)),
            Err(why) => return Some(Outcome::Reverts(why)),
        },
        IIsobitCalls::answer(c) => match answer(ledger, c.job) {
            Ok(answer) => IIsobit::answerCall::abi_encode_returns(&answer),
            Err(e) => return Some(Outcome::Reverts(e.to_string())),
        },
        IIsobitCalls::nextJob(c) => {
            IIsobit::nextJobCall::abi_encode_returns(&job_id(c.requester, ledger.posted(c.requester)))
        }
        IIsobitCalls::tensorsOf(c) => {
            IIsobit::tensorsOfCall::abi_encode_returns(&ledger.tensors(c.root).unwrap_or_default())
        }
        IIsobitCalls::modelOf(c) => {
            let model = ledger.model(c.model);
            let (owner, name, uri, fee) =
                model.map(|m| (m.owner, m.name, m.uri, m.unit_fee)).unwrap_or_default();
            IIsobit::modelOfCall::abi_encode_returns(&IIsobit::modelOfReturn {
                owner,
                name,
                uri,
                unitFee: U256::from(fee),
            })
        }
        IIsobitCalls::manifestOf(c) => {
            IIsobit::manifestOfCall::abi_encode_returns(&ledger.manifest(c.model).unwrap_or_default())
        }
        IIsobitCalls::modelNamed(c) => {
            IIsobit::modelNamedCall::abi_encode_returns(&ledger.named(&c.name).unwrap_or_default())
        }
        IIsobitCalls::validators(_) => {
            let all = ledger.validators().into_iter();
            let (validators, weights) = all.map(|(a, n)| (a, n.weight())).unzip();
            IIsobit::validatorsCall::abi_encode_returns(&IIsobit::validatorsReturn { validators, weights })
        }
        IIsobitCalls::nodeOf(c) => {
            let node = ledger.node(c.node);
            let (stake, leaves, jobs) = node.map(|n| (n.stake, n.leaves, n.jobs)).unwrap_or_default();
            IIsobit::nodeOfCall::abi_encode_returns(&IIsobit::nodeOfReturn {
                stake: U256::from(stake),
                leaves,
                jobs,
            })
        }
        _ => return None,
    };
    Some(Outcome::Returns(bytes))
}

fn quote<S: Slots>(ledger: &Ledger<'_, S>, params: &Params, c: &IIsobit::quoteCall) -> Result<u128, String> {
    let level = level(c.level)?;
    let unit_fee =
        ledger.model(c.model).ok_or(TxError::NoModel(c.model)).map_err(|e| e.to_string())?.unit_fee;
    let replicas = level.replicas().ok_or(TxError::Level(level)).map_err(|e| e.to_string())?;
    Ok(params
        .node_fee(c.cost)
        .saturating_mul(replicas.into())
        .saturating_add(unit_fee.saturating_mul(c.cost.into()))
        .saturating_add(params.callback_fee(c.callbackGas)))
}

fn answer<S: Slots>(ledger: &Ledger<'_, S>, job: B256) -> Result<IIsobit::Answer, TxError> {
    let Some(a) = ledger.answer(job) else {
        ledger.job(job).ok_or(TxError::NoJob(job))?;
        return Ok(to_abi(Answer::default(), false, Bytes::new()));
    };
    let tensors = if a.outputs.is_zero() { None } else { ledger.tensors(a.outputs) };
    Ok(to_abi(a, true, tensors.unwrap_or_default()))
}

fn to_abi(a: Answer, is_over: bool, tensors: Bytes) -> IIsobit::Answer {
    IIsobit::Answer {
        settled: a.settled,
        refunded: is_over && !a.settled,
        outputs: a.outputs,
        failure: a.failure,
        cost: a.cost,
        paid: U256::from(a.paid),
        tensors,
    }
}

fn log(slots: &mut EvmSlots<'_, '_>, event: Event) {
    let Some(data) = log_data(event) else { return };
    slots.gas += LOG_GAS.0 + LOG_GAS.1 * data.topics().len() as u64 + LOG_GAS.2 * data.data.len() as u64;
    slots.evm.log(Log { address: LEDGER, data });
}

fn log_data(event: Event) -> Option<LogData> {
    Some(match event {
        Event::Published { model, owner, name } => {
            IIsobit::Published { model, owner, name }.encode_log_data()
        }
        Event::Described { model } => IIsobit::Described { model }.encode_log_data(),
        Event::Joined { node, stake } => IIsobit::Joined { node, stake: U256::from(stake) }.encode_log_data(),
        Event::ValidatorJoined { validator, stake } => {
            IIsobit::ValidatorJoined { validator, stake: U256::from(stake) }.encode_log_data()
        }
        Event::Equivocated { validator, height, amount, accuser } => {
            IIsobit::Equivocated { validator, height, amount: U256::from(amount), accuser }.encode_log_data()
        }
        Event::Left { node, until } => IIsobit::Left { node, until }.encode_log_data(),
        Event::Withdrawn { node, stake } => {
            IIsobit::Withdrawn { node, stake: U256::from(stake) }.encode_log_data()
        }
        Event::Posted { job, requester, model, inputs, tensors } => {
            IIsobit::Posted { job, requester, model, inputs, tensors }.encode_log_data()
        }
        Event::Provided { root } => IIsobit::Provided { root }.encode_log_data(),
        Event::Assigned { job, round, nodes } => IIsobit::Assigned { job, round, nodes }.encode_log_data(),
        Event::Committed { job, node } => IIsobit::Committed { job, node }.encode_log_data(),
        Event::Opened { job } => IIsobit::Opened { job }.encode_log_data(),
        Event::Revealed { job, node, outputs, failure, cost } => {
            IIsobit::Revealed { job, node, outputs, failure, cost }.encode_log_data()
        }
        Event::Penalised { job, node, amount, slashed } => {
            IIsobit::Penalised { job, node, amount: U256::from(amount), slashed }.encode_log_data()
        }
        Event::Settled { job, paid, returned } => {
            IIsobit::Settled { job, paid: U256::from(paid), returned: U256::from(returned) }.encode_log_data()
        }
        Event::Refunded { job, returned } => {
            IIsobit::Refunded { job, returned: U256::from(returned) }.encode_log_data()
        }
        _ => return None,
    })
}
