//! OpenGradient's hub and precompile: an inference's result within the transaction that asks for it.
//!
//! Nothing is run here. The numbers become tensors by the model's manifest, and the ledger is asked how the last job of that
//! model on those inputs was settled, and for its outputs. If there is no such job yet, the call is reverted in a block, and whoever
//! makes blocks holds the transaction back until there is one (see [`Missing`]); in a call that changes nothing the output is
//! empty and says that it is a simulation.

mod convert;
mod layout;

use alloy_evm::precompiles::{DynPrecompile, PrecompileInput, PrecompilesMap};
use alloy_primitives::{Address, B256, Bytes, Log, address, hex};
use alloy_sol_types::{Revert, SolCall, SolError, SolEvent};
use isobit_graph::Manifest;
use isobit_ledger::{Params, Storage};
use revm::precompile::{PrecompileError, PrecompileHalt, PrecompileId, PrecompileOutput};

use crate::abi::IOpenGradient::{
    InferenceResult, ModelInferenceEvent, ModelInferenceRequest, ModelOutput, runCall, runModelInferenceCall,
};
use crate::precompile::{EvmSlots, Shared};
use crate::slots::{Ledger, Slots};

/// OpenGradient's inference hub.
pub const HUB: Address = address!("0x8383C9bD7462F12Eb996DD02F78234C0421A6FaE");
/// OpenGradient's inference precompile.
pub const PRECOMPILE: Address = address!("0x00000000000000000000000000000000000000F4");

/// Gas of a call, of a 32-byte word of its input, of a number or byte that comes out.
const BASE_GAS: u64 = 20_000;
const WORD_GAS: u64 = 60;
const NUMBER_GAS: u64 = 200;
const BYTE_GAS: u64 = 10;
/// Gas of a simulation of an inference whose outputs nobody knows yet, beyond what is known.
const UNKNOWN_GAS: u64 = 200_000;

/// An inference that a transaction waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// The model.
    pub model: B256,
    /// Root of the inputs.
    pub inputs: B256,
    /// The inputs, as `isobitV1`.
    pub tensors: Bytes,
}

pub(crate) fn install(
    precompiles: &mut PrecompilesMap,
    params: &std::sync::Arc<Params>,
    side: &Shared,
    simulate: bool,
) {
    for address in [HUB, PRECOMPILE] {
        let (params, side) = (params.clone(), side.clone());
        let id = PrecompileId::Custom("opengradient".into());
        let run = move |input: PrecompileInput<'_>| call(input, &params, &side, simulate);
        precompiles.apply_precompile(&address, |_| Some(DynPrecompile::new_stateful(id, run)));
    }
}

fn call(
    mut input: PrecompileInput<'_>,
    params: &Params,
    side: &Shared,
    simulate: bool,
) -> Result<PrecompileOutput, PrecompileError> {
    let (limit, reservoir) = (input.gas, input.reservoir);
    let entry = BASE_GAS + WORD_GAS * input.data.len().div_ceil(32) as u64;
    if limit < entry {
        return Ok(PrecompileOutput::halt(PrecompileHalt::OutOfGas, reservoir));
    }
    let is_allowed = input.is_direct_call() && !input.is_static && input.value.is_zero();
    let (data, at_hub) = (input.data, input.target_address == HUB);
    let mut slots = EvmSlots::new(&mut input.internals, entry, limit);
    let outcome = if is_allowed {
        infer(&mut slots, params, side, data, at_hub, simulate)
    } else {
        Err("inference takes no coins and emits an event: call it directly, without value, not by a static call".into())
    };
    let gas = slots.finish()?;
    if gas > limit {
        return Ok(PrecompileOutput::halt(PrecompileHalt::OutOfGas, reservoir));
    }
    Ok(match outcome {
        Ok(returned) => PrecompileOutput::new(gas, returned.into(), reservoir),
        Err(why) => PrecompileOutput::revert(gas, Revert::from(why).abi_encode().into(), reservoir),
    })
}

fn infer(
    slots: &mut EvmSlots<'_, '_>,
    params: &Params,
    side: &Shared,
    data: &[u8],
    at_hub: bool,
    simulate: bool,
) -> Result<Vec<u8>, String> {
    let malformed = |_| {
        "there is no such function here, or its arguments are malformed; see IOpenGradient.sol".to_owned()
    };
    let layout = if at_hub { layout::RUN } else { layout::REQUEST };
    if !data.get(4..).is_some_and(|arguments| layout.fits(arguments)) {
        return Err("there is no such function here, or its arguments are not as an ABI encoder writes them; see IOpenGradient.sol".into());
    }
    let request = if at_hub {
        let call = runCall::abi_decode_validate(data).map_err(malformed)?;
        ModelInferenceRequest { mode: call.inferenceMode, modelCID: call.modelId, input: call.modelInput }
    } else {
        runModelInferenceCall::abi_decode_validate(data).map_err(malformed)?.request
    };
    let (id, output) = look_up(&Ledger::new(&mut *slots, params, 0), side, &request, simulate)?;
    let numbers: usize = output.numbers.iter().map(|t| t.values.len()).sum();
    let event = ModelInferenceEvent { inferenceID: id, request, response: output.clone() };
    let data = event.encode_log_data();
    slots.charge(NUMBER_GAS * numbers as u64 + BYTE_GAS * data.data.len() as u64);
    slots.log(Log { address: PRECOMPILE, data });
    if output.is_simulation_result {
        slots.charge(UNKNOWN_GAS);
    }
    if at_hub {
        let data = InferenceResult { output: output.clone() }.encode_log_data();
        slots.charge(BYTE_GAS * data.data.len() as u64);
        slots.log(Log { address: HUB, data });
        Ok(runCall::abi_encode_returns(&output))
    } else {
        Ok(runModelInferenceCall::abi_encode_returns(&output))
    }
}

/// The model that a request names: its address in hexadecimal, or its name.
fn find_model<S: Slots>(ledger: &Ledger<'_, S>, id: &str) -> Result<B256, String> {
    let address = hex::decode_to_array::<_, 32>(id).ok().map(B256::from);
    let published = address.filter(|a| ledger.model(*a).is_some());
    published.or_else(|| ledger.named(id)).ok_or_else(|| {
        format!("model '{id}' is not published on this network; give its content address or its name, as `isobit publish` prints it")
    })
}

/// The inference's id, and its output.
fn look_up<S: Slots>(
    ledger: &Ledger<'_, S>,
    side: &Shared,
    request: &ModelInferenceRequest,
    simulate: bool,
) -> Result<(String, ModelOutput), String> {
    match request.mode {
        0 => {}
        1 => {
            return Err(
                "mode 1 (ZKML, level proved) is not settled by this network yet; use mode 0 (VANILLA)".into(),
            );
        }
        2 => {
            return Err(
                "mode 2 (TEE, level attested) is not settled by this network yet; use mode 0 (VANILLA)"
                    .into(),
            );
        }
        mode => return Err(format!("there is no inference mode {mode}; use 0 (VANILLA)")),
    }
    let model = find_model(ledger, &request.modelCID)?;
    let manifest = ledger.manifest(model).ok_or_else(|| {
        format!("the manifest of model {model} is not on the ledger; its publisher can put it there with `isobit publish`")
    })?;
    let manifest = Manifest::parse(&manifest).map_err(|e| e.to_string())?;
    let tensors = convert::tensors(&manifest.inputs, &request.input)?;
    let set = || tensors.iter().map(|(name, t)| (name.as_str(), t));
    let inputs = B256::from(isobit_proof::tensors_root(set()).0);
    let id = inference_id(model, inputs);
    match settled(ledger, model, inputs)? {
        Some(output) => Ok((id, output)),
        None => {
            let tensors = isobit_proof::encode_tensors(set()).into();
            side.lock().unwrap_or_else(|e| e.into_inner()).missing.push(Missing { model, inputs, tensors });
            if simulate {
                Ok((id, convert::empty(true)))
            } else {
                Err("the inference was not settled in time; send the transaction again".into())
            }
        }
    }
}

/// How the last job of the model on these inputs ended, if its outputs are on the ledger.
fn settled<S: Slots>(
    ledger: &Ledger<'_, S>,
    model: B256,
    inputs: B256,
) -> Result<Option<ModelOutput>, String> {
    let Some(answer) = ledger.settled(model, inputs, 0) else { return Ok(None) };
    if answer.failure != 0 {
        return Err(format!(
            "the inference fails, as all nodes agree, with code {} (SEMANTICS.md, section 7)",
            answer.failure
        ));
    }
    let Some(tensors) = ledger.tensors(answer.outputs) else { return Ok(None) };
    let outputs = isobit_proof::decode_tensors(&tensors).map_err(|e| e.to_string())?;
    Ok(Some(convert::output(&outputs)))
}

fn inference_id(model: B256, inputs: B256) -> String {
    format!("{}{}", hex::encode(model), hex::encode(inputs))
}

/// The output of an inference by the id in its event, for clients that ask for it beside the chain.
pub(crate) fn by_id<S: Slots>(ledger: &Ledger<'_, S>, id: &str) -> Option<ModelOutput> {
    let id: [u8; 64] = hex::decode_to_array(id).ok()?;
    let (model, inputs) = (B256::from_slice(&id[..32]), B256::from_slice(&id[32..]));
    settled(ledger, model, inputs).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::IOpenGradient::{ModelInput, Number, NumberTensor, StringTensor};
    use serde_json::Value;

    fn number(v: &Value) -> Number {
        let part = |i: usize| v[i].to_string().parse().unwrap();
        Number { value: part(0), decimals: part(1) }
    }

    fn input(v: &Value) -> ModelInput {
        let list = |v: &Value| v.as_array().unwrap().clone();
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        ModelInput {
            numbers: list(&v[0])
                .iter()
                .map(|t| NumberTensor {
                    name: text(&t[0]),
                    values: list(&t[1]).iter().map(number).collect(),
                    shape: list(&t[2]).iter().map(|d| d.as_u64().unwrap() as u32).collect(),
                })
                .collect(),
            strings: list(&v[1])
                .iter()
                .map(|t| StringTensor { name: text(&t[0]), values: list(&t[1]).iter().map(text).collect() })
                .collect(),
        }
    }

    /// A hundred kilobytes that would unfold to gigabytes are refused before anything is decoded.
    #[test]
    fn encodings_that_share_bytes_are_refused() {
        let word = |n: usize| alloy_primitives::B256::from(alloy_primitives::U256::from(n)).to_vec();
        let n = 1_000;
        let mut data = [word(96), word(0), word(128), word(0)].concat(); // modelId (empty), mode, input
        data.extend([word(64), word(96)].concat()); // numbers, strings
        data.extend(word(0)); // no numbers
        data.extend(word(n)); // so many string tensors, all of them the same
        (0..n).for_each(|_| data.extend(word(32 * n)));
        data.extend([word(64), word(96), word(0), word(n)].concat()); // its name, its values: all the same
        (0..n).for_each(|_| data.extend(word(32 * n)));
        data.extend(word(32_000));
        data.extend(vec![b'x'; 32_000]);
        assert!(!layout::RUN.fits(&data));
    }

    /// What the SDK encodes and decodes, recorded from it.
    #[test]
    fn the_sdks_own_vectors() {
        let all: Value = serde_json::from_str(include_str!("../../tests/vectors/opengradient.json")).unwrap();
        let bytes = |v: &Value| hex::decode(v["hex"].as_str().unwrap()).unwrap();
        let calls: Vec<&String> =
            all.as_object().unwrap().keys().filter(|k| k.starts_with("calldata_run")).collect();
        assert!(calls.len() >= 3);
        for name in calls {
            let v = &all[name];
            let call = runCall {
                modelId: v["model"].as_str().unwrap().to_owned(),
                inferenceMode: v["mode"].as_u64().unwrap() as u8,
                modelInput: input(&v["input"]),
            };
            assert_eq!(call.abi_encode(), bytes(v), "{name}");
            assert!(layout::RUN.fits(&bytes(v)[4..]), "{name}");
            let request = ModelInferenceRequest {
                mode: 0,
                modelCID: call.modelId.clone(),
                input: call.modelInput.clone(),
            };
            let request = runModelInferenceCall { request }.abi_encode();
            assert!(layout::REQUEST.fits(&request[4..]), "{name}");
            assert_eq!(runCall::abi_decode_validate(&bytes(v)).unwrap().abi_encode(), bytes(v));
        }
        let v = &all["InferenceResult_data_full"];
        let result = InferenceResult::decode_raw_log([InferenceResult::SIGNATURE_HASH], &bytes(v)).unwrap();
        assert_eq!(InferenceResult::SIGNATURE_HASH.to_string(), v["topic0"].as_str().unwrap());
        let tensor = &v["output"][0][0];
        assert_eq!(result.output.numbers[0].name, tensor[0].as_str().unwrap());
        let (read, expected) = (&result.output.numbers[0].values[1], number(&tensor[1][1]));
        assert_eq!((read.value, read.decimals), (expected.value, expected.decimals));
        assert_eq!(result.encode_log_data().data[..], bytes(v)[..]);
        let v = &all["InferenceResult_data_empty"];
        let empty = InferenceResult { output: convert::empty(false) };
        assert_eq!(empty.encode_log_data().data[..], bytes(v)[..]);
        let v = &all["ModelInferenceEvent_data"];
        assert_eq!(ModelInferenceEvent::SIGNATURE_HASH.to_string(), v["topic0"].as_str().unwrap());
        let event =
            ModelInferenceEvent::decode_raw_log([ModelInferenceEvent::SIGNATURE_HASH], &bytes(v)).unwrap();
        assert_eq!(event.encode_log_data().data[..], bytes(v)[..]);
        let selector = |s: &[u8]| hex::encode_prefixed(s);
        let selectors: Vec<&str> =
            all["selectors"].as_object().unwrap().values().map(|v| v.as_str().unwrap()).collect();
        assert!(selectors.contains(&&selector(&runCall::SELECTOR)[..]));
        assert!(selectors.contains(&&selector(&runModelInferenceCall::SELECTOR)[..]));
    }
}
