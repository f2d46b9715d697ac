//! Receipts: what a node signs, and how anyone checks it offline.
//!
//! ```
//! use isobit_proof::{Key, Outcome, Receipt};
//! # use isobit_tensor::Hash;
//! let key = Key::generate();
//! let receipt = Receipt {
//!     chain_id: 1729, job: Hash::of(b"job"), model: Hash::of(b"model"), inputs: Hash::of(b"inputs"), seed: 0,
//!     outcome: Outcome::Ok { outputs: Hash::of(b"outputs") }, cost: 614_210, node: key.address(),
//! };
//! let signed = receipt.sign(&key);
//! assert_eq!(signed.signer(), Some(key.address()));
//! ```
//!
//! A receipt is signed as EIP-712 typed data with secp256k1, so that any Ethereum wallet, contract or library can check
//! it. Two honest nodes' receipts for a job differ in the node alone.

#![forbid(unsafe_code)]

mod key;
mod receipt;
mod roots;
pub mod verify;

pub use key::{Key, KeyError, recover};
pub use receipt::{FORMAT, Outcome, PROFILE, Receipt, ReceiptError, SignedReceipt};
pub use roots::{
    TensorsError, decode_set, decode_tensors, encode_set, encode_tensors, set_root, tensors_root,
};
