use alloy_primitives::{Address, B256, Signature};
use alloy_sol_types::{Eip712Domain, SolStruct, eip712_domain, sol};
use isobit_tensor::Hash;
use serde::{Deserialize, Serialize};

use crate::Key;
use crate::key::recover;

/// The numeric profile that receipts of this version are about.
pub const PROFILE: &str = "isobit-1";
/// The format of receipt files.
const FORMAT: &str = "isobit-receipt-1";
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

/// The file's fields, in its order. Hashes are hexadecimal without 0x, Ethereum values with it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: String,
    profile: String,
    chain_id: u64,
    job: Hash,
    model: Hash,
    inputs: Hash,
    seed: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outputs: Option<Hash>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<u16>,
    cost: u64,
    node: Address,
    signature: alloy_primitives::Bytes,
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

    /// The receipt as a file.
    pub fn to_json(&self) -> String {
        let r = &self.receipt;
        let (outputs, failure) = match r.outcome {
            Outcome::Ok { outputs } => (Some(outputs), None),
            Outcome::Failed { code } => (None, Some(code)),
        };
        let file = File {
            format: FORMAT.into(),
            profile: PROFILE.into(),
            chain_id: r.chain_id,
            job: r.job,
            model: r.model,
            inputs: r.inputs,
            seed: r.seed,
            outputs,
            failure,
            cost: r.cost,
            node: r.node,
            signature: self.signature.as_bytes().to_vec().into(),
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
            (Some(outputs), None) => Outcome::Ok { outputs },
            (None, Some(code)) if code != 0 => Outcome::Failed { code },
            _ => return Err(ReceiptError::Outcome),
        };
        let signature = Signature::from_raw(&file.signature).map_err(|e| json(&e))?;
        if signature.as_bytes()[..] != file.signature[..] {
            return Err(json(&"the signature's last byte is neither 27 nor 28"));
        }
        let receipt = Receipt {
            chain_id: file.chain_id,
            job: file.job,
            model: file.model,
            inputs: file.inputs,
            seed: file.seed,
            outcome,
            cost: file.cost,
            node: file.node,
        };
        Ok(Self { receipt, signature })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed() -> SignedReceipt {
        let key =
            Key::from_hex("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap();
        let receipt = Receipt {
            chain_id: 1729,
            job: Hash([1; 32]),
            model: Hash([2; 32]),
            inputs: Hash([3; 32]),
            seed: 42,
            outcome: Outcome::Ok { outputs: Hash([4; 32]) },
            cost: 614_210,
            node: key.address(),
        };
        receipt.sign(&key)
    }

    /// The digest and signature that `eth_account` (Python) computes for the same typed data.
    #[test]
    fn equals_another_implementation() {
        let s = signed();
        assert_eq!(s.receipt.digest().to_string(), include_str!("../tests/vectors/digest.txt").trim());
        assert_eq!(
            alloy_primitives::hex::encode_prefixed(s.signature.as_bytes()),
            include_str!("../tests/vectors/signature.txt").trim()
        );
    }

    #[test]
    fn files_round_trip() {
        let s = signed();
        assert_eq!(SignedReceipt::from_json(s.to_json().as_bytes()), Ok(s.clone()));
        let mut failed = s;
        failed.receipt.outcome = Outcome::Failed { code: 6 };
        assert_eq!(SignedReceipt::from_json(failed.to_json().as_bytes()), Ok(failed));
    }

    /// Whatever byte of a receipt is changed: it is refused, or its signature no longer holds.
    #[test]
    fn no_byte_can_be_changed() {
        let s = signed();
        let json = s.to_json().into_bytes();
        assert!(s.is_signed_by_node());
        for at in 0..json.len() {
            for flip in [1u8, 2, 4, 16, 32] {
                let mut changed = json.clone();
                changed[at] ^= flip;
                if let Ok(parsed) = SignedReceipt::from_json(&changed) {
                    // White space and the case of hexadecimal digits mean nothing.
                    assert!(parsed == s || !parsed.is_signed_by_node(), "byte {at}");
                }
            }
        }
    }
}
