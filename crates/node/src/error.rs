use alloy_primitives::B256;
use isobit_tensor::Hash;

/// The network cannot do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The rules refuse a transaction.
    #[error("{0}")]
    Refused(String),
    /// Something is not there.
    #[error("{what} {id} is not known here")]
    Absent {
        /// What kind of thing.
        what: &'static str,
        /// Which one.
        id: String,
    },
    /// Bytes that are not what their hash or place says.
    #[error("{0}")]
    Malformed(String),
    /// Blobs.
    #[error(transparent)]
    Blob(#[from] isobit_hub::BlobError),
    /// The model.
    #[error(transparent)]
    Model(#[from] isobit_graph::GraphError),
    /// The model cannot be loaded here.
    #[error(transparent)]
    Load(#[from] isobit_runtime::LoadError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] isobit_chain::ChainError),
    /// The data folder.
    #[error("the data folder: {0}")]
    Store(String),
    /// The other side of HTTP.
    #[error("{url}: {message}")]
    Http {
        /// What was asked.
        url: String,
        /// What came back.
        message: String,
    },
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
    /// It took too long.
    #[error("job {0} did not end in time; ask again with `isobit job`")]
    Timeout(B256),
}

impl NodeError {
    pub(crate) fn absent(what: &'static str, id: impl ToString) -> Self {
        Self::Absent { what, id: id.to_string() }
    }

    pub(crate) fn blob_absent(hash: &Hash) -> Self {
        Self::absent("blob", hash)
    }
}
