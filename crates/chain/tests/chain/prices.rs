//! Prices that validators sign: the feed takes the median by stake, of enough of it, and nothing else.

use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use isobit_chain::IPriceFeed::{Candle, HistoricalInputQuery, latestCall, postCall, queryCandlesCall};
use isobit_chain::{Call, Chain, Genesis, Minute, PRICES, PairPrice, SignedPrices, Store};
use isobit_ledger::{COIN, Params};
use isobit_numerics::rng::Rng;
use isobit_proof::Key;

use crate::world::keys;

/// Weights of the validators, in thousands of coins.
const WEIGHTS: [u128; 5] = [10, 14, 11, 20, 13];

struct Feed {
    chain: Chain,
    /// Validators in ascending order of address.
    keys: Vec<Key>,
    weights: Vec<u128>,
    minute: u64,
}

impl Feed {
    fn new() -> Self {
        let mut keys = keys(WEIGHTS.len());
        keys.sort_by_key(Key::address);
        let validators = keys.iter().zip(WEIGHTS).map(|(k, w)| (k.address(), w * 1_000 * COIN)).collect();
        let mut genesis = Genesis::new(Params::default(), [(keys[0].address(), COIN)]);
        (genesis.validators, genesis.price_operator) = (validators, keys[0].address());
        let chain = Chain::in_store(Store::in_memory().unwrap(), genesis).unwrap();
        let mut feed = Self { chain, keys, weights: WEIGHTS.to_vec(), minute: 30_000_000 };
        feed.block();
        feed
    }

    /// A block of the next minute.
    fn block(&mut self) -> Minute {
        self.minute += 1;
        let built = self.chain.propose(self.minute * 60 + 7, Address::ZERO).unwrap();
        self.chain.commit(&built).unwrap();
        let header = &built.block.header;
        Minute { height: header.number, block: built.block.hash, minute: self.minute }
    }

    fn say(&self, at: Minute, who: usize, prices: &[(&str, u128)]) -> SignedPrices {
        let mut prices: Vec<PairPrice> =
            prices.iter().map(|&(pair, price)| PairPrice { pair: pair.into(), price }).collect();
        prices.sort_by_key(PairPrice::key);
        let signature = self.keys[who].sign(at.digest(&prices, 1729)).as_bytes();
        SignedPrices { validator: self.keys[who].address(), prices, signature }
    }

    fn call(&self, data: Vec<u8>) -> Result<Bytes, String> {
        let from = self.keys[0].address();
        let call = Call { from, to: Some(PRICES), data: data.into(), ..Call::default() };
        self.chain.head().call(&call).map_err(|e| format!("{e:?}"))
    }

    /// Sends a call as a transaction; it is in the block that is made, and succeeds.
    fn send(&mut self, data: Bytes) -> Minute {
        let order = isobit_chain::Order {
            nonce: self.chain.pending_nonce(self.keys[0].address()).unwrap(),
            gas: 5_000_000,
            max_fee_per_gas: 1_000_000_000,
            ..isobit_chain::Order::new(PRICES.into(), 0, data)
        };
        let (hash, raw) = order.sign(&self.keys[0], 1729);
        self.chain.submit(&raw).unwrap();
        let at = self.block();
        let (number, place) = self.chain.store().tx(hash).unwrap().expect("it is in the block");
        assert!(self.chain.store().receipts(number).unwrap()[place].status());
        at
    }

    fn latest(&self, base: &str, quote: &str) -> (u128, u64) {
        let call = latestCall { base: base.into(), quote: quote.into() };
        let returned = self.call(call.abi_encode()).unwrap();
        let latest = latestCall::abi_decode_returns(&returned).unwrap();
        (latest.price, latest.minute)
    }

    fn candles(&self, count: u32, minutes: u32, order: u8) -> Result<Vec<i128>, String> {
        let query = HistoricalInputQuery {
            base: "ETH".into(),
            quote: "USD".into(),
            total_candles: count,
            candle_duration_in_mins: minutes,
            order,
            candle_types: vec![0, 1, 2, 3],
        };
        let returned = self.call(queryCandlesCall { query }.abi_encode())?;
        let numbers = queryCandlesCall::abi_decode_returns(&returned).unwrap().numbers;
        assert!(numbers.iter().all(|n| n.decimals == 18));
        Ok(numbers.iter().map(|n| n.value).collect())
    }
}

/// The least price such that those at or below it have half of the weight.
fn median(said: &[(u128, u128)]) -> u128 {
    let weight: u128 = said.iter().map(|s| s.1).sum();
    let up_to = |price: u128| said.iter().filter(|s| s.0 <= price).map(|s| s.1).sum::<u128>();
    said.iter().map(|s| s.0).filter(|&p| up_to(p) * 2 >= weight).min().unwrap()
}

#[test]
fn the_median_by_stake_of_more_than_two_thirds() {
    let mut feed = Feed::new();
    let mut rng = Rng::new(3, 1);
    let (mut agreed, mut refused) = (0, 0);
    for _ in 0..60 {
        let at = feed.block();
        let pairs = ["ETH/USD", "BTC/USD"];
        let (mut all, mut heard) = (Vec::new(), [Vec::new(), Vec::new()]);
        for who in 0..WEIGHTS.len() {
            let mut said = Vec::new();
            for (pair, heard) in pairs.iter().zip(&mut heard) {
                if rng.below(6) > 0 {
                    let price = [1, 7, 9, 1 << 90, i128::MAX.unsigned_abs()][rng.below(5)];
                    said.push((*pair, price));
                    heard.push((price, feed.weights[who]));
                }
            }
            all.push(feed.say(at, who, &said));
        }
        let total: u128 = WEIGHTS.iter().sum();
        for (pair, heard) in pairs.iter().zip(&heard) {
            let call = at.report(vec![(*pair).into()], &all);
            if heard.iter().map(|h| h.1).sum::<u128>() * 3 > total * 2 {
                feed.send(call);
                let (base, quote) = pair.split_once('/').unwrap();
                assert_eq!(feed.latest(base, quote), (median(heard), at.minute));
                agreed += 1;
            } else {
                assert!(feed.call(call.to_vec()).is_err());
                refused += 1;
            }
        }
        let head = feed.chain.head();
        assert!(head.prices_minute().unwrap() <= at.minute);
    }
    assert!(agreed > 20 && refused > 10, "{agreed} {refused}");
}

#[test]
fn two_thirds_are_not_enough() {
    // Of equal weights, four of six have two thirds exactly.
    let mut keys = keys(6);
    keys.sort_by_key(Key::address);
    let mut genesis = Genesis::new(Params::default(), [(keys[0].address(), COIN)]);
    genesis.validators = keys.iter().map(|k| (k.address(), 9_000 * COIN)).collect();
    let chain = Chain::in_store(Store::in_memory().unwrap(), genesis).unwrap();
    let mut feed = Feed { chain, keys, weights: vec![1; 6], minute: 30_000_000 };
    let at = feed.block();
    let said: Vec<_> = (0..6).map(|i| feed.say(at, i, &[("ETH/USD", 5)])).collect();
    let call = |n: usize| at.report(vec!["ETH/USD".into()], &said[..n]).to_vec();
    assert!(feed.call(call(4)).is_err());
    assert!(feed.call(call(5)).is_ok());
}

#[test]
fn what_is_not_theirs_is_refused() {
    let mut feed = Feed::new();
    let at = feed.block();
    let all: Vec<_> = (0..5).map(|i| feed.say(at, i, &[("ETH/USD", 5), ("BTC/USD", 6)])).collect();
    let one = |at: Minute, said: &[SignedPrices]| at.report(vec!["ETH/USD".into()], said).to_vec();
    assert!(feed.call(one(at, &all)).is_ok());
    let refused = |data: Vec<u8>| feed.call(data).unwrap_err();
    // Somebody else's signature, one twice, another order, another price, another minute, another block.
    let stranger = Key::from_hex(&format!("{:064x}", 99)).unwrap();
    let mut other = all.clone();
    other[2].signature = stranger.sign(at.digest(&other[2].prices, 1729)).as_bytes();
    refused(one(at, &other));
    other[2] = other[1].clone();
    refused(one(at, &other));
    (other[1], other[2]) = (all[2].clone(), all[1].clone());
    refused(one(at, &other));
    let mut other = all.clone();
    other[4].prices[0].price = 1;
    refused(one(at, &other));
    refused(one(Minute { minute: at.minute - 1, ..at }, &all));
    refused(one(Minute { height: at.height - 1, ..at }, &all));
    refused(one(Minute { height: at.height + 1, ..at }, &all));
    let elsewhere = Minute { block: B256::repeat_byte(7), ..at };
    let said: Vec<_> = (0..5).map(|i| feed.say(elsewhere, i, &[("ETH/USD", 5)])).collect();
    refused(one(elsewhere, &said));
    let later = Minute { minute: at.minute + 1, ..at };
    let said: Vec<_> = (0..5).map(|i| feed.say(later, i, &[("ETH/USD", 5)])).collect();
    refused(one(later, &said));
    // Another chain's.
    let mut other = all.clone();
    other[0].signature = feed.keys[0].sign(at.digest(&other[0].prices, 1)).as_bytes();
    refused(one(at, &other));
    // A pair twice, or of no validator.
    refused(at.report(vec!["ETH/USD".into(), "ETH/USD".into()], &all).to_vec());
    refused(at.report(vec!["SOL/USD".into()], &all).to_vec());
    // Once is enough; what was left out can still be brought.
    feed.send(one(at, &all).into());
    assert!(feed.call(one(at, &all)).is_err());
    feed.send(at.report(vec!["BTC/USD".into()], &all));
    assert_eq!((feed.latest("BTC", "USD").0, feed.latest("SOL", "USD")), (6, (0, 0)));
    // Of a block that is long gone nothing can be said.
    let at = feed.block();
    let said: Vec<_> = (0..5).map(|i| feed.say(at, i, &[("ETH/USD", 8)])).collect();
    for _ in 0..256 {
        feed.block();
    }
    assert!(feed.call(one(at, &said)).is_err());
}

#[test]
fn candles_are_made_of_reported_minutes() {
    let mut feed = Feed::new();
    feed.minute = 30_000_000 - 1; // a multiple of three
    let mut expected = Vec::new();
    for (i, price) in [5u128, 9, 3, 4, 4, 8, 2, 6].into_iter().enumerate() {
        let at = feed.block();
        assert_eq!(at.minute, 30_000_000 + 2 * i as u64);
        let said: Vec<_> = (0..5).map(|i| feed.say(at, i, &[("ETH/USD", price)])).collect();
        feed.send(at.report(vec!["ETH/USD".into()], &said)); // a block of its own: every second minute has a price
        expected.push((at.minute, i128::try_from(price).unwrap()));
    }
    let last = expected.last().unwrap().0;
    for minutes in [2u64, 3, 4, 6] {
        let closed = (last + 1) / minutes;
        let count = closed - 30_000_000_u64.div_ceil(minutes);
        let mut rows: Vec<[i128; 4]> = Vec::new();
        for number in closed - count..closed {
            let within = number * minutes..(number + 1) * minutes;
            let prices: Vec<i128> = expected.iter().filter(|e| within.contains(&e.0)).map(|e| e.1).collect();
            let (high, low) = (prices.iter().max().unwrap(), prices.iter().min().unwrap());
            rows.push([*high, *low, prices[0], *prices.last().unwrap()]);
        }
        assert_eq!(feed.candles(count as u32, minutes as u32, 0).unwrap(), rows.concat());
        rows.reverse();
        assert_eq!(feed.candles(count as u32, minutes as u32, 1).unwrap(), rows.concat());
        assert!(feed.candles(count as u32 + 9, minutes as u32, 0).is_err(), "before the first price");
    }
    assert!(feed.candles(2, 1, 0).is_err(), "a minute has no price");
    assert!(feed.candles(1, 0, 0).is_err() && feed.candles(5, 1_000, 0).is_err());
    // It is the validators' pair now, but not the pair the other way round.
    let candle = Candle { high: 1, low: 1, open: 1, close: 1, volume: 1, decimals: 18 };
    let post = |base: &str, quote: &str| {
        let candles = vec![candle.clone()];
        let (base, quote) = (base.into(), quote.into());
        postCall { base, quote, minutesEach: 2, first: U256::from(1), candles }.abi_encode()
    };
    assert!(feed.call(post("ETH", "USD")).is_err());
    feed.send(post("USD", "ETH").into());
}

#[test]
fn a_weeks_minutes_take_the_place_of_the_last_weeks() {
    let mut feed = Feed::new();
    let say = |feed: &mut Feed, price: u128| {
        let at = feed.block();
        let said: Vec<_> = (0..5).map(|i| feed.say(at, i, &[("ETH/USD", price)])).collect();
        feed.send(at.report(vec!["ETH/USD".into()], &said));
        at.minute
    };
    let first = say(&mut feed, 5);
    feed.minute = first + 10_080 - 1;
    assert_eq!(say(&mut feed, 6), first + 10_080);
    assert_eq!(feed.latest("ETH", "USD"), (6, first + 10_080));
    assert_eq!(feed.candles(1, 1, 0).unwrap(), [6; 4]);
}
