//! Disks that fail and processes that are killed: what was said to be on disk is there, and the state is that of a replay
//! from genesis.

use std::io;
use std::sync::{Arc, Mutex};

use alloy_primitives::Address;
use isobit_chain::{Block, Built, Chain, ChainError, Order, Store};
use isobit_numerics::rng::Rng;
use redb::StorageBackend;

use crate::world::{genesis, keys, memory};

/// A disk: what a sync has reached, and what only a cache has. It fails for good after so many operations; then some of
/// what was cached is lost, as when the power goes.
#[derive(Debug, Default)]
struct Disk {
    synced: Vec<u8>,
    cached: Vec<u8>,
    /// Writes since the last sync, in order.
    writes: Vec<(u64, Vec<u8>)>,
    operations_left: Option<u64>,
}

#[derive(Debug, Clone, Default)]
struct Flaky(Arc<Mutex<Disk>>);

impl Disk {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("the disk is gone")),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let (at, end) = (offset as usize, offset as usize + data.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

impl StorageBackend for Flaky {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().cached.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let disk = self.0.lock().unwrap();
        let at = offset as usize;
        let from = disk.cached.get(at..at + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.step()?;
        // A file's length is written through: what matters here is lost data.
        disk.cached.resize(length as usize, 0);
        disk.synced.resize(length as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.step()?;
        disk.synced = disk.cached.clone();
        disk.writes.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut disk = self.0.lock().unwrap();
        disk.step()?;
        put(&mut disk.cached, offset, data);
        disk.writes.push((offset, data.to_vec()));
        Ok(())
    }
}

impl Flaky {
    /// The disk as it is found after the power went: what was synced, and any part of what was not.
    fn after_power_loss(&self, rng: &mut Rng) -> Self {
        let disk = self.0.lock().unwrap();
        let mut bytes = disk.synced.clone();
        for (offset, data) in &disk.writes {
            match rng.below(3) {
                0 => put(&mut bytes, *offset, data),
                1 => put(&mut bytes, *offset, &data[..rng.below(data.len() + 1)]),
                _ => {}
            }
        }
        Self(Arc::new(Mutex::new(Disk { cached: bytes.clone(), synced: bytes, ..Disk::default() })))
    }
}

fn next(chain: &Chain, rng: &mut Rng, keys: &[isobit_proof::Key]) -> Result<Built, ChainError> {
    for (i, key) in keys.iter().enumerate() {
        let to = Address::repeat_byte(rng.next_u32() as u8);
        let order = Order {
            nonce: chain.pending_nonce(key.address()).unwrap(),
            gas: 21_000,
            max_fee_per_gas: 2_000_000_000,
            tip: i as u128,
            to: to.into(),
            value: rng.next_u32().into(),
            data: Default::default(),
        };
        let _ = chain.submit(&order.sign(key, 1729).1);
    }
    let timestamp = chain.head().header.timestamp + 1;
    chain.propose(timestamp, Address::ZERO)
}

#[test]
fn a_disk_that_fails_anywhere_loses_nothing_that_was_committed() {
    let keys = keys(4);
    let mut failures_within_a_commit = 0;
    for seed in 0..60 {
        let mut rng = Rng::new(seed, 0);
        let mut disks = [Flaky::default(), Flaky::default()];
        let store = |[blocks, state]: &[Flaky; 2]| Store::with_backends(blocks.clone(), state.clone());
        let mut committed: Vec<Block> = Vec::new();
        for life in 0..6 {
            // A disk may fail while the chain is being opened, too.
            let armed = life > 0 && rng.below(4) == 0;
            disks[rng.below(2)].0.lock().unwrap().operations_left = armed.then(|| rng.below(30) as u64);
            let opened = store(&disks).and_then(|s| Chain::in_store(s, genesis(&keys)));
            if let Ok(chain) = opened {
                let head = chain.head();
                // A block whose commit failed may be there or not, and nothing between.
                let number = head.header.number as usize;
                assert!(
                    number >= committed.len() && number <= committed.len() + 1,
                    "seed {seed}, life {life}"
                );
                if number > committed.len() {
                    committed.push(chain.store().block(number as u64).unwrap().unwrap());
                }
                if let Some(last) = committed.last() {
                    assert_eq!(head.hash, last.hash, "seed {seed}, life {life}");
                }
                head.check_coins().unwrap();
                // The state's disk is written to once in many blocks.
                let fails = rng.below(2);
                disks[fails].0.lock().unwrap().operations_left = Some(rng.below([400, 100][fails]) as u64);
                loop {
                    let Ok(built) = next(&chain, &mut rng, &keys) else { break };
                    if chain.commit(&built).is_err() {
                        failures_within_a_commit += 1;
                        break;
                    }
                    committed.push(built.block);
                }
            }
            disks = disks.map(|d| d.after_power_loss(&mut rng));
        }
        // What is on the disk in the end is a replay from genesis, block for block.
        let found = Chain::in_store(store(&disks).unwrap(), genesis(&keys)).unwrap();
        let replay = Chain::in_store(memory(), genesis(&keys)).unwrap();
        for number in 1..=found.head().header.number {
            let block = found.store().block(number).unwrap().unwrap();
            let built = replay.head().execute(&block).unwrap();
            replay.commit(&built).unwrap();
        }
        assert_eq!(replay.head().hash, found.head().hash, "seed {seed}");
        let states = [&replay, &found].map(|chain| {
            let mut state = Vec::new();
            chain.snapshot(&mut state, |_| {}).unwrap();
            state
        });
        assert!(states[0] == states[1], "seed {seed}: another state");
        for tx in committed.iter().flat_map(|b| &b.txs) {
            let hash = *tx.inner().hash();
            assert_eq!(found.store().tx(hash).unwrap(), replay.store().tx(hash).unwrap(), "seed {seed}");
        }
        assert!(found.head().header.number as usize >= committed.len(), "seed {seed}");
    }
    assert!(failures_within_a_commit > 200, "{failures_within_a_commit}");
}

/// Transactions that were accepted are in the pool's file, whatever of it a crash cut off.
#[test]
fn the_pool_survives() {
    let keys = keys(3);
    let folder = tempfile::tempdir().unwrap();
    let open = || Chain::open(folder.path(), genesis(&keys)).unwrap();
    let chain = open();
    let mut rng = Rng::new(1, 0);
    let _ = next(&chain, &mut rng, &keys);
    assert_eq!(chain.pool_size(), 3);
    drop(chain);
    // A record that was being written when the process died.
    let path = folder.path().join("pool");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend([200, 0, 0, 0, 2, 3]);
    std::fs::write(&path, &bytes).unwrap();
    let chain = open();
    assert_eq!(chain.pool_size(), 3);
    let built = next(&chain, &mut rng, &keys).unwrap();
    assert_eq!(built.block.txs.len(), 6);
    chain.commit(&built).unwrap();
    drop(chain);
    let chain = open();
    assert_eq!((chain.head().header.number, chain.pool_size()), (1, 0), "what is in a block waits no more");
}

/// The folder of another network is not taken for this one's.
#[test]
fn another_genesis_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    drop(Chain::open(folder.path(), genesis(&keys(3))).unwrap());
    let error = Chain::open(folder.path(), genesis(&keys(4))).unwrap_err();
    assert!(error.to_string().contains("another network"), "{error}");
}

/// A chain that an older version kept is neither read nor begun anew beside.
#[test]
fn an_older_versions_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chain.redb"), b"redb").unwrap();
    let error = Chain::open(folder.path(), genesis(&keys(3))).unwrap_err();
    assert!(error.to_string().contains("--data folder"), "{error}");
    assert!(!folder.path().join("blocks.redb").exists());
}
