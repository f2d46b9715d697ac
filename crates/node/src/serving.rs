//! Inference over HTTP, paid for by HTTP 402: the JSON form of the Open Inference Protocol (KServe V2), and x402 around it.
//!
//! `POST /v2/models/{name}/infer` without a payment is answered 402 with what it costs, which follows from the model and the
//! inputs' shapes. With one it becomes a job of the network, and the answer has the outputs that the nodes agreed on.

use std::time::Duration;

use alloy_primitives::B256;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isobit_ledger::{Job, Level};
use isobit_runtime::Options;
use isobit_tensor::{DType, Hash, Tensor};
use serde_json::{Value, json};

use crate::json::{tensor_from_json, tensor_to_json};
use crate::payments::{self, Payment, Requirements, Till};
use crate::sessions::Sessions;
use crate::{Gateway, Local, NodeError, fetch_tensors, wait_for_job};

/// Longest inputs, in bytes: they travel in a transaction.
const MAX_INPUTS: usize = 100 << 10;
/// How long a job is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Units of cost that are asked for where the cost does not follow from the shapes; what is not used comes back.
const UNKNOWN_COST: u64 = 100_000_000;

/// Serves inferences.
#[derive(Debug)]
pub struct Serving {
    pub(crate) till: Till,
    /// To say what they cost.
    sessions: Sessions,
}

/// What a request comes to.
#[derive(Debug)]
pub(crate) enum Served {
    /// The outputs, and how they were paid.
    Done(Value, Value),
    /// The nodes agree that the model fails on these inputs; it was paid for.
    Failed(Value, Value),
    /// What it costs.
    PaymentRequired(Value),
}

/// Names of element types in the Open Inference Protocol.
const TYPES: [(&str, DType); 14] = [
    ("BOOL", DType::Bool),
    ("UINT8", DType::U8),
    ("UINT16", DType::U16),
    ("UINT32", DType::U32),
    ("UINT64", DType::U64),
    ("INT8", DType::I8),
    ("INT16", DType::I16),
    ("INT32", DType::I32),
    ("INT64", DType::I64),
    ("FP16", DType::F16),
    ("FP32", DType::F32),
    ("FP64", DType::F64),
    ("BF16", DType::BF16),
    ("BYTES", DType::String),
];

fn malformed(why: impl Into<String>) -> NodeError {
    NodeError::Malformed(why.into())
}

/// Elements in one list, however they are nested.
fn flatten<'j>(value: &'j Value, out: &mut Vec<&'j Value>) {
    match value {
        Value::Array(items) => items.iter().for_each(|v| flatten(v, out)),
        leaf => out.push(leaf),
    }
}

/// The tensors of a request.
fn inputs(body: &Value) -> Result<Vec<(String, Tensor)>, NodeError> {
    let inputs = body.get("inputs").and_then(Value::as_array);
    let inputs = inputs.ok_or_else(|| {
        malformed(
            "expected {\"inputs\": [{\"name\", \"shape\", \"datatype\", \"data\"}]}, as KServe V2 has it",
        )
    })?;
    let one = |input: &Value| {
        let name =
            input.get("name").and_then(Value::as_str).ok_or_else(|| malformed("an input has no name"))?;
        let fail = |why: &str| malformed(format!("input '{name}': {why}"));
        let datatype = input.get("datatype").and_then(Value::as_str).unwrap_or("");
        let dtype = TYPES.iter().find(|(t, _)| *t == datatype).map(|(_, d)| *d);
        let dtype = dtype.ok_or_else(|| fail(&format!("'{datatype}' is no datatype; e.g. FP32")))?;
        let shape = input.get("shape").and_then(Value::as_array).ok_or_else(|| fail("it has no shape"))?;
        let extent = |d: &Value| d.as_u64().and_then(|d| usize::try_from(d).ok());
        let shape: Option<Vec<usize>> = shape.iter().map(extent).collect();
        let shape = shape.ok_or_else(|| fail("its shape holds something that is no extent"))?;
        let mut data = Vec::new();
        flatten(
            input.get("data").ok_or_else(|| fail("it has no data; binary data is not taken"))?,
            &mut data,
        );
        Ok((name.to_owned(), tensor_from_json(dtype, &shape, &data).map_err(|e| fail(&e))?))
    };
    inputs.iter().map(one).collect()
}

fn output((name, tensor): &(String, Tensor)) -> Result<Value, NodeError> {
    let datatype = TYPES.iter().find(|(_, d)| *d == tensor.dtype()).map(|(t, _)| *t);
    let data = tensor_to_json(tensor).map_err(malformed)?;
    Ok(json!({ "name": name, "shape": tensor.shape(), "datatype": datatype, "data": data }))
}

/// JSON in a header, as x402 has it.
pub(crate) fn header(value: &Value) -> String {
    STANDARD.encode(value.to_string())
}

impl Serving {
    /// Serves inferences that are paid at this till; models are loaded with these options.
    pub fn new(till: Till, options: Options) -> Self {
        Self { till, sessions: Sessions::new(options) }
    }

    /// What an inference costs.
    fn price(
        &self,
        local: &Local,
        model: B256,
        tensors: &[(String, Tensor)],
        replicas: u8,
    ) -> Result<Requirements, NodeError> {
        let session = self.sessions.get(local, &Hash(model.0))?;
        let graph = &session.model().graph;
        let names: Vec<&str> = graph.inputs.iter().map(|&v| graph.value(v).name.as_str()).collect();
        let named = |n: &&str| tensors.iter().find(|(name, _)| name == n).map(|(_, t)| t.clone());
        let in_order: Option<Vec<Tensor>> = names.iter().map(named).collect();
        let in_order = in_order.filter(|t| t.len() == tensors.len());
        let in_order =
            in_order.ok_or_else(|| malformed(format!("the model's inputs are {}", names.join(", "))))?;
        let cost = session.known_cost(&in_order).unwrap_or(UNKNOWN_COST);
        Ok(payments::requirements(local, Till::price(local, model, cost, replicas)?))
    }

    /// A request, with its payment if it has one.
    pub(crate) fn infer(
        &self,
        local: &Local,
        name: &str,
        url: &str,
        body: &[u8],
        replicas: u8,
        payment: Option<&[u8]>,
    ) -> Result<Served, NodeError> {
        let body: Value = serde_json::from_slice(body).map_err(|e| malformed(format!("the body: {e}")))?;
        let named = name.parse().ok().filter(|m| local.chain.head().model(*m).is_some());
        let model = match named {
            Some(model) => model,
            None => local.model_named(name)?.ok_or_else(|| NodeError::absent("model", name))?,
        };
        let level = Level::of(replicas);
        let tensors = inputs(&body)?;
        let asked = self.price(local, model, &tensors, replicas)?;
        let set = isobit_proof::encode_tensors(tensors.iter().map(|(name, t)| (name.as_str(), t)));
        if set.len() > MAX_INPUTS {
            let length = set.len();
            return Err(malformed(format!(
                "inputs of {length} bytes; at most {MAX_INPUTS} can be paid for so"
            )));
        }
        let description = format!("an inference of {name}");
        let Some(payment) = payment else {
            return Ok(Served::PaymentRequired(payments::payment_required(&asked, url, &description)));
        };
        let decoded = STANDARD.decode(payment).ok().and_then(|b| serde_json::from_slice::<Payment>(&b).ok());
        let payment = decoded.ok_or_else(|| {
            malformed("the header PAYMENT-SIGNATURE is no base64 of an x402 payment (version 2)")
        })?;
        let checked = match payments::check(local, &payment, &asked) {
            Ok(checked) => checked,
            Err(invalid) => {
                let mut again = payments::payment_required(&asked, url, &description);
                again["error"] = invalid.message().into();
                return Ok(Served::PaymentRequired(again));
            }
        };
        let hash = self.till.request(local, &checked, model, set.into(), level)?;
        let job = local.posted_by(hash)?;
        let job = wait_for_job(local, job, PATIENCE)?;
        answer(local, name, &job, payments::settled(local, &checked, hash))
    }
}

fn answer(local: &Local, name: &str, job: &Job, paid: Value) -> Result<Served, NodeError> {
    let answer = local.chain.head().answer(job.id);
    let answer = answer.ok_or_else(|| NodeError::absent("the answer of job", job.id))?;
    let parameters = json!({
        "job": job.id, "model": job.model, "inputs_root": job.inputs, "outputs_root": answer.outputs,
        "cost": answer.cost, "paid": answer.paid.to_string(),
    });
    if !answer.settled {
        let why = "the nodes did not agree; what was paid went back";
        return Ok(Served::Failed(json!({ "error": why, "parameters": parameters }), paid));
    }
    if answer.failure != 0 {
        let why = format!("the model fails on these inputs, with code {}", answer.failure);
        return Ok(Served::Failed(json!({ "error": why, "parameters": parameters }), paid));
    }
    let outputs = fetch_tensors(local, &Hash(answer.outputs.0))?;
    let outputs = outputs.iter().map(output).collect::<Result<Vec<_>, _>>()?;
    let value = json!({
        "model_name": name, "id": job.id, "outputs": outputs, "parameters": parameters,
    });
    Ok(Served::Done(value, paid))
}
