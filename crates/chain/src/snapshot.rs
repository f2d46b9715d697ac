//! The state after a block as a file, so that who joins need not execute every block; and forgetting old blocks.
//!
//! A snapshot is `isobitS1`, then records of a kind (one byte), a length (four, little-endian) and so many bytes: headers (the first
//! one and the last 256, in order), accounts, slots and codes in ascending order of key, and an end. Who restores one names the
//! block that it must be of, and everything in it is checked against that: headers are linked by hash, and the state has
//! the last one's root.

use std::io::{Read, Write};
use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Address, B256, Bytes, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::EMPTY_ROOT_HASH;
use redb::{ReadableTable, WriteTransaction};

use crate::execute::{account_path, account_prefix, genesis_block, leaf, slot_leaf, storage_prefix};
use crate::state::Table;
use crate::store::{BODIES, HEADERS, META, RECEIPTS, Row, Store};
use crate::trie::{Change, Dirty, Nodes, Trie};
use crate::{Chain, ChainError, Genesis};

const MAGIC: &[u8; 8] = b"isobitS1";
/// Headers that the EVM can ask for (`BLOCKHASH`).
const HEADERS_KEPT: u64 = 256;
/// Longest record: a contract's code, with room.
const MAX_RECORD: usize = 1 << 20;
/// Leaves that are put into a trie at a time.
const BATCH: usize = 20_000;
/// Blocks that are forgotten in one transaction.
const PRUNED: u64 = 1_000;

const HEADER: u8 = 0;
const ACCOUNT: u8 = 1;
const SLOT: u8 = 2;
const CODE_RECORD: u8 = 3;
const END: u8 = 4;

fn write_record(out: &mut dyn Write, kind: u8, bytes: &[u8]) -> Result<(), ChainError> {
    let length = u32::try_from(bytes.len()).map_err(ChainError::store)?;
    let head = [&[kind], &length.to_le_bytes()[..]].concat();
    out.write_all(&head).and_then(|()| out.write_all(bytes)).map_err(ChainError::store)
}

fn bad(why: &str) -> ChainError {
    ChainError::Refused(format!("not a snapshot of this block: {why}"))
}

/// A record: its kind and bytes.
type Record = (u8, Vec<u8>);

fn read_record(input: &mut dyn Read) -> Result<Record, ChainError> {
    let mut head = [0; 5];
    input.read_exact(&mut head).map_err(|_| bad("it is cut short"))?;
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > MAX_RECORD {
        return Err(bad("a record is too long"));
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes).map_err(|_| bad("it is cut short"))?;
    Ok((head[0], bytes))
}

impl Chain {
    /// Writes the state after the last block; returns the block's hash, which whoever restores it has to name. `told`
    /// hears the number of records so far.
    pub fn snapshot(&self, out: &mut dyn Write, told: impl Fn(u64)) -> Result<B256, ChainError> {
        let head = self.head();
        out.write_all(MAGIC).map_err(ChainError::store)?;
        let last = head.header.number;
        let numbers = (0..1).chain(last.saturating_sub(HEADERS_KEPT - 1).max(1)..=last);
        for number in numbers {
            let header = self.store().header(number)?.ok_or(ChainError::Corrupt("a header is missing"))?;
            write_record(out, HEADER, &alloy_rlp::encode(header))?;
        }
        let mut count = 0;
        for (kind, table) in [(ACCOUNT, Table::Accounts), (SLOT, Table::Storage), (CODE_RECORD, Table::Code)]
        {
            head.view.each(table, &mut |key, value| {
                count += 1;
                told(count);
                match kind {
                    CODE_RECORD => write_record(out, kind, value),
                    _ => write_record(out, kind, &[key, value].concat()),
                }
            })?;
        }
        write_record(out, END, &[])?;
        out.flush().map_err(ChainError::store)?;
        Ok(head.hash)
    }

    /// Forgets transactions and receipts of blocks before the last `keep`; the state and all headers stay. Returns how many
    /// blocks were forgotten.
    pub fn prune(&self, keep: u64) -> Result<u64, ChainError> {
        let below = self.head().header.number.saturating_sub(keep.saturating_sub(1)).max(1);
        self.store().prune(below)
    }
}

/// The trie's nodes of a database that is being written.
struct Written<'a>(std::cell::RefCell<redb::Table<'a, &'static [u8], &'static [u8]>>);

impl Nodes for Written<'_> {
    fn node(&self, key: &[u8]) -> Result<Option<Bytes>, ChainError> {
        let rows = self.0.borrow();
        let node = rows.get(key).map_err(ChainError::store)?;
        Ok(node.map(|v| Bytes::copy_from_slice(v.value())))
    }
}

impl Written<'_> {
    /// The root of a trie with these leaves, which are in no order.
    fn root(&self, prefix: &[u8], mut leaves: Vec<Change>) -> Result<B256, ChainError> {
        leaves.sort();
        let mut root = EMPTY_ROOT_HASH;
        for batch in leaves.chunks(BATCH) {
            let mut dirty = Dirty::new();
            root = Trie::new(self, prefix, &mut dirty).update(batch)?;
            let mut table = self.0.borrow_mut();
            for (key, node) in &dirty {
                match node {
                    Some(node) => table.insert(&key[..], &node[..]).map_err(ChainError::store)?,
                    None => table.remove(&key[..]).map_err(ChainError::store)?,
                };
            }
        }
        Ok(root)
    }
}

impl Store {
    /// Fills an empty store with a snapshot of the block of this hash. Either all of it is on disk then, or nothing.
    pub fn restore(&self, genesis: &Genesis, trusted: B256, input: &mut dyn Read) -> Result<u64, ChainError> {
        if self.head()?.is_some() {
            return Err(ChainError::Refused("there is a chain already; give another --data".into()));
        }
        let mut magic = [0; 8];
        if input.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Err(bad("it does not begin as one"));
        }
        let headers = self.states.found(|write| {
            let headers = read_state(genesis, trusted, input, write)?;
            Ok((headers.last().map_or(0, |h| h.number), headers))
        })?;
        let mut write = self.blocks.begin_write().map_err(ChainError::store)?;
        write.set_quick_repair(true);
        let mut head = 0;
        {
            let mut table = write.open_table(HEADERS).map_err(ChainError::store)?;
            for header in &headers {
                put(&mut table, &header.number.to_be_bytes(), &alloy_rlp::encode(header))?;
                head = header.number;
            }
            let mut meta = write.open_table(META).map_err(ChainError::store)?;
            put(&mut meta, b"head", &head.to_be_bytes())?;
        }
        write.commit().map_err(ChainError::store)?;
        Ok(head)
    }

    fn prune(&self, below: u64) -> Result<u64, ChainError> {
        // So that places are nowhere but in the database.
        self.states.flush()?;
        let mut pruned = 0;
        loop {
            let mut write = self.blocks.begin_write().map_err(ChainError::store)?;
            write.set_quick_repair(true);
            let mut found = Vec::new();
            {
                let mut bodies = write.open_table(BODIES).map_err(ChainError::store)?;
                let (from, to) = (1u64.to_be_bytes(), below.to_be_bytes());
                for row in bodies.range(&from[..]..&to[..]).map_err(ChainError::store)?.take(PRUNED as usize)
                {
                    let (key, value) = row.map_err(ChainError::store)?;
                    found.push((key.value().to_vec(), crate::block::decode_txs(value.value())?));
                }
                let mut receipts = write.open_table(RECEIPTS).map_err(ChainError::store)?;
                for (number, _) in &found {
                    bodies.remove(&number[..]).map_err(ChainError::store)?;
                    receipts.remove(&number[..]).map_err(ChainError::store)?;
                }
            }
            if found.is_empty() {
                return Ok(pruned);
            }
            let places = found.iter().flat_map(|(_, txs)| txs);
            let places: Vec<Bytes> = places.map(|tx| tx.inner().hash().to_vec().into()).collect();
            self.states.forget(Table::Txs, &places)?;
            write.commit().map_err(ChainError::store)?;
            pruned += found.len() as u64;
        }
    }
}

/// Sets a row.
fn put(
    table: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    value: &[u8],
) -> Result<(), ChainError> {
    table.insert(key, value).map(drop).map_err(ChainError::store)
}

/// Reads a snapshot into the tables of an empty state, and checks all of it; returns its headers.
fn read_state(
    genesis: &Genesis,
    trusted: B256,
    input: &mut dyn Read,
    write: &WriteTransaction,
) -> Result<Vec<Header>, ChainError> {
    let open = |table: Table| write.open_table(table.definition()).map_err(ChainError::store);
    let (mut record, headers) = read_headers(genesis, trusted, input)?;
    let mut numbers = open(Table::Numbers)?;
    for header in &headers {
        put(&mut numbers, header.hash_slow().as_slice(), &header.number.to_be_bytes())?;
    }
    let last = headers.last().ok_or_else(|| bad("it has no headers"))?;
    let (mut accounts, mut storage, mut code) =
        (open(Table::Accounts)?, open(Table::Storage)?, open(Table::Code)?);
    let trie = Written(open(Table::Trie)?.into());
    let mut rows: Vec<(Address, Row)> = Vec::new();
    while record.0 == ACCOUNT {
        let (address, row) = record.1.split_at_checked(20).ok_or_else(|| bad("a short account"))?;
        put(&mut accounts, address, row)?;
        rows.push((Address::from_slice(address), Row::decode(row)?));
        record = read_record(input)?;
    }
    // The slots of one account follow each other.
    let mut checked = 0;
    while record.0 == SLOT {
        let owner = Address::from_slice(record.1.get(..20).ok_or_else(|| bad("a short slot"))?);
        let mut leaves = Vec::new();
        while record.0 == SLOT && record.1.starts_with(owner.as_slice()) {
            if record.1.len() != 84 {
                return Err(bad("a slot of another length"));
            }
            put(&mut storage, &record.1[..52], &record.1[52..])?;
            let [slot, value] = [&record.1[20..52], &record.1[52..]].map(B256::from_slice);
            leaves.push(slot_leaf(slot.into(), value.into()));
            record = read_record(input)?;
        }
        let root = trie.root(&storage_prefix(owner), leaves)?;
        let row = rows.binary_search_by_key(&owner, |r| r.0).ok().map(|i| rows[i].1);
        if row.is_none_or(|r| r.storage != root) {
            return Err(bad("an account's storage has another root"));
        }
        checked += 1;
    }
    if rows.iter().filter(|r| r.1.storage != EMPTY_ROOT_HASH).count() != checked {
        return Err(bad("an account's storage is missing"));
    }
    while record.0 == CODE_RECORD {
        put(&mut code, keccak256(&record.1).as_slice(), &record.1)?;
        record = read_record(input)?;
    }
    if record.0 != END {
        return Err(bad("its records are in another order"));
    }
    for (_, row) in rows.iter().filter(|r| r.1.code != Row::default().code) {
        if code.get(row.code.as_slice()).map_err(ChainError::store)?.is_none() {
            return Err(bad("a contract's code is missing"));
        }
    }
    let leaves: Vec<Change> = rows.iter().map(|(a, r)| (account_path(*a), Some(leaf(r)))).collect();
    if trie.root(account_prefix(), leaves)? != last.state_root {
        return Err(bad("the state has another root"));
    }
    Ok(headers)
}

/// The headers at the beginning, and the record after them.
fn read_headers(
    genesis: &Genesis,
    trusted: B256,
    input: &mut dyn Read,
) -> Result<(Record, Vec<Header>), ChainError> {
    let mut headers: Vec<Header> = Vec::new();
    let record = loop {
        let record = read_record(input)?;
        if record.0 != HEADER || headers.len() as u64 > HEADERS_KEPT + 1 {
            break record;
        }
        let header = Header::decode(&mut &record.1[..]).map_err(|_| bad("a header is malformed"))?;
        // The first one stands alone if there are more than are kept.
        let follows = headers.last().is_none_or(|before| {
            header.parent_hash == before.hash_slow() || (headers.len() == 1 && header.number > 1)
        });
        if !follows || headers.is_empty() != (header.number == 0) {
            return Err(bad("its headers do not follow each other"));
        }
        headers.push(header);
    };
    let empty = Arc::new(Store::in_memory()?);
    let first = genesis_block(genesis, &empty.view())?.block.header;
    if headers.first() != Some(&first) {
        return Err(bad("it is of a chain with another genesis"));
    }
    if headers.last().map(Header::hash_slow) != Some(trusted) {
        return Err(bad("its last header is of another block"));
    }
    Ok((record, headers))
}
