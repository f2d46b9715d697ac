use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, Bytes};

use crate::job::{End, Phase};
use crate::rules::{self, BlockContext};
use crate::{
    Action, Answer, Callback, Event, GenesisError, Job, ModelEntry, NodeEntry, Params, Storage, TxError,
};

/// What a node is to the draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// Can be drawn.
    Active,
    /// Active, but its stake is too small to be drawn.
    Underfunded,
    /// Votes on blocks, and is not drawn.
    Validator,
    /// On its way out.
    Leaving,
}

/// Where the coins are, in base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Coins {
    /// In accounts.
    pub balances: u128,
    /// At stake by nodes that have not left.
    pub staked: u128,
    /// At stake by nodes on their way out.
    pub unbonding: u128,
    /// In escrow for jobs in progress.
    pub escrow: u128,
}

impl Coins {
    /// All of them; `None` if they are more than 128 bits count.
    pub fn total(&self) -> Option<u128> {
        self.balances.checked_add(self.staked)?.checked_add(self.unbonding)?.checked_add(self.escrow)
    }
}

/// Something that can be no state of these rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvariantError {
    /// Coins were created or lost.
    #[error("there are {found} base units, genesis gave {supply}")]
    Supply {
        /// At genesis.
        supply: u128,
        /// Now; `u128::MAX` for any more than 128 bits count.
        found: u128,
    },
    /// A job contradicts the rest.
    #[error("job {0}: {1}")]
    Job(B256, &'static str),
    /// A node's count of jobs in progress is not the number of its open seats.
    #[error("node {node} counts {counted} jobs in progress and has {found}")]
    Jobs {
        /// The node.
        node: Address,
        /// What its entry says.
        counted: u64,
        /// Its open seats.
        found: u64,
    },
}

/// Everything the rules know, in memory: what the chain keeps in the slots of the ledger's account, for tests and simulations.
/// Ended jobs leave it: they are handed to whoever executes the block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// What the network agreed on at genesis.
    pub params: Params,
    /// Height of the last block.
    pub height: u64,
    /// Time of the last block, in seconds since 1970; it never goes back.
    pub time: u64,
    /// All coins there are, since genesis.
    pub supply: u128,
    /// Coins at hand by address.
    pub accounts: BTreeMap<Address, u128>,
    /// Models by content address.
    pub models: BTreeMap<B256, ModelEntry>,
    /// Nodes by address.
    pub nodes: BTreeMap<Address, NodeEntry>,
    /// Jobs in progress by id.
    pub jobs: BTreeMap<B256, Job>,
    /// Models by name.
    pub names: BTreeMap<String, B256>,
    /// Jobs posted so far by requester.
    pub posted: BTreeMap<Address, u64>,
    /// How jobs ended.
    pub answers: BTreeMap<B256, Answer>,
    /// Tensors on the ledger by root.
    pub tensors: BTreeMap<B256, Bytes>,
    /// Manifests by model.
    pub manifests: BTreeMap<B256, Bytes>,
    /// Callbacks that are due.
    pub callbacks: Vec<Callback>,
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl Storage for State {
    fn take(&mut self, from: Address, needs: u128) -> Result<(), TxError> {
        let has = self.balance(from);
        let left = has.checked_sub(needs).ok_or(TxError::Balance { from, has, needs })?;
        self.accounts.insert(from, left);
        Ok(())
    }

    fn give(&mut self, to: Address, amount: u128) {
        let balance = self.accounts.entry(to).or_default();
        *balance = balance.checked_add(amount).expect("all coins together fit 128 bits");
    }

    fn model(&self, model: B256) -> Option<ModelEntry> {
        self.models.get(&model).cloned()
    }

    fn set_model(&mut self, model: B256, entry: ModelEntry) {
        self.models.insert(model, entry);
    }

    fn node(&self, node: Address) -> Option<NodeEntry> {
        self.nodes.get(&node).cloned()
    }

    fn set_node(&mut self, node: Address, entry: Option<NodeEntry>) {
        set(&mut self.nodes, node, entry);
    }

    fn nodes(&self) -> Vec<(Address, NodeEntry)> {
        self.nodes.iter().map(|(a, n)| (*a, n.clone())).collect()
    }

    fn validators(&self) -> Vec<(Address, NodeEntry)> {
        self.nodes.iter().filter(|(_, n)| n.votes()).map(|(a, n)| (*a, n.clone())).collect()
    }

    fn job(&self, job: B256) -> Option<Job> {
        self.jobs.get(&job).cloned()
    }

    fn set_job(&mut self, id: B256, job: Option<Job>) {
        set(&mut self.jobs, id, job);
    }

    fn jobs(&self) -> Vec<B256> {
        self.jobs.keys().copied().collect()
    }

    fn open_jobs(&self) -> u64 {
        self.jobs.len() as u64
    }

    fn active_nodes(&self, params: &Params) -> usize {
        self.nodes.values().filter(|n| n.is_active(params)).count()
    }

    fn named(&self, name: &str) -> Option<B256> {
        self.names.get(name).copied()
    }

    fn set_named(&mut self, name: &str, model: B256) {
        self.names.insert(name.to_owned(), model);
    }

    fn count_job(&mut self, requester: Address) -> u64 {
        let count = self.posted.entry(requester).or_default();
        *count += 1;
        *count - 1
    }

    fn set_answer(&mut self, job: &Job, answer: Answer) {
        self.answers.insert(job.id, answer);
    }

    fn set_tensors(&mut self, root: B256, tensors: Bytes) {
        self.tensors.insert(root, tensors);
    }

    fn set_manifest(&mut self, model: B256, manifest: Bytes) {
        self.manifests.insert(model, manifest);
    }

    fn push_callback(&mut self, callback: Callback) {
        self.callbacks.push(callback);
    }
}

impl State {
    /// The state before the first block.
    pub fn genesis(
        params: Params,
        allocations: impl IntoIterator<Item = (Address, u128)>,
    ) -> Result<Self, GenesisError> {
        params.check()?;
        let mut state = Self { params, ..Self::default() };
        for (address, amount) in allocations {
            state.supply = state.supply.checked_add(amount).ok_or(GenesisError::TooManyCoins)?;
            *state.accounts.entry(address).or_default() += amount;
        }
        Ok(state)
    }

    /// Base units of an address.
    pub fn balance(&self, address: Address) -> u128 {
        self.accounts.get(&address).copied().unwrap_or_default()
    }

    /// Where the coins are; `None` if they are more than 128 bits count, which no reachable state has.
    pub fn coins(&self) -> Option<Coins> {
        fn sum(amounts: impl Iterator<Item = u128>) -> Option<u128> {
            amounts.into_iter().try_fold(0u128, u128::checked_add)
        }
        let stakes =
            |left: bool| self.nodes.values().filter(move |n| (n.leaves > 0) == left).map(|n| n.stake);
        Some(Coins {
            balances: sum(self.accounts.values().copied())?,
            staked: sum(stakes(false))?,
            unbonding: sum(stakes(true))?,
            escrow: sum(self.jobs.values().map(|j| j.max_fee))?,
        })
    }

    /// All coins there are: balances, stakes and escrow. No transaction changes it; it is [`State::supply`].
    pub fn total_coins(&self) -> u128 {
        self.coins().and_then(|c| c.total()).unwrap_or(u128::MAX)
    }

    /// Coins in escrow for jobs in progress.
    pub fn escrow(&self) -> u128 {
        self.coins().map_or(u128::MAX, |c| c.escrow)
    }

    /// A node's standing, if there is one.
    pub fn node_status(&self, node: Address) -> Option<NodeStatus> {
        let entry = self.nodes.get(&node)?;
        Some(match entry {
            n if n.leaves > 0 => NodeStatus::Leaving,
            n if n.validates => NodeStatus::Validator,
            n if n.stake < self.params.min_stake => NodeStatus::Underfunded,
            _ => NodeStatus::Active,
        })
    }

    /// What holds between blocks in every reachable state.
    pub fn check_invariants(&self) -> Result<(), InvariantError> {
        let found = self.total_coins();
        if found != self.supply {
            return Err(InvariantError::Supply { supply: self.supply, found });
        }
        let mut open: BTreeMap<Address, u64> = BTreeMap::new();
        for (id, job) in &self.jobs {
            let fail = |why| Err(InvariantError::Job(*id, why));
            let n = usize::from(job.level.replicas().unwrap_or(0));
            let seats = match (job.phase, job.round) {
                (Phase::Posted, 0) => 0,
                (Phase::Assigned | Phase::Committed, 0) => n,
                (Phase::Assigned | Phase::Committed, 1) => 2 * n + 1,
                _ => return fail("a job in progress is posted, assigned or committed"),
            };
            if job.id != *id || n == 0 || job.seats.len() != seats {
                return fail("it has another id, level or number of seats");
            }
            if !self.models.contains_key(&job.model) {
                return fail("its model is not published");
            }
            let distinct: BTreeSet<Address> = job.seats.iter().map(|s| s.node).collect();
            if distinct.len() != seats {
                return fail("a node sits twice");
            }
            for seat in &job.seats {
                if !matches!(seat.end, End::Open | End::Silent) {
                    return fail("a seat has ended before the job");
                }
                if seat.reveal.len() > 1 || (!seat.reveal.is_empty() && seat.commitment.is_zero()) {
                    return fail("a seat has revealed twice, or without a commitment");
                }
                if seat.end == End::Open {
                    *open.entry(seat.node).or_default() += 1;
                }
            }
        }
        for (&node, entry) in &self.nodes {
            let found = open.remove(&node).unwrap_or(0);
            if entry.jobs != found {
                return Err(InvariantError::Jobs { node, counted: entry.jobs, found });
            }
        }
        match open.pop_first() {
            Some((node, found)) => Err(InvariantError::Jobs { node, counted: 0, found }),
            None => Ok(()),
        }
    }

    /// Applies an action, see [`crate::apply`].
    pub fn apply(
        &mut self,
        block: &BlockContext,
        from: Address,
        action: &Action,
    ) -> Result<Vec<Event>, TxError> {
        let params = self.params.clone();
        rules::apply(self, &params, block, from, action)
    }

    /// Ends a block, see [`crate::tick`].
    pub fn tick(&mut self, block: &BlockContext) -> (Vec<Event>, Vec<Job>) {
        let params = self.params.clone();
        rules::tick(self, &params, block)
    }
}
