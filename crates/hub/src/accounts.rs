//! People who may write to repositories: an e-mail address, a password, and tokens that stand for both for a while.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use argon2::password_hash::{
    PasswordHash, PasswordHasher, PasswordVerifier, SaltString, rand_core::OsRng, rand_core::RngCore,
};
use argon2::{Algorithm, Argon2, Version};
use isobit_tensor::Hash;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

/// E-mail address to name and password hash.
const USERS: TableDefinition<'_, &str, (&str, &str)> = TableDefinition::new("users");
/// Name to e-mail address.
const NAMES: TableDefinition<'_, &str, &str> = TableDefinition::new("names");
/// BLAKE3 of a token to e-mail address, end (seconds since 1970), and whether it is for refreshing.
const TOKENS: TableDefinition<'_, [u8; 32], (&str, u64, bool)> = TableDefinition::new("tokens");

/// How long an access token and a refresh token are good, in seconds.
pub const ACCESS_TIME: u64 = 3_600;
const REFRESH_TIME: u64 = 90 * 24 * 3_600;
/// Wrong passwords of an address after which it has to wait, and for how long, in seconds.
const ATTEMPTS: (u32, u64) = (5, 60);
/// Most addresses whose wrong passwords are counted.
const MAX_COUNTED: usize = 10_000;
/// Longest e-mail address and password, in bytes.
const MAX_TEXT: usize = 254;

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// No such address, or another password.
    #[error("no account has this e-mail address and password")]
    Wrong,
    /// Too many wrong passwords.
    #[error("too many wrong passwords; try again in a minute")]
    TooMany,
    /// The address or the name has an account.
    #[error("there is an account of {0} already")]
    Exists(String),
    /// An address, name or password that cannot be.
    #[error("{0}")]
    Invalid(&'static str),
    /// The token is unknown, or its time is over.
    #[error("the token is not valid any more; log in again")]
    Token,
    /// The database.
    #[error("the accounts' database: {0}")]
    Database(String),
}

fn fail(e: impl std::fmt::Display) -> AccountError {
    AccountError::Database(e.to_string())
}

/// Tokens after a login.
#[derive(Clone)]
pub struct Tokens {
    /// For requests.
    pub access: String,
    /// For new tokens.
    pub refresh: String,
    /// Whose they are.
    pub name: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens of {}", self.name)
    }
}

/// All accounts of a hub. Passwords are kept as Argon2id hashes, tokens as hashes: who reads the database can be nobody.
pub struct Accounts {
    database: Database,
    /// Wrong passwords by address: how many, and when the first was.
    wrong: Mutex<BTreeMap<String, (u32, u64)>>,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accounts")
    }
}

/// 19 MiB, two passes: OWASP's least for Argon2id.
fn argon() -> Argon2<'static> {
    let params = argon2::Params::new(19 * 1024, 2, 1, None).expect("these are in range");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn token() -> String {
    let mut bytes = [0u8; 32];
    OsRng.fill_bytes(&mut bytes);
    Hash(bytes).to_string()
}

impl Accounts {
    /// Opens (or makes) the database. One process at a time can have it open.
    pub fn open(path: &Path) -> Result<Self, AccountError> {
        let database = Database::create(path).map_err(fail)?;
        let write = database.begin_write().map_err(fail)?;
        write.open_table(USERS).map_err(fail)?;
        write.open_table(NAMES).map_err(fail)?;
        write.open_table(TOKENS).map_err(fail)?;
        write.commit().map_err(fail)?;
        Ok(Self { database, wrong: Mutex::default() })
    }

    /// Makes an account. The name is the owner of its repositories.
    pub fn add(&self, email: &str, name: &str, password: &str) -> Result<(), AccountError> {
        let is_email = email.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.'));
        if !is_email || email.len() > MAX_TEXT || email.chars().any(|c| c.is_control() || c == ' ') {
            return Err(AccountError::Invalid("that is no e-mail address"));
        }
        if format!("{name}/x").parse::<crate::RepoName>().is_err() {
            return Err(AccountError::Invalid(
                "a name has 1 to 96 letters, digits, -, _ and ., as at Hugging Face",
            ));
        }
        if !(8..=MAX_TEXT).contains(&password.len()) {
            return Err(AccountError::Invalid("a password has at least 8 characters"));
        }
        let salt = SaltString::generate(&mut OsRng);
        let hash = argon().hash_password(password.as_bytes(), &salt).map_err(fail)?.to_string();
        let write = self.database.begin_write().map_err(fail)?;
        {
            let (mut users, mut names) =
                (write.open_table(USERS).map_err(fail)?, write.open_table(NAMES).map_err(fail)?);
            if users.get(email).map_err(fail)?.is_some() {
                return Err(AccountError::Exists(email.to_owned()));
            }
            if names.get(name).map_err(fail)?.is_some() {
                return Err(AccountError::Exists(name.to_owned()));
            }
            users.insert(email, (name, hash.as_str())).map_err(fail)?;
            names.insert(name, email).map_err(fail)?;
        }
        write.commit().map_err(fail)
    }

    /// Lets somebody in, at a time in seconds since 1970.
    pub fn login(&self, email: &str, password: &str, now: u64) -> Result<Tokens, AccountError> {
        let lock = || self.wrong.lock().unwrap_or_else(|e| e.into_inner());
        if lock().get(email).is_some_and(|(n, since)| *n >= ATTEMPTS.0 && now < since + ATTEMPTS.1) {
            return Err(AccountError::TooMany);
        }
        let found = {
            let read = self.database.begin_read().map_err(fail)?;
            let users = read.open_table(USERS).map_err(fail)?;
            let row = users.get(email).map_err(fail)?;
            row.map(|r| (r.value().0.to_owned(), r.value().1.to_owned()))
        };
        // Without an account the work is the same, so that the time does not tell.
        let (name, hash) = found.unwrap_or_default();
        let known = PasswordHash::new(&hash).ok();
        let good = match &known {
            Some(hash) if password.len() <= MAX_TEXT => {
                argon().verify_password(password.as_bytes(), hash).is_ok()
            }
            _ => {
                let salt = SaltString::generate(&mut OsRng);
                let _ = argon().hash_password(b"nobody's", &salt); // for the time it takes
                false
            }
        };
        let mut wrong = lock();
        if !good {
            if wrong.len() >= MAX_COUNTED {
                wrong.retain(|_, (_, since)| now < *since + ATTEMPTS.1);
            }
            if wrong.len() < MAX_COUNTED {
                let entry = wrong.entry(email.to_owned()).or_insert((0, now));
                *entry = if now < entry.1 + ATTEMPTS.1 { (entry.0 + 1, entry.1) } else { (1, now) };
            }
            return Err(AccountError::Wrong);
        }
        wrong.remove(email);
        drop(wrong);
        self.issue(email, name, now)
    }

    fn issue(&self, email: &str, name: String, now: u64) -> Result<Tokens, AccountError> {
        let tokens = Tokens { access: token(), refresh: token(), name };
        let write = self.database.begin_write().map_err(fail)?;
        {
            let mut table = write.open_table(TOKENS).map_err(fail)?;
            table.retain(|_, (_, until, _)| until > now).map_err(fail)?;
            let rows = [(&tokens.access, ACCESS_TIME, false), (&tokens.refresh, REFRESH_TIME, true)];
            for (token, time, refreshes) in rows {
                table.insert(Hash::of(token.as_bytes()).0, (email, now + time, refreshes)).map_err(fail)?;
            }
        }
        write.commit().map_err(fail)?;
        Ok(tokens)
    }

    fn holder(&self, token: &str, refreshes: bool, now: u64) -> Result<(String, String), AccountError> {
        let read = self.database.begin_read().map_err(fail)?;
        let table = read.open_table(TOKENS).map_err(fail)?;
        let row = table.get(Hash::of(token.as_bytes()).0).map_err(fail)?.ok_or(AccountError::Token)?;
        let (email, until, kind) = row.value();
        if until <= now || kind != refreshes {
            return Err(AccountError::Token);
        }
        let users = read.open_table(USERS).map_err(fail)?;
        let user = users.get(email).map_err(fail)?.ok_or(AccountError::Token)?;
        Ok((email.to_owned(), user.value().0.to_owned()))
    }

    /// New tokens for a refresh token, which is good no more.
    pub fn refresh(&self, token: &str, now: u64) -> Result<Tokens, AccountError> {
        let (email, name) = self.holder(token, true, now)?;
        let write = self.database.begin_write().map_err(fail)?;
        write.open_table(TOKENS).map_err(fail)?.remove(Hash::of(token.as_bytes()).0).map_err(fail)?;
        write.commit().map_err(fail)?;
        self.issue(&email, name, now)
    }

    /// The name of whoever has this access token.
    pub fn who(&self, token: &str, now: u64) -> Result<String, AccountError> {
        Ok(self.holder(token, false, now)?.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_tokens_and_their_ends() {
        let dir = tempfile::tempdir().unwrap();
        let accounts = Accounts::open(&dir.path().join("a")).unwrap();
        accounts.add("a@b.org", "alice", "correct horse").unwrap();
        for (email, name, password) in [
            ("a@b.org", "bob", "correct horse"),
            ("c@b.org", "alice", "correct horse"),
            ("nobody", "bob", "correct horse"),
            ("c@b.org", "b/b", "correct horse"),
            ("c@b.org", "bob", "short"),
        ] {
            accounts.add(email, name, password).unwrap_err();
        }
        let tokens = accounts.login("a@b.org", "correct horse", 1_000).unwrap();
        assert_eq!(accounts.who(&tokens.access, 1_001).unwrap(), "alice");
        assert!(matches!(accounts.who(&tokens.access, 1_000 + ACCESS_TIME), Err(AccountError::Token)));
        assert!(matches!(accounts.who(&tokens.refresh, 1_001), Err(AccountError::Token)));
        assert!(matches!(accounts.refresh(&tokens.access, 1_001), Err(AccountError::Token)));
        let next = accounts.refresh(&tokens.refresh, 5_000).unwrap();
        assert_eq!(accounts.who(&next.access, 5_001).unwrap(), "alice");
        assert!(matches!(accounts.refresh(&tokens.refresh, 5_000), Err(AccountError::Token)), "once");
        // Nothing of it is in the file.
        let file = std::fs::read(dir.path().join("a")).unwrap();
        for secret in ["correct horse", &next.access, &next.refresh] {
            assert!(!file.windows(secret.len()).any(|w| w == secret.as_bytes()));
        }
        for _ in 0..ATTEMPTS.0 {
            assert!(matches!(accounts.login("a@b.org", "wrong", 6_000), Err(AccountError::Wrong)));
        }
        assert!(matches!(accounts.login("a@b.org", "correct horse", 6_001), Err(AccountError::TooMany)));
        accounts.login("a@b.org", "correct horse", 6_000 + ATTEMPTS.1).unwrap();
        assert!(matches!(accounts.login("z@b.org", "correct horse", 1), Err(AccountError::Wrong)));
    }
}
