/// The chain cannot do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The store on disk, in its words.
    #[error("the chain's store: {0}")]
    Store(String),
    /// What the store holds is not what was written.
    #[error("the chain's store is damaged: {0}; restore the data folder from a snapshot, or sync it anew")]
    Corrupt(&'static str),
    /// A chain in one file, as versions before this one kept it.
    #[error(
        "{0} holds a chain in chain.redb, which this version does not read; sync into another --data folder, or start anew with \
         an empty one"
    )]
    OldStore(String),
    /// The network's parameters.
    #[error(transparent)]
    Genesis(#[from] isobit_ledger::GenesisError),
    /// The store belongs to another network.
    #[error("the data folder belongs to another network: {0}")]
    OtherGenesis(String),
    /// A transaction that cannot be in a block.
    #[error("{0}")]
    Refused(String),
    /// A block that is none on its parent.
    #[error("block {number} is not valid: {why}")]
    Block {
        /// Its number.
        number: u64,
        /// What is wrong.
        why: String,
    },
    /// The EVM failed for a reason of its own.
    #[error("the EVM: {0}")]
    Evm(String),
    /// The chain is stopping.
    #[error("the node is stopping")]
    Stopping,
}

impl ChainError {
    pub(crate) fn corrupt(what: &'static str) -> Self {
        Self::Corrupt(what)
    }

    /// A failure of storage.
    pub fn store(e: impl std::fmt::Display) -> Self {
        Self::Store(e.to_string())
    }
}
