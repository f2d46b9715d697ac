//! The chain from outside: transactions in, blocks out, replay, faults.

mod crash;
mod jobs;
mod play;
mod prices;
mod snapshot;
mod till;
mod world;
