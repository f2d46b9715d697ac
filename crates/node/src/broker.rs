//! The broker: it has the inferences run that transactions in OpenGradient's form wait for, and pays for them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use alloy_primitives::B256;
use isobit_chain::Missing;
use isobit_ledger::{Action, Inputs, Level};
use isobit_proof::Key;

use crate::objects::encoded_tensors;
use crate::{Client, Gateway, Local, NodeError, store_tensors};

/// Most jobs in progress: what comes beyond waits until some have ended.
const MAX_JOBS: usize = 256;
/// Longest outputs that are put on the ledger, in bytes.
const MAX_OUTPUTS: usize = 64 << 10;

/// Posts a job for each missing inference, and puts its outputs on the ledger.
#[derive(Debug)]
pub(crate) struct Broker {
    local: Local,
    key: Key,
    max_fee: u128,
    waiting: Vec<Missing>,
    /// Jobs in progress by model and inputs.
    jobs: BTreeMap<(B256, B256), B256>,
}

impl Broker {
    /// A broker that pays with this key, up to `max_fee` base units a job.
    pub(crate) fn new(local: Local, key: Key, max_fee: u128) -> Self {
        Self { local, key, max_fee, waiting: Vec::new(), jobs: BTreeMap::new() }
    }

    /// Works until `stop` is set.
    pub(crate) fn work(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.round() {
                Ok(()) => {}
                Err(NodeError::Stopping) => return,
                Err(e) => tracing::warn!("an inference for a waiting transaction: {e}"),
            }
            // What is missing is found out while a block is made, and may not make one.
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn round(&mut self) -> Result<(), NodeError> {
        self.waiting.extend(self.local.chain.take_missing());
        let open = self.local.chain.head();
        let ended: Vec<_> =
            self.jobs.iter().filter(|(_, id)| open.answer(**id).is_some()).map(|(k, v)| (*k, *v)).collect();
        for (key, id) in ended {
            self.jobs.remove(&key);
            self.provide(id)?;
        }
        // All are sent before any is waited for: they may be in one block.
        let client = Client::new(&self.local, self.key.clone())?;
        let mut sent = BTreeMap::new();
        while let Some(missing) = self.waiting.pop() {
            let key = (missing.model, missing.inputs);
            if self.jobs.contains_key(&key) || sent.contains_key(&key) || self.has_answer(&missing)? {
                continue;
            }
            if self.jobs.len() + sent.len() >= MAX_JOBS {
                continue; // it is told again, as its transaction still waits
            }
            let set = isobit_proof::decode_tensors(&missing.tensors);
            let inputs = store_tensors(&self.local, &set.map_err(|e| NodeError::Malformed(e.to_string()))?)?;
            let post = Action::Post {
                model: missing.model,
                inputs: Inputs::Root(B256::from(inputs.0)),
                seed: 0,
                level: Level::Signed,
                max_fee: self.max_fee,
                deadline: 0,
                callback_gas: 0,
            };
            sent.insert(key, client.send(&post)?);
        }
        for (key, transaction) in sent {
            match client.wait_for(transaction).and_then(|_| self.local.posted_by(transaction)) {
                Ok(job) => drop(self.jobs.insert(key, job)),
                Err(NodeError::Stopping) => return Err(NodeError::Stopping),
                Err(e) => tracing::warn!("an inference for a waiting transaction: {e}"), // it is told again
            }
        }
        Ok(())
    }

    /// Whether the inference was settled before; then only its outputs may be missing.
    fn has_answer(&self, missing: &Missing) -> Result<bool, NodeError> {
        let head = self.local.chain.head();
        let Some(answer) = head.settled(missing.model, missing.inputs) else { return Ok(false) };
        if answer.failure == 0 && head.tensors(answer.outputs).is_none() {
            self.provide_outputs(answer.outputs)?;
        }
        Ok(true)
    }

    fn provide(&self, job: B256) -> Result<(), NodeError> {
        match self.local.chain.head().answer(job) {
            Some(answer) if answer.settled && answer.failure == 0 => self.provide_outputs(answer.outputs),
            _ => Ok(()),
        }
    }

    fn provide_outputs(&self, root: B256) -> Result<(), NodeError> {
        if self.local.is_provided(root)? {
            return Ok(());
        }
        let tensors = encoded_tensors(&self.local, root)?;
        if tensors.len() > MAX_OUTPUTS {
            let length = tensors.len();
            return Err(NodeError::Refused(format!(
                "outputs of {length} bytes are too many for a transaction"
            )));
        }
        Client::new(&self.local, self.key.clone())?.act(Action::Provide { tensors })?;
        Ok(())
    }
}
