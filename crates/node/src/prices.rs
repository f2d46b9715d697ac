//! Where a validator has prices from: a file, or a program beside it that is asked over HTTP.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use isobit_chain::{MAX_PAIRS, PairPrice, PriceSource};
use serde_json::{Map, Value};

use crate::NodeError;

/// How often they are read.
const PAUSE: Duration = Duration::from_secs(5);
/// How old they may be: what is older is not said any more.
const FRESH: Duration = Duration::from_secs(120);
/// Longest text that is read.
const MAX_TEXT: u64 = 1 << 20;
/// Digits after the point that count.
const DECIMALS: usize = 18;

/// When prices were true, and what they were.
type Known = Mutex<Option<(Instant, Vec<PairPrice>)>>;

#[derive(Debug)]
enum Place {
    File(PathBuf),
    Url(String),
}

/// Reads prices again and again from a file, or from a program behind `http://`, for as long as somebody has the source. Either is a JSON
/// object of pairs and decimal numbers as strings: `{"ETH/USD": "3012.55"}`. What cannot be read is logged, and nothing is
/// said in its place; neither is what is older than two minutes (a file's time is that of its last change).
pub fn price_source(place: &str) -> Result<PriceSource, NodeError> {
    let place = match place.split_once("://") {
        None => Place::File(place.into()),
        Some(("http", _)) => Place::Url(place.to_owned()),
        Some((scheme, _)) => {
            return Err(NodeError::Refused(format!(
                "prices cannot be had from {scheme}://; give a file, or http:// of a program on this machine that asks the markets"
            )));
        }
    };
    let known = Arc::new(Known::default());
    let weak = Arc::downgrade(&known);
    std::thread::Builder::new()
        .name("prices".into())
        .spawn(move || watch(&place, &weak))
        .map_err(|e| NodeError::Store(e.to_string()))?;
    Ok(Arc::new(move || {
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, p)| p.clone()).unwrap_or_default()
    }))
}

/// Reads until nobody wants to know.
fn watch(place: &Place, known: &Weak<Known>) {
    let mut complaint = String::new();
    while let Some(known) = known.upgrade() {
        match read(place) {
            Ok((at, prices)) => {
                *known.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, prices));
                complaint.clear();
            }
            Err(e) if e != complaint => {
                tracing::warn!("prices: {e}");
                complaint = e;
            }
            Err(_) => {} // it has been said
        }
        drop(known);
        std::thread::sleep(PAUSE);
    }
}

fn read(place: &Place) -> Result<(Instant, Vec<PairPrice>), String> {
    let now = Instant::now();
    let (at, text) = match place {
        Place::File(path) => {
            let fail = |e: std::io::Error| format!("{}: {e}", path.display());
            let about = std::fs::metadata(path).map_err(fail)?;
            if about.len() > MAX_TEXT {
                return Err(format!("{} has more than a mebibyte", path.display()));
            }
            let age = SystemTime::now().duration_since(about.modified().map_err(fail)?).unwrap_or_default();
            if age >= FRESH {
                return Err(format!("{} has not been written for two minutes", path.display()));
            }
            (now.checked_sub(age).unwrap_or(now), std::fs::read(path).map_err(fail)?)
        }
        Place::Url(url) => {
            let fail = |e: ureq::Error| format!("{url}: {e}");
            let config = ureq::Agent::config_builder().timeout_global(Some(PAUSE)).build();
            let mut answer = ureq::Agent::from(config).get(url).call().map_err(fail)?;
            (now, answer.body_mut().with_config().limit(MAX_TEXT).read_to_vec().map_err(fail)?)
        }
    };
    let all: Map<String, Value> = serde_json::from_slice(&text).map_err(|e| {
        format!(r#"not a JSON object of pairs and prices, like {{"ETH/USD": "3012.55"}}: {e}"#)
    })?;
    if all.len() > MAX_PAIRS {
        return Err(format!("{} pairs are too many; a validator says {MAX_PAIRS} at most", all.len()));
    }
    let prices = all.into_iter().map(|(pair, value)| price(pair, &value)).collect::<Result<_, _>>()?;
    Ok((at, prices))
}

fn price(pair: String, value: &Value) -> Result<PairPrice, String> {
    let number = value.as_str().and_then(decimal);
    let sound = number.map(|price| PairPrice { pair: pair.clone(), price }).filter(PairPrice::is_sound);
    sound.ok_or_else(|| {
        format!(
            r#""{pair}": {value} is no price; a pair is BASE/QUOTE of at most 32 characters, a price a decimal number above 0 in quotes: "3012.55""#
        )
    })
}

/// A decimal number in units of 10^-18; digits beyond that are cut off.
fn decimal(text: &str) -> Option<u128> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !are_digits(whole) || !are_digits(part) {
        return None;
    }
    let part = &part[..part.len().min(DECIMALS)];
    format!("{whole}{part:0<DECIMALS$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, value) in [
            ("3012.55", Some(3_012_550_000_000_000_000_000)),
            ("0.000000000000000001", Some(1)),
            ("0.0000000000000000019", Some(1)),
            ("7", Some(7_000_000_000_000_000_000)),
            ("007", Some(7_000_000_000_000_000_000)),
            ("", None),
            (".5", None),
            ("5.", None),
            ("-1", None),
            ("1e5", None),
            ("1.2.3", None),
            ("999999999999999999999999999999999999999", None),
        ] {
            assert_eq!(decimal(text), value, "{text}");
        }
    }

    fn write(text: &str) -> (tempfile::TempDir, Place) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prices.json");
        std::fs::write(&path, text).unwrap();
        (dir, Place::File(path))
    }

    #[test]
    fn a_file_says_prices_or_what_is_wrong() {
        let (dir, place) = write(r#"{"ETH/USD": "3012.55", "BTC/USD": "65000"}"#);
        let (_, prices) = read(&place).unwrap();
        let pairs: Vec<&str> = prices.iter().map(|p| p.pair.as_str()).collect();
        assert_eq!(pairs, ["BTC/USD", "ETH/USD"]);
        let old = SystemTime::now() - FRESH;
        std::fs::File::open(dir.path().join("prices.json")).unwrap().set_modified(old).unwrap();
        assert!(read(&place).unwrap_err().contains("two minutes"));
        let many: Vec<String> = (0..=MAX_PAIRS).map(|i| format!(r#""P{i}/USD": "1""#)).collect();
        for (text, why) in [
            (&*format!("{{{}}}", many.join(",")), "too many"),
            ("[]", "JSON object"),
            (r#"{"ETHUSD": "1"}"#, "BASE/QUOTE"),
            (r#"{"ETH/USD": 1}"#, "in quotes"),
            (r#"{"ETH/USD": "0"}"#, "above 0"),
            (r#"{"A/B/C": "1"}"#, "BASE/QUOTE"),
        ] {
            let (_dir, place) = write(text);
            let said = read(&place).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_program_is_asked() {
        assert!(price_source("ftp://x").err().unwrap().to_string().contains("http://"));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/prices", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            let body = r#"{"ETH/USD":"2"}"#;
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        });
        let source = price_source(&url).unwrap();
        let start = Instant::now();
        while source().is_empty() {
            assert!(start.elapsed() < PAUSE * 4);
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(source(), [PairPrice { pair: "ETH/USD".into(), price: 2 * 10u128.pow(18) }]);
    }
}
