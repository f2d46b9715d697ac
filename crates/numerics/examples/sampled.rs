//! Functions of more than 2^32 arguments against an independent correctly rounded implementation: f64 programs, and pow of f32
//! and of f64, over random and special arguments; prints how many results are not the correctly rounded one, and the worst error.
//!
//! `cargo run --release -p isobit-numerics --example sampled [MILLIONS OF ARGUMENTS EACH] [FUNCTION...]`

#[path = "../tests/oracle/mod.rs"]
mod oracle;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use isobit_numerics::convert::canonical;
use isobit_numerics::rng::Rng;
use oracle::{FUNCTIONS64, argument64, distance64, pair64};

/// Arguments of one random stream.
const BLOCK: u64 = 1 << 16;

/// One result, and how far it is from the right one.
struct Sample {
    distance: u64,
    arguments: (f64, Option<f64>),
    got: f64,
    expected: f64,
}

type Case = dyn Fn(u64, &mut Rng) -> Sample + Sync;

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let millions = args.first().and_then(|a| a.parse::<u64>().ok());
    if millions.is_some() {
        args.remove(0);
    }
    let count = millions.unwrap_or(10) * 1_000_000;
    let mut all: Vec<(&str, Box<Case>)> = Vec::new();
    for &f in FUNCTIONS64 {
        all.push((
            f.name,
            Box::new(move |i, rng| {
                let x = argument64(i, rng, f.reach);
                let (got, expected) = ((f.ours)(x), (f.oracle)(x));
                Sample { distance: distance64(got, expected), arguments: (x, None), got, expected }
            }),
        ));
    }
    all.push((
        "pow64",
        Box::new(|i, rng| {
            let (x, y) = pair64(i, rng);
            let (got, expected) = (isobit_numerics::pow64(x, y), core_math::pow(x, y));
            Sample { distance: distance64(got, expected), arguments: (x, Some(y)), got, expected }
        }),
    ));
    all.push((
        "pow",
        Box::new(|i, rng| {
            let (x, y) = pair64(i, rng);
            let any = |rng: &mut Rng, v: f64| canonical(if i % 7 == 0 { rng.f32_any() } else { v as f32 });
            let (x, y) = (any(rng, x), any(rng, y));
            let (got, expected) = (isobit_numerics::pow(x, y), core_math::powf(x, y));
            let distance = match oracle::same(got, expected) {
                true => 0,
                false => u64::from(got.to_bits().abs_diff(expected.to_bits())),
            };
            let (x, y, got, expected) = (x.into(), f64::from(y), got.into(), expected.into());
            Sample { distance, arguments: (x, Some(y)), got, expected }
        }),
    ));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut failed = false;
    for (name, case) in all.iter().filter(|(name, _)| args.is_empty() || args.iter().any(|a| a == name)) {
        let start = Instant::now();
        let (next, differ) = (AtomicU64::new(0), AtomicU64::new(0));
        let worst = Mutex::new(None);
        let work = || {
            loop {
                let block = next.fetch_add(1, Ordering::Relaxed);
                if block * BLOCK >= count {
                    return;
                }
                let mut rng = Rng::new(block, 1);
                for i in block * BLOCK..((block + 1) * BLOCK).min(count) {
                    let sample = case(i, &mut rng);
                    if sample.distance > 0 {
                        differ.fetch_add(1, Ordering::Relaxed);
                        let mut worst = worst.lock().unwrap_or_else(|e| e.into_inner());
                        if worst.as_ref().is_none_or(|w: &Sample| w.distance < sample.distance) {
                            *worst = Some(sample);
                        }
                    }
                }
            }
        };
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
        let worst = worst.into_inner().unwrap_or_else(|e| e.into_inner());
        let distance = worst.as_ref().map_or(0, |w| w.distance);
        let what = worst.map_or_else(String::new, |w| {
            let (x, y) = w.arguments;
            let second = y.map_or_else(String::new, |y| format!(", {y:e}"));
            format!("{name}({x:e}{second}) is {:e}, not {:e}", w.got, w.expected)
        });
        failed |= distance > 0;
        let differ = differ.into_inner();
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{name:10} {count} arguments, {differ} not correctly rounded, worst {distance} ulp, {seconds:.0} s  {what}"
        );
    }
    std::process::exit(i32::from(failed));
}
