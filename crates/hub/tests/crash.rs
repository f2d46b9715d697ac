//! Whenever the process that writes is killed: a blob is whole or absent, a change of a repository is made or not.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use isobit_hub::{BlobStore, FileEntry, RepoName, Repos, Revision};
use isobit_numerics::rng::Rng;

const CHILD: &str = "ISOBIT_CRASH_DIR";

fn repo() -> RepoName {
    "isobit/crash".parse().unwrap()
}

/// Not a test of its own: the process that is killed. It does nothing unless the test below starts it.
#[test]
fn writer() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = std::path::Path::new(&dir);
    let blobs = BlobStore::open(&dir.join("blobs")).unwrap();
    let repos = Repos::open(&dir.join("repos.redb")).unwrap();
    let _ = repos.create(&repo()); // from the second process on it is there
    println!("ready");
    for i in 0u64.. {
        let mut rng = Rng::new(i, u64::from(std::process::id()));
        let bytes: Vec<u8> = (0..rng.below(400_000)).map(|_| rng.next_u32() as u8).collect();
        let hash =
            if i % 2 == 0 { blobs.put(&bytes).unwrap() } else { blobs.put_reader(&bytes[..]).unwrap().0 };
        let parent = repos.revision(&repo(), "main").ok().map(|(id, _)| id);
        let file = FileEntry { hash, size: bytes.len() as u64 };
        let revision = Revision { parent, model: None, files: BTreeMap::from([("blob".to_owned(), file)]) };
        repos.commit(&repo(), "main", &revision, &blobs).unwrap();
    }
}

#[test]
fn everything_is_whole_after_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::new(7, 0);
    let (mut depth, mut leftovers) = (0, 0);
    for _ in 0..25 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Killed at a random time after it has begun to write, not while the process starts.
        let mut out = child.stdout.take().unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"ready\n") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "the writer ended by itself");
            seen.push(byte[0]);
        }
        std::thread::sleep(Duration::from_micros(rng.below(60_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();

        leftovers += std::fs::read_dir(dir.path().join("blobs/incoming")).unwrap().count();
        let blobs = BlobStore::open(&dir.path().join("blobs")).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("blobs/incoming")).unwrap().count(), 0);
        for hash in blobs.list().unwrap() {
            blobs.check(&hash).unwrap();
        }
        let repos = Repos::open(&dir.path().join("repos.redb")).unwrap();
        // Every revision back to the first is there with its blob, and none was lost.
        let mut at = repos.revision(&repo(), "main").ok();
        let mut length = 0;
        while let Some((_, revision)) = at {
            let file = revision.files["blob"];
            assert_eq!(blobs.length(&file.hash).unwrap(), file.size);
            length += 1;
            at = revision.parent.map(|p| repos.revision(&repo(), &p.to_string()).unwrap());
        }
        assert!(length >= depth, "committed revisions are gone");
        depth = length;
    }
    assert!(depth > 0, "the writer never committed");
    println!("{depth} revisions, {leftovers} interrupted writes");
}
