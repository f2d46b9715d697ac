use alloy_primitives::Address;

use crate::COIN;

/// What a network agrees on at genesis. Amounts in base units, windows in seconds of block time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Params {
    /// Signatures are for this chain alone.
    pub chain_id: u64,
    /// Least stake of a node that is drawn for jobs.
    pub min_stake: u128,
    /// Fee of each paid node, whatever the cost.
    pub base_fee: u128,
    /// Fee of each paid node for a unit of metered cost.
    pub unit_price: u128,
    /// Taken from the stake of a drawn node that does not commit or reveal.
    pub silence_penalty: u128,
    /// Seconds to commit in.
    pub commit_window: u64,
    /// Seconds to reveal in.
    pub reveal_window: u64,
    /// Seconds between leaving and getting the stake back.
    pub unbonding: u64,
    /// Most nodes drawn for a job.
    pub max_replicas: u8,
    /// Where slashed stakes go.
    pub treasury: Address,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            chain_id: 1729,
            min_stake: 1_000 * COIN,
            base_fee: COIN / 1_000,
            unit_price: COIN / 1_000_000_000,
            silence_penalty: 10 * COIN,
            commit_window: 120,
            reveal_window: 60,
            unbonding: 3_600,
            max_replicas: 15,
            treasury: Address::repeat_byte(0x15),
        }
    }
}

impl Params {
    /// What one node is paid for a run of this cost.
    pub fn node_fee(&self, cost: u64) -> u128 {
        self.base_fee.saturating_add(self.unit_price.saturating_mul(cost.into()))
    }

    /// The cost limit that a share of `max_fee` pays for, in units.
    pub fn cost_limit(&self, max_fee: u128, replicas: u8) -> u64 {
        let share = max_fee / u128::from(replicas.max(1));
        let units = share.saturating_sub(self.base_fee) / self.unit_price.max(1);
        u64::try_from(units).unwrap_or(u64::MAX)
    }
}
