//! A job's life, from posting to settlement or refund.

use alloy_primitives::{Address, B256, Bytes};
use isobit_tensor::Hash;

use super::Rules;
use crate::job::{End, Phase, Reveal, Seat, commitment, job_id};
use crate::{Action, Answer, Callback, Event, Inputs, Job, Level, Storage, TxError};

/// The root of tensors that are given as bytes.
fn set_root(tensors: &[u8]) -> Result<B256, TxError> {
    let set = isobit_proof::decode_tensors(tensors).map_err(|e| TxError::Tensors(e.to_string()))?;
    let root = isobit_proof::tensors_root(set.iter().map(|(name, t)| (name.as_str(), t)));
    Ok(B256::from(root.0))
}

impl<S: Storage> Rules<'_, S> {
    pub(super) fn post(&mut self, from: Address, action: &Action) -> Result<(), TxError> {
        let Action::Post { model, inputs, seed, level, max_fee, deadline, callback_gas } = action else {
            unreachable!("the caller has matched it")
        };
        let (model, seed, level) = (*model, *seed, *level);
        let (max_fee, deadline, callback_gas) = (*max_fee, *deadline, *callback_gas);
        let wanted = level.replicas().ok_or(TxError::Level(level))?;
        let fits = match level {
            Level::Replicated(n) => (2..=self.params.max_replicas).contains(&n),
            _ => true,
        };
        if !fits {
            return Err(TxError::Replicas(wanted, self.params.max_replicas));
        }
        let height = self.block.height;
        if deadline != 0 && deadline <= height {
            return Err(TxError::Deadline { deadline, height });
        }
        let most = self.params.max_callback_gas;
        if callback_gas > most {
            return Err(TxError::CallbackGas { gas: callback_gas, most });
        }
        let unit_fee = self.storage.model(model).ok_or(TxError::NoModel(model))?.unit_fee;
        let least = self.params.node_fee(0).saturating_mul(wanted.into());
        if max_fee < least {
            return Err(TxError::Fee { fee: max_fee, least });
        }
        let active = self.storage.active_nodes(self.params);
        if active < usize::from(wanted) {
            return Err(TxError::TooFewNodes { wanted, active });
        }
        if self.storage.open_jobs() >= self.params.max_jobs {
            return Err(TxError::Busy(self.params.max_jobs));
        }
        let (inputs, tensors) = match inputs {
            Inputs::Root(root) => (*root, Bytes::new()),
            Inputs::Tensors(bytes) => (set_root(bytes)?, bytes.clone()),
        };
        let callback = self.params.callback_fee(callback_gas);
        self.storage.take(from, max_fee.saturating_add(callback))?;
        self.storage.give(self.params.treasury, callback);
        let id = job_id(from, self.storage.count_job(from));
        let job = Job {
            id,
            requester: from,
            model,
            inputs,
            seed,
            level,
            max_fee,
            unit_fee,
            posted: height,
            expires: deadline,
            deadline: self.block.time + self.params.commit_window,
            phase: Phase::Posted,
            round: 0,
            seats: Vec::new(),
            callback_gas,
            fee: 0,
            royalty: 0,
        };
        self.storage.set_job(id, Some(job));
        self.events.push(Event::Posted { job: id, requester: from, model, inputs, tensors });
        Ok(())
    }

    pub(super) fn provide(&mut self, tensors: &Bytes) -> Result<(), TxError> {
        let root = set_root(tensors)?;
        self.storage.set_tensors(root, tensors.clone());
        self.events.push(Event::Provided { root });
        Ok(())
    }

    pub(super) fn commit(&mut self, node: Address, id: B256, commitment: B256) -> Result<(), TxError> {
        let mut job = self.storage.job(id).ok_or(TxError::NoJob(id))?;
        let refuse = |why| TxError::Job { job: id, node, why };
        if job.phase != Phase::Assigned {
            return Err(refuse("the time for commitments is not now"));
        }
        if commitment.is_zero() {
            return Err(refuse("a commitment is not zero"));
        }
        let seat = job.seats.iter_mut().find(|s| s.node == node).ok_or(refuse("it was not drawn"))?;
        if seat.end != End::Open {
            return Err(refuse("it missed its round"));
        }
        if !seat.commitment.is_zero() {
            return Err(refuse("it has committed already"));
        }
        seat.commitment = commitment;
        self.events.push(Event::Committed { job: id, node });
        if job.seats.iter().all(|s| !s.is_awaited() || !s.commitment.is_zero()) {
            self.open(&mut job);
        }
        self.storage.set_job(id, Some(job));
        Ok(())
    }

    pub(super) fn reveal(&mut self, node: Address, id: B256, action: &Action) -> Result<(), TxError> {
        let Action::Reveal { outputs, failure, cost, receipt, salt, .. } = action else {
            unreachable!("the caller has matched it")
        };
        let mut job = self.storage.job(id).ok_or(TxError::NoJob(id))?;
        let refuse = |why| TxError::Job { job: id, node, why };
        if job.phase != Phase::Committed {
            return Err(refuse("commitments are not closed yet"));
        }
        let at = job.seats.iter().position(|s| s.node == node).ok_or(refuse("it was not drawn"))?;
        let seat = &job.seats[at];
        if !seat.is_awaited() || seat.commitment.is_zero() {
            return Err(refuse("it has revealed already, or did not commit"));
        }
        if (*failure != 0) != outputs.is_zero() || (*failure != 0 && *cost != 0) {
            return Err(refuse("an answer is outputs with a cost, or a failure code without"));
        }
        let reveal = Reveal { outputs: *outputs, failure: *failure, cost: *cost, receipt: receipt.clone() };
        let signed = job
            .receipt(self.params.chain_id, node, &reveal)
            .ok_or(refuse("the receipt's signature is malformed"))?;
        if seat.commitment != commitment(node, id, signed.receipt.digest(), *salt) {
            return Err(refuse("this is not what it committed to"));
        }
        if !signed.is_signed_by_node() {
            return Err(refuse("the receipt is not signed by it"));
        }
        job.seats[at].reveal.push(reveal);
        self.storage.set_job(id, Some(job));
        let (outputs, failure, cost) = (*outputs, *failure, *cost);
        self.events.push(Event::Revealed { job: id, node, outputs, failure, cost });
        Ok(())
    }

    /// Does what is due for a job at the end of a block; returns it if it ended.
    pub(super) fn tick_job(&mut self, id: B256) -> Option<Job> {
        let mut job = self.storage.job(id)?;
        let late = self.block.time > job.deadline;
        let expired = job.expires != 0 && self.block.height > job.expires;
        match job.phase {
            Phase::Posted if late || expired => return self.end(job, expired && !late),
            Phase::Posted if job.posted < self.block.height => {
                let wanted = usize::from(job.level.replicas().unwrap_or(0));
                self.assign(&mut job, wanted);
            }
            Phase::Assigned if late || expired => {
                let committed = job.seats.iter().filter(|s| !s.commitment.is_zero()).count();
                if 2 * committed > job.seats.len() {
                    self.open(&mut job);
                } else if expired || !self.escalate(&mut job) {
                    return self.end(job, expired && !late);
                }
            }
            Phase::Committed => {
                let awaited = job.seats.iter().any(|s| s.is_awaited() && !s.commitment.is_zero());
                let judged = !awaited || late;
                if judged && (job.agreed().is_some() || expired || !self.escalate(&mut job)) {
                    return self.end(job, false);
                }
            }
            _ => return None,
        }
        self.storage.set_job(id, Some(job));
        None
    }

    fn open(&mut self, job: &mut Job) {
        job.phase = Phase::Committed;
        job.deadline = self.block.time + self.params.reveal_window;
        self.events.push(Event::Opened { job: job.id });
    }

    /// Draws `n` more nodes if there are as many, and starts their time.
    fn assign(&mut self, job: &mut Job, n: usize) -> bool {
        let Some(nodes) = self.draw(job, n) else { return false };
        for &node in &nodes {
            let mut entry = self.storage.node(node).expect("drawn from the nodes");
            entry.jobs += 1;
            self.storage.set_node(node, Some(entry));
            job.seats.push(Seat { node, commitment: B256::ZERO, reveal: Vec::new(), end: End::Open });
        }
        job.phase = Phase::Assigned;
        job.deadline = self.block.time + self.params.commit_window;
        self.events.push(Event::Assigned { job: job.id, round: job.round, nodes });
        true
    }

    /// Once, and only for replicated jobs: n + 1 more nodes, so that they alone are a majority of the 2n + 1. Commitments and
    /// answers of the first round stand; silent nodes are penalised now and are out.
    fn escalate(&mut self, job: &mut Job) -> bool {
        let Level::Replicated(n) = job.level else { return false };
        if job.round > 0 {
            return false;
        }
        let over = job.phase;
        job.round = 1;
        if !self.assign(job, usize::from(n) + 1) {
            job.round = 0;
            return false;
        }
        for at in 0..usize::from(n) {
            if job.seats[at].failed(over) {
                self.close(job, at, End::Silent);
            }
        }
        true
    }

    /// `n` different active nodes without a seat, each drawn with a chance in proportion to its stake in whole coins among
    /// those left; `None` if there are fewer. The i-th draw takes the first 8 bytes (little-endian) of BLAKE3 of `isobitD2`,
    /// the parent block's hash, the job's id, round and i (u16 little-endian) as a fraction of 2^64 of the stakes' sum.
    ///
    /// The parent block is the one that has the posting in it, or a later one, so its hash is not known to the requester
    /// who signs the posting. Whoever orders the transactions can still choose among hashes.
    fn draw(&self, job: &Job, n: usize) -> Option<Vec<Address>> {
        let mut pool = self.active();
        pool.retain(|(a, _)| job.seat(*a).is_none());
        if pool.len() < n {
            return None;
        }
        let mut pool: Vec<(Address, u128)> =
            pool.into_iter().map(|(a, e)| (a, (e.stake / crate::COIN).max(1))).collect();
        let mut drawn = Vec::with_capacity(n);
        for i in 0..n as u16 {
            let total: u128 = pool.iter().map(|(_, w)| w).sum();
            let parts: [&[u8]; 5] = [
                b"isobitD2",
                self.block.parent.as_slice(),
                job.id.as_slice(),
                &[job.round],
                &i.to_le_bytes(),
            ];
            let hash = Hash::of(&parts.concat());
            let random = u64::from_le_bytes(hash.0[..8].try_into().expect("eight bytes"));
            let mut at = scale(random, total);
            let chosen = pool.iter().position(|&(_, w)| {
                let here = at < w;
                at = at.saturating_sub(w);
                here
            });
            drawn.push(pool.remove(chosen.expect("the fraction is below the sum")).0);
        }
        Some(drawn)
    }

    /// Ends a job for one of its nodes, which loses what the end takes.
    fn close(&mut self, job: &mut Job, at: usize, end: End) {
        let seat = &mut job.seats[at];
        let node = seat.node;
        seat.end = end;
        let mut entry = self.storage.node(node).expect("a node with jobs cannot withdraw");
        entry.jobs -= 1;
        let amount = match end {
            End::Slashed => entry.stake,
            End::Silent => entry.stake.min(self.params.silence_penalty),
            _ => 0,
        };
        entry.stake -= amount;
        self.storage.set_node(node, Some(entry));
        if amount == 0 {
            return;
        }
        let slashed = end == End::Slashed;
        let (requester, burnt, treasury) =
            if slashed { self.params.split_slash(amount) } else { (0, 0, amount) };
        self.storage.give(job.requester, requester);
        self.storage.give(self.params.burn, burnt);
        self.storage.give(self.params.treasury, treasury);
        self.events.push(Event::Penalised { job: job.id, node, amount, slashed });
    }

    /// Takes a job out of the storage and pays, slashes and refunds. `blameless`: the job ended before the nodes' time was
    /// over, so none is penalised for silence.
    fn end(&mut self, mut job: Job, blameless: bool) -> Option<Job> {
        self.storage.set_job(job.id, None);
        let agreed = job.agreed();
        let mut paid = 0;
        if let Some((_, _, cost)) = agreed {
            let agreeing = job.seats.iter().filter(|s| s.answer() == agreed).count();
            let replicas = usize::from(job.level.replicas().unwrap_or(1));
            let share = job.max_fee / agreeing.max(replicas) as u128;
            job.fee = self.params.node_fee(cost).min(share);
            paid = job.fee * agreeing as u128;
            job.royalty = job.unit_fee.saturating_mul(cost.into()).min(job.max_fee - paid);
            paid += job.royalty;
            let owner = self.storage.model(job.model).expect("models are never removed").owner;
            self.storage.give(owner, job.royalty);
        }
        for at in 0..job.seats.len() {
            let seat = &job.seats[at];
            if seat.end != End::Open {
                continue;
            }
            let end = match seat.answer() {
                None if blameless || !seat.failed(job.phase) => End::Released,
                None => End::Silent,
                Some(_) if agreed.is_none() => End::Released,
                answer if answer == agreed => End::Paid,
                Some(_) => End::Slashed,
            };
            if end == End::Paid {
                self.storage.give(seat.node, job.fee);
            }
            self.close(&mut job, at, end);
        }
        let returned = job.max_fee - paid;
        self.storage.give(job.requester, returned);
        job.phase = if agreed.is_some() { Phase::Settled } else { Phase::Refunded };
        self.events.push(match job.phase {
            Phase::Settled => Event::Settled { job: job.id, paid, returned },
            _ => Event::Refunded { job: job.id, returned },
        });
        let (outputs, failure, cost) = agreed.unwrap_or_default();
        let answer = Answer { settled: agreed.is_some(), outputs, failure, cost, paid };
        self.storage.set_answer(&job, answer);
        if job.callback_gas > 0 {
            self.storage.push_callback(Callback { job: job.id, to: job.requester, gas: job.callback_gas });
        }
        Some(job)
    }
}

/// `floor(random / 2^64 * total)`, exactly, for a total below 2^70: all coins fit 128 bits, so whole coins fit 69.
fn scale(random: u64, total: u128) -> u128 {
    let (high, low) = (total >> 32, total & 0xffff_ffff);
    let random = u128::from(random);
    (high * random + ((low * random) >> 32)) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaling_is_exact_and_below_the_total() {
        for total in [1u128, 2, 1_000, u64::MAX.into(), u128::MAX / crate::COIN] {
            assert_eq!(scale(0, total), 0);
            assert_eq!(scale(1 << 63, total), total / 2);
            assert!(scale(u64::MAX, total) < total);
        }
        for (random, total) in
            [(0x1234_5678_9abc_def0, 3_000_000_007u128), (u64::MAX, 77), (u64::MAX / 3, 1 << 40)]
        {
            assert_eq!(scale(random, total), (u128::from(random) * total) >> 64);
        }
    }
}
