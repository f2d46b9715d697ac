//! Models that are kept loaded, each by its address.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use isobit_runtime::{Options, Session};
use isobit_tensor::Hash;

use crate::{Gateway, NodeError, fetch_model};

/// How many are kept.
const MAX_SESSIONS: usize = 4;

/// Loaded models.
#[derive(Debug)]
pub(crate) struct Sessions {
    options: Options,
    loaded: Mutex<BTreeMap<Hash, Arc<Session>>>,
}

impl Sessions {
    /// None yet; those to come are loaded with these options.
    pub(crate) fn new(options: Options) -> Self {
        Self { options, loaded: Mutex::default() }
    }

    /// The model of an address, fetched and loaded if it is not yet.
    pub(crate) fn get(&self, gateway: &dyn Gateway, model: &Hash) -> Result<Arc<Session>, NodeError> {
        let lock = || self.loaded.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(session) = lock().get(model) {
            return Ok(session.clone());
        }
        let session = Arc::new(Session::load(fetch_model(gateway, model)?, &self.options)?);
        let mut loaded = lock();
        if loaded.len() >= MAX_SESSIONS {
            loaded.pop_first();
        }
        loaded.insert(*model, session.clone());
        Ok(session)
    }
}
