//! Parameters: a list that may be absent or null, shorter than what the method takes, or longer.

use std::sync::Arc;

use alloy_eips::{BlockId, BlockNumberOrTag};
use isobit_chain::{Chain, Head};
use jsonrpsee::types::Params;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Answer, chain, invalid, refused};

/// The parameters of a call, taken one after the other.
pub(crate) struct Args(std::vec::IntoIter<Value>, usize);

impl Args {
    pub(crate) fn new(params: &Params<'_>) -> Answer<Self> {
        let list = match params.as_str() {
            None | Some("null" | "") => Vec::new(),
            Some(text) => serde_json::from_str::<Vec<Value>>(text)
                .map_err(|_| invalid("the parameters must be a list"))?,
        };
        Ok(Self(list.into_iter(), 0))
    }

    /// The next one; `None` if it is absent or null.
    pub(crate) fn optional<T: DeserializeOwned>(&mut self, what: &str) -> Answer<Option<T>> {
        self.1 += 1;
        match self.0.next() {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value)
                .map(Some)
                .map_err(|e| invalid(format!("parameter {} is no {what}: {e}", self.1))),
        }
    }

    pub(crate) fn required<T: DeserializeOwned>(&mut self, what: &str) -> Answer<T> {
        self.optional(what)?.ok_or_else(|| invalid(format!("parameter {}, a {what}, is missing", self.1)))
    }

    /// A quantity: `0x` and hexadecimal digits, or a number.
    pub(crate) fn quantity(&mut self, what: &str) -> Answer<u64> {
        let value: Value = self.required(what)?;
        let number = match &value {
            Value::String(s) => s.strip_prefix("0x").and_then(|d| u64::from_str_radix(d, 16).ok()),
            value => value.as_u64(),
        };
        number.ok_or_else(|| invalid(format!("parameter {} is no {what}: {value}", self.1)))
    }
}

/// The number of a block; `None` if there is none such.
pub(crate) fn number(of: &Chain, id: BlockId) -> Answer<Option<u64>> {
    let head = of.head().header.number;
    Ok(match id {
        BlockId::Hash(hash) => of.store().number(hash.block_hash).map_err(chain)?,
        BlockId::Number(BlockNumberOrTag::Earliest) => Some(0),
        BlockId::Number(BlockNumberOrTag::Number(n)) => Some(n).filter(|n| *n <= head),
        BlockId::Number(_) => Some(head),
    })
}

/// Takes a block whose state is asked for: those of the last blocks are kept.
pub(crate) fn head(of: &Chain, args: &mut Args) -> Answer<Arc<Head>> {
    let id: BlockId = args.optional("block")?.unwrap_or_default();
    let last = of.head();
    match number(of, id)? {
        // A block may come in between looking at the head and asking about it.
        Some(n) if n >= last.header.number => Ok(of.head()),
        Some(n) => of.head_at(n).ok_or_else(|| {
            refused(format!(
                "missing trie node: the state of block {n} is not kept, only those of the last 128 blocks at most, since this node was started; the last one is {}",
                last.header.number
            ))
        }),
        None => Err(refused("header not found")),
    }
}
