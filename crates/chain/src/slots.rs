//! The ledger's memory as slots of its account, so that one state root covers all.
//!
//! A record is a byte string (its RLP): at `keccak256(kind, key)` its length plus one, in the slots after it its bytes, 32 a
//! slot, the last filled with zeros. A list is a length at `keccak256(kind)` and items in the slots after it; where an item is
//! in its list stands, plus one, at `keccak256(kind, "at", item)`. The last item takes the place of one that goes.

use std::cell::RefCell;
use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rlp::{Decodable, Encodable};
use isobit_ledger::{Answer, Callback, Job, ModelEntry, NodeEntry, Params, Storage, TxError};

/// Slots of the ledger's account, and its coins. What fails is remembered by who implements it, and zero is returned: the
/// caller looks before it believes anything.
pub(crate) trait Slots {
    fn load(&mut self, slot: U256) -> U256;
    fn store(&mut self, slot: U256, value: U256);
    /// Moves coins out of the ledger's account.
    fn pay(&mut self, to: Address, amount: u128);
}

/// Slots in memory, without coins.
impl Slots for &mut BTreeMap<U256, U256> {
    fn load(&mut self, slot: U256) -> U256 {
        self.get(&slot).copied().unwrap_or_default()
    }

    fn store(&mut self, slot: U256, value: U256) {
        if value.is_zero() {
            self.remove(&slot);
        } else {
            self.insert(slot, value);
        }
    }

    fn pay(&mut self, _: Address, _: u128) {}
}

/// What a record or list is about.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
enum Kind {
    Model = 1,
    Name = 2,
    Node = 3,
    Job = 4,
    Posted = 5,
    Answer = 6,
    Tensors = 7,
    Callback = 8,
    Settled = 9,
    Manifest = 10,
    Models = 16,
    Nodes = 17,
    Jobs = 18,
    ActiveNodes = 19,
    CallbackFirst = 20,
    CallbackEnd = 21,
    Validators = 22,
}

/// The ledger over slots. `attached`: coins that came with the call and are not taken yet.
pub(crate) struct Ledger<'p, S> {
    slots: RefCell<S>,
    params: &'p Params,
    pub(crate) attached: u128,
}

fn slot(kind: Kind, key: &[u8]) -> U256 {
    keccak256([&[kind as u8], key].concat()).into()
}

impl<'p, S: Slots> Ledger<'p, S> {
    pub(crate) fn new(slots: S, params: &'p Params, attached: u128) -> Self {
        Self { slots: RefCell::new(slots), params, attached }
    }

    fn load(&self, slot: U256) -> U256 {
        self.slots.borrow_mut().load(slot)
    }

    fn number(&self, kind: Kind, key: &[u8]) -> u64 {
        self.load(slot(kind, key)).saturating_to()
    }

    fn set_number(&mut self, kind: Kind, key: &[u8], value: u64) {
        self.slots.get_mut().store(slot(kind, key), U256::from(value));
    }

    fn bytes(&self, kind: Kind, key: &[u8]) -> Option<Vec<u8>> {
        let base = slot(kind, key);
        let length = usize::try_from(self.load(base).saturating_to::<u64>().checked_sub(1)?).ok()?;
        let mut bytes = Vec::new();
        for i in 0..length.div_ceil(32) {
            bytes.extend(self.load(after(base, i)).to_be_bytes::<32>());
        }
        bytes.truncate(length);
        Some(bytes)
    }

    fn set_bytes(&mut self, kind: Kind, key: &[u8], bytes: Option<&[u8]>) {
        let base = slot(kind, key);
        let slots = self.slots.get_mut();
        let before = usize::try_from(slots.load(base).saturating_to::<u64>().saturating_sub(1)).unwrap_or(0);
        let (length, bytes) = bytes.map_or((0, &[][..]), |b| (b.len() + 1, b));
        slots.store(base, U256::from(length));
        for (i, chunk) in bytes.chunks(32).enumerate() {
            let mut word = [0; 32];
            word[..chunk.len()].copy_from_slice(chunk);
            slots.store(after(base, i), U256::from_be_bytes(word));
        }
        for i in bytes.len().div_ceil(32)..before.div_ceil(32) {
            slots.store(after(base, i), U256::ZERO);
        }
    }

    fn record<T: Decodable>(&self, kind: Kind, key: &[u8]) -> Option<T> {
        T::decode(&mut &self.bytes(kind, key)?[..]).ok()
    }

    fn set_record(&mut self, kind: Kind, key: &[u8], value: Option<&impl Encodable>) {
        self.set_bytes(kind, key, value.map(alloy_rlp::encode).as_deref());
    }

    fn list(&self, kind: Kind) -> Vec<B256> {
        let base = slot(kind, b"");
        let length = self.load(base).saturating_to::<u64>() as usize;
        let mut items: Vec<B256> = (0..length).map(|i| B256::from(self.load(after(base, i)))).collect();
        items.sort();
        items
    }

    /// Puts an item into a list or takes it out; nothing if it is there, or not there, already.
    fn list_item(&mut self, kind: Kind, item: B256, is_in: bool) {
        let base = slot(kind, b"");
        let place = |item: &B256| slot(kind, &[b"at", item.as_slice()].concat());
        let slots = self.slots.get_mut();
        let length = slots.load(base).saturating_to::<u64>() as usize;
        let at = slots.load(place(&item)).saturating_to::<u64>() as usize;
        if is_in == (at > 0) {
            return;
        }
        if is_in {
            slots.store(after(base, length), item.into());
            slots.store(place(&item), U256::from(length + 1));
            slots.store(base, U256::from(length + 1));
            return;
        }
        let last = slots.load(after(base, length - 1));
        if at < length {
            slots.store(after(base, at - 1), last);
            slots.store(place(&B256::from(last)), U256::from(at));
        }
        slots.store(after(base, length - 1), U256::ZERO);
        slots.store(place(&item), U256::ZERO);
        slots.store(base, U256::from(length - 1));
    }

    fn entries(&self, kind: Kind) -> Vec<(Address, NodeEntry)> {
        let nodes = self.list(kind).into_iter().map(Address::from_word);
        nodes.filter_map(|a| Some((a, self.node(a)?))).collect()
    }

    /// Published models with their entries, in ascending order of address.
    pub(crate) fn models(&self) -> Vec<(B256, ModelEntry)> {
        self.list(Kind::Models).into_iter().filter_map(|m| Some((m, self.model(m)?))).collect()
    }

    /// How a job ended.
    pub(crate) fn answer(&self, job: B256) -> Option<Answer> {
        self.record(Kind::Answer, job.as_slice())
    }

    /// Tensors on the ledger.
    pub(crate) fn tensors(&self, root: B256) -> Option<Bytes> {
        self.bytes(Kind::Tensors, root.as_slice()).map(Bytes::from)
    }

    /// A model's manifest.
    pub(crate) fn manifest(&self, model: B256) -> Option<Bytes> {
        self.bytes(Kind::Manifest, model.as_slice()).map(Bytes::from)
    }

    /// How many jobs a requester has posted.
    pub(crate) fn posted(&self, requester: Address) -> u64 {
        self.number(Kind::Posted, requester.as_slice())
    }

    /// How the last job of this model with these inputs and seed was settled.
    pub(crate) fn settled(&self, model: B256, inputs: B256, seed: u64) -> Option<Answer> {
        self.record(Kind::Settled, &run_key(model, inputs, seed))
    }

    /// Takes callbacks from the front of the queue, as many as fit the gas.
    pub(crate) fn take_callbacks(&mut self, mut gas: u64) -> Vec<Callback> {
        let (mut first, end) = (self.number(Kind::CallbackFirst, b""), self.number(Kind::CallbackEnd, b""));
        let mut taken = Vec::new();
        while first < end {
            let key = first.to_be_bytes();
            let Some(callback) = self.record::<Callback>(Kind::Callback, &key) else { break };
            let Some(left) = gas.checked_sub(callback.gas) else { break };
            gas = left;
            self.set_bytes(Kind::Callback, &key, None);
            taken.push(callback);
            first += 1;
        }
        if !taken.is_empty() {
            self.set_number(Kind::CallbackFirst, b"", first);
        }
        taken
    }

    /// Whether something is due at the end of a block.
    pub(crate) fn is_busy(&self) -> bool {
        self.open_jobs() > 0 || self.number(Kind::CallbackFirst, b"") < self.number(Kind::CallbackEnd, b"")
    }
}

fn after(base: U256, i: usize) -> U256 {
    base.wrapping_add(U256::from(i + 1))
}

fn run_key(model: B256, inputs: B256, seed: u64) -> Vec<u8> {
    [model.as_slice(), inputs.as_slice(), &seed.to_be_bytes()].concat()
}

impl<S: Slots> Storage for Ledger<'_, S> {
    fn take(&mut self, from: Address, needs: u128) -> Result<(), TxError> {
        let has = self.attached;
        self.attached = has.checked_sub(needs).ok_or(TxError::Balance { from, has, needs })?;
        Ok(())
    }

    fn give(&mut self, to: Address, amount: u128) {
        self.slots.get_mut().pay(to, amount);
    }

    fn model(&self, model: B256) -> Option<ModelEntry> {
        self.record(Kind::Model, model.as_slice())
    }

    fn set_model(&mut self, model: B256, entry: ModelEntry) {
        self.set_record(Kind::Model, model.as_slice(), Some(&entry));
        self.list_item(Kind::Models, model, true);
    }

    fn named(&self, name: &str) -> Option<B256> {
        Some(self.load(slot(Kind::Name, name.as_bytes()))).filter(|m| !m.is_zero()).map(B256::from)
    }

    fn set_named(&mut self, name: &str, model: B256) {
        self.slots.get_mut().store(slot(Kind::Name, name.as_bytes()), model.into());
    }

    fn node(&self, node: Address) -> Option<NodeEntry> {
        self.record(Kind::Node, node.as_slice())
    }

    fn set_node(&mut self, node: Address, entry: Option<NodeEntry>) {
        let active = |e: Option<&NodeEntry>| u64::from(e.is_some_and(|e| e.is_active(self.params)));
        let (before, after) = (active(self.node(node).as_ref()), active(entry.as_ref()));
        if before != after {
            let count = self.number(Kind::ActiveNodes, b"") + after - before;
            self.set_number(Kind::ActiveNodes, b"", count);
        }
        self.list_item(Kind::Nodes, node.into_word(), entry.is_some());
        self.list_item(Kind::Validators, node.into_word(), entry.as_ref().is_some_and(NodeEntry::votes));
        self.set_record(Kind::Node, node.as_slice(), entry.as_ref());
    }

    fn nodes(&self) -> Vec<(Address, NodeEntry)> {
        self.entries(Kind::Nodes)
    }

    fn validators(&self) -> Vec<(Address, NodeEntry)> {
        self.entries(Kind::Validators)
    }

    fn active_nodes(&self, _: &Params) -> usize {
        self.number(Kind::ActiveNodes, b"") as usize
    }

    fn count_job(&mut self, requester: Address) -> u64 {
        let count = self.posted(requester);
        self.set_number(Kind::Posted, requester.as_slice(), count + 1);
        count
    }

    fn job(&self, job: B256) -> Option<Job> {
        self.record(Kind::Job, job.as_slice())
    }

    fn set_job(&mut self, id: B256, job: Option<Job>) {
        self.list_item(Kind::Jobs, id, job.is_some());
        self.set_record(Kind::Job, id.as_slice(), job.as_ref());
    }

    fn jobs(&self) -> Vec<B256> {
        self.list(Kind::Jobs)
    }

    fn open_jobs(&self) -> u64 {
        self.number(Kind::Jobs, b"")
    }

    fn set_answer(&mut self, job: &Job, answer: Answer) {
        self.set_record(Kind::Answer, job.id.as_slice(), Some(&answer));
        if answer.settled {
            // A failure may be one of the fee's limit, so it gives way to outputs and never the other way.
            let before = self.settled(job.model, job.inputs, job.seed);
            if before.is_none_or(|b| b.failure != 0) {
                let key = run_key(job.model, job.inputs, job.seed);
                self.set_record(Kind::Settled, &key, Some(&answer));
            }
        }
    }

    fn set_tensors(&mut self, root: B256, tensors: Bytes) {
        if self.load(slot(Kind::Tensors, root.as_slice())).is_zero() {
            self.set_bytes(Kind::Tensors, root.as_slice(), Some(&tensors));
        }
    }

    fn set_manifest(&mut self, model: B256, manifest: Bytes) {
        if self.load(slot(Kind::Manifest, model.as_slice())).is_zero() {
            self.set_bytes(Kind::Manifest, model.as_slice(), Some(&manifest));
        }
    }

    fn push_callback(&mut self, callback: Callback) {
        let end = self.number(Kind::CallbackEnd, b"");
        self.set_record(Kind::Callback, &end.to_be_bytes(), Some(&callback));
        self.set_number(Kind::CallbackEnd, b"", end + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_ledger::{Action, BlockContext, COIN, Inputs, Level, State, apply, tick};
    use isobit_numerics::rng::Rng;

    #[derive(Default)]
    struct Map {
        slots: BTreeMap<U256, U256>,
        paid: BTreeMap<Address, u128>,
    }

    impl Slots for &mut Map {
        fn load(&mut self, slot: U256) -> U256 {
            (&mut self.slots).load(slot)
        }

        fn store(&mut self, slot: U256, value: U256) {
            (&mut self.slots).store(slot, value);
        }

        fn pay(&mut self, to: Address, amount: u128) {
            *self.paid.entry(to).or_default() += amount;
        }
    }

    /// The same actions over maps and over slots: the same events, the same refusals, the same things stored, the same coins.
    #[test]
    fn slots_and_maps_are_the_same_ledger() {
        for seed in 0..40 {
            let mut rng = Rng::new(seed, 0);
            let params = Params { commit_window: 6, reveal_window: 6, unbonding: 9, ..Params::default() };
            let who: Vec<Address> = (1..8).map(Address::repeat_byte).collect();
            let fortune = 100_000 * COIN;
            let mut state = State::genesis(params.clone(), who.iter().map(|a| (*a, fortune))).unwrap();
            let mut map = Map::default();
            let mut spent: BTreeMap<Address, u128> = BTreeMap::new();
            for height in 1..250u64 {
                let block = BlockContext { height, time: height, parent: B256::repeat_byte(height as u8) };
                (state.height, state.time) = (height, height);
                for _ in 0..rng.below(4) {
                    let from = who[rng.below(who.len())];
                    let job = state.jobs.keys().nth(rng.below(state.jobs.len().max(1))).copied();
                    let model = B256::repeat_byte(rng.below(3) as u8 + 1);
                    let action = match (rng.below(6), job) {
                        (0, _) => Action::Publish {
                            model,
                            name: format!("m{}", rng.below(3)),
                            uri: "u".repeat(rng.below(90)),
                            unit_fee: 1,
                        },
                        (1, _) => Action::Join {
                            stake: COIN * rng.below(3_000) as u128,
                            endpoint: "e".repeat(rng.below(70)),
                        },
                        (2, _) => [Action::Leave, Action::Withdraw][rng.below(2)].clone(),
                        (3, None) => Action::Validate {
                            stake: COIN * rng.below(3_000) as u128,
                            endpoint: String::new(),
                        },
                        (3 | 4, Some(job)) => Action::Commit { job, commitment: B256::repeat_byte(7) },
                        _ => Action::Post {
                            model,
                            inputs: Inputs::Root(B256::ZERO),
                            seed: rng.below(2) as u64,
                            level: Level::of(rng.below(4) as u8),
                            max_fee: COIN / 100,
                            deadline: 0,
                            callback_gas: 1000 * rng.below(2) as u64,
                        },
                    };
                    let attached = match &action {
                        Action::Join { stake, .. } | Action::Validate { stake, .. } => *stake,
                        Action::Post { max_fee, callback_gas, .. } => {
                            max_fee + params.callback_fee(*callback_gas)
                        }
                        _ => 0,
                    };
                    let mut ledger = Ledger::new(&mut map, &params, attached);
                    let there = apply(&mut ledger, &params, &block, from, &action);
                    assert_eq!(there, state.apply(&block, from, &action), "seed {seed}");
                    if there.is_ok() {
                        assert_eq!(ledger.attached, 0);
                        *spent.entry(from).or_default() += attached;
                    }
                }
                let mut ledger = Ledger::new(&mut map, &params, 0);
                assert_eq!(tick(&mut ledger, &params, &block), state.tick(&block), "seed {seed}");
                assert_eq!(ledger.nodes(), Storage::nodes(&state));
                assert_eq!(ledger.validators(), state.validators());
                assert_eq!(ledger.active_nodes(&params), state.active_nodes(&params));
                assert_eq!(ledger.jobs(), Storage::jobs(&state));
                for (id, job) in &state.jobs {
                    assert_eq!(ledger.job(*id).as_ref(), Some(job));
                }
                assert_eq!(ledger.models(), state.models.clone().into_iter().collect::<Vec<_>>());
                let taken = ledger.take_callbacks(1500);
                assert_eq!(taken, state.callbacks.drain(..taken.len()).collect::<Vec<_>>());
                assert!(state.callbacks.is_empty() || taken.len() == 1);
            }
            for (id, answer) in &state.answers {
                assert_eq!(Ledger::new(&mut map, &params, 0).answer(*id), Some(*answer));
            }
            for (&address, &balance) in &state.accounts {
                let paid = map.paid.get(&address).copied().unwrap_or(0);
                let began = if who.contains(&address) { fortune } else { 0 };
                assert_eq!(began + paid - spent.get(&address).copied().unwrap_or(0), balance, "seed {seed}");
            }
        }
    }
}
