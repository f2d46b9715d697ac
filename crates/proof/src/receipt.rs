use std::borrow::Cow;

use alloy_primitives::{Address, B256, Signature, hex};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain, sol};
use isobit_tensor::Hash;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Key;
use crate::key::recover;

/// The numeric profile that receipts of this version are about.
pub const PROFILE: &str = "isobit-1";
/// The format of receipt files.
pub const FORMAT: &str = "isobit-receipt-v1";
/// Longest receipt file that is read, in bytes.
const MAX_BYTES: usize = 64 << 10;

/// The message as wallets see it.
#[allow(missing_docs)]
mod typed {
    use super::sol;

    sol! {
        struct Receipt {
            bytes32 job;
            bytes32 model;
            bytes32 inputs;
            uint64 seed;
            string profile;
            bytes32 outputs;
            uint16 failure;
            uint64 cost;
            address node;
        }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It ended; the root of its outputs.
    Ok {
        /// [`crate::tensors_root`] of the outputs in the model's order.
        outputs: Hash,
    },
    /// It failed, with the agreed code (SEMANTICS.md, section 7); never 0.
    Failed {
        /// The code's number.
        code: u16,
    },
}

/// A node's statement about one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The chain it was made for.
    pub chain_id: u64,
    /// The job.
    pub job: Hash,
    /// The model's content address.
    pub model: Hash,
    /// [`crate::tensors_root`] of the inputs in the model's order.
    pub inputs: Hash,
    /// The job's seed.
    pub seed: u64,
    /// What came out.
    pub outcome: Outcome,
    /// Metered cost in units; 0 for a failure.
    pub cost: u64,
    /// Who says so.
    pub node: Address,
}

/// A receipt with its node's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    /// The statement.
    pub receipt: Receipt,
    /// Over the EIP-712 digest.
    pub signature: Signature,
}

/// A receipt file that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// Too long.
    #[error("a receipt has at most {MAX_BYTES} bytes")]
    Length,
    /// Not the JSON of a receipt.
    #[error("not a receipt: {0}")]
    Json(String),
    /// Another format or profile.
    #[error("{field} is '{found}', this version checks '{expected}'")]
    Version {
        /// Which field.
        field: &'static str,
        /// What it says.
        found: String,
        /// What is understood.
        expected: &'static str,
    },
    /// The outcome is neither outputs nor a failure.
    #[error("a receipt has either outputs or a failure code")]
    Outcome,
}

fn domain(chain_id: u64) -> Eip712Domain {
    eip712_domain! { name: "Isobit", version: "1", chain_id: chain_id, }
}

impl Receipt {
    /// The EIP-712 digest: what is signed.
    pub fn digest(&self) -> B256 {
        let (outputs, failure) = match self.outcome {
            Outcome::Ok { outputs } => (outputs, 0),
            Outcome::Failed { code } => (Hash::default(), code),
        };
        let message = typed::Receipt {
            job: B256::from(self.job.0),
            model: B256::from(self.model.0),
            inputs: B256::from(self.inputs.0),
            seed: self.seed,
            profile: PROFILE.to_owned(),
            outputs: B256::from(outputs.0),
            failure,
            cost: self.cost,
            node: self.node,
        };
        message.eip712_signing_hash(&domain(self.chain_id))
    }

    /// Signs it. The key's address should be [`Receipt::node`].
    pub fn sign(self, key: &Key) -> SignedReceipt {
        SignedReceipt { signature: key.sign(self.digest()), receipt: self }
    }
}

/// The file's fields, in its order.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    profile: String,
    chain_id: u64,
    job: Hex,
    model: Hex,
    inputs: Hex,
    seed: Decimal,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outputs: Option<Hex>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<u16>,
    cost: Decimal,
    node: Address,
    signature: Hex<65>,
}

/// Bytes as `0x` and lower-case hexadecimal digits: one text for one value.
struct Hex<const N: usize = 32>([u8; N]);

impl<const N: usize> Serialize for Hex<N> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&hex::encode_prefixed(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Hex<N> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(d)?;
        let digits = text.strip_prefix("0x").filter(|t| !t.bytes().any(|c| c.is_ascii_uppercase()));
        let bytes = digits.and_then(|t| hex::decode_to_array(t).ok());
        bytes
            .map(Hex)
            .ok_or_else(|| D::Error::custom(format_args!("expected 0x and {} lower-case digits", 2 * N)))
    }
}

/// A number as decimal text, since numbers above 2^53 do not survive every JSON reader.
struct Decimal(u64);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(d)?;
        let number = text.parse().ok().filter(|n: &u64| n.to_string() == text);
        number.map(Decimal).ok_or_else(|| D::Error::custom("expected a number below 2^64 as decimal text"))
    }
}

impl SignedReceipt {
    /// Who signed; `None` if the signature is none of this receipt.
    pub fn signer(&self) -> Option<Address> {
        recover(self.receipt.digest(), &self.signature)
    }

    /// Whether the node that the receipt names has signed it.
    pub fn is_signed_by_node(&self) -> bool {
        self.signer() == Some(self.receipt.node)
    }

    /// The receipt as a file: a JSON object of these fields, and no others.
    ///
    /// | field | value |
    /// | --- | --- |
    /// | `format` | `isobit-receipt-v1` |
    /// | `profile` | [`PROFILE`] |
    /// | `chain_id` | number; the chain of the EIP-712 domain |
    /// | `job`, `model`, `inputs` | 32 bytes |
    /// | `seed`, `cost` | decimal text, below 2^64 |
    /// | `outputs` | 32 bytes; absent for a failure |
    /// | `failure` | the code, 1 to 65,535; absent for outputs |
    /// | `node` | Ethereum address |
    /// | `signature` | 65 bytes: r, s (low), v (27 or 28) |
    ///
    /// Bytes are `0x` and lower-case hexadecimal digits.
    pub fn to_json(&self) -> String {
        let r = &self.receipt;
        let (outputs, failure) = match r.outcome {
            Outcome::Ok { outputs } => (Some(Hex(outputs.0)), None),
            Outcome::Failed { code } => (None, Some(code)),
        };
        let file = File {
            format: FORMAT.into(),
            profile: PROFILE.into(),
            chain_id: r.chain_id,
            job: Hex(r.job.0),
            model: Hex(r.model.0),
            inputs: Hex(r.inputs.0),
            seed: Decimal(r.seed),
            outputs,
            failure,
            cost: Decimal(r.cost),
            node: r.node,
            signature: Hex(self.signature.as_bytes()),
        };
        serde_json::to_string_pretty(&file).expect("a receipt is JSON")
    }

    /// Reads a receipt file. It is well-formed then, but nothing is verified yet.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_BYTES {
            return Err(ReceiptError::Length);
        }
        let json = |e: &dyn std::fmt::Display| ReceiptError::Json(e.to_string());
        let file: File = serde_json::from_slice(bytes).map_err(|e| json(&e))?;
        for (field, found, expected) in [("format", file.format, FORMAT), ("profile", file.profile, PROFILE)]
        {
            if found != expected {
                return Err(ReceiptError::Version { field, found, expected });
            }
        }
        let outcome = match (file.outputs, file.failure) {
            (Some(outputs), None) => Outcome::Ok { outputs: Hash(outputs.0) },
            (None, Some(code)) if code != 0 => Outcome::Failed { code },
            _ => return Err(ReceiptError::Outcome),
        };
        let signature = Signature::from_raw(&file.signature.0).map_err(|e| json(&e))?;
        if signature.as_bytes() != file.signature.0 {
            return Err(json(&"the signature's last byte is neither 27 nor 28"));
        }
        let receipt = Receipt {
            chain_id: file.chain_id,
            job: Hash(file.job.0),
            model: Hash(file.model.0),
            inputs: Hash(file.inputs.0),
            seed: file.seed.0,
            outcome,
            cost: file.cost.0,
            node: file.node,
        };
        Ok(Self { receipt, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_numerics::rng::Rng;

    const SECRET: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

    fn receipts() -> Vec<Receipt> {
        let node = Key::from_hex(SECRET).unwrap().address();
        let hash = |n| Hash([n; 32]);
        let ok = Receipt {
            chain_id: 1729,
            job: hash(1),
            model: hash(2),
            inputs: hash(3),
            seed: 42,
            outcome: Outcome::Ok { outputs: hash(4) },
            cost: 614_210,
            node,
        };
        let failed = Receipt { outcome: Outcome::Failed { code: 8 }, cost: 0, ..ok.clone() };
        let most = Receipt { chain_id: u64::MAX, seed: u64::MAX, cost: u64::MAX, ..ok.clone() };
        let code = Receipt { chain_id: 1, outcome: Outcome::Failed { code: u16::MAX }, ..failed.clone() };
        vec![ok, failed, most, code]
    }

    fn signed() -> Vec<SignedReceipt> {
        let key = Key::from_hex(SECRET).unwrap();
        receipts().into_iter().map(|r| r.sign(&key)).collect()
    }

    /// The digests and signatures that `eth_account` (Python) computes for the same typed data.
    #[test]
    fn equal_another_implementation() {
        let lines: Vec<_> = include_str!("../tests/vectors/receipts.txt").lines().collect();
        assert_eq!(lines.len(), receipts().len());
        for (s, line) in signed().into_iter().zip(lines) {
            let signature = hex::encode_prefixed(s.signature.as_bytes());
            assert_eq!(format!("{} {signature}", s.receipt.digest()), line);
            assert_eq!(s.signer(), Some(s.receipt.node));
        }
    }

    #[test]
    fn files_round_trip() {
        for s in signed() {
            assert_eq!(SignedReceipt::from_json(s.to_json().as_bytes()), Ok(s));
        }
    }

    /// The digest depends on every field.
    #[test]
    fn each_field_is_signed() {
        let r = receipts().remove(0);
        let other = Hash([9; 32]);
        let changed = [
            Receipt { chain_id: 1, ..r.clone() },
            Receipt { job: other, ..r.clone() },
            Receipt { model: other, ..r.clone() },
            Receipt { inputs: other, ..r.clone() },
            Receipt { seed: 43, ..r.clone() },
            Receipt { outcome: Outcome::Ok { outputs: other }, ..r.clone() },
            Receipt { outcome: Outcome::Failed { code: 1 }, ..r.clone() },
            Receipt { cost: 1, ..r.clone() },
            Receipt { node: Address::ZERO, ..r.clone() },
        ];
        let mut digests: Vec<B256> = changed.iter().chain([&r]).map(Receipt::digest).collect();
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), changed.len() + 1);
    }

    /// Files that are refused, with what the error says.
    #[test]
    fn malformed_files() {
        let good = signed().remove(0).to_json();
        let with = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replacen(from, to, 1)
        };
        let cases = [
            (with("isobit-receipt-v1", "isobit-receipt-v2"), "format is 'isobit-receipt-v2'"),
            (with("\"isobit-1\"", "\"isobit-2\""), "profile is 'isobit-2'"),
            (with("{", "{\"extra\": 1,"), "unknown field"),
            (with("{", "{\"seed\": \"42\","), "duplicate field"),
            (with("\"seed\"", "\"sead\""), "unknown field"),
            (with("\"42\"", "42"), "invalid type"),
            (with("\"42\"", "\"042\""), "decimal"),
            (with("\"42\"", "\"18446744073709551616\""), "decimal"),
            (with("0x0101", "0101"), "lower-case"),
            (with("0x0101", "0x01"), "lower-case"),
            (with("0x0101", "0x0Z01"), "lower-case"),
            (with("0x908df3", "0x908DF3"), "lower-case"),
            (with("1b\"", "1d\""), "not a receipt"),
            (with("1b\"", "00\""), "27 nor 28"),
            (with("\"outputs\"", "\"failure\": 3, \"outputs\""), "either"),
            (with(&format!("\"outputs\": \"0x{}\",", "04".repeat(32)), ""), "either"),
            (with(&format!("\"outputs\": \"0x{}\"", "04".repeat(32)), "\"failure\": 0"), "either"),
            (good.clone() + "x", "trailing"),
            ("[".repeat(10_000), "not a receipt"),
            (" ".repeat(MAX_BYTES + 1), "at most"),
        ];
        for (text, says) in cases {
            let error = SignedReceipt::from_json(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "'{error}' does not say '{says}'");
        }
    }

    /// Whatever byte of a receipt is changed: it is refused, or its signature no longer holds.
    #[test]
    fn no_byte_can_be_changed() {
        for s in signed() {
            let json = s.to_json().into_bytes();
            assert!(s.is_signed_by_node());
            for at in 0..json.len() {
                for bit in 0..8 {
                    let mut changed = json.clone();
                    changed[at] ^= 1 << bit;
                    if let Ok(parsed) = SignedReceipt::from_json(&changed) {
                        // White space and the case of the address mean nothing.
                        assert!(parsed == s || !parsed.is_signed_by_node(), "byte {at}");
                    }
                }
            }
        }
    }

    /// Never a panic, and what is read is written as the same receipt.
    #[test]
    fn parsing_is_total() {
        let mut rng = Rng::new(5, 0);
        let files: Vec<_> = signed().iter().map(|s| s.to_json().into_bytes()).collect();
        for _ in 0..40_000 {
            let mut bytes = files[rng.below(files.len())].clone();
            for _ in 0..=rng.below(4) {
                let (at, from) = (rng.below(bytes.len()), rng.below(bytes.len()));
                match rng.below(4) {
                    0 => bytes[at] = rng.next_u32() as u8,
                    1 if bytes.len() > 1 => drop(bytes.remove(at)),
                    2 => bytes.insert(at, bytes[from]),
                    _ => bytes.truncate(at + 1),
                }
            }
            if let Ok(parsed) = SignedReceipt::from_json(&bytes) {
                assert_eq!(SignedReceipt::from_json(parsed.to_json().as_bytes()), Ok(parsed));
            }
        }
    }
}
