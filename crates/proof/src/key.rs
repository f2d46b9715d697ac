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
    /// The file is encrypted.
    #[error("{path} is encrypted; give its password with --password-file or ISOBIT_PASSWORD_FILE")]
    PasswordNeeded {
        /// Which file.
        path: String,
    },
    /// Another password.
    #[error("this is not the password of {path}")]
    WrongPassword {
        /// Which file.
        path: String,
    },
    /// Not a keystore that can be read or written.
    #[error("{path} is no Ethereum keystore of version 3: {why}")]
    Keystore {
        /// Which file.
        path: String,
        /// Why.
        why: String,
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

    /// Reads a key file as [`Key::save`] writes it, or another Ethereum tool's keystore. A password that is not needed is not
    /// looked at.
    pub fn load(path: &Path, password: Option<&str>) -> Result<Self, KeyError> {
        let name = || path.display().to_string();
        let fail = |source| KeyError::File { path: name(), source };
        // Longer than any key file; with room for it, so that no part of the secret is left where a buffer was before.
        let mut text = Zeroizing::new(String::with_capacity(4096));
        File::open(path).and_then(|f| f.take(4096).read_to_string(&mut text)).map_err(fail)?;
        if !text.trim_start().starts_with('{') {
            return Self::from_hex(&text);
        }
        let password = password.ok_or_else(|| KeyError::PasswordNeeded { path: name() })?;
        let secret = Zeroizing::new(eth_keystore::decrypt_key(path, password).map_err(|e| match e {
            eth_keystore::KeystoreError::MacMismatch => KeyError::WrongPassword { path: name() },
            e => KeyError::Keystore { path: name(), why: e.to_string() },
        })?);
        SigningKey::from_slice(&secret).map(Self).map_err(|_| KeyError::Malformed)
    }

    /// Whether a key file is encrypted.
    pub fn is_encrypted(path: &Path) -> Result<bool, KeyError> {
        let fail = |source| KeyError::File { path: path.display().to_string(), source };
        let mut first = [0];
        let read = File::open(path).and_then(|mut f| f.read(&mut first)).map_err(fail)?;
        Ok(read == 1 && first[0] == b'{')
    }

    /// Writes the key to a new file that only its owner may read (on Unix; elsewhere the folder's rights decide): with a
    /// password as an Ethereum keystore (Web3 Secret Storage, version 3, scrypt), which other tools read too; without one as
    /// hexadecimal, which is to be kept as one would keep cash. An existing file is never overwritten. When it returns, the key is
    /// on disk.
    pub fn save(&self, path: &Path, password: Option<&str>) -> Result<(), KeyError> {
        let name = || path.display().to_string();
        let fail = |source| KeyError::File { path: name(), source };
        let secret = Zeroizing::new(<[u8; 32]>::from(self.0.to_bytes()));
        let text = match password {
            None => {
                let mut text = Zeroizing::new(vec![b'\n'; 65]);
                hex::encode_to_slice(&secret[..], &mut text[..64]).expect("two digits a byte");
                text
            }
            Some(password) => {
                let folder = tempfile::tempdir().map_err(fail)?;
                let encrypted =
                    eth_keystore::encrypt_key(folder.path(), &mut OsRng, &secret[..], password, Some("key"));
                encrypted.map_err(|e| KeyError::Keystore { path: name(), why: e.to_string() })?;
                Zeroizing::new(std::fs::read(folder.path().join("key")).map_err(fail)?)
            }
        };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(fail)?;
        file.write_all(&text[..]).and_then(|()| file.sync_all()).map_err(fail)
    }

    /// Encrypts a key file in place. If it is cut short, the file is as it was.
    pub fn encrypt(path: &Path, password: &str) -> Result<Self, KeyError> {
        let key = Self::load(path, Some(password))?;
        let next = path.with_extension("encrypted");
        let fail = |source| KeyError::File { path: path.display().to_string(), source };
        if next.exists() {
            std::fs::remove_file(&next).map_err(fail)?;
        }
        key.save(&next, Some(password))?;
        std::fs::rename(&next, path).map_err(fail)?;
        Ok(key)
    }

    /// The key in `path`, which is made with a new key if it does not exist.
    pub fn load_or_generate(path: &Path, password: Option<&str>) -> Result<Self, KeyError> {
        if path.exists() {
            return Self::load(path, password);
        }
        let key = Self::generate();
        key.save(path, password)?;
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
pub fn recover(digest: B256, signature: &Signature) -> Option<Address> {
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
        for (name, password) in [("plain", None), ("encrypted", Some("correct horse"))] {
            let path = dir.path().join(name);
            let key = Key::load_or_generate(&path, password).unwrap();
            assert_eq!(Key::load_or_generate(&path, password).unwrap().address(), key.address());
            assert!(Key::generate().save(&path, password).is_err());
            assert_eq!(Key::is_encrypted(&path).unwrap(), password.is_some());
            let secret = hex::encode(key.0.to_bytes());
            assert_eq!(std::fs::read_to_string(&path).unwrap().contains(&secret), password.is_none());
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            }
        }
        let encrypted = dir.path().join("encrypted");
        assert!(matches!(Key::load(&encrypted, None), Err(KeyError::PasswordNeeded { .. })));
        assert!(matches!(Key::load(&encrypted, Some("battery")), Err(KeyError::WrongPassword { .. })));
        let plain = dir.path().join("plain");
        let key = Key::load(&plain, None).unwrap();
        assert_eq!(Key::encrypt(&plain, "staple").unwrap().address(), key.address());
        assert!(Key::is_encrypted(&plain).unwrap());
        assert_eq!(Key::load(&plain, Some("staple")).unwrap().address(), key.address());
        for bad in ["zz", "{}", "{"] {
            std::fs::write(&plain, bad).unwrap();
            assert!(Key::load(&plain, Some("staple")).is_err(), "{bad}");
        }
    }

    /// The test vector of the Web3 Secret Storage definition (PBKDF2), which is not ours.
    #[test]
    fn a_foreign_keystore_is_read() {
        let text = r#"{"crypto":{"cipher":"aes-128-ctr","cipherparams":{"iv":"6087dab2f9fdbbfaddc31a909735c1e6"},
            "ciphertext":"5318b4d5bcd28de64ee5559e671353e16f075ecae9f99c7a79a38af5f869aa46","kdf":"pbkdf2",
            "kdfparams":{"c":262144,"dklen":32,"prf":"hmac-sha256",
            "salt":"ae3cd4e7013836a3df6bd7241b12db061dbe2c6785853cce422d148a624ce0bd"},
            "mac":"517ead924a9d0dc3124507e3393d175ce3ff7c1e96529c6c555ce9e51205e9b2"},
            "id":"3198bc9c-6672-5ab3-d995-4942343ae5b6","version":3}"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, text).unwrap();
        let key = Key::load(&path, Some("testpassword")).unwrap();
        assert_eq!(
            hex::encode(key.0.to_bytes()),
            "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d"
        );
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
