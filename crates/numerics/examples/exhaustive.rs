//! Every f32 through every elementary function, against an independent correctly rounded implementation.
//!
//! `cargo run --release -p isobit-numerics --example exhaustive [FUNCTION...]`

#[path = "../tests/oracle/mod.rs"]
mod oracle;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use oracle::{FUNCTIONS, same};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut failed = false;
    for f in FUNCTIONS.iter().filter(|f| wanted.is_empty() || wanted.iter().any(|w| w == f.name)) {
        let start = Instant::now();
        let (next, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let block = next.fetch_add(1, Ordering::Relaxed);
                        if block >= 1 << 12 {
                            break;
                        }
                        for low in 0..1u32 << 20 {
                            let x = f32::from_bits((block as u32) << 20 | low);
                            let (got, expected) = ((f.ours)(x), (f.oracle)(x));
                            if !same(got, expected) && wrong.fetch_add(1, Ordering::Relaxed) < 10 {
                                println!("{}({x:e}) is {got:e}, expected {expected:e}", f.name);
                            }
                        }
                    }
                });
            }
        });
        let wrong = wrong.into_inner();
        println!("{:8} 4294967296 inputs, {wrong} wrong, {:.0} s", f.name, start.elapsed().as_secs_f64());
        failed |= wrong > 0;
    }
    std::process::exit(i32::from(failed));
}
