use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use alloy_primitives::{Address, B256, Signature, hex};
use k256::ecdsa::SigningKey;
use k256::elliptic_curve::rand_core::OsRng;
use k256::elliptic_curve::zeroize::Zeroizing;

/// A secp256k1 key. The secret appears in no debug output and is wiped when dropped.
#[derive(Clone)]
pub struct Key(SigningKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.address())
    }
}

/// A key cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Not 32 bytes of hexadecimal, or not below the curve's order.
    #[error("not a secp256k1 secret key: 64 hexadecimal digits, with or without 0x in front")]
    Malformed,
    /// The file.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: String,
        /// The system's words.
        source: std::io::Error,
    },
}

impl Key {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Self {
        Self(SigningKey::random(&mut OsRng))
    }

    /// The key with this secret, in hexadecimal.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, &mut secret[..]).map_err(|_| KeyError::Malformed)?;
        SigningKey::from_slice(&secret[..]).map(Self).map_err(|_| KeyError::Malformed)
    }

    /// Reads a key file as [`Key::save`] writes it.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let fail = |source| KeyError::File { path: path.display().to_string(), source };
        // Longer than any key file; with room for it, so that no part of the secret is left where a buffer was before.
        let mut text = Zeroizing::new(String::with_capacity(1024));
        File::open(path).and_then(|f| f.take(1024).read_to_string(&mut text)).map_err(fail)?;
        Self::from_hex(&text)
    }

    /// Writes the secret in hexadecimal to a new file that only its owner may read (on Unix; elsewhere the folder's rights
    /// decide). **It is not encrypted**: keep the file as you would keep cash. An existing file is never overwritten. When it
    /// returns, the key is on disk.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let fail = |source| KeyError::File { path: path.display().to_string(), source };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(fail)?;
        let secret = Zeroizing::new(<[u8; 32]>::from(self.0.to_bytes()));
        let mut text = Zeroizing::new([b'\n'; 65]);
        hex::encode_to_slice(&secret[..], &mut text[..64]).expect("two digits a byte");
        file.write_all(&text[..]).and_then(|()| file.sync_all()).map_err(fail)
    }

    /// The key in `path`, which is made with a new key if it does not exist.
    pub fn load_or_generate(path: &Path) -> Result<Self, KeyError> {
        if path.exists() {
            return Self::load(path);
        }
        let key = Self::generate();
        key.save(path)?;
        Ok(key)
    }

    /// Its Ethereum address.
    pub fn address(&self) -> Address {
        Address::from_public_key(self.0.verifying_key())
    }

    /// Signs a 32-byte digest: deterministic (RFC 6979), recoverable, low s.
    pub fn sign(&self, digest: B256) -> Signature {
        let (signature, recovery) =
            self.0.sign_prehash_recoverable(digest.as_slice()).expect("a 32-byte digest can be signed");
        Signature::from_signature_and_parity(signature, recovery.is_y_odd())
    }
}

/// Who signed `digest`; `None` for a malformed signature or one with a high s (each signature has one form).
pub(crate) fn recover(digest: B256, signature: &Signature) -> Option<Address> {
    if signature.normalize_s().is_some() {
        return None;
    }
    signature.recover_address_from_prehash(&digest).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_address_and_silent_debug() {
        // The first account of the test mnemonic that Ethereum tools share.
        let secret = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
        let key = Key::from_hex(secret).unwrap();
        assert_eq!(key.address().to_string(), "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266");
        assert!(!format!("{key:?}").contains("ac0974"));
    }

    #[test]
    fn files_round_trip_and_are_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let key = Key::load_or_generate(&path).unwrap();
        assert_eq!(Key::load_or_generate(&path).unwrap().address(), key.address());
        assert!(Key::generate().save(&path).is_err());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "zz").unwrap();
        assert!(Key::load(&path).is_err());
    }

    #[test]
    fn signatures_recover_and_have_one_form() {
        let key = Key::generate();
        let digest = B256::repeat_byte(7);
        let signature = key.sign(digest);
        assert_eq!(recover(digest, &signature), Some(key.address()));
        assert_ne!(recover(B256::repeat_byte(8), &signature), Some(key.address()));
        let n = alloy_primitives::U256::from_str_radix(
            "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141",
            16,
        )
        .unwrap();
        let other = Signature::new(signature.r(), n - signature.s(), !signature.v());
        assert_eq!(recover(digest, &other), None);
    }
}
