//! Models and tensors as blobs, and what a client does with the network.

use std::time::{Duration, Instant};

use alloy_primitives::B256;
use isobit_graph::{Manifest, Model, ModelObject};
use isobit_ledger::{Action, Job, Level, Tx, job_id};
use isobit_proof::{Key, decode_set, encode_set};
use isobit_tensor::{Hash, Tensor};

use crate::{Gateway, NodeError};

/// Stores a model object's three files; the manifest's blob has the model's address as its hash.
pub fn publish_model(gateway: &dyn Gateway, object: &ModelObject) -> Result<Hash, NodeError> {
    gateway.put_blob(object.model())?;
    gateway.put_blob(object.weights())?;
    gateway.put_blob(object.manifest())
}

/// Fetches a model by its address; every byte is checked against it.
pub fn fetch_model(gateway: &dyn Gateway, address: &Hash) -> Result<Model, NodeError> {
    let manifest = gateway.blob(address)?;
    let parts = Manifest::parse(&manifest)?;
    let object = ModelObject::from_parts(
        manifest,
        gateway.blob(&parts.model.hash)?,
        gateway.blob(&parts.weights.hash)?,
    )?;
    Ok(object.to_model()?)
}

/// Stores named tensors; returns the root of the set.
pub fn store_tensors(gateway: &dyn Gateway, tensors: &[(String, Tensor)]) -> Result<Hash, NodeError> {
    let mut set = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        set.push((name.as_str(), gateway.put_blob(&tensor.to_canonical())?));
    }
    gateway.put_blob(&encode_set(set))
}

/// Fetches the tensors of a root; every byte is checked against it.
pub fn fetch_tensors(gateway: &dyn Gateway, root: &Hash) -> Result<Vec<(String, Tensor)>, NodeError> {
    let malformed = |what: &str| NodeError::Malformed(format!("blob {root} is not {what}"));
    let set = decode_set(&gateway.blob(root)?).ok_or_else(|| malformed("a set of tensors"))?;
    set.into_iter()
        .map(|(name, hash)| {
            let tensor = Tensor::from_canonical(&gateway.blob(&hash)?)
                .map_err(|e| NodeError::Malformed(format!("tensor '{name}': {e}")))?;
            Ok((name, tensor))
        })
        .collect()
}

/// An account that acts on the network.
pub struct Client<'a> {
    gateway: &'a dyn Gateway,
    key: Key,
    chain_id: u64,
}

impl std::fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.key.address())
    }
}

impl<'a> Client<'a> {
    /// The account of this key.
    pub fn new(gateway: &'a dyn Gateway, key: Key) -> Result<Self, NodeError> {
        let chain_id = gateway.params()?.chain_id;
        Ok(Self { gateway, key, chain_id })
    }

    /// Signs an action with the next nonce and puts it into a block; returns the nonce it had.
    pub fn act(&self, action: Action) -> Result<u64, NodeError> {
        let from = self.key.address();
        let (_, nonce) = self.gateway.account(from)?;
        self.gateway.submit(Tx { from, nonce, action }.sign(&self.key, self.chain_id))?;
        Ok(nonce)
    }

    /// Posts a job and returns its id. The inputs must be stored before.
    pub fn post(
        &self,
        model: Hash,
        inputs: Hash,
        seed: u64,
        replicas: u8,
        max_fee: u128,
    ) -> Result<B256, NodeError> {
        let (model, inputs) = (B256::from(model.0), B256::from(inputs.0));
        let level = Level::of(replicas);
        let nonce = self.act(Action::Post { model, inputs, seed, level, max_fee, deadline: 0 })?;
        Ok(job_id(self.key.address(), nonce))
    }

    /// Waits until a job has ended.
    pub fn wait(&self, id: B256, timeout: Duration) -> Result<Job, NodeError> {
        let start = Instant::now();
        let mut height = 0;
        loop {
            let job = self.gateway.job(id)?.ok_or_else(|| NodeError::absent("job", id))?;
            if job.is_over() {
                return Ok(job);
            }
            let left = timeout.checked_sub(start.elapsed()).ok_or(NodeError::Timeout(id))?;
            height = self.gateway.wait(height, left.min(Duration::from_secs(1)))?;
        }
    }
}
