use alloy_primitives::{B256, Bytes};
use alloy_rlp::{Decodable, RlpDecodable, RlpEncodable};
use isobit_tensor::Hash;

use crate::{Job, SignedTx, State, TxError};

/// Transactions in order, on top of a parent.
#[derive(Debug, Clone, PartialEq, Eq, RlpEncodable, RlpDecodable)]
pub struct Block {
    /// One more than the parent's.
    pub height: u64,
    /// Hash of the parent; zero for the first.
    pub parent: B256,
    /// Seconds since 1970, by whoever made the block, not before the parent's. Deadlines go by it.
    pub timestamp: u64,
    /// Root of the state after it.
    pub state_root: B256,
    /// Encoded transactions.
    pub txs: Vec<Bytes>,
}

/// What a block did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executed {
    /// The block, with its state root.
    pub block: Block,
    /// Transactions that the rules refused; they are not in the block.
    pub refused: Vec<(B256, TxError)>,
    /// Jobs that ended.
    pub ended: Vec<Job>,
}

impl Block {
    /// BLAKE3 of its RLP encoding.
    pub fn hash(&self) -> B256 {
        B256::from(Hash::of(&self.encode()).0)
    }

    /// Its RLP encoding.
    pub fn encode(&self) -> Vec<u8> {
        alloy_rlp::encode(self)
    }

    /// Reads what [`Block::encode`] writes.
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let block = <Self as Decodable>::decode(&mut bytes).ok()?;
        bytes.is_empty().then_some(block)
    }

    /// Makes the next block from candidate transactions: those that the rules accept, in the given order.
    pub fn build(state: &mut State, parent: B256, timestamp: u64, candidates: &[SignedTx]) -> Executed {
        state.height += 1;
        state.time = state.time.max(timestamp);
        let (mut txs, mut refused) = (Vec::new(), Vec::new());
        for tx in candidates {
            match state.apply(tx, parent) {
                Ok(()) => txs.push(tx.encode().into()),
                Err(e) => refused.push((tx.hash(), e)),
            }
        }
        let ended = state.tick();
        let block =
            Block { height: state.height, parent, timestamp: state.time, state_root: state.root(), txs };
        Executed { block, refused, ended }
    }

    /// Executes a block on its parent's state and compares the state root. `None` if it is not a block of these
    /// rules; the state is then of no use.
    pub fn replay(&self, state: &mut State) -> Option<Vec<Job>> {
        if self.timestamp < state.time {
            return None;
        }
        state.height += 1;
        state.time = self.timestamp;
        for tx in &self.txs {
            state.apply(&SignedTx::decode(tx)?, self.parent).ok()?;
        }
        let ended = state.tick();
        (self.height == state.height && self.state_root == state.root()).then_some(ended)
    }
}
