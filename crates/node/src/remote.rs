//! The client side of the HTTP API.

use std::time::Duration;

use alloy_primitives::{Address, B256, Bytes, hex};
use alloy_rlp::Decodable;
use isobit_chain::Order;
use isobit_ledger::{Job, Params};
use isobit_tensor::Hash;
use serde_json::Value;

use crate::{Account, Gateway, NodeError, Sent, Status};

/// Longest answer that is read.
const MAX_ANSWER: u64 = 8 << 30;

/// The network behind a URL. Blobs are checked against their hash, whoever sends them.
#[derive(Debug, Clone)]
pub struct Remote {
    url: String,
    agent: ureq::Agent,
}

impl Remote {
    /// The network at `http://host:port`.
    pub fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(120)))
            .build();
        Self { url: url.trim_end_matches('/').to_owned(), agent: config.into() }
    }

    fn fail(&self, path: &str, message: impl ToString) -> NodeError {
        NodeError::Http { url: format!("{}{path}", self.url), message: message.to_string() }
    }

    fn call(&self, path: &str, body: Option<&[u8]>) -> Result<Option<Vec<u8>>, NodeError> {
        let url = format!("{}{path}", self.url);
        let sent = match body {
            None => self.agent.get(&url).call(),
            // JSON-RPC servers want to be told that it is JSON.
            Some(body) if path == "/" => {
                self.agent.post(&url).header("content-type", "application/json").send(body)
            }
            Some(body) => self.agent.post(&url).send(body),
        };
        let unreachable = |e: ureq::Error| {
            self.fail(path, format!("{e}; is the network up? Start it with `isobit up`, or give --url"))
        };
        let mut answer = sent.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let bytes = answer.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
        let bytes = bytes.map_err(|e| self.fail(path, e))?;
        match status {
            200 => Ok(Some(bytes)),
            404 => Ok(None),
            _ => {
                let text = serde_json::from_slice::<Value>(&bytes).ok();
                let text = text.and_then(|v| v.get("error").and_then(Value::as_str).map(str::to_owned));
                let text = text.unwrap_or_else(|| format!("status {status}"));
                Err(if status == 400 { NodeError::Refused(text) } else { self.fail(path, text) })
            }
        }
    }

    fn json(&self, path: &str, body: Option<&[u8]>) -> Result<Option<Value>, NodeError> {
        let bytes = self.call(path, body)?;
        bytes.map(|b| serde_json::from_slice(&b).map_err(|e| self.fail(path, e))).transpose()
    }

    fn must(&self, path: &str) -> Result<Value, NodeError> {
        self.json(path, None)?.ok_or_else(|| self.fail(path, "not found"))
    }

    fn read_job(&self, path: &str, value: &Value) -> Result<Job, NodeError> {
        let bytes = value.get("rlp").and_then(Value::as_str).and_then(|s| hex::decode(s).ok());
        let job = bytes.and_then(|b| Job::decode(&mut &b[..]).ok());
        job.ok_or_else(|| self.fail(path, "the answer is no job"))
    }
}

impl Gateway for Remote {
    fn params(&self) -> Result<Params, NodeError> {
        let path = "/v1/params";
        let v = self.must(path)?;
        isobit_chain::params_from_json(&v).ok_or_else(|| self.fail(path, "the answer lacks a field"))
    }

    fn status(&self) -> Result<Status, NodeError> {
        serde_json::from_value(self.must("/v1/status")?).map_err(|e| self.fail("/v1/status", e))
    }

    fn account(&self, address: Address) -> Result<Account, NodeError> {
        let path = format!("/v1/accounts/{address}");
        let v = self.must(&path)?;
        let amount = |key: &str| v.get(key).and_then(Value::as_str).and_then(|s| s.parse().ok());
        let number = |key: &str| v.get(key).and_then(Value::as_u64);
        let account = || {
            Some(Account {
                balance: amount("balance")?,
                nonce: number("nonce")?,
                stake: amount("stake"),
                posted: number("posted")?,
                base_fee: number("base_fee")?,
            })
        };
        account().ok_or_else(|| self.fail(&path, "the answer is no account"))
    }

    fn estimate(&self, from: Address, order: &Order) -> Result<u64, NodeError> {
        let path = "/v1/estimate";
        let body = serde_json::json!({
            "from": from, "to": order.to.to(), "value": order.value.to_string(), "data": order.data,
        });
        let v = self.json(path, Some(body.to_string().as_bytes()))?.unwrap_or_default();
        v.get("gas").and_then(Value::as_u64).ok_or_else(|| self.fail(path, "the answer has no gas"))
    }

    fn eth_call(&self, to: Address, data: Bytes) -> Result<Bytes, NodeError> {
        let params = serde_json::json!([{ "to": to, "data": data }, "latest"]);
        let body = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_call", "params": params });
        let v = self.json("/", Some(body.to_string().as_bytes()))?.unwrap_or_default();
        if let Some(why) = v.pointer("/error/message").and_then(Value::as_str) {
            return Err(NodeError::Refused(why.to_owned()));
        }
        let result = v.get("result").and_then(|r| r.as_str()?.parse().ok());
        result.ok_or_else(|| self.fail("/", "the answer has no result"))
    }

    fn submit(&self, raw: &[u8]) -> Result<B256, NodeError> {
        let path = "/v1/transactions";
        let v = self.json(path, Some(raw))?;
        let hash = v.and_then(|v| v.get("hash").and_then(Value::as_str).and_then(|h| h.parse().ok()));
        hash.ok_or_else(|| self.fail(path, "the answer has no hash"))
    }

    fn wait_for(&self, hash: B256) -> Result<Sent, NodeError> {
        let path = format!("/v1/transactions/{hash}");
        let v = self.must(&path)?;
        let sent = v.get("height").and_then(Value::as_u64).zip(v.get("succeeded").and_then(Value::as_bool));
        let (height, succeeded) = sent.ok_or_else(|| self.fail(&path, "the answer has no height"))?;
        Ok(Sent { height, succeeded })
    }

    fn model_named(&self, name: &str) -> Result<Option<B256>, NodeError> {
        let mut query = String::new();
        for byte in name.bytes() {
            query.push_str(&format!("%{byte:02x}"));
        }
        let v = self.json(&format!("/v1/names?name={query}"), None)?;
        Ok(v.and_then(|v| v.get("model").and_then(Value::as_str).and_then(|m| m.parse().ok())))
    }

    fn job(&self, id: B256) -> Result<Option<Job>, NodeError> {
        let path = format!("/v1/jobs/{id}");
        self.json(&path, None)?.map(|v| self.read_job(&path, &v)).transpose()
    }

    fn manifest(&self, model: B256) -> Result<Option<Vec<u8>>, NodeError> {
        self.call(&format!("/v1/models/{model}/manifest"), None)
    }

    fn is_provided(&self, root: B256) -> Result<bool, NodeError> {
        Ok(self.call(&format!("/v1/tensors/{root}"), None)?.is_some())
    }

    fn assigned(&self, node: Address) -> Result<Vec<Job>, NodeError> {
        let path = format!("/v1/nodes/{node}/jobs");
        let v = self.must(&path)?;
        let jobs = v.as_array().ok_or_else(|| self.fail(&path, "the answer is no list"))?;
        jobs.iter().map(|j| self.read_job(&path, j)).collect()
    }

    fn validators(&self) -> Result<Vec<(Address, u64)>, NodeError> {
        let v = self.must("/v1/validators")?;
        let one = |m: &Value| Some((m.get("validator")?.as_str()?.parse().ok()?, m.get("weight")?.as_u64()?));
        let all = v.as_array().and_then(|l| l.iter().map(one).collect());
        all.ok_or_else(|| self.fail("/v1/validators", "the answer is no list of validators"))
    }

    fn models(&self) -> Result<Vec<(B256, String)>, NodeError> {
        let v = self.must("/v1/models")?;
        let one = |m: &Value| {
            let model = m.get("model")?.as_str()?.parse().ok()?;
            Some((model, m.get("name")?.as_str()?.to_owned()))
        };
        let models = v.as_array().and_then(|l| l.iter().map(one).collect());
        models.ok_or_else(|| self.fail("/v1/models", "the answer is no list of models"))
    }

    fn wait(&self, height: u64, _: Duration) -> Result<u64, NodeError> {
        let path = format!("/v1/wait?height={height}");
        let v = self.must(&path)?;
        v.get("height").and_then(Value::as_u64).ok_or_else(|| self.fail(&path, "the answer has no height"))
    }

    fn blob(&self, hash: &Hash) -> Result<Vec<u8>, NodeError> {
        let bytes =
            self.call(&format!("/v1/blobs/{hash}"), None)?.ok_or_else(|| NodeError::blob_absent(hash))?;
        if Hash::of(&bytes) == *hash {
            Ok(bytes)
        } else {
            Err(NodeError::Malformed(format!("the network sent other bytes than blob {hash}")))
        }
    }

    fn put_blob(&self, bytes: &[u8]) -> Result<Hash, NodeError> {
        let path = "/v1/blobs";
        let v = self.json(path, Some(bytes))?;
        let hash = v.and_then(|v| v.get("hash").and_then(Value::as_str).and_then(|s| s.parse().ok()));
        let hash: Hash = hash.ok_or_else(|| self.fail(path, "the answer has no hash"))?;
        if hash == Hash::of(bytes) { Ok(hash) } else { Err(self.fail(path, "it stored something else")) }
    }
}
