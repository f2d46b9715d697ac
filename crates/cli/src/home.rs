//! Where things are by default: the data folder, the wallet, the network.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use isobit_node::Remote;
use isobit_proof::Key;

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

/// Which network to talk to, and as whom.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Network {
    /// The network's URL.
    #[arg(long, env = "ISOBIT_URL", default_value_t = format!("http://{LISTEN}"), value_name = "URL")]
    pub(crate) url: String,
    /// Data folder, for the wallet; ~/.isobit unless given.
    #[arg(long, env = "ISOBIT_HOME", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Key file; the data folder's wallet unless given.
    #[arg(long, env = "ISOBIT_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
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
        Key::load(&path).with_context(|| "no usable key; make one with `isobit wallet new`, or give --key")
    }
}
