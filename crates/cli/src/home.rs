//! Where things are by default: the data folder, the wallet, the network.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use isobit_node::Remote;
use isobit_proof::Key;
use zeroize::Zeroizing;

/// Address and port that `isobit up` listens on.
pub(crate) const LISTEN: &str = "127.0.0.1:7470";

/// `--data`, or ISOBIT_HOME, or `~/.isobit`.
pub(crate) fn data(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let home = std::env::var_os("HOME").or_else(|| std::env::var_os("USERPROFILE"));
    Ok(PathBuf::from(home.context("no home folder; give --data")?).join(".isobit"))
}

/// Where packed weights are kept, if there is a data folder.
pub(crate) fn packed(given: Option<&Path>) -> Option<PathBuf> {
    Some(data(given).ok()?.join("packed"))
}

/// Which network to talk to, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Network {
    /// The network's URL.
    #[arg(long, global = true, env = "ISOBIT_URL", default_value_t = format!("http://{LISTEN}"), value_name = "URL")]
    pub(crate) url: String,
    /// Data folder, for the wallet; ~/.isobit unless given.
    #[arg(long, global = true, env = "ISOBIT_HOME", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Key file; the data folder's wallet unless given.
    #[arg(long, global = true, env = "ISOBIT_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) password: Password,
}

/// Where the password of key files comes from.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Password {
    /// File with the password of encrypted keys; asked for on a terminal unless given.
    #[arg(long, global = true, env = "ISOBIT_PASSWORD_FILE", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Password {
    /// The password, if one was given; only the line's end is taken off.
    pub(crate) fn given(&self) -> Result<Option<Zeroizing<String>>> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the password file {}", path.display()))?;
        let text = Zeroizing::new(text);
        let password = text.lines().next().unwrap_or("");
        anyhow::ensure!(!password.is_empty(), "the password file {} is empty", path.display());
        Ok(Some(Zeroizing::new(password.to_owned())))
    }

    /// The password of a key file, if it needs one.
    fn of(&self, key: &Path) -> Result<Option<Zeroizing<String>>> {
        match self.given()? {
            None if key.exists() && Key::is_encrypted(key)? && std::io::stdin().is_terminal() => {
                let asked = rpassword::prompt_password(format!("Password of {}: ", key.display()))?;
                Ok(Some(Zeroizing::new(asked)))
            }
            given => Ok(given),
        }
    }

    /// A password for a new key file; asked for twice on a terminal unless given.
    pub(crate) fn new_one(&self) -> Result<Zeroizing<String>> {
        if let Some(given) = self.given()? {
            return Ok(given);
        }
        anyhow::ensure!(
            std::io::stdin().is_terminal(),
            "a key is encrypted: give a password with --password-file or ISOBIT_PASSWORD_FILE, or --plain to keep it as it is"
        );
        let first = Zeroizing::new(rpassword::prompt_password("New password: ")?);
        let second = Zeroizing::new(rpassword::prompt_password("Again: ")?);
        anyhow::ensure!(*first == *second, "the two are not the same");
        anyhow::ensure!(!first.is_empty(), "an empty password protects nothing; give --plain to have none");
        Ok(first)
    }

    /// The key in a file, which is made if it does not exist.
    pub(crate) fn load_or_generate(&self, path: &Path) -> Result<Key> {
        let password = self.of(path)?;
        Ok(Key::load_or_generate(path, password.as_deref().map(String::as_str))?)
    }
}

impl Network {
    /// The network.
    pub(crate) fn gateway(&self) -> Remote {
        Remote::new(&self.url)
    }

    /// The key's file.
    pub(crate) fn key_path(&self) -> Result<PathBuf> {
        match &self.key {
            Some(path) => Ok(path.clone()),
            None => Ok(data(self.data.as_deref())?.join("keys").join("wallet.key")),
        }
    }

    /// The key.
    pub(crate) fn key(&self) -> Result<Key> {
        let path = self.key_path()?;
        let password = self.password.of(&path)?;
        Key::load(&path, password.as_deref().map(String::as_str))
            .with_context(|| "no usable key; make one with `isobit wallet new`, or give --key")
    }
}
