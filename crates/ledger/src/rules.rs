//! What each action does. Every rule checks all it needs before it writes anything.

mod jobs;

use alloy_primitives::{Address, B256, Bytes};
use isobit_tensor::Hash;

use crate::params::part;
use crate::{Action, Event, Job, ModelEntry, NodeEntry, Params, SignedBallot, Storage, TxError};

/// What the rules know of the block that they run in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockContext {
    /// Height of the block.
    pub height: u64,
    /// Its timestamp, seconds since 1970; it never goes back.
    pub time: u64,
    /// Hash of the block before: the beacon of the draw.
    pub parent: B256,
}

/// Longest name, URI and endpoint, in bytes.
pub(crate) const MAX_NAME: usize = 128;
pub(crate) const MAX_URI: usize = 512;
/// Longest manifest that the ledger takes, in bytes.
pub const MAX_MANIFEST: usize = 16 << 10;
pub(crate) const MAX_ENDPOINT: usize = 256;

/// Applies an action of `from`, whom the caller has authenticated. Returns what happened. A refused action changes nothing.
pub fn apply(
    storage: &mut impl Storage,
    params: &Params,
    block: &BlockContext,
    from: Address,
    action: &Action,
) -> Result<Vec<Event>, TxError> {
    let mut rules = Rules { storage, params, block, events: Vec::new() };
    rules.act(from, action)?;
    Ok(rules.events)
}

/// Ends a block: draws nodes for posted jobs, closes phases that are over, judges and ends jobs. Returns what happened and
/// the jobs that ended, which have left the storage. Call it once after a block's transactions.
pub fn tick(storage: &mut impl Storage, params: &Params, block: &BlockContext) -> (Vec<Event>, Vec<Job>) {
    let mut rules = Rules { storage, params, block, events: Vec::new() };
    let ended = rules.storage.jobs().into_iter().filter_map(|id| rules.tick_job(id)).collect();
    (rules.events, ended)
}

struct Rules<'a, S> {
    storage: &'a mut S,
    params: &'a Params,
    block: &'a BlockContext,
    events: Vec<Event>,
}

fn text(what: &'static str, text: &str, least: usize, most: usize) -> Result<(), TxError> {
    let fits = (least..=most).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(()) } else { Err(TxError::Text { what, least, most }) }
}

impl<S: Storage> Rules<'_, S> {
    fn act(&mut self, from: Address, action: &Action) -> Result<(), TxError> {
        match action {
            Action::Publish { model, name, uri, unit_fee } => {
                self.publish(from, *model, name, uri, *unit_fee)
            }
            Action::Join { stake, endpoint } => self.join(from, *stake, endpoint),
            Action::Validate { stake, endpoint } => self.validate(from, *stake, endpoint),
            Action::Accuse { first, second } => self.accuse(from, first, second),
            Action::Leave => self.leave(from),
            Action::Withdraw => self.withdraw(from),
            Action::Post { .. } => self.post(from, action),
            Action::Provide { tensors } => self.provide(tensors),
            Action::Describe { manifest } => self.describe(manifest),
            Action::Commit { job, commitment } => self.commit(from, *job, *commitment),
            Action::Reveal { job, .. } => self.reveal(from, *job, action),
        }
    }

    fn publish(
        &mut self,
        from: Address,
        model: B256,
        name: &str,
        uri: &str,
        unit_fee: u128,
    ) -> Result<(), TxError> {
        text("a model's name", name, 1, MAX_NAME)?;
        text("a model's URI", uri, 0, MAX_URI)?;
        if self.storage.model(model).is_some() {
            return Err(TxError::ModelExists(model));
        }
        let namesake = self.storage.named(name).and_then(|m| self.storage.model(m));
        if namesake.is_some_and(|m| m.owner != from) {
            return Err(TxError::NameTaken(name.to_owned()));
        }
        self.storage.set_named(name, model);
        let entry = ModelEntry { owner: from, name: name.to_owned(), uri: uri.to_owned(), unit_fee };
        self.storage.set_model(model, entry);
        self.events.push(Event::Published { model, owner: from, name: name.to_owned() });
        Ok(())
    }

    fn describe(&mut self, manifest: &Bytes) -> Result<(), TxError> {
        if manifest.len() > MAX_MANIFEST {
            return Err(TxError::Manifest(manifest.len(), MAX_MANIFEST));
        }
        let model = B256::from(Hash::of(manifest).0);
        self.storage.model(model).ok_or(TxError::NoModel(model))?;
        self.storage.set_manifest(model, manifest.clone());
        self.events.push(Event::Described { model });
        Ok(())
    }

    fn join(&mut self, from: Address, stake: u128, endpoint: &str) -> Result<(), TxError> {
        self.enter(from, stake, endpoint, false)?;
        self.events.push(Event::Joined { node: from, stake });
        Ok(())
    }

    fn validate(&mut self, from: Address, stake: u128, endpoint: &str) -> Result<(), TxError> {
        let most = self.params.max_validators;
        if self.storage.validators().len() >= usize::from(most) {
            return Err(TxError::TooManyValidators(most));
        }
        self.enter(from, stake, endpoint, true)?;
        self.events.push(Event::ValidatorJoined { validator: from, stake });
        Ok(())
    }

    fn enter(&mut self, from: Address, stake: u128, endpoint: &str, validates: bool) -> Result<(), TxError> {
        text("a node's endpoint", endpoint, 0, MAX_ENDPOINT)?;
        if self.storage.node(from).is_some() {
            return Err(TxError::NodeExists(from));
        }
        if stake < self.params.min_stake {
            return Err(TxError::Stake { stake, least: self.params.min_stake });
        }
        self.storage.take(from, stake)?;
        let since = self.block.height;
        let entry =
            NodeEntry { stake, endpoint: endpoint.to_owned(), validates, since, ..Default::default() };
        self.storage.set_node(from, Some(entry));
        Ok(())
    }

    fn leave(&mut self, from: Address) -> Result<(), TxError> {
        let node = self.storage.node(from).ok_or(TxError::NoNode(from, "it has not joined"))?;
        if node.leaves > 0 {
            return Err(TxError::NoNode(from, "it is leaving already"));
        }
        if node.validates && self.storage.validators().len() == 1 {
            return Err(TxError::LastValidator(from));
        }
        self.start_leaving(from, node);
        Ok(())
    }

    fn start_leaving(&mut self, who: Address, mut node: NodeEntry) {
        node.leaves = self.block.time + self.params.unbonding;
        self.events.push(Event::Left { node: who, until: node.leaves });
        self.storage.set_node(who, Some(node));
    }

    /// The stake pays, also one on its way out. The last validator stays all the same, as there would be no more blocks.
    fn accuse(&mut self, from: Address, first: &SignedBallot, second: &SignedBallot) -> Result<(), TxError> {
        let who = first.ballot.validator;
        first.contradicts(second, self.params.chain_id).map_err(|why| TxError::NoContradiction(who, why))?;
        let mut node = self.storage.node(who).ok_or(TxError::NoNode(who, "it has not joined"))?;
        match &node {
            n if !n.validates => return Err(TxError::NoNode(who, "it is no validator")),
            n if n.punished => return Err(TxError::NoNode(who, "it was punished for this already")),
            n if first.ballot.height <= n.since => {
                return Err(TxError::NoContradiction(who, "they are older than its stake"));
            }
            _ if first.ballot.height > self.block.height => {
                return Err(TxError::NoContradiction(who, "they are of a block that is not due"));
            }
            _ => {}
        }
        let amount = part(node.stake, self.params.slash_equivocation);
        node.stake -= amount;
        node.punished = true;
        let (accuser, burnt, treasury) = self.params.split_slash(amount);
        let height = first.ballot.height;
        self.events.push(Event::Equivocated { validator: who, height, amount, accuser: from });
        if node.leaves == 0 && self.storage.validators().len() > 1 {
            self.start_leaving(who, node);
        } else {
            self.storage.set_node(who, Some(node));
        }
        for (to, amount) in [(from, accuser), (self.params.burn, burnt), (self.params.treasury, treasury)] {
            self.storage.give(to, amount);
        }
        Ok(())
    }

    fn withdraw(&mut self, from: Address) -> Result<(), TxError> {
        let node = self.storage.node(from).ok_or(TxError::NoNode(from, "it has not joined"))?;
        let refuse = |why| Err(TxError::NoNode(from, why));
        match &node {
            n if n.leaves == 0 => return refuse("it must leave first"),
            n if n.leaves > self.block.time => return refuse("its stake is still unbonding"),
            n if n.jobs > 0 => return refuse("it has jobs in progress"),
            _ => {}
        }
        self.storage.set_node(from, None);
        self.storage.give(from, node.stake);
        self.events.push(Event::Withdrawn { node: from, stake: node.stake });
        Ok(())
    }

    /// Nodes that can be drawn, in order of address.
    fn active(&self) -> Vec<(Address, NodeEntry)> {
        self.storage.nodes().into_iter().filter(|(_, n)| n.is_active(self.params)).collect()
    }
}
