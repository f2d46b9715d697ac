//! Models and tensors as blobs, and what a client does with the network.

use std::time::{Duration, Instant};

use alloy_primitives::{Address, B256, Bytes, TxKind};
use isobit_chain::{Order, ledger_order};
use isobit_graph::{Manifest, Model, ModelObject};
use isobit_ledger::{Action, Inputs, Job, Level, MAX_MANIFEST, Params, job_id};
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

/// Whether a model is on the ledger with all that [`Client::register`] puts there.
pub fn is_registered(gateway: &dyn Gateway, object: &ModelObject) -> Result<bool, NodeError> {
    let model = B256::from(object.address().0);
    let is_published = gateway.models()?.iter().any(|(m, _)| *m == model);
    Ok(is_published && !(object.manifest().len() <= MAX_MANIFEST && gateway.manifest(model)?.is_none()))
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

/// The tensors of a root in one piece (`isobitV1`), as the ledger takes them.
pub(crate) fn encoded_tensors(gateway: &dyn Gateway, root: B256) -> Result<Bytes, NodeError> {
    let set = fetch_tensors(gateway, &Hash(root.0))?;
    Ok(isobit_proof::encode_tensors(set.iter().map(|(name, t)| (name.as_str(), t))).into())
}

/// An account that acts on the network.
pub struct Client<'a> {
    gateway: &'a dyn Gateway,
    key: Key,
    params: Params,
}

impl std::fmt::Debug for Client<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.key.address())
    }
}

/// The tip that is offered for a unit of gas.
const TIP: u128 = 1_000_000;

impl<'a> Client<'a> {
    /// The account of this key.
    pub fn new(gateway: &'a dyn Gateway, key: Key) -> Result<Self, NodeError> {
        let params = gateway.params()?;
        Ok(Self { gateway, key, params })
    }

    /// Signs an order with the next nonce and hands it in; the order's nonce, gas and price are found here.
    pub(crate) fn send_order(&self, mut order: Order) -> Result<B256, NodeError> {
        let gas = self.gateway.estimate(self.key.address(), &order)?;
        // What others do before it may make it dearer: the first to do something pays for it.
        order.gas = gas + gas / 2;
        self.send_with_gas(order)
    }

    /// The same for an order that says what gas it has.
    pub(crate) fn send_with_gas(&self, mut order: Order) -> Result<B256, NodeError> {
        let account = self.gateway.account(self.key.address())?;
        order.nonce = account.nonce;
        order.tip = TIP;
        order.max_fee_per_gas = 2 * u128::from(account.base_fee) + TIP;
        self.gateway.submit(&order.sign(&self.key, self.params.chain_id).1)
    }

    pub(crate) fn wait_for(&self, hash: B256) -> Result<u64, NodeError> {
        let sent = self.gateway.wait_for(hash)?;
        if sent.succeeded {
            return Ok(sent.height);
        }
        let height = sent.height;
        Err(NodeError::Refused(format!(
            "it was reverted in block {height}, as what it rests on has changed; try again"
        )))
    }

    /// Hands an action in and does not wait for its block; returns the transaction's hash.
    pub fn send(&self, action: &Action) -> Result<B256, NodeError> {
        self.send_order(ledger_order(action, &self.params))
    }

    /// Does an action and waits until it is in a block; returns the block's height.
    pub fn act(&self, action: Action) -> Result<u64, NodeError> {
        self.wait_for(self.send(&action)?)
    }

    /// Sends coins and waits until they are there; returns the block's height.
    pub fn transfer(&self, to: Address, value: u128) -> Result<u64, NodeError> {
        self.wait_for(self.send_order(Order::new(TxKind::Call(to), value, Bytes::new()))?)
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
        let (model, inputs) = (B256::from(model.0), Inputs::Root(B256::from(inputs.0)));
        let level = Level::of(replicas);
        let count = self.gateway.account(self.key.address())?.posted;
        self.act(Action::Post { model, inputs, seed, level, max_fee, deadline: 0, callback_gas: 0 })?;
        Ok(job_id(self.key.address(), count))
    }

    /// Registers a model whose files are stored, unless it is registered, and puts its manifest on the ledger, so that contracts
    /// and OpenGradient's SDK can give numbers instead of tensors.
    pub fn register(&self, object: &ModelObject, name: &str) -> Result<(), NodeError> {
        let (model, manifest) = (B256::from(object.address().0), object.manifest());
        if !self.gateway.models()?.iter().any(|(m, _)| *m == model) {
            self.act(Action::Publish { model, name: name.to_owned(), uri: String::new(), unit_fee: 0 })?;
        }
        if self.gateway.manifest(model)?.is_none() && manifest.len() <= MAX_MANIFEST {
            self.act(Action::Describe { manifest: manifest.to_vec().into() })?;
        }
        Ok(())
    }

    /// Waits until a job has ended.
    pub fn wait(&self, id: B256, timeout: Duration) -> Result<Job, NodeError> {
        wait_for_job(self.gateway, id, timeout)
    }
}

/// Waits until a job has ended.
pub fn wait_for_job(gateway: &dyn Gateway, id: B256, timeout: Duration) -> Result<Job, NodeError> {
    let start = Instant::now();
    let mut height = 0;
    loop {
        let job = gateway.job(id)?.ok_or_else(|| NodeError::absent("job", id))?;
        if job.is_over() {
            return Ok(job);
        }
        let left = timeout.checked_sub(start.elapsed()).ok_or(NodeError::Timeout(id))?;
        height = gateway.wait(height, left.min(Duration::from_secs(1)))?;
    }
}
