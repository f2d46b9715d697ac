//! What validators say along with their votes for a block (vote extensions): prices. They are no part of what the vote is about, and
//! need not be the same; whose turn it is next brings them to the chain, where their median by stake counts.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes};
use arc_malachitebft_core_types::{
    ExtendedCommitCertificate, Extension, SignedExtension, SignedMessage, ValidatorSet, VotingPower,
};
use isobit_chain::{Call, Chain, ChainError, MAX_PAIRS, Minute, Order, PRICES, PairPrice, SignedPrices};
use isobit_ledger::is_signed;
use isobit_proof::Key;

use crate::types::{Addr, BlockId, Height, Members, Protocol, sign};

/// What a validator says of prices along with its vote for a block; nothing, for who has none or where the chain has them already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prices {
    /// The block's time, in minutes since 1970.
    pub minute: u64,
    /// Prices in ascending order of [`PairPrice::key`].
    pub prices: Vec<PairPrice>,
}

impl Extension for Prices {
    fn size_bytes(&self) -> usize {
        8 + self.prices.iter().map(|p| p.pair.len() + 16).sum::<usize>()
    }
}

impl Prices {
    /// What is said of a minute, of those prices that can be said.
    pub(crate) fn of(minute: u64, prices: Vec<PairPrice>) -> Self {
        let mut prices: Vec<PairPrice> = prices.into_iter().filter(PairPrice::is_sound).collect();
        prices.sort_by_cached_key(PairPrice::key);
        prices.dedup_by(|b, a| a.pair == b.pair);
        prices.truncate(MAX_PAIRS);
        Self { minute, prices }
    }

    /// Whether it is in order and within limits. That is all that is asked, so that everybody says the same of it whatever else
    /// they know.
    fn is_well_formed(&self) -> bool {
        let keys: Vec<_> = self.prices.iter().map(PairPrice::key).collect();
        self.prices.len() <= MAX_PAIRS
            && self.prices.iter().all(PairPrice::is_sound)
            && keys.windows(2).all(|k| k[0] < k[1])
    }

    fn at(&self, (height, block): (Height, BlockId)) -> Minute {
        Minute { height: height.0, block: block.0, minute: self.minute }
    }

    /// Signs it as said along with a vote for a block.
    pub(crate) fn sign(
        self,
        at: (Height, BlockId),
        key: &Key,
        protocol: Protocol,
    ) -> SignedExtension<Protocol> {
        let signature = sign(key, self.at(at).digest(&self.prices, protocol.chain_id));
        SignedMessage::new(self, signature)
    }
}

/// Whether a validator has said this along with its vote for a block.
pub(crate) fn is_said(
    said: &SignedExtension<Protocol>,
    at: (Height, BlockId),
    by: Addr,
    protocol: Protocol,
) -> bool {
    let digest = || said.message.at(at).digest(&said.message.prices, protocol.chain_id);
    said.message.is_well_formed() && is_signed(digest(), &said.signature, by.0)
}

/// What validators have said of the prices of a block's minute, where more than two thirds of the stake speak of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The block.
    pub at: Minute,
    /// The pairs, in ascending order of their hashes.
    pub pairs: Vec<String>,
    /// What was signed, in ascending order of who did.
    pub said: Vec<SignedPrices>,
}

impl Report {
    /// What is agreed of what was said along with the votes that decided a block; `None` if that is nothing. Who has no weight any
    /// more is not heard.
    pub(crate) fn of(
        at: Minute,
        votes: &ExtendedCommitCertificate<Protocol>,
        members: &Members,
    ) -> Option<Self> {
        let mut said = Vec::new();
        let mut weights = BTreeMap::<B256, (VotingPower, &str)>::new();
        for vote in &votes.commit_signatures {
            let member = members.get_by_address(&vote.address);
            let (Some(extension), Some(member)) = (&vote.extension, member) else { continue };
            let Prices { minute, prices } = &extension.message;
            if *minute != at.minute || prices.is_empty() {
                continue;
            }
            for price in prices {
                weights.entry(price.key()).or_insert((0, &price.pair)).0 += member.power;
            }
            let (validator, signature) = (vote.address.0, extension.signature);
            said.push(SignedPrices { validator, prices: prices.clone(), signature });
        }
        let total = u128::from(members.total_voting_power());
        let pairs = weights.into_values().filter(|(weight, _)| u128::from(*weight) * 3 > total * 2);
        let pairs: Vec<String> = pairs.map(|(_, pair)| pair.to_owned()).collect();
        (!pairs.is_empty()).then_some(Self { at, pairs, said })
    }

    /// The transaction that brings it to the chain, from an account that pays for the gas.
    pub fn transaction(&self, chain: &Chain, key: &Key) -> Result<(B256, Bytes), ChainError> {
        let data = self.at.report(self.pairs.clone(), &self.said);
        let call = Call { from: key.address(), to: Some(PRICES), data: data.clone(), ..Call::default() };
        let gas =
            chain.head().estimate(&call).map_err(|e| ChainError::Refused(format!("the price feed: {e}")))?;
        // Others may change what it meets.
        chain.sign_next(Order { gas: gas + gas / 4, ..Order::new(PRICES.into(), 0, data) }, key)
    }
}
