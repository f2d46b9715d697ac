//! Prices that validators sign along with their votes, as the chain's feed takes them (`PriceFeed.sol`).

use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolCall, SolStruct, eip712_domain};

use crate::chain::Head;
use crate::error::ChainError;
use crate::predeploys::IPriceFeed::{PriceReport, Quote, SignedQuotes, reportCall};
use crate::predeploys::PRICES;

/// Most pairs of which a validator says something at a block.
pub const MAX_PAIRS: usize = 64;
/// Most bytes of a pair's name.
const MAX_NAME: usize = 32;

/// What is known of prices, for whoever asks.
pub type PriceSource = Arc<dyn Fn() -> Vec<PairPrice> + Send + Sync>;

/// What a pair is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairPrice {
    /// The pair, as `BASE/QUOTE`.
    pub pair: String,
    /// The price in units of 10^-18.
    pub price: u128,
}

impl PairPrice {
    /// By what pairs are ordered wherever they are signed: the Keccak hash of the pair.
    pub fn key(&self) -> B256 {
        keccak256(&self.pair)
    }

    /// Whether it can be said: a pair's name is `BASE/QUOTE` of visible ASCII, 32 bytes at most; a price is above 0 and below 2^127.
    pub fn is_sound(&self) -> bool {
        let is_side =
            |side: &str| !side.is_empty() && side.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
        let is_pair = |(base, quote)| is_side(base) && is_side(quote);
        self.pair.len() <= MAX_NAME
            && self.pair.split_once('/').is_some_and(is_pair)
            && (1..=i128::MAX.unsigned_abs()).contains(&self.price)
    }
}

/// What one validator says of prices at a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPrices {
    /// The validator.
    pub validator: Address,
    /// The prices, in ascending order of [`PairPrice::key`].
    pub prices: Vec<PairPrice>,
    /// Its signature of [`Minute::digest`]: r, s, v.
    pub signature: [u8; 65],
}

/// A block and the minute that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// The block's number.
    pub height: u64,
    /// The block's hash.
    pub block: B256,
    /// Minutes since 1970.
    pub minute: u64,
}

impl Minute {
    /// What a validator signs of prices (EIP-712): the feed at 0xF5 checks it.
    pub fn digest(&self, prices: &[PairPrice], chain_id: u64) -> B256 {
        let domain = eip712_domain! {
            name: "Isobit", version: "1", chain_id: chain_id, verifying_contract: PRICES,
        };
        let Self { height, block, minute } = *self;
        PriceReport { height, block, minute, quotes: quotes(prices) }.eip712_signing_hash(&domain)
    }

    /// The call of the feed that sets pairs to the medians of what was signed: pairs in ascending order of their hashes, those who
    /// signed in that of their addresses.
    pub fn report(&self, pairs: Vec<String>, said: &[SignedPrices]) -> Bytes {
        let said = said
            .iter()
            .map(|s| SignedQuotes { quotes: quotes(&s.prices), signature: s.signature.into() })
            .collect();
        reportCall { height: self.height, minute: self.minute, pairs, said }.abi_encode().into()
    }
}

fn quotes(prices: &[PairPrice]) -> Vec<Quote> {
    prices.iter().map(|p| Quote { pair: p.pair.clone(), price: p.price }).collect()
}

impl Head {
    /// The latest minute since 1970 of which validators have reported a price; 0 if they never have.
    pub fn prices_minute(&self) -> Result<u64, ChainError> {
        let slot = U256::from_be_bytes(self.slot(PRICES, B256::ZERO)?.0); // beside the operator, who has 160 bits
        Ok((slot >> 160_usize).as_limbs()[0])
    }
}
