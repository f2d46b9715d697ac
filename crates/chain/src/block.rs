//! Blocks as Ethereum has them: header, transactions, receipts, and their encodings.

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{Header, ReceiptEnvelope, Signed, TxEnvelope, TxLegacy};
use alloy_eips::eip2718::{Decodable2718, Encodable2718};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, address};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use isobit_ledger::Job;

use crate::store::Changes;
use crate::{ChainError, Missing};

/// The ledger's account: the precompile of the rules, keeper of stakes and escrow.
pub const LEDGER: Address = address!("0x0000000000000000000000000000000000150b17");
/// The sender of a block's own transactions (EIP-4788's). Nobody has its key.
pub const SYSTEM: Address = address!("0xfffffffffffffffffffffffffffffffffffffffe");
/// Longest encoded transaction, in bytes.
pub(crate) const MAX_TX_BYTES: usize = 128 << 10;
/// Longest encoded block, in bytes.
const MAX_BLOCK_BYTES: usize = 16 << 20;

/// A block with its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// Keccak-256 of the header's RLP.
    pub hash: B256,
    /// The transactions: those of users, then the block's own (see [`is_system`]).
    pub txs: Vec<Recovered<TxEnvelope>>,
}

/// What executing a block came to, not yet on disk.
#[derive(Debug, Clone)]
pub struct Built {
    /// The block.
    pub block: Block,
    /// A receipt for each transaction.
    pub receipts: Vec<ReceiptEnvelope>,
    /// Jobs that ended.
    pub ended: Vec<Job>,
    /// Candidates that cannot be in this block, and whether they may be in a later one.
    pub refused: Vec<Refused>,
    pub(crate) changes: Changes,
}

/// A candidate that is not in the block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its hash.
    pub hash: B256,
    /// Why.
    pub why: String,
    /// Whether it may be in a later block as it is.
    pub later: bool,
    /// Inferences that it waits for.
    pub missing: Vec<Missing>,
}

#[derive(RlpEncodable, RlpDecodable)]
struct Encoded {
    header: Header,
    txs: Vec<Bytes>,
}

impl Block {
    /// RLP of header and transactions, which are EIP-2718 byte strings.
    pub fn encode(&self) -> Vec<u8> {
        let txs = self.txs.iter().map(|tx| tx.inner().encoded_2718().into()).collect();
        alloy_rlp::encode(Encoded { header: self.header.clone(), txs })
    }

    /// Reads what [`Block::encode`] writes, at most 16 MiB. Signatures are checked, nothing else.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, ChainError> {
        let fail = |why: &str| ChainError::Refused(format!("not a block: {why}"));
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(fail("it has more than 16 MiB"));
        }
        let Encoded { header, txs } = Encoded::decode(&mut bytes).map_err(|e| fail(&e.to_string()))?;
        if !bytes.is_empty() {
            return Err(fail("there are bytes after it"));
        }
        let txs = txs.iter().map(|tx| decode_tx(tx)).collect::<Result<_, _>>()?;
        Ok(Self { hash: header.hash_slow(), header, txs })
    }
}

/// Reads a transaction and finds its sender. One without a signature is a block's own.
pub fn decode_tx(bytes: &[u8]) -> Result<Recovered<TxEnvelope>, ChainError> {
    let fail = |why: &str| ChainError::Refused(format!("not a transaction: {why}"));
    if bytes.len() > MAX_TX_BYTES {
        return Err(fail("it has more than 128 KiB"));
    }
    let mut rest = bytes;
    let tx = TxEnvelope::decode_2718(&mut rest).map_err(|e| fail(&e.to_string()))?;
    if !rest.is_empty() {
        return Err(fail("there are bytes after it"));
    }
    if tx.is_eip4844() {
        return Err(fail("blob transactions are not taken; put data into blobs of the hub"));
    }
    if let Some(sender) = system_sender(&tx) {
        return Ok(Recovered::new_unchecked(tx, sender));
    }
    let sender = isobit_proof::recover(tx.signature_hash(), tx.signature());
    let sender = sender.ok_or_else(|| fail("its signature is invalid"))?;
    Ok(Recovered::new_unchecked(tx, sender))
}

/// A transaction that a block makes for itself: from `SYSTEM` (the end of the block) or from `LEDGER` (a callback). It has
/// a signature of zeros, and is valid because everybody who executes the block makes the same.
pub(crate) fn system_tx(
    chain_id: u64,
    nonce: u64,
    gas: u64,
    to: Address,
    input: Bytes,
) -> Recovered<TxEnvelope> {
    let tx = TxLegacy {
        chain_id: Some(chain_id),
        nonce,
        gas_price: 0,
        gas_limit: gas,
        to: TxKind::Call(to),
        value: U256::ZERO,
        input,
    };
    let signature = Signature::new(U256::ZERO, U256::ZERO, false);
    let tx = TxEnvelope::Legacy(Signed::new_unhashed(tx, signature));
    let sender = system_sender(&tx).expect("it has no signature");
    Recovered::new_unchecked(tx, sender)
}

/// The sender of a transaction without a signature.
fn system_sender(tx: &TxEnvelope) -> Option<Address> {
    let TxEnvelope::Legacy(signed) = tx else { return None };
    let signature = signed.signature();
    (signature.r().is_zero() && signature.s().is_zero())
        .then(|| if signed.tx().to == TxKind::Call(LEDGER) { SYSTEM } else { LEDGER })
}

/// Whether a transaction is one that a block makes for itself.
pub fn is_system(tx: &TxEnvelope) -> bool {
    system_sender(tx).is_some()
}

pub(crate) fn encode_list<T: Encodable2718>(items: &[T]) -> Vec<u8> {
    let items: Vec<Bytes> = items.iter().map(|i| i.encoded_2718().into()).collect();
    alloy_rlp::encode(items)
}

pub(crate) fn decode_receipts(bytes: &[u8]) -> Result<Vec<ReceiptEnvelope>, ChainError> {
    let corrupt = || ChainError::corrupt("the receipts of a block are malformed");
    let items = <Vec<Bytes>>::decode(&mut &bytes[..]).map_err(|_| corrupt())?;
    items.iter().map(|i| ReceiptEnvelope::decode_2718(&mut &i[..]).map_err(|_| corrupt())).collect()
}

/// Transactions with their senders, as the store keeps them: to find a sender takes longer than all the rest of reading.
pub(crate) fn encode_txs(txs: &[Recovered<TxEnvelope>]) -> Vec<u8> {
    let with_sender = |tx: &Recovered<TxEnvelope>| {
        let mut bytes = tx.signer().to_vec();
        tx.inner().encode_2718(&mut bytes);
        Bytes::from(bytes)
    };
    alloy_rlp::encode(txs.iter().map(with_sender).collect::<Vec<_>>())
}

pub(crate) fn decode_txs(bytes: &[u8]) -> Result<Vec<Recovered<TxEnvelope>>, ChainError> {
    let corrupt = || ChainError::corrupt("the transactions of a block are malformed");
    let items = <Vec<Bytes>>::decode(&mut &bytes[..]).map_err(|_| corrupt())?;
    let one = |item: &Bytes| {
        let (sender, mut tx) = item.split_first_chunk::<20>()?;
        let tx = TxEnvelope::decode_2718(&mut tx).ok()?;
        Some(Recovered::new_unchecked(tx, Address::from(*sender)))
    };
    items.iter().map(|i| one(i).ok_or_else(corrupt)).collect()
}
