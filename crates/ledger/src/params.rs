use alloy_primitives::Address;
use alloy_rlp::{RlpDecodable, RlpEncodable};

use crate::COIN;

/// What a network agrees on at genesis. Amounts in base units, windows in seconds of block time.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Params {
    /// Signatures are for this chain alone.
    pub chain_id: u64,
    /// Least stake of a node that is drawn for jobs.
    pub min_stake: u128,
    /// Fee of each paid node, whatever the cost.
    pub base_fee: u128,
    /// Fee of each paid node for a unit of metered cost.
    pub unit_price: u128,
    /// Taken from the stake of a drawn node that does not commit or reveal; all of it goes to the treasury, so that
    /// nobody gains by posting jobs that cannot be answered.
    pub silence_penalty: u128,
    /// Seconds to commit in, and to draw enough nodes in.
    pub commit_window: u64,
    /// Seconds to reveal in.
    pub reveal_window: u64,
    /// Seconds between leaving and getting the stake back.
    pub unbonding: u64,
    /// Most nodes drawn for a job at first; one escalation adds one more than as many again.
    pub max_replicas: u8,
    /// Most jobs in progress.
    pub max_jobs: u64,
    /// Price of a unit of gas of a callback; it goes to the treasury when the job is posted.
    pub callback_price: u128,
    /// Most gas of a callback.
    pub max_callback_gas: u64,
    /// Part of a slashed stake that the requester gets, in 1/10,000.
    pub slash_requester: u16,
    /// Part of a slashed stake that goes to [`Params::burn`], in 1/10,000. The rest goes to the treasury.
    pub slash_burn: u16,
    /// Part of a validator's stake that two contradicting ballots of one vote cost it, in 1/10,000; split as a slashed stake, with
    /// the accuser in the requester's place.
    pub slash_equivocation: u16,
    /// Most validators.
    pub max_validators: u16,
    /// Where penalties go.
    pub treasury: Address,
    /// The account that nobody has the key of: coins there are out of circulation, and still counted.
    pub burn: Address,
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
            max_jobs: 10_000,
            callback_price: 1_000_000_000,
            max_callback_gas: 2_000_000,
            slash_requester: 2_000,
            slash_burn: 3_000,
            slash_equivocation: 500,
            max_validators: 100,
            treasury: Address::repeat_byte(0x15),
            burn: Address::with_last_byte(0xff),
        }
    }
}

/// Parameters that no network can run with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GenesisError {
    /// A parameter out of its range.
    #[error("parameter {name} must be {expected}")]
    Param {
        /// Its name.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// More coins than 128 bits count.
    #[error("the allocations come to more than 2^128 - 1 base units; allocate less")]
    TooManyCoins,
}

/// Longest window: about 136 years. With it no sum of times overflows.
const MAX_WINDOW: u64 = u32::MAX as u64;

impl Params {
    /// Whether a network can run with them.
    pub fn check(&self) -> Result<(), GenesisError> {
        let windows = [
            ("commit_window", self.commit_window),
            ("reveal_window", self.reveal_window),
            ("unbonding", self.unbonding),
        ];
        for (name, seconds) in windows {
            if !(1..=MAX_WINDOW).contains(&seconds) {
                return Err(GenesisError::Param { name, expected: "1 to 4,294,967,295 seconds" });
            }
        }
        let rules = [
            (self.min_stake > 0, "min_stake", "above 0"),
            (self.max_jobs > 0, "max_jobs", "above 0"),
            (self.max_callback_gas <= 10_000_000, "max_callback_gas", "at most 10,000,000"),
            (self.slash_equivocation <= 10_000, "slash_equivocation", "at most 10,000"),
            (self.max_validators > 0, "max_validators", "above 0"),
            (self.max_replicas > 0, "max_replicas", "1 to 255"),
            (
                u32::from(self.slash_requester) + u32::from(self.slash_burn) <= 10_000,
                "slash_requester",
                "at most 10,000 together with slash_burn",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, name, expected)) => Err(GenesisError::Param { name, expected }),
            None => Ok(()),
        }
    }

    /// What one node is paid for a run of this cost.
    pub fn node_fee(&self, cost: u64) -> u128 {
        self.base_fee.saturating_add(self.unit_price.saturating_mul(cost.into()))
    }

    /// What a callback of this much gas costs.
    pub fn callback_fee(&self, gas: u64) -> u128 {
        self.callback_price.saturating_mul(gas.into())
    }

    /// The cost limit of a run that `max_fee` pays for, in units: with it `replicas` nodes and the model's owner (who asks
    /// `unit_fee` a unit) can be paid in full. The limit decides which runs fail, so every node uses this one.
    pub fn cost_limit(&self, max_fee: u128, replicas: u8, unit_fee: u128) -> u64 {
        let replicas = u128::from(replicas.max(1));
        let left = max_fee.saturating_sub(self.base_fee.saturating_mul(replicas));
        let price = self.unit_price.saturating_mul(replicas).saturating_add(unit_fee);
        u64::try_from(left / price.max(1)).unwrap_or(u64::MAX)
    }

    /// How a slashed stake is split: requester, burnt, treasury. The three add up to the whole.
    pub(crate) fn split_slash(&self, amount: u128) -> (u128, u128, u128) {
        let (requester, burnt) = (part(amount, self.slash_requester), part(amount, self.slash_burn));
        (requester, burnt, amount - requester - burnt)
    }
}

/// So many 1/10,000 of an amount, exact for amounts that times 10,000 do not fit 128 bits.
pub(crate) fn part(amount: u128, of: u16) -> u128 {
    amount / 10_000 * u128::from(of) + amount % 10_000 * u128::from(of) / 10_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let ok = Params::default;
        assert_eq!(ok().check(), Ok(()));
        let bad = [
            Params { commit_window: 0, ..ok() },
            Params { reveal_window: 1 << 32, ..ok() },
            Params { unbonding: u64::MAX, ..ok() },
            Params { min_stake: 0, ..ok() },
            Params { max_replicas: 0, ..ok() },
            Params { slash_requester: 6_000, slash_burn: 4_001, ..ok() },
        ];
        for params in bad {
            assert!(params.check().is_err(), "{params:?}");
        }
    }

    #[test]
    fn a_slash_is_split_without_rest() {
        let params = Params::default();
        for amount in [0, 1, 2, 9_999, 10_001, 7 * COIN + 3, u128::MAX] {
            let (requester, burnt, treasury) = params.split_slash(amount);
            assert_eq!(requester + burnt + treasury, amount);
            assert!(requester <= burnt && burnt <= treasury);
        }
        let all = Params { slash_requester: 0, slash_burn: 10_000, ..params };
        assert_eq!(all.split_slash(u128::MAX), (0, u128::MAX, 0));
    }

    #[test]
    fn the_cost_limit_is_what_the_fee_pays() {
        let params = Params::default();
        for (max_fee, replicas, unit_fee) in [(COIN, 3, 0), (COIN, 1, 7), (30 * COIN, 15, COIN / 1_000_000)] {
            let cost = params.cost_limit(max_fee, replicas, unit_fee);
            let price =
                |cost: u64| params.node_fee(cost) * u128::from(replicas) + unit_fee * u128::from(cost);
            assert!(price(cost) <= max_fee && price(cost + 1) > max_fee);
        }
        assert_eq!(params.cost_limit(0, 3, 0), 0);
        assert_eq!(Params { unit_price: 0, ..params }.cost_limit(u128::MAX, 1, 0), u64::MAX);
    }
}
