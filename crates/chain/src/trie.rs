//! Ethereum's Merkle Patricia trie, kept by path and changed in place: the cost of a block is that of the leaves it
//! changes, not of all there are. Nodes are stored as their RLP, so that they are the parts of a proof as they are.

use std::collections::BTreeMap;

use alloy_primitives::{B256, Bytes, keccak256};
use alloy_rlp::Decodable;
use alloy_trie::nodes::{BranchNode, ExtensionNode, LeafNode, RlpNode, TrieNode};
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieMask};

use crate::ChainError;

/// Where a trie's nodes are.
pub(crate) trait Nodes {
    /// The RLP of the node with this key.
    fn node(&self, key: &[u8]) -> Result<Option<Bytes>, ChainError>;
}

/// A node's RLP by its key, or that it is no more.
pub(crate) type Dirty = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A change of a leaf: its 64 nibbles, and its value or that it goes.
pub(crate) type Change = (Nibbles, Option<Vec<u8>>);

/// One trie among the nodes, by the prefix of its keys: a node's key is the prefix and a byte a nibble of its path.
pub(crate) struct Trie<'a> {
    nodes: &'a dyn Nodes,
    prefix: &'a [u8],
    dirty: &'a mut Dirty,
}

impl<'a> Trie<'a> {
    pub(crate) fn new(nodes: &'a dyn Nodes, prefix: &'a [u8], dirty: &'a mut Dirty) -> Self {
        Self { nodes, prefix, dirty }
    }

    /// Applies changes, in ascending order of key and each key once, and returns the root. Changed nodes go to `dirty`.
    pub(crate) fn update(mut self, changes: &[Change]) -> Result<B256, ChainError> {
        let root = Nibbles::default();
        let node = self.load(&root)?;
        let Some(node) = self.apply(root, node, changes)? else {
            self.delete(&root);
            return Ok(EMPTY_ROOT_HASH);
        };
        self.store(&root, &node);
        let rlp = self.dirty[self.prefix].as_ref().expect("stored just now");
        Ok(keccak256(rlp))
    }

    fn key(&self, path: &Nibbles) -> Vec<u8> {
        [self.prefix, &path.to_vec()].concat()
    }

    fn load(&self, path: &Nibbles) -> Result<Option<TrieNode>, ChainError> {
        let rlp = self.nodes.node(&self.key(path))?;
        rlp.map(|rlp| decode(&rlp)).transpose()
    }

    fn must_load(&self, path: &Nibbles) -> Result<TrieNode, ChainError> {
        self.load(path)?.ok_or_else(|| ChainError::corrupt("a node of the state trie is missing"))
    }

    fn store(&mut self, path: &Nibbles, node: &TrieNode) -> RlpNode {
        let mut rlp = Vec::new();
        let reference = node.rlp(&mut rlp);
        self.dirty.insert(self.key(path), Some(rlp));
        reference
    }

    fn delete(&mut self, path: &Nibbles) {
        self.dirty.insert(self.key(path), None);
    }

    /// Applies the changes below `path` to the node there. The caller stores what is returned.
    fn apply(
        &mut self,
        path: Nibbles,
        node: Option<TrieNode>,
        changes: &[Change],
    ) -> Result<Option<TrieNode>, ChainError> {
        match node {
            None | Some(TrieNode::EmptyRoot) => self.build(path, changes),
            Some(TrieNode::Leaf(leaf)) => {
                let key = path.join(&leaf.key);
                let mut all = changes.to_vec();
                if let Err(at) = all.binary_search_by(|c| c.0.cmp(&key)) {
                    all.insert(at, (key, Some(leaf.value)));
                }
                self.build(path, &all)
            }
            Some(TrieNode::Extension(extension)) => self.extension(path, extension, changes),
            Some(TrieNode::Branch(branch)) => self.branch(path, children(&branch), None, changes),
        }
    }

    /// A new subtree.
    fn build(&mut self, path: Nibbles, changes: &[Change]) -> Result<Option<TrieNode>, ChainError> {
        let inserted: Vec<Change> = changes.iter().filter(|c| c.1.is_some()).cloned().collect();
        let (Some(first), Some(last)) = (inserted.first(), inserted.last()) else { return Ok(None) };
        if inserted.len() == 1 {
            let value = first.1.clone().expect("kept for it");
            return Ok(Some(TrieNode::Leaf(LeafNode::new(first.0.slice(path.len()..), value))));
        }
        let at = first.0.slice(..first.0.common_prefix_length(&last.0));
        let branch = self.branch(at, Default::default(), None, &inserted)?;
        Ok(self.wrap(path, at, branch))
    }

    fn extension(
        &mut self,
        path: Nibbles,
        extension: ExtensionNode,
        changes: &[Change],
    ) -> Result<Option<TrieNode>, ChainError> {
        let end = path.join(&extension.key);
        // What leaves the extension and is to be removed is not there.
        let changes: Vec<Change> =
            changes.iter().filter(|c| c.1.is_some() || c.0.starts_with(&end)).cloned().collect();
        let shared = changes.iter().map(|c| c.0.common_prefix_length(&end)).min().unwrap_or(end.len());
        if shared == end.len() {
            let child = self.must_load(&end)?;
            let child = self.apply(end, Some(child), &changes)?;
            return Ok(self.wrap(path, end, child));
        }
        let at = end.slice(..shared);
        let nibble = end.get_unchecked(shared);
        let rest = end.slice(shared + 1..);
        let (mut refs, mut given) = (Children::default(), None);
        if rest.is_empty() {
            refs[usize::from(nibble)] = Some(extension.child);
        } else {
            given = Some((nibble, TrieNode::Extension(ExtensionNode::new(rest, extension.child))));
        }
        let branch = self.branch(at, refs, given, &changes)?;
        Ok(self.wrap(path, at, branch))
    }

    /// A branch at `path`. `given`: a child that is not stored yet.
    fn branch(
        &mut self,
        path: Nibbles,
        mut refs: Children,
        mut given: Option<(u8, TrieNode)>,
        changes: &[Change],
    ) -> Result<Option<TrieNode>, ChainError> {
        let mut updated: BTreeMap<u8, Option<TrieNode>> = BTreeMap::new();
        for group in changes.chunk_by(|a, b| a.0.get(path.len()) == b.0.get(path.len())) {
            let nibble = group[0].0.get_unchecked(path.len());
            let at = below(&path, nibble);
            let child = match given.take_if(|g| g.0 == nibble) {
                Some((_, node)) => Some(node),
                None if refs[usize::from(nibble)].is_some() => Some(self.must_load(&at)?),
                None => None,
            };
            let child = self.apply(at, child, group)?;
            updated.insert(nibble, child);
        }
        if let Some((nibble, node)) = given {
            updated.insert(nibble, Some(node));
        }
        let is_there = |n: u8| updated.get(&n).map_or(refs[usize::from(n)].is_some(), Option::is_some);
        let there: Vec<u8> = (0..16).filter(|&n| is_there(n)).collect();
        if let [only] = there[..] {
            let at = below(&path, only);
            let (child, is_stored) = match updated.remove(&only) {
                Some(child) => (child.expect("it is there"), false),
                None => (self.must_load(&at)?, true),
            };
            for (nibble, _) in updated {
                self.delete(&below(&path, nibble));
            }
            if is_stored && matches!(child, TrieNode::Branch(_)) {
                let reference = refs[usize::from(only)].take().expect("it is there");
                return Ok(Some(TrieNode::Extension(ExtensionNode::new(at.slice(path.len()..), reference))));
            }
            return Ok(self.wrap(path, at, Some(child)));
        }
        for (nibble, child) in updated {
            let at = below(&path, nibble);
            refs[usize::from(nibble)] = match child {
                Some(child) => Some(self.store(&at, &child)),
                None => {
                    self.delete(&at);
                    None
                }
            };
        }
        if there.is_empty() {
            return Ok(None);
        }
        let mask = there.iter().fold(0, |mask, n| mask | 1 << n);
        let stack = refs.into_iter().flatten().collect();
        Ok(Some(TrieNode::Branch(BranchNode::new(stack, TrieMask::new(mask)))))
    }

    /// The node for `path` whose subtree is the node made for `at`, at or below it.
    fn wrap(&mut self, path: Nibbles, at: Nibbles, node: Option<TrieNode>) -> Option<TrieNode> {
        if path.len() == at.len() {
            return node;
        }
        let prefix = at.slice(path.len()..);
        match node {
            Some(TrieNode::Branch(_)) => {
                let child = self.store(&at, &node.expect("matched just now"));
                Some(TrieNode::Extension(ExtensionNode::new(prefix, child)))
            }
            Some(TrieNode::Leaf(leaf)) => {
                self.delete(&at);
                Some(TrieNode::Leaf(LeafNode::new(prefix.join(&leaf.key), leaf.value)))
            }
            Some(TrieNode::Extension(extension)) => {
                self.delete(&at);
                Some(TrieNode::Extension(ExtensionNode::new(prefix.join(&extension.key), extension.child)))
            }
            None | Some(TrieNode::EmptyRoot) => {
                self.delete(&at);
                None
            }
        }
    }
}

type Children = [Option<RlpNode>; 16];

fn below(path: &Nibbles, nibble: u8) -> Nibbles {
    let mut path = *path;
    path.push(nibble);
    path
}

fn children(branch: &BranchNode) -> Children {
    let mut refs = Children::default();
    for (nibble, child) in branch.as_ref().children() {
        refs[usize::from(nibble)] = child.cloned();
    }
    refs
}

fn decode(rlp: &[u8]) -> Result<TrieNode, ChainError> {
    TrieNode::decode(&mut &rlp[..]).map_err(|_| ChainError::corrupt("a node of the state trie is malformed"))
}

/// The nodes from the root to `key`, or to where it is missing: a Merkle proof as `eth_getProof` gives it.
pub(crate) fn proof(nodes: &dyn Nodes, prefix: &[u8], key: B256) -> Result<Vec<Bytes>, ChainError> {
    let key = Nibbles::unpack(key);
    let mut path = Nibbles::default();
    let mut proof = Vec::new();
    loop {
        let Some(rlp) = nodes.node(&[prefix, &path.to_vec()].concat())? else { return Ok(proof) };
        let node = decode(&rlp)?;
        // A node below 32 bytes is inside its parent.
        if rlp.len() >= 32 || path.is_empty() {
            proof.push(rlp);
        }
        match node {
            TrieNode::Branch(b) if b.state_mask.is_bit_set(key.get_unchecked(path.len())) => {
                path.push(key.get_unchecked(path.len()));
            }
            TrieNode::Extension(e) if key.starts_with(&path.join(&e.key)) => path = path.join(&e.key),
            _ => return Ok(proof),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::U256;
    use alloy_trie::proof::verify_proof;
    use alloy_trie::root::storage_root_unsorted;
    use isobit_numerics::rng::Rng;

    #[derive(Default)]
    struct Map(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Nodes for Map {
        fn node(&self, key: &[u8]) -> Result<Option<Bytes>, ChainError> {
            Ok(self.0.get(key).cloned().map(Bytes::from))
        }
    }

    impl Map {
        fn update(&mut self, prefix: &[u8], changes: &BTreeMap<B256, Option<U256>>) -> B256 {
            let changes: Vec<Change> =
                changes.iter().map(|(k, v)| (Nibbles::unpack(k), v.map(alloy_rlp::encode))).collect();
            let mut dirty = Dirty::new();
            let root = Trie::new(self, prefix, &mut dirty).update(&changes).unwrap();
            for (key, node) in dirty {
                match node {
                    Some(node) => self.0.insert(key, node),
                    None => self.0.remove(&key),
                };
            }
            root
        }
    }

    /// A key out of few, so that prefixes are shared down to the last nibbles and removals hit.
    fn key(rng: &mut Rng) -> B256 {
        let mut key = B256::repeat_byte(0x11);
        for _ in 0..rng.below(4) {
            key[[0, 1, 15, 30, 31][rng.below(5)]] = [0x11, 0x12, 0x21, 0x1f][rng.below(4)];
        }
        key
    }

    /// Against the library that computes a root from all leaves at once.
    #[test]
    fn roots_are_those_of_all_leaves_at_once_and_proofs_hold() {
        for seed in 0..60 {
            let mut rng = Rng::new(seed, 0);
            let (mut nodes, mut leaves) = (Map::default(), BTreeMap::<B256, U256>::new());
            for round in 0..60 {
                let mut changes = BTreeMap::new();
                for _ in 0..rng.below(if round % 7 == 0 { 40 } else { 6 }) {
                    let value =
                        (rng.below(3) > 0).then(|| U256::from(rng.next_u32() >> rng.below(32)) + U256::ONE);
                    changes.insert(key(&mut rng), value);
                }
                if round % 20 == 19 {
                    changes.extend(leaves.keys().map(|k| (*k, None)));
                }
                for (&k, &v) in &changes {
                    match v {
                        Some(v) => leaves.insert(k, v),
                        None => leaves.remove(&k),
                    };
                }
                let root = nodes.update(b"p", &changes);
                let expected = storage_root_unsorted(leaves.iter().map(|(k, v)| (*k, *v)));
                assert_eq!(root, expected, "seed {seed}, round {round}");
                for _ in 0..4 {
                    let k = key(&mut rng);
                    let value = leaves.get(&k).map(alloy_rlp::encode);
                    let proof = proof(&nodes, b"p", k).unwrap();
                    verify_proof(root, Nibbles::unpack(k), value, &proof)
                        .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                }
                // Nothing is left behind: as many nodes as a trie built from nothing has.
                let mut fresh = Map::default();
                fresh.update(b"p", &leaves.iter().map(|(k, v)| (*k, Some(*v))).collect());
                assert_eq!(nodes.0, fresh.0, "seed {seed}, round {round}");
            }
        }
    }
}
