use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};
use isobit_tensor::Hash;

use crate::job::{End, Phase, Reveal, Seat, commitment};
use crate::{Action, Job, Params, SignedTx, TxError};

/// Coins and transaction count of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, RlpEncodable, RlpDecodable)]
pub struct Account {
    /// Base units.
    pub balance: u128,
    /// Transactions so far.
    pub nonce: u64,
}

/// A published model.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct ModelEntry {
    /// Who published it.
    pub owner: Address,
    /// Name for people.
    pub name: String,
}

/// A node's stake and standing.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct NodeEntry {
    /// Base units at stake.
    pub stake: u128,
    /// 0 while active, else the time from which the stake can be withdrawn.
    pub leaves: u64,
    /// Jobs in progress that the node was drawn for.
    pub jobs: u64,
}

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

/// Everything the rules know. Ended jobs leave it: they are handed to whoever executes the block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// What the network agreed on at genesis.
    pub params: Params,
    /// Height of the last block.
    pub height: u64,
    /// Time of the last block, in seconds since 1970; it never goes back.
    pub time: u64,
    /// Accounts by address.
    pub accounts: BTreeMap<Address, Account>,
    /// Models by content address.
    pub models: BTreeMap<B256, ModelEntry>,
    /// Nodes by address.
    pub nodes: BTreeMap<Address, NodeEntry>,
    /// Jobs in progress by id.
    pub jobs: BTreeMap<B256, Job>,
}

/// Longest model name, in bytes.
const MAX_NAME: usize = 128;

impl State {
    /// The state before the first block.
    pub fn genesis(params: Params, allocations: impl IntoIterator<Item = (Address, u128)>) -> Self {
        let mut state = Self { params, ..Self::default() };
        for (address, amount) in allocations {
            state.credit(address, amount);
        }
        state
    }

    /// Base units of an address.
    pub fn balance(&self, address: Address) -> u128 {
        self.accounts.get(&address).map_or(0, |a| a.balance)
    }

    /// The nonce its next transaction must have.
    pub fn nonce(&self, address: Address) -> u64 {
        self.accounts.get(&address).map_or(0, |a| a.nonce)
    }

    /// All coins there are: balances, stakes and escrow. No transaction changes it.
    pub fn total_coins(&self) -> u128 {
        let balances: u128 = self.accounts.values().map(|a| a.balance).sum();
        let stakes: u128 = self.nodes.values().map(|n| n.stake).sum();
        balances + stakes + self.escrow()
    }

    /// Coins in escrow for jobs in progress.
    pub fn escrow(&self) -> u128 {
        self.jobs.values().map(|j| j.max_fee).sum()
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

    fn active(&self) -> impl Iterator<Item = (&Address, &NodeEntry)> {
        self.nodes.iter().filter(|(_, n)| n.leaves == 0 && n.stake >= self.params.min_stake)
    }

    fn credit(&mut self, address: Address, amount: u128) {
        let account = self.accounts.entry(address).or_default();
        account.balance = account.balance.checked_add(amount).expect("all coins together fit 128 bits");
    }

    /// Takes coins that [`State::afford`] has found to be there.
    fn debit(&mut self, address: Address, amount: u128) {
        let account = self.accounts.entry(address).or_default();
        account.balance = account.balance.checked_sub(amount).expect("checked before");
    }

    fn afford(&self, from: Address, needs: u128) -> Result<(), TxError> {
        let has = self.balance(from);
        if has < needs { Err(TxError::Balance { from, has, needs }) } else { Ok(()) }
    }

    /// Applies a transaction; `beacon` is the parent block's hash. A refused one changes nothing.
    pub(crate) fn apply(&mut self, signed: &SignedTx, beacon: B256) -> Result<(), TxError> {
        let tx = &signed.tx;
        if !signed.is_signed(self.params.chain_id) {
            return Err(TxError::Signature(tx.from));
        }
        let next = self.nonce(tx.from);
        if tx.nonce != next {
            return Err(TxError::Nonce { from: tx.from, next, got: tx.nonce });
        }
        self.act(tx.from, tx.nonce, &tx.action, beacon)?;
        self.accounts.entry(tx.from).or_default().nonce += 1;
        Ok(())
    }

    /// Each arm checks all it needs before it changes anything.
    fn act(&mut self, from: Address, nonce: u64, action: &Action, beacon: B256) -> Result<(), TxError> {
        match action {
            Action::Transfer { to, amount } => {
                self.afford(from, *amount)?;
                self.debit(from, *amount);
                self.credit(*to, *amount);
            }
            Action::Publish { model, name } => {
                if name.is_empty() || name.len() > MAX_NAME {
                    return Err(TxError::Text { what: "a model's name", most: MAX_NAME });
                }
                if self.models.contains_key(model) {
                    return Err(TxError::ModelExists(*model));
                }
                self.models.insert(*model, ModelEntry { owner: from, name: name.clone() });
            }
            Action::Join { stake } => {
                if self.nodes.contains_key(&from) {
                    return Err(TxError::NodeExists(from));
                }
                if *stake < self.params.min_stake {
                    return Err(TxError::Stake { stake: *stake, least: self.params.min_stake });
                }
                self.afford(from, *stake)?;
                self.debit(from, *stake);
                self.nodes.insert(from, NodeEntry { stake: *stake, leaves: 0, jobs: 0 });
            }
            Action::Leave => {
                let leaves = self.time + self.params.unbonding;
                let node = self.nodes.get_mut(&from).ok_or(TxError::NoNode(from, "it has not joined"))?;
                if node.leaves > 0 {
                    return Err(TxError::NoNode(from, "it is leaving already"));
                }
                node.leaves = leaves.max(1);
            }
            Action::Withdraw => {
                let node = self.nodes.get(&from).ok_or(TxError::NoNode(from, "it has not joined"))?;
                match node {
                    n if n.leaves == 0 => return Err(TxError::NoNode(from, "it must leave first")),
                    n if n.leaves > self.time => {
                        return Err(TxError::NoNode(from, "its stake is still unbonding"));
                    }
                    n if n.jobs > 0 => return Err(TxError::NoNode(from, "it has jobs in progress")),
                    _ => {}
                }
                let stake = node.stake;
                self.nodes.remove(&from);
                self.credit(from, stake);
            }
            Action::Post { model, inputs, seed, replicas, max_fee } => {
                self.post(from, nonce, (*model, *inputs, *seed), *replicas, *max_fee, beacon)?;
            }
            Action::Commit { job, commitment } => self.commit(from, *job, *commitment)?,
            Action::Reveal { job, outputs, failure, cost, receipt, salt } => {
                let reveal =
                    Reveal { outputs: *outputs, failure: *failure, cost: *cost, receipt: receipt.clone() };
                self.reveal(from, *job, reveal, *salt)?;
            }
        }
        Ok(())
    }

    fn post(
        &mut self,
        from: Address,
        nonce: u64,
        (model, inputs, seed): (B256, B256, u64),
        replicas: u8,
        max_fee: u128,
        beacon: B256,
    ) -> Result<(), TxError> {
        if replicas == 0 || replicas > self.params.max_replicas {
            return Err(TxError::Replicas(replicas, self.params.max_replicas));
        }
        if !self.models.contains_key(&model) {
            return Err(TxError::NoModel(model));
        }
        let least = self.params.node_fee(0).saturating_mul(replicas.into());
        if max_fee < least {
            return Err(TxError::Fee { fee: max_fee, least });
        }
        let active = self.active().count();
        if active < usize::from(replicas) {
            return Err(TxError::TooFewNodes { wanted: replicas, active });
        }
        self.afford(from, max_fee)?;
        self.debit(from, max_fee);
        let id = B256::from(Hash::of(&[b"isobitJ1", from.as_slice(), &nonce.to_le_bytes()].concat()).0);
        let nodes = self.draw(id, replicas, beacon);
        for node in &nodes {
            self.nodes.get_mut(node).expect("drawn from the nodes").jobs += 1;
        }
        let seat = |node| Seat { node, commitment: B256::ZERO, reveal: Vec::new(), end: End::Open as u8 };
        let job = Job {
            id,
            requester: from,
            model,
            inputs,
            seed,
            max_fee,
            posted: self.height,
            deadline: self.time + self.params.commit_window,
            phase: Phase::Assigned as u8,
            seats: nodes.into_iter().map(seat).collect(),
            fee: 0,
        };
        self.jobs.insert(id, job);
        Ok(())
    }

    /// `n` different active nodes, each drawn with a chance in proportion to its stake among those left.
    fn draw(&self, job: B256, n: u8, beacon: B256) -> Vec<Address> {
        let mut pool: Vec<(Address, u128)> = self.active().map(|(a, e)| (*a, e.stake)).collect();
        let mut drawn = Vec::new();
        for round in 0..n {
            // In whole coins: their sum times a 64-bit number fits 128 bits.
            let weights: Vec<u128> = pool.iter().map(|(_, s)| (s / crate::COIN).max(1)).collect();
            let total: u128 = weights.iter().sum();
            let hash =
                Hash::of(&[b"isobitD1".as_slice(), beacon.as_slice(), job.as_slice(), &[round]].concat());
            let random = u64::from_le_bytes(hash.0[..8].try_into().expect("eight bytes"));
            let mut at = (u128::from(random) * total.min(1 << 63)) >> 64;
            let i = weights.iter().position(|&w| {
                let here = at < w;
                at = at.saturating_sub(w);
                here
            });
            drawn.push(pool.remove(i.unwrap_or(0)).0);
        }
        drawn
    }

    fn commit(&mut self, node: Address, id: B256, commitment: B256) -> Result<(), TxError> {
        let job = self.jobs.get_mut(&id).ok_or(TxError::NoJob(id))?;
        let refuse = |why| TxError::Job { job: id, node, why };
        if job.phase() != Phase::Assigned {
            return Err(refuse("commitments are closed"));
        }
        if commitment.is_zero() {
            return Err(refuse("a commitment is not zero"));
        }
        let seat = job.seats.iter_mut().find(|s| s.node == node).ok_or(refuse("it was not drawn"))?;
        if !seat.commitment.is_zero() {
            return Err(refuse("it has committed already"));
        }
        seat.commitment = commitment;
        if job.seats.iter().all(|s| !s.commitment.is_zero()) {
            self.open(id);
        }
        Ok(())
    }

    fn open(&mut self, id: B256) {
        let deadline = self.time + self.params.reveal_window;
        if let Some(job) = self.jobs.get_mut(&id) {
            job.phase = Phase::Committed as u8;
            job.deadline = deadline;
        }
    }

    fn reveal(&mut self, node: Address, id: B256, reveal: Reveal, salt: B256) -> Result<(), TxError> {
        let chain_id = self.params.chain_id;
        let job = self.jobs.get_mut(&id).ok_or(TxError::NoJob(id))?;
        let refuse = |why| TxError::Job { job: id, node, why };
        if job.phase() != Phase::Committed {
            return Err(refuse("not all nodes have committed yet"));
        }
        let seat = job.seat(node).ok_or(refuse("it was not drawn"))?;
        if !seat.reveal.is_empty() {
            return Err(refuse("it has revealed already"));
        }
        let opened = commitment(id, node, reveal.outputs, reveal.failure, reveal.cost, salt);
        if seat.commitment.is_zero() || seat.commitment != opened {
            return Err(refuse("this is not what it committed to"));
        }
        if (reveal.failure != 0) != reveal.outputs.is_zero() || (reveal.failure != 0 && reveal.cost != 0) {
            return Err(refuse("an answer is outputs with a cost, or a failure code without"));
        }
        let receipt =
            job.receipt(chain_id, node, &reveal).ok_or(refuse("the receipt's signature is malformed"))?;
        if !receipt.is_signed_by_node() {
            return Err(refuse("the receipt is not signed by it"));
        }
        let seat = job.seats.iter_mut().find(|s| s.node == node).expect("found above");
        seat.reveal.push(reveal);
        Ok(())
    }

    /// Ends what can be ended at this time: judged jobs, jobs past a deadline. Returns the ended ones.
    pub(crate) fn tick(&mut self) -> Vec<Job> {
        let mut ended = Vec::new();
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            let job = &self.jobs[&id];
            let late = self.time > job.deadline;
            let committed = job.seats.iter().filter(|s| !s.commitment.is_zero()).count();
            match job.phase() {
                Phase::Assigned if late && 2 * committed > job.seats.len() => self.open(id),
                Phase::Assigned if late => ended.extend(self.end(id)),
                Phase::Committed => {
                    let done = job.seats.iter().all(|s| s.commitment.is_zero() || !s.reveal.is_empty());
                    if done || late {
                        ended.extend(self.end(id));
                    }
                }
                _ => {}
            }
        }
        ended
    }

    /// Takes a job out of the state and pays, slashes and refunds.
    fn end(&mut self, id: B256) -> Option<Job> {
        let mut job = self.jobs.remove(&id)?;
        let agreed = job.agreed();
        let mut paid = 0;
        if let Some((_, _, cost)) = agreed {
            let share = job.max_fee / job.seats.len() as u128;
            job.fee = self.params.node_fee(cost).min(share);
        }
        for seat in &mut job.seats {
            let answer = seat.reveal.first().map(|r| (r.outputs, r.failure, r.cost));
            let end = match (answer, agreed) {
                (Some(a), Some(b)) if a == b => End::Paid,
                (Some(_), Some(_)) => End::Slashed,
                (Some(_), None) => End::Released,
                (None, _) => End::Silent,
            };
            seat.end = end as u8;
            let entry = self.nodes.get_mut(&seat.node).expect("a node with jobs cannot withdraw");
            entry.jobs -= 1;
            let taken = match end {
                End::Slashed => entry.stake,
                End::Silent => entry.stake.min(self.params.silence_penalty),
                _ => 0,
            };
            entry.stake -= taken;
            let treasury = self.params.treasury;
            self.credit(treasury, taken);
            if end == End::Paid {
                paid += job.fee;
                self.credit(seat.node, job.fee);
            }
        }
        job.phase = if agreed.is_some() { Phase::Settled } else { Phase::Refunded } as u8;
        self.credit(job.requester, job.max_fee - paid);
        Some(job)
    }

    /// The state as bytes: an RLP list of height, time, accounts, models, nodes and jobs, each in key order. The parameters
    /// are the network's and not part of it.
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
            accounts: pairs(&self.accounts),
            models: pairs(&self.models),
            nodes: pairs(&self.nodes),
            jobs: pairs(&self.jobs),
        };
        alloy_rlp::encode(&fields)
    }

    /// Reads what [`State::encode`] writes.
    pub fn decode(params: Params, mut bytes: &[u8]) -> Option<Self> {
        fn pairs<K: Decodable + Ord, V: Decodable>(bytes: &Bytes) -> Option<BTreeMap<K, V>> {
            let mut rest: &[u8] = bytes;
            let mut map = BTreeMap::new();
            while !rest.is_empty() {
                map.insert(K::decode(&mut rest).ok()?, V::decode(&mut rest).ok()?);
            }
            Some(map)
        }
        let fields = StateFields::decode(&mut bytes).ok()?;
        Some(Self {
            params,
            height: fields.height,
            time: fields.time,
            accounts: pairs(&fields.accounts)?,
            models: pairs(&fields.models)?,
            nodes: pairs(&fields.nodes)?,
            jobs: pairs(&fields.jobs)?,
        })
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
    accounts: Bytes,
    models: Bytes,
    nodes: Bytes,
    jobs: Bytes,
}
