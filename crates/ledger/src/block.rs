use alloy_primitives::{B256, Bytes};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use isobit_tensor::Hash;

use crate::rules::BlockContext;
use crate::{BlockError, DecodeError, Event, Job, SignedTx, State, TxError};

/// What a block is known by.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Header {
    /// One more than the parent's.
    pub height: u64,
    /// Hash of the parent; zero for the first.
    pub parent: B256,
    /// Seconds since 1970, by whoever made the block, not before the parent's. Windows go by it.
    pub timestamp: u64,
    /// [`tx_root`] of the transactions.
    pub tx_root: B256,
    /// Root of the state after it.
    pub state_root: B256,
}

/// Transactions in order, on top of a parent.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// Encoded transactions.
    pub txs: Vec<Bytes>,
}

/// What a block did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// The block, with its state root.
    pub block: Block,
    /// Transactions that the rules refused; they are not in the block. Empty when a block was executed.
    pub refused: Vec<(B256, TxError)>,
    /// What happened, transaction by transaction and then at the block's end.
    pub events: Vec<Event>,
    /// Jobs that ended.
    pub ended: Vec<Job>,
}

/// Longest encoded block.
const MAX_BLOCK_BYTES: usize = 64 << 20;
/// Latest time of a block. With it no sum of times overflows.
const MAX_TIME: u64 = 1 << 48;

/// The root of a block's transactions: BLAKE3 of `isobitT2`, filled with zeros to 32 bytes, and the hash of each encoded
/// transaction. BLAKE3 is a tree, so a slice of that list proves that a transaction is in it.
pub fn tx_root(txs: &[Bytes]) -> B256 {
    let mut list = [0; 32].to_vec();
    list[..8].copy_from_slice(b"isobitT2");
    for tx in txs {
        list.extend_from_slice(Hash::of(tx).as_bytes());
    }
    B256::from(Hash::of(&list).0)
}

impl Header {
    /// BLAKE3 of its RLP encoding.
    pub fn hash(&self) -> B256 {
        B256::from(Hash::of(&alloy_rlp::encode(self)).0)
    }
}

impl Block {
    /// Its header's hash.
    pub fn hash(&self) -> B256 {
        self.header.hash()
    }

    /// Its RLP encoding.
    pub fn encode(&self) -> Vec<u8> {
        alloy_rlp::encode(self)
    }

    /// Reads what [`Block::encode`] writes, up to 64 MiB. The transactions are read when the block is executed.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(DecodeError::new("a block", "it has more than 64 MiB"));
        }
        let block = <Self as Decodable>::decode(&mut bytes).map_err(|e| DecodeError::new("a block", e))?;
        if bytes.is_empty() {
            Ok(block)
        } else {
            Err(DecodeError::new("a block", "there are bytes after it"))
        }
    }

    /// Makes the next block from candidate transactions: those that the rules accept, in the given order. A timestamp
    /// before the parent's becomes the parent's.
    pub fn build(state: &mut State, parent: B256, timestamp: u64, candidates: &[SignedTx]) -> Executed {
        let context = state.begin(parent, timestamp.clamp(state.time, MAX_TIME.max(state.time)));
        let (mut txs, mut refused, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for tx in candidates {
            match state.apply(&context, tx) {
                Ok(happened) => {
                    txs.push(Bytes::from(tx.encode()));
                    events.extend(happened);
                }
                Err(e) => refused.push((tx.hash(), e)),
            }
        }
        let (happened, ended) = state.tick(&context);
        events.extend(happened);
        let header = Header {
            height: state.height,
            parent,
            timestamp: state.time,
            tx_root: tx_root(&txs),
            state_root: state.root(),
        };
        Executed { block: Block { header, txs }, refused, events, ended }
    }
}

/// Executes a block on the state of its parent, whose hash is `head`. On an error the state is what it was.
pub fn execute_block(state: &mut State, head: B256, block: &Block) -> Result<Executed, BlockError> {
    let Header { height, parent, timestamp, tx_root: root, state_root } = block.header;
    let next = state.height.saturating_add(1);
    if height != next {
        return Err(BlockError::Height { next, got: height });
    }
    if parent != head {
        return Err(BlockError::Parent { head, got: parent });
    }
    if timestamp < state.time || timestamp > MAX_TIME {
        return Err(BlockError::Timestamp { least: state.time, got: timestamp });
    }
    if root != tx_root(&block.txs) {
        return Err(BlockError::TxRoot);
    }
    let mut after = state.clone();
    let context = after.begin(parent, timestamp);
    let mut events = Vec::new();
    for (index, tx) in block.txs.iter().enumerate() {
        let tx = SignedTx::decode(tx).map_err(|source| BlockError::Encoding { index, source })?;
        events.extend(after.apply(&context, &tx).map_err(|source| BlockError::Tx { index, source })?);
    }
    let (happened, ended) = after.tick(&context);
    events.extend(happened);
    let found = after.root();
    if found != state_root {
        return Err(BlockError::StateRoot { found, claimed: state_root });
    }
    *state = after;
    Ok(Executed { block: block.clone(), refused: Vec::new(), events, ended })
}

impl State {
    fn begin(&mut self, parent: B256, timestamp: u64) -> BlockContext {
        self.height += 1;
        self.time = timestamp;
        BlockContext { height: self.height, time: timestamp, parent }
    }
}
