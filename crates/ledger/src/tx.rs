use alloy_primitives::{Address, B256, Bytes, Signature};
use alloy_rlp::{Decodable, Encodable, RlpDecodable, RlpEncodable};
use isobit_proof::Key;

use crate::{DecodeError, Level};

/// What a sender wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Moves coins.
    Transfer {
        /// Who gets them.
        to: Address,
        /// Base units.
        amount: u128,
    },
    /// Registers a model.
    Publish {
        /// Its content address.
        model: B256,
        /// Name for people, `owner/name` or any text of 1 to 128 bytes.
        name: String,
        /// Where to read about it or fetch it, at most 512 bytes; may be empty.
        uri: String,
        /// What the sender gets for a unit of metered cost of each settled job, in base units.
        unit_fee: u128,
    },
    /// Becomes a node, with this stake from the sender's balance.
    Join {
        /// Base units.
        stake: u128,
        /// Where the node can be reached, at most 256 bytes; may be empty.
        endpoint: String,
    },
    /// Stops being drawn; the stake comes back after the unbonding time.
    Leave,
    /// Takes the stake back.
    Withdraw,
    /// Asks for an inference.
    Post {
        /// The model's content address.
        model: B256,
        /// Root of the inputs.
        inputs: B256,
        /// Seed of the run.
        seed: u64,
        /// How sure the sender wants to be.
        level: Level,
        /// Most the sender pays in all; goes to escrow.
        max_fee: u128,
        /// Height of the last block in which commitments are waited for; 0 for none. The windows of the network's
        /// parameters bound a job in any case.
        deadline: u64,
    },
    /// Commits a drawn node to its receipt.
    Commit {
        /// The job.
        job: B256,
        /// [`crate::commitment`].
        commitment: B256,
    },
    /// Opens a commitment.
    Reveal {
        /// The job.
        job: B256,
        /// Root of the outputs; zero for a failure.
        outputs: B256,
        /// The failure's code; 0 for none.
        failure: u16,
        /// Metered cost.
        cost: u64,
        /// The receipt's signature.
        receipt: Bytes,
        /// What the commitment was salted with.
        salt: B256,
    },
}

#[derive(RlpEncodable, RlpDecodable)]
struct Two<A: Encodable + Decodable, B: Encodable + Decodable>(A, B);

#[derive(RlpEncodable, RlpDecodable)]
struct PublishFields {
    model: B256,
    name: String,
    uri: String,
    unit_fee: u128,
}

#[derive(RlpEncodable, RlpDecodable)]
struct PostFields {
    model: B256,
    inputs: B256,
    seed: u64,
    level: Level,
    max_fee: u128,
    deadline: u64,
}

#[derive(RlpEncodable, RlpDecodable)]
struct RevealFields {
    job: B256,
    outputs: B256,
    failure: u16,
    cost: u64,
    receipt: Bytes,
    salt: B256,
}

/// Longest encoded transaction.
pub(crate) const MAX_TX_BYTES: usize = 4096;

impl Action {
    /// One byte for the kind, then the fields as an RLP list (none for an action without fields).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self.clone() {
            Action::Transfer { to, amount } => {
                out.push(1);
                Two(to, amount).encode(&mut out);
            }
            Action::Publish { model, name, uri, unit_fee } => {
                out.push(2);
                PublishFields { model, name, uri, unit_fee }.encode(&mut out);
            }
            Action::Join { stake, endpoint } => {
                out.push(3);
                Two(stake, endpoint).encode(&mut out);
            }
            Action::Leave => out.push(4),
            Action::Withdraw => out.push(5),
            Action::Post { model, inputs, seed, level, max_fee, deadline } => {
                out.push(6);
                PostFields { model, inputs, seed, level, max_fee, deadline }.encode(&mut out);
            }
            Action::Commit { job, commitment } => {
                out.push(7);
                Two(job, commitment).encode(&mut out);
            }
            Action::Reveal { job, outputs, failure, cost, receipt, salt } => {
                out.push(8);
                RevealFields { job, outputs, failure, cost, receipt, salt }.encode(&mut out);
            }
        }
        out
    }

    /// Reads what [`Action::encode`] writes, and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        fn fail(why: impl ToString) -> DecodeError {
            DecodeError::new("an action", why)
        }
        fn all<T: Decodable>(mut bytes: &[u8]) -> Result<T, DecodeError> {
            let value = T::decode(&mut bytes).map_err(fail)?;
            if bytes.is_empty() { Ok(value) } else { Err(fail("there are bytes after it")) }
        }
        if bytes.len() > MAX_TX_BYTES {
            return Err(fail("it is too long"));
        }
        let (&kind, rest) = bytes.split_first().ok_or(fail("it is empty"))?;
        Ok(match kind {
            1 => {
                let Two(to, amount) = all(rest)?;
                Action::Transfer { to, amount }
            }
            2 => {
                let PublishFields { model, name, uri, unit_fee } = all(rest)?;
                Action::Publish { model, name, uri, unit_fee }
            }
            3 => {
                let Two(stake, endpoint) = all(rest)?;
                Action::Join { stake, endpoint }
            }
            4 if rest.is_empty() => Action::Leave,
            5 if rest.is_empty() => Action::Withdraw,
            6 => {
                let PostFields { model, inputs, seed, level, max_fee, deadline } = all(rest)?;
                Action::Post { model, inputs, seed, level, max_fee, deadline }
            }
            7 => {
                let Two(job, commitment) = all(rest)?;
                Action::Commit { job, commitment }
            }
            8 => {
                let RevealFields { job, outputs, failure, cost, receipt, salt } = all(rest)?;
                Action::Reveal { job, outputs, failure, cost, receipt, salt }
            }
            _ => return Err(fail(format_args!("there is no kind {kind} without or with these fields"))),
        })
    }
}

/// An action of a sender, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tx {
    /// Who wants it.
    pub from: Address,
    /// How many transactions of the sender came before.
    pub nonce: u64,
    /// What.
    pub action: Action,
}

impl Tx {
    /// The EIP-712 digest, which is what is signed. Each kind of action is a struct of its own, named as it is, with
    /// sender, nonce and the action's fields, so that a wallet shows its owner what is signed.
    pub fn digest(&self, chain_id: u64) -> B256 {
        crate::typed::digest(self, chain_id)
    }

    /// Signs it with the sender's key.
    pub fn sign(self, key: &Key, chain_id: u64) -> SignedTx {
        SignedTx { signature: key.sign(self.digest(chain_id)), tx: self }
    }
}

/// A transaction with its sender's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedTx {
    /// What is signed.
    pub tx: Tx,
    /// Over the EIP-712 digest.
    pub signature: Signature,
}

#[derive(RlpEncodable, RlpDecodable)]
struct TxFields {
    from: Address,
    nonce: u64,
    action: Bytes,
    signature: Bytes,
}

impl SignedTx {
    /// As an RLP list: sender, nonce, action, 65-byte signature.
    pub fn encode(&self) -> Vec<u8> {
        let fields = TxFields {
            from: self.tx.from,
            nonce: self.tx.nonce,
            action: self.tx.action.encode().into(),
            signature: self.signature.as_bytes().to_vec().into(),
        };
        alloy_rlp::encode(&fields)
    }

    /// Reads what [`SignedTx::encode`] writes, at most 4,096 bytes, and nothing else. Nothing is verified yet.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        fn fail(why: impl ToString) -> DecodeError {
            DecodeError::new("a signed transaction", why)
        }
        if bytes.len() > MAX_TX_BYTES {
            return Err(fail(format_args!("it has more than {MAX_TX_BYTES} bytes")));
        }
        let fields = TxFields::decode(&mut &bytes[..]).map_err(fail)?;
        let tx = Tx { from: fields.from, nonce: fields.nonce, action: Action::decode(&fields.action)? };
        let decoded = Self { tx, signature: Signature::from_raw(&fields.signature).map_err(fail)? };
        if decoded.encode() == bytes { Ok(decoded) } else { Err(fail("its encoding is not the shortest")) }
    }

    /// BLAKE3 of the encoding.
    pub fn hash(&self) -> B256 {
        B256::from(isobit_tensor::Hash::of(&self.encode()).0)
    }

    /// Whether the sender has signed it for this chain.
    pub fn is_signed(&self, chain_id: u64) -> bool {
        let low_s = self.signature.normalize_s().is_none();
        let signer = self.signature.recover_address_from_prehash(&self.tx.digest(chain_id));
        low_s && signer.is_ok_and(|s| s == self.tx.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isobit_numerics::rng::Rng;

    fn actions() -> Vec<Action> {
        let b = B256::repeat_byte;
        vec![
            Action::Transfer { to: Address::repeat_byte(1), amount: u128::MAX },
            Action::Publish { model: b(2), name: "a/b".into(), uri: "https://x".into(), unit_fee: 9 },
            Action::Join { stake: 0, endpoint: "node.example:7470".into() },
            Action::Leave,
            Action::Withdraw,
            Action::Post {
                model: b(3),
                inputs: b(4),
                seed: u64::MAX,
                level: Level::Replicated(3),
                max_fee: 6,
                deadline: 7,
            },
            Action::Commit { job: b(7), commitment: b(8) },
            Action::Reveal {
                job: b(9),
                outputs: b(0),
                failure: 6,
                cost: 0,
                receipt: vec![1; 65].into(),
                salt: b(1),
            },
        ]
    }

    #[test]
    fn encodings_round_trip_and_signatures_hold() {
        let key = Key::generate();
        for (nonce, action) in actions().into_iter().enumerate() {
            let tx = Tx { from: key.address(), nonce: nonce as u64, action };
            let signed = tx.sign(&key, 7);
            assert_eq!(SignedTx::decode(&signed.encode()), Ok(signed.clone()));
            assert!(signed.is_signed(7));
            assert!(!signed.is_signed(8));
        }
    }

    /// The digests and signatures that `eth_account` (Python) computes for the same typed data.
    #[test]
    fn equal_another_implementation() {
        let key =
            Key::from_hex("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap();
        let lines: Vec<_> = include_str!("../tests/vectors/transactions.txt").lines().collect();
        assert_eq!(lines.len(), actions().len());
        for (nonce, (action, line)) in actions().into_iter().zip(lines).enumerate() {
            let kind = format!("{action:?}").split(' ').next().unwrap().to_owned();
            let signed = Tx { from: key.address(), nonce: nonce as u64, action }.sign(&key, 1729);
            let signature = alloy_primitives::hex::encode_prefixed(signed.signature.as_bytes());
            assert_eq!(format!("{kind} {} {signature}", signed.tx.digest(1729)), line);
        }
    }

    /// Changed bytes are refused, or decode to something whose encoding they are; never a panic.
    #[test]
    fn decoding_is_total_and_canonical() {
        let key = Key::generate();
        let mut rng = Rng::new(4, 0);
        for action in actions() {
            let bytes = Tx { from: key.address(), nonce: 1, action }.sign(&key, 7).encode();
            for _ in 0..2000 {
                let mut bytes = bytes.clone();
                for _ in 0..=rng.below(3) {
                    let at = rng.below(bytes.len());
                    bytes[at] = rng.next_u32() as u8;
                }
                bytes.truncate(rng.below(bytes.len()) + 1 + bytes.len() / 2);
                if let Ok(tx) = SignedTx::decode(&bytes) {
                    assert_eq!(tx.encode(), bytes);
                }
            }
        }
    }
}
