use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256, Bytes};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};
use isobit_tensor::Hash;

use crate::job::{End, Phase};
use crate::rules::{self, BlockContext};
use crate::{
    Account, DecodeError, Event, GenesisError, Job, ModelEntry, NodeEntry, Params, SignedTx, Storage, TxError,
};

/// What a node is to the draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeStatus {
    /// Can be drawn.
    Active,
    /// Active, but its stake is too small to be drawn.
    Underfunded,
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

/// Everything the rules know, in memory. Ended jobs leave it: they are handed to whoever executes the block.
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
    /// Accounts by address.
    pub accounts: BTreeMap<Address, Account>,
    /// Models by content address.
    pub models: BTreeMap<B256, ModelEntry>,
    /// Nodes by address.
    pub nodes: BTreeMap<Address, NodeEntry>,
    /// Jobs in progress by id.
    pub jobs: BTreeMap<B256, Job>,
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl Storage for State {
    fn account(&self, address: Address) -> Account {
        self.accounts.get(&address).copied().unwrap_or_default()
    }

    fn set_account(&mut self, address: Address, account: Account) {
        self.accounts.insert(address, account);
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

    fn job(&self, job: B256) -> Option<Job> {
        self.jobs.get(&job).cloned()
    }

    fn set_job(&mut self, id: B256, job: Option<Job>) {
        set(&mut self.jobs, id, job);
    }

    fn jobs(&self) -> Vec<B256> {
        self.jobs.keys().copied().collect()
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
            state.accounts.entry(address).or_default().balance += amount;
        }
        Ok(state)
    }

    /// Base units of an address.
    pub fn balance(&self, address: Address) -> u128 {
        self.account(address).balance
    }

    /// The nonce its next transaction must have.
    pub fn nonce(&self, address: Address) -> u64 {
        self.account(address).nonce
    }

    /// Where the coins are; `None` if they are more than 128 bits count, which no reachable state has.
    pub fn coins(&self) -> Option<Coins> {
        fn sum(amounts: impl Iterator<Item = u128>) -> Option<u128> {
            amounts.into_iter().try_fold(0u128, u128::checked_add)
        }
        let stakes =
            |left: bool| self.nodes.values().filter(move |n| (n.leaves > 0) == left).map(|n| n.stake);
        Some(Coins {
            balances: sum(self.accounts.values().map(|a| a.balance))?,
            staked: sum(stakes(false))?,
            unbonding: sum(stakes(true))?,
            escrow: sum(self.jobs.values().map(|j| j.max_fee))?,
        })
    }

    /// All coins there are: balances, stakes and escrow. No transaction changes it; it is [`State::supply`].
    pub fn total_coins(&self) -> u128 {
        let total =
            |c: Coins| c.balances.checked_add(c.staked)?.checked_add(c.unbonding)?.checked_add(c.escrow);
        self.coins().and_then(total).unwrap_or(u128::MAX)
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
            n if n.stake < self.params.min_stake => NodeStatus::Underfunded,
            _ => NodeStatus::Active,
        })
    }

    /// Whether nodes are drawn at the end of the next block, for jobs of the last one: then it should not be waited for.
    pub fn awaits_draw(&self) -> bool {
        self.jobs.values().any(|j| j.phase == Phase::Posted && j.posted == self.height)
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

    /// Applies a signed transaction: checks signature and nonce, then the rules. A refused one changes nothing.
    pub fn apply(&mut self, block: &BlockContext, signed: &SignedTx) -> Result<Vec<Event>, TxError> {
        let tx = &signed.tx;
        let next = self.nonce(tx.from);
        if tx.nonce != next {
            return Err(TxError::Nonce { from: tx.from, next, got: tx.nonce });
        }
        if !signed.is_signed(self.params.chain_id) {
            return Err(TxError::Signature(tx.from));
        }
        let params = self.params.clone();
        let events = rules::apply(self, &params, block, tx.from, tx.nonce, &tx.action)?;
        self.accounts.entry(tx.from).or_default().nonce += 1;
        Ok(events)
    }

    /// Ends a block, see [`crate::tick`].
    pub(crate) fn tick(&mut self, block: &BlockContext) -> (Vec<Event>, Vec<Job>) {
        let params = self.params.clone();
        rules::tick(self, &params, block)
    }

    /// The state as bytes: an RLP list of height, time, supply, accounts, models, nodes and jobs. Each of the four is a byte
    /// string: for every entry, in ascending order of key, the key's RLP and the value's RLP (a list of its fields in the
    /// order of declaration). The parameters are the network's and not part of it.
    pub fn encode(&self) -> Vec<u8> {
        fn pairs<K: Encodable, V: Encodable>(map: &BTreeMap<K, V>) -> Bytes {
            let mut out = Vec::new();
            for (k, v) in map {
                k.encode(&mut out);
                v.encode(&mut out);
            }
            out.into()
        }
        let fields = StateFields {
            height: self.height,
            time: self.time,
            supply: self.supply,
            accounts: pairs(&self.accounts),
            models: pairs(&self.models),
            nodes: pairs(&self.nodes),
            jobs: pairs(&self.jobs),
        };
        alloy_rlp::encode(&fields)
    }

    /// Reads what [`State::encode`] writes, and nothing else. The invariants hold for what is returned.
    pub fn decode(params: Params, mut bytes: &[u8]) -> Result<Self, DecodeError> {
        fn fail(why: impl ToString) -> DecodeError {
            DecodeError::new("a state", why)
        }
        fn pairs<K: Decodable + Ord, V: Decodable>(bytes: &Bytes) -> Result<BTreeMap<K, V>, DecodeError> {
            let mut rest: &[u8] = bytes;
            let mut map = BTreeMap::new();
            while !rest.is_empty() {
                let key = K::decode(&mut rest).map_err(fail)?;
                if map.last_key_value().is_some_and(|(last, _)| *last >= key) {
                    return Err(fail("the keys are not in ascending order"));
                }
                map.insert(key, V::decode(&mut rest).map_err(fail)?);
            }
            Ok(map)
        }
        params.check().map_err(fail)?;
        let fields = StateFields::decode(&mut bytes).map_err(fail)?;
        if !bytes.is_empty() {
            return Err(fail("there are bytes after it"));
        }
        let state = Self {
            params,
            height: fields.height,
            time: fields.time,
            supply: fields.supply,
            accounts: pairs(&fields.accounts)?,
            models: pairs(&fields.models)?,
            nodes: pairs(&fields.nodes)?,
            jobs: pairs(&fields.jobs)?,
        };
        state.check_invariants().map_err(fail)?;
        Ok(state)
    }

    /// BLAKE3 of [`State::encode`].
    pub fn root(&self) -> B256 {
        B256::from(Hash::of(&self.encode()).0)
    }
}

#[derive(RlpEncodable, RlpDecodable)]
struct StateFields {
    height: u64,
    time: u64,
    supply: u128,
    accounts: Bytes,
    models: Bytes,
    nodes: Bytes,
    jobs: Bytes,
}
