//! A blob is whole or absent, whenever the process that writes it is killed.

use std::process::{Command, Stdio};
use std::time::Duration;

use isobit_hub::BlobStore;
use isobit_numerics::rng::Rng;

const CHILD: &str = "ISOBIT_CRASH_DIR";

/// Not a test of its own: the process that is killed. It does nothing unless the test below starts it.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let store = BlobStore::open(dir.as_ref()).unwrap();
    for i in 0u64.. {
        let mut rng = Rng::new(i, u64::from(std::process::id()));
        let blob: Vec<u8> = (0..rng.below(400_000)).map(|_| rng.next_u32() as u8).collect();
        store.put(&blob).unwrap();
    }
}

#[test]
fn every_blob_is_whole_after_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(7, 0);
    for _ in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(30 + rng.below(120) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        for hash in store.list().unwrap() {
            store.get(&hash).unwrap();
        }
    }
    assert!(!BlobStore::open(dir.path()).unwrap().list().unwrap().is_empty(), "the writer never wrote");
}
