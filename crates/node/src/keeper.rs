//! The keeper: it runs the workflows that are due at the scheduler, and pays the gas for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use alloy_primitives::{TxKind, U256};
use alloy_sol_types::SolCall;
use isobit_chain::{IWorkflowScheduler, Order, SCHEDULER};
use isobit_proof::Key;

use crate::{Client, Gateway, Local, NodeError};

/// How often it looks.
const PAUSE: Duration = Duration::from_millis(500);
/// How long a run is waited for before it is sent again: it may wait for an inference.
const PATIENCE: Duration = Duration::from_secs(150);
/// Gas of a run: the workflow's own, and what is around it.
const GAS: u64 = 12_000_000;
/// Most runs at a time.
const MAX_RUNS: usize = 16;

/// Runs workflows.
#[derive(Debug)]
pub(crate) struct Keeper {
    local: Local,
    key: Key,
    /// Tasks that were sent, and when.
    sent: BTreeMap<U256, Instant>,
}

impl Keeper {
    /// A keeper that pays with this key.
    pub(crate) fn new(local: Local, key: Key) -> Self {
        Self { local, key, sent: BTreeMap::new() }
    }

    /// Works until `stop` is set.
    pub(crate) fn work(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.round() {
                Ok(()) => {}
                Err(NodeError::Stopping) => return,
                Err(e) => tracing::warn!("a workflow that is due: {e}"),
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn round(&mut self) -> Result<(), NodeError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let call = IWorkflowScheduler::dueCall { time: U256::from(now) };
        let returned = self.local.eth_call(SCHEDULER, call.abi_encode().into())?;
        let due = IWorkflowScheduler::dueCall::abi_decode_returns(&returned);
        let due = due.map_err(|e| NodeError::Malformed(e.to_string()))?;
        self.sent.retain(|number, at| due.contains(number) && at.elapsed() < PATIENCE);
        let client = Client::new(&self.local, self.key.clone())?;
        for number in due {
            if self.sent.len() >= MAX_RUNS {
                break;
            }
            if self.sent.contains_key(&number) {
                continue;
            }
            let call = IWorkflowScheduler::executeCall { number };
            let mut order = Order::new(TxKind::Call(SCHEDULER), 0, call.abi_encode().into());
            order.gas = GAS;
            client.send_with_gas(order)?;
            self.sent.insert(number, Instant::now());
        }
        Ok(())
    }
}
