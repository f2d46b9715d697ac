//! Repositories: names for people, with revisions that name a model and its files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use isobit_tensor::Hash;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::BlobStore;

/// Repository to nothing.
const REPOS: TableDefinition<'_, &str, ()> = TableDefinition::new("repos");
/// Repository and branch to the revision.
const BRANCHES: TableDefinition<'_, (&str, &str), [u8; 32]> = TableDefinition::new("branches");
/// Repository and id to the revision's encoding.
const REVISIONS: TableDefinition<'_, (&str, [u8; 32]), &[u8]> = TableDefinition::new("revisions");

const MAGIC: &[u8; 8] = b"isobitR1";
/// Most files of a revision, and longest path.
const MAX_FILES: usize = 10_000;
const MAX_PATH: usize = 1024;
/// Longest part of a repository's name, and longest branch name, as at Hugging Face.
const MAX_NAME: usize = 96;

/// A repository cannot be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepoError {
    /// A name that no repository, branch or file can have.
    #[error("'{name}' is no {what}; {hint}")]
    Name {
        /// Of what.
        what: &'static str,
        /// The name.
        name: String,
        /// What it must be.
        hint: &'static str,
    },
    /// There is none of this name.
    #[error("there is no repository {0}")]
    NoRepo(RepoName),
    /// There is one of this name.
    #[error("there is a repository {0} already")]
    Exists(RepoName),
    /// Neither a branch nor a revision of the repository.
    #[error("{repo} has no branch or revision '{revision}'")]
    NoRevision {
        /// The repository.
        repo: RepoName,
        /// What was asked for.
        revision: String,
    },
    /// Somebody else was faster.
    #[error("branch {branch} of {repo} has moved on; read it again and repeat the change on top of it")]
    Conflict {
        /// The repository.
        repo: RepoName,
        /// The branch.
        branch: String,
    },
    /// A file's blob is not in the store, or not of the length given.
    #[error("file {path}: there is no blob {hash} of {size} bytes; upload it first")]
    NoBlob {
        /// The file.
        path: String,
        /// Its blob.
        hash: Hash,
        /// Its length.
        size: u64,
    },
    /// Too many files.
    #[error("a revision has at most {MAX_FILES} files")]
    TooManyFiles,
    /// The database.
    #[error("the repositories' database: {0}")]
    Database(String),
}

fn fail(e: impl fmt::Display) -> RepoError {
    RepoError::Database(e.to_string())
}

/// `owner/name`, each part as Hugging Face allows it: 1 to 96 of letters, digits, `-`, `_`, `.`; no `-` or `.` at either end,
/// no `--`, no `..`, and not `.git` at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RepoName(String);

impl RepoName {
    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the slash.
    pub fn owner(&self) -> &str {
        self.0.split_once('/').map_or("", |(owner, _)| owner)
    }
}

impl fmt::Display for RepoName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepoName {
    type Err = RepoError;

    fn from_str(text: &str) -> Result<Self, RepoError> {
        match text.split_once('/') {
            Some((owner, name)) if is_name(owner) && is_name(name) => Ok(Self(text.to_owned())),
            _ => Err(RepoError::Name {
                what: "repository name",
                name: text.chars().take(200).collect(),
                hint: "it is owner/name, each of 1 to 96 letters, digits, '-', '_' or '.', as at Hugging Face",
            }),
        }
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MAX_NAME).contains(&text.len())
        && text.chars().all(allowed)
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
        && !text.contains("--")
        && !text.contains("..")
        && !text.ends_with(".git")
}

/// A file of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry {
    /// Its bytes' blob.
    pub hash: Hash,
    /// Its length in bytes.
    pub size: u64,
}

/// What a repository held at some time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Revision {
    /// The revision before, if any.
    pub parent: Option<Hash>,
    /// The content address of the model that the files make, if they make one.
    pub model: Option<Hash>,
    /// Files by path.
    pub files: BTreeMap<String, FileEntry>,
}

impl Revision {
    /// BLAKE3 of [`Revision::encode`].
    pub fn id(&self) -> Hash {
        Hash::of(&self.encode())
    }

    /// `isobitR1`, parent and model (32 bytes each, zero for none), then for each file in ascending order of path the path's
    /// length (u16 little-endian), the path in UTF-8, its hash and its size (u64 little-endian).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        for hash in [self.parent, self.model] {
            out.extend_from_slice(hash.unwrap_or_default().as_bytes());
        }
        for (path, file) in &self.files {
            out.extend_from_slice(&(path.len() as u16).to_le_bytes());
            out.extend_from_slice(path.as_bytes());
            out.extend_from_slice(file.hash.as_bytes());
            out.extend_from_slice(&file.size.to_le_bytes());
        }
        out
    }

    /// Reads what [`Revision::encode`] writes, and nothing else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (parent, rest) = rest.split_first_chunk::<32>()?;
        let (model, mut rest) = rest.split_first_chunk::<32>()?;
        let some = |hash: &[u8; 32]| (*hash != [0; 32]).then_some(Hash(*hash));
        let mut revision = Self { parent: some(parent), model: some(model), files: BTreeMap::new() };
        while !rest.is_empty() {
            let (length, tail) = rest.split_first_chunk::<2>()?;
            let (path, tail) = tail.split_at_checked(u16::from_le_bytes(*length).into())?;
            let (hash, tail) = tail.split_first_chunk::<32>()?;
            let (size, tail) = tail.split_first_chunk::<8>()?;
            let path = std::str::from_utf8(path).ok().filter(|p| is_path(p))?;
            let ascending = revision.files.last_key_value().is_none_or(|(last, _)| last.as_str() < path);
            if !ascending || revision.files.len() == MAX_FILES {
                return None;
            }
            let file = FileEntry { hash: Hash(*hash), size: u64::from_le_bytes(*size) };
            revision.files.insert(path.to_owned(), file);
            rest = tail;
        }
        Some(revision)
    }
}

/// Relative, of parts between slashes that name something below.
fn is_path(path: &str) -> bool {
    path.len() <= MAX_PATH
        && !path.chars().any(|c| c.is_control() || c == '\\')
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Repositories in one database file. Each change is one transaction: when its call returns it is on disk, and before that
/// nothing of it is, whatever happens to the process.
#[derive(Debug)]
pub struct Repos(Database);

impl Repos {
    /// Opens (or makes) the database. One process at a time can have it open.
    pub fn open(path: &Path) -> Result<Self, RepoError> {
        let repos = Self(Database::create(path).map_err(fail)?);
        repos.change(|write| {
            write.open_table(REPOS).map_err(fail)?;
            write.open_table(BRANCHES).map_err(fail)?;
            write.open_table(REVISIONS).map_err(fail)?;
            Ok(())
        })?;
        Ok(repos)
    }

    /// An error leaves everything as it was.
    fn change<T>(
        &self,
        f: impl FnOnce(&redb::WriteTransaction) -> Result<T, RepoError>,
    ) -> Result<T, RepoError> {
        let mut write = self.0.begin_write().map_err(fail)?;
        write.set_two_phase_commit(true);
        let done = f(&write)?;
        write.commit().map_err(fail)?;
        Ok(done)
    }

    /// Makes an empty repository.
    pub fn create(&self, repo: &RepoName) -> Result<(), RepoError> {
        self.change(|write| {
            let mut repos = write.open_table(REPOS).map_err(fail)?;
            match repos.insert(repo.as_str(), ()).map_err(fail)? {
                Some(_) => Err(RepoError::Exists(repo.clone())),
                None => Ok(()),
            }
        })
    }

    /// Removes a repository with its branches and revisions. Blobs stay.
    pub fn remove(&self, repo: &RepoName) -> Result<(), RepoError> {
        self.change(|write| {
            let name = repo.as_str();
            let mut repos = write.open_table(REPOS).map_err(fail)?;
            if repos.remove(name).map_err(fail)?.is_none() {
                return Err(RepoError::NoRepo(repo.clone()));
            }
            // A branch name is ASCII, so every one is below this.
            let mut branches = write.open_table(BRANCHES).map_err(fail)?;
            branches.retain_in((name, "")..(name, "\u{80}"), |_, _| false).map_err(fail)?;
            let mut revisions = write.open_table(REVISIONS).map_err(fail)?;
            revisions.retain_in((name, [0; 32])..=(name, [0xff; 32]), |_, _| false).map_err(fail)
        })
    }

    /// Every repository, in order of name.
    pub fn list(&self) -> Result<Vec<RepoName>, RepoError> {
        let read = self.0.begin_read().map_err(fail)?;
        let repos = read.open_table(REPOS).map_err(fail)?;
        let names = repos.iter().map_err(fail)?;
        names.map(|entry| entry.map(|(name, _)| RepoName(name.value().to_owned())).map_err(fail)).collect()
    }

    /// Puts a revision on a branch, which is made if need be, and returns its id. The revision's parent must be the branch's
    /// present revision (none for a new branch): so no change is lost. Every file's blob must be in the store.
    pub fn commit(
        &self,
        repo: &RepoName,
        branch: &str,
        revision: &Revision,
        blobs: &BlobStore,
    ) -> Result<Hash, RepoError> {
        if !is_name(branch) {
            let hint = "it has 1 to 96 letters, digits, '-', '_' or '.'";
            return Err(RepoError::Name { what: "branch", name: branch.chars().take(200).collect(), hint });
        }
        if revision.files.len() > MAX_FILES {
            return Err(RepoError::TooManyFiles);
        }
        for (path, &FileEntry { hash, size }) in &revision.files {
            if !is_path(path) {
                let hint = "it is a relative path of at most 1,024 bytes without '.', '..' and empty parts";
                let name = path.chars().take(200).collect();
                return Err(RepoError::Name { what: "file path", name, hint });
            }
            if blobs.length(&hash).ok() != Some(size) {
                return Err(RepoError::NoBlob { path: path.clone(), hash, size });
            }
        }
        let (encoding, id) = (revision.encode(), revision.id());
        self.change(|write| {
            let repos = write.open_table(REPOS).map_err(fail)?;
            if repos.get(repo.as_str()).map_err(fail)?.is_none() {
                return Err(RepoError::NoRepo(repo.clone()));
            }
            let mut branches = write.open_table(BRANCHES).map_err(fail)?;
            let head = branches.insert((repo.as_str(), branch), id.0).map_err(fail)?;
            if head.map(|h| Hash(h.value())) != revision.parent {
                return Err(RepoError::Conflict { repo: repo.clone(), branch: branch.to_owned() });
            }
            let mut revisions = write.open_table(REVISIONS).map_err(fail)?;
            revisions.insert((repo.as_str(), id.0), &encoding[..]).map_err(fail)?;
            Ok(id)
        })
    }

    /// The id and content of a branch's present revision, or of the revision with this id (64 hexadecimal digits).
    pub fn revision(&self, repo: &RepoName, revision: &str) -> Result<(Hash, Revision), RepoError> {
        let read = self.0.begin_read().map_err(fail)?;
        let name = repo.as_str();
        if read.open_table(REPOS).map_err(fail)?.get(name).map_err(fail)?.is_none() {
            return Err(RepoError::NoRepo(repo.clone()));
        }
        let head = read.open_table(BRANCHES).map_err(fail)?.get((name, revision)).map_err(fail)?;
        let id = head.map(|h| Hash(h.value())).or_else(|| revision.parse().ok());
        let absent =
            || RepoError::NoRevision { repo: repo.clone(), revision: revision.chars().take(200).collect() };
        let id = id.ok_or_else(absent)?;
        let found = read.open_table(REVISIONS).map_err(fail)?.get((name, id.0)).map_err(fail)?;
        let found = found.ok_or_else(absent)?;
        let decoded = Revision::decode(found.value()).filter(|r| r.id() == id);
        Ok((id, decoded.ok_or_else(|| fail(format_args!("revision {id} of {repo} is damaged")))?))
    }

    /// The branches of a repository with their present revisions, in order of name.
    pub fn branches(&self, repo: &RepoName) -> Result<Vec<(String, Hash)>, RepoError> {
        let read = self.0.begin_read().map_err(fail)?;
        let name = repo.as_str();
        if read.open_table(REPOS).map_err(fail)?.get(name).map_err(fail)?.is_none() {
            return Err(RepoError::NoRepo(repo.clone()));
        }
        let branches = read.open_table(BRANCHES).map_err(fail)?;
        let range = branches.range((name, "")..(name, "\u{80}")).map_err(fail)?;
        range.map(|e| e.map(|(k, v)| (k.value().1.to_owned(), Hash(v.value()))).map_err(fail)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_numerics::rng::Rng;

    fn name(text: &str) -> RepoName {
        text.parse().unwrap()
    }

    fn files(blobs: &BlobStore, files: &[(&str, &str)]) -> BTreeMap<String, FileEntry> {
        let entry =
            |text: &str| FileEntry { hash: blobs.put(text.as_bytes()).unwrap(), size: text.len() as u64 };
        files.iter().map(|(path, text)| (path.to_string(), entry(text))).collect()
    }

    #[test]
    fn names() {
        for good in ["a/b", "isobit/digits-cnn", "A_1/x.y-z", &format!("{0}/{0}", "n".repeat(96))] {
            assert_eq!(name(good).as_str(), good);
        }
        assert_eq!(name("a/b").owner(), "a");
        let long = format!("a/{}", "n".repeat(97));
        for bad in [
            "", "/", "a", "a/", "/b", "a/b/c", "a/..", "a/.b", "a/b.", "-a/b", "a/b-", "a/b--c", "a/b..c",
            "a/b c", "a/b.git", "a/é", "a/b\0", "../b", &long,
        ] {
            assert!(matches!(bad.parse::<RepoName>(), Err(RepoError::Name { .. })), "{bad}");
        }
        for (path, good) in [
            ("a", true),
            ("model.onnx", true),
            ("a/b/c.bin", true),
            (".gitattributes", true),
            ("é", true),
            ("", false),
            ("/a", false),
            ("a//b", false),
            ("a/", false),
            ("..", false),
            ("a/../b", false),
            ("./a", false),
            ("a\\b", false),
            ("a\nb", false),
        ] {
            assert_eq!(is_path(path), good, "{path}");
        }
    }

    #[test]
    fn revisions_follow_each_other_and_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(&dir.path().join("blobs")).unwrap();
        let path = dir.path().join("repos.redb");
        let repo = name("isobit/digits");
        let first = Revision { files: files(&blobs, &[("README.md", "one")]), ..Revision::default() };
        let second = Revision {
            parent: Some(first.id()),
            model: Some(Hash::of(b"model")),
            files: files(&blobs, &[("README.md", "two"), ("model.onnx", "graph"), ("a/b", "")]),
        };
        {
            let repos = Repos::open(&path).unwrap();
            repos.create(&repo).unwrap();
            repos.create(&name("isobit/digits2")).unwrap();
            assert!(matches!(repos.create(&repo), Err(RepoError::Exists(_))));
            assert_eq!(repos.commit(&repo, "main", &first, &blobs).unwrap(), first.id());
            assert!(matches!(repos.commit(&repo, "main", &first, &blobs), Err(RepoError::Conflict { .. })));
            assert!(matches!(repos.commit(&repo, "new", &second, &blobs), Err(RepoError::Conflict { .. })));
            repos.commit(&repo, "main", &second, &blobs).unwrap();
            repos.commit(&name("isobit/digits2"), "main", &first, &blobs).unwrap();
        }
        let repos = Repos::open(&path).unwrap();
        assert_eq!(repos.list().unwrap(), [repo.clone(), name("isobit/digits2")]);
        assert_eq!(repos.revision(&repo, "main").unwrap(), (second.id(), second.clone()));
        assert_eq!(repos.revision(&repo, &first.id().to_string()).unwrap(), (first.id(), first.clone()));
        assert_eq!(repos.branches(&repo).unwrap(), [("main".to_owned(), second.id())]);
        repos.remove(&repo).unwrap();
        assert!(matches!(repos.revision(&repo, "main"), Err(RepoError::NoRepo(_))));
        assert!(matches!(repos.branches(&repo), Err(RepoError::NoRepo(_))));
        repos.create(&repo).unwrap();
        assert!(matches!(repos.revision(&repo, "main"), Err(RepoError::NoRevision { .. })));
        assert!(matches!(repos.revision(&repo, &first.id().to_string()), Err(RepoError::NoRevision { .. })));
        assert_eq!(
            repos.revision(&name("isobit/digits2"), "main").unwrap().1,
            first,
            "the other is untouched"
        );
    }

    #[test]
    fn refused_commits_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(&dir.path().join("blobs")).unwrap();
        let repos = Repos::open(&dir.path().join("repos.redb")).unwrap();
        let repo = name("a/b");
        let good = Revision { files: files(&blobs, &[("x", "1")]), ..Revision::default() };
        assert!(matches!(repos.commit(&repo, "main", &good, &blobs), Err(RepoError::NoRepo(_))));
        repos.create(&repo).unwrap();
        let with = |path: &str, hash: Hash, size: u64| {
            let mut r = good.clone();
            r.files.insert(path.to_owned(), FileEntry { hash, size });
            r
        };
        let one = Hash::of(b"1");
        assert!(matches!(repos.commit(&repo, "ma in", &good, &blobs), Err(RepoError::Name { .. })));
        for (bad, is_name) in [
            (with("../x", one, 1), true),
            (with(&"p".repeat(1025), one, 1), true),
            (with("y", one, 2), false),
            (with("y", Hash::of(b"absent"), 6), false),
        ] {
            let error = repos.commit(&repo, "main", &bad, &blobs).unwrap_err();
            let expected = if is_name {
                matches!(error, RepoError::Name { .. })
            } else {
                matches!(error, RepoError::NoBlob { .. })
            };
            assert!(expected, "{error}");
        }
        let mut many = good.clone();
        many.files = (0..=MAX_FILES).map(|i| (format!("{i}"), FileEntry { hash: one, size: 1 })).collect();
        assert!(matches!(repos.commit(&repo, "main", &many, &blobs), Err(RepoError::TooManyFiles)));
        assert!(repos.branches(&repo).unwrap().is_empty());
    }

    /// Changed bytes are refused or mean what they encode; never a panic.
    #[test]
    fn decoding_is_total_and_canonical() {
        let file = |n: u8| FileEntry { hash: Hash([n; 32]), size: n.into() };
        let revision = Revision {
            parent: Some(Hash([1; 32])),
            model: None,
            files: [("a/b".to_owned(), file(1)), ("c".to_owned(), file(2))].into(),
        };
        let good = revision.encode();
        assert_eq!(Revision::decode(&good), Some(revision));
        let mut rng = Rng::new(6, 0);
        for _ in 0..50_000 {
            let mut bytes = good.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len());
                bytes[at] = rng.next_u32() as u8;
            }
            if rng.below(4) == 0 {
                bytes.truncate(rng.below(bytes.len()));
            }
            if let Some(decoded) = Revision::decode(&bytes) {
                assert_eq!(decoded.encode(), bytes);
            }
        }
    }
}
