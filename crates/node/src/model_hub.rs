//! The model hub as OpenGradient's SDK speaks to it: login and refresh in Firebase's form, models, versions and files. A version is a
//! branch of a repository `owner/name`; an ONNX file that is uploaded is checked, stored in canonical form and published on
//! the ledger under its CID, so that what `upload` returns is what `infer` takes.

use std::fs::File;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use alloy_primitives::B256;
use cid::Cid;
use cid::multihash::Multihash;
use isobit_graph::ModelObject;
use isobit_hub::{AccountError, Accounts, FileEntry, RepoError, RepoName, Repos, Revision, Tokens};
use isobit_proof::Key;
use isobit_tensor::Hash;
use serde_json::{Value, json};

use crate::{Client, Gateway, Local, NodeError, publish_model};

/// Multicodec codes of raw bytes and of BLAKE3.
const RAW: u64 = 0x55;
const BLAKE3: u64 = 0x1e;
/// Longest ONNX file that is published at upload, in bytes.
const MAX_ONNX: u64 = 2 << 30;
/// Where a version's notes and a model's description are among the files.
const NOTES: &str = ".isobit/notes.txt";
const DESCRIPTION: &str = "README.md";

/// Models of people with accounts.
pub struct ModelHub {
    pub(crate) accounts: Accounts,
    repos: Repos,
    /// Publishes, and pays the gas for it.
    key: Key,
    /// One change at a time.
    turn: Mutex<()>,
}

impl std::fmt::Debug for ModelHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ModelHub")
    }
}

/// Why a request is refused: status of HTTP, and text.
#[derive(Debug)]
pub(crate) struct Refusal(pub(crate) u16, pub(crate) String);

impl From<NodeError> for Refusal {
    fn from(e: NodeError) -> Self {
        match e {
            NodeError::Refused(_) | NodeError::Malformed(_) | NodeError::Model(_) => Self(422, e.to_string()),
            NodeError::Absent { .. } => Self(404, e.to_string()),
            e => Self(503, e.to_string()), // the SDK does not show the text of a 500
        }
    }
}

impl From<RepoError> for Refusal {
    fn from(e: RepoError) -> Self {
        let status = match e {
            RepoError::NoRepo(_) | RepoError::NoRevision { .. } => 404,
            RepoError::Exists(_) | RepoError::Conflict { .. } => 409,
            RepoError::Database(_) => 503,
            _ => 422,
        };
        Self(status, e.to_string())
    }
}

impl From<AccountError> for Refusal {
    fn from(e: AccountError) -> Self {
        Self(if matches!(e, AccountError::Database(_)) { 503 } else { 401 }, e.to_string())
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The address of a file as IPFS has it: CIDv1 of its bytes, raw, BLAKE3.
fn cid_of(hash: &Hash) -> String {
    let multihash = Multihash::<64>::wrap(BLAKE3, hash.as_bytes()).expect("32 bytes fit");
    Cid::new_v1(RAW, multihash).to_string()
}

/// Login and refresh answer in Firebase's words.
pub(crate) fn firebase_error(e: &AccountError) -> (u16, Value) {
    let (code, message) = match e {
        AccountError::Wrong => (400, "INVALID_LOGIN_CREDENTIALS"),
        AccountError::TooMany => (400, "TOO_MANY_ATTEMPTS_TRY_LATER"),
        AccountError::Token => (400, "INVALID_REFRESH_TOKEN"),
        AccountError::Exists(_) => (400, "EMAIL_EXISTS"),
        AccountError::Invalid(_) => (400, "INVALID_EMAIL"),
        _ => (503, "INTERNAL"),
    };
    let message = format!("{message} : {e}");
    let errors = json!([{ "message": message, "domain": "global", "reason": "invalid" }]);
    (code, json!({ "error": { "code": code, "message": message, "errors": errors } }))
}

pub(crate) fn logged_in(tokens: &Tokens, email: &str) -> Value {
    json!({
        "kind": "identitytoolkit#VerifyPasswordResponse", "localId": tokens.name, "email": email,
        "displayName": tokens.name, "idToken": tokens.access, "registered": true,
        "refreshToken": tokens.refresh, "expiresIn": isobit_hub::ACCESS_TIME.to_string(),
    })
}

pub(crate) fn refreshed(tokens: &Tokens) -> Value {
    json!({
        "access_token": tokens.access, "id_token": tokens.access, "refresh_token": tokens.refresh,
        "expires_in": isobit_hub::ACCESS_TIME.to_string(), "token_type": "Bearer", "user_id": tokens.name,
        "project_id": "isobit",
    })
}

/// `1.00`, then `1.01`, and `2.00` for a major one.
fn next_version(before: &[(u32, u32)], is_major: bool) -> (u32, u32) {
    match before.iter().max() {
        None => (1, 0),
        Some((major, _)) if is_major => (major + 1, 0),
        Some((major, minor)) => (*major, minor + 1),
    }
}

fn version_of(branch: &str) -> Option<(u32, u32)> {
    let (major, minor) = branch.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

impl ModelHub {
    /// Opens the hub in a folder. What is published is published by this key.
    pub fn open(folder: &Path, key: Key) -> Result<Self, NodeError> {
        let fail = |e: &dyn std::fmt::Display| NodeError::Store(format!("{}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(|e| fail(&e))?;
        let accounts = Accounts::open(&folder.join("accounts.redb")).map_err(|e| fail(&e))?;
        let repos = Repos::open(&folder.join("repos.redb")).map_err(|e| fail(&e))?;
        Ok(Self { accounts, repos, key, turn: Mutex::new(()) })
    }

    /// The user's own repository of this name, or the one other of this name.
    fn find(&self, user: &str, name: &str) -> Result<RepoName, Refusal> {
        let own: RepoName = format!("{user}/{name}").parse()?;
        let all = self.repos.list()?;
        if all.contains(&own) {
            return Ok(own);
        }
        let mut others = all.into_iter().filter(|r| r.as_str().ends_with(&format!("/{name}")));
        match (others.next(), others.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(Refusal(409, format!("several people have a model {name}"))),
            _ => Err(Refusal(404, format!("there is no model {name}; create it first"))),
        }
    }

    /// Makes a model; its description is its README.
    pub(crate) fn create(
        &self,
        local: &Local,
        user: &str,
        name: &str,
        about: &str,
    ) -> Result<Value, Refusal> {
        let repo: RepoName = format!("{user}/{name}").parse()?;
        self.repos.create(&repo)?;
        let mut revision = Revision::default();
        if !about.is_empty() {
            let hash = local.blobs.put(about.as_bytes()).map_err(NodeError::from)?;
            revision.files.insert(DESCRIPTION.into(), FileEntry { hash, size: about.len() as u64 });
        }
        self.repos.commit(&repo, "main", &revision, &local.blobs)?;
        Ok(json!({ "name": name, "owner": user, "description": about }))
    }

    /// Makes a version of a model.
    pub(crate) fn version(
        &self,
        local: &Local,
        user: &str,
        name: &str,
        notes: &str,
        is_major: bool,
    ) -> Result<Value, Refusal> {
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let repo = self.own(user, name)?;
        let before: Vec<_> = self.repos.branches(&repo)?.iter().filter_map(|(b, _)| version_of(b)).collect();
        let (major, minor) = next_version(&before, is_major);
        let version = format!("{major}.{minor:02}");
        let mut revision = Revision::default();
        if !notes.is_empty() {
            let hash = local.blobs.put(notes.as_bytes()).map_err(NodeError::from)?;
            revision.files.insert(NOTES.into(), FileEntry { hash, size: notes.len() as u64 });
        }
        self.repos.commit(&repo, &version, &revision, &local.blobs)?;
        Ok(json!({ "versionString": version, "notes": notes }))
    }

    /// The user's own model: nobody else can change it.
    fn own(&self, user: &str, name: &str) -> Result<RepoName, Refusal> {
        let repo = self.find(user, name)?;
        if repo.owner() == user {
            Ok(repo)
        } else {
            Err(Refusal(403, format!("model {name} belongs to {}", repo.owner())))
        }
    }

    /// Puts a file into a version. An ONNX file is published, or refused with the reason.
    pub(crate) fn upload(
        &self,
        local: &Local,
        user: &str,
        (name, version): (&str, &str),
        path: &str,
        file: File,
    ) -> Result<Value, Refusal> {
        let repo = self.own(user, name)?;
        self.repos.revision(&repo, version)?;
        let (hash, size) = local.blobs.put_reader(file).map_err(NodeError::from)?;
        let is_onnx = path.to_ascii_lowercase().ends_with(".onnx");
        let published = if is_onnx { Some(self.publish(local, &hash, size)?) } else { None };
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let (parent, mut revision) = self.repos.revision(&repo, version)?;
        revision.parent = Some(parent);
        revision.files.insert(path.to_owned(), FileEntry { hash, size });
        revision.model = published.as_ref().map(|p| p.0).or(revision.model);
        self.repos.commit(&repo, version, &revision, &local.blobs)?;
        let cid = published.as_ref().map_or_else(|| cid_of(&hash), |p| p.1.clone());
        Ok(json!({ "ipfsCid": cid, "size": size, "name": path, "model": published.map(|p| p.0.to_string()) }))
    }

    /// Publishes an ONNX file: the model's address, and what it can be asked for by.
    fn publish(&self, local: &Local, file: &Hash, size: u64) -> Result<(Hash, String), Refusal> {
        if size > MAX_ONNX {
            return Err(Refusal(
                413,
                format!("an ONNX file of {size} bytes; at most {MAX_ONNX} can be uploaded so"),
            ));
        }
        let cid = cid_of(file);
        let bytes = local.blobs.get(file).map_err(NodeError::from)?;
        let refused =
            |e: &dyn std::fmt::Display| Refusal(422, format!("this ONNX file cannot be executed: {e}"));
        let model = isobit_graph::from_onnx_bytes(&bytes).map_err(|e| refused(&e))?;
        if let Some(issue) = isobit_runtime::check(&model).first() {
            return Err(refused(&format!("{}: {}", issue.node, issue.error)));
        }
        let object = ModelObject::from_model(&model).map_err(|e| refused(&e))?;
        let address = publish_model(local, &object)?;
        let _turn = self.turn.lock().unwrap_or_else(|e| e.into_inner());
        let id = B256::from(address.0);
        let is_known = local.chain.head().model(id).is_some();
        Client::new(local, self.key.clone())?.register(&object, &cid)?;
        // A model that was published in another file has another name: its address says what it is.
        let is_named = !is_known || local.model_named(&cid)? == Some(id);
        Ok((address, if is_named { cid } else { id.to_string() }))
    }

    /// The files of a version.
    pub(crate) fn files(&self, user: &str, name: &str, version: &str) -> Result<Value, Refusal> {
        let repo = self.find(user, name)?;
        let (_, revision) = self.repos.revision(&repo, version)?;
        let files = revision.files.iter().filter(|(path, _)| path.as_str() != NOTES);
        let files =
            files.map(|(path, f)| json!({ "name": path, "size": f.size, "ipfsCid": cid_of(&f.hash) }));
        Ok(files.collect())
    }

    /// All models, and the versions of each.
    pub(crate) fn models(&self) -> Result<Value, Refusal> {
        let one = |repo: RepoName| {
            let versions: Vec<String> = self
                .repos
                .branches(&repo)?
                .into_iter()
                .map(|(b, _)| b)
                .filter(|b| version_of(b).is_some())
                .collect();
            let name = repo.as_str().split_once('/').map_or("", |(_, name)| name).to_owned();
            Ok(json!({ "name": name, "owner": repo.owner(), "versions": versions }))
        };
        self.repos.list()?.into_iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_follow_each_other() {
        assert_eq!(next_version(&[], false), (1, 0));
        assert_eq!(next_version(&[], true), (1, 0));
        assert_eq!(next_version(&[(1, 0), (1, 9)], false), (1, 10));
        assert_eq!(next_version(&[(1, 7), (2, 3), (1, 9)], true), (3, 0));
        assert_eq!(version_of("2.07"), Some((2, 7)));
        assert_eq!(version_of("main"), None);
    }

    /// The empty file's CID, computed from the specification with another program.
    #[test]
    fn cids_are_what_ipfs_has() {
        assert_eq!(cid_of(&Hash::of(b"")), "bafkr4ifpcne3t5pzugtkaqcn5i3nzskjtpfslsnnyejlpte2spfoihzsmi");
    }
}
