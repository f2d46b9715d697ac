//! Errors as Ethereum's clients know them.

use isobit_chain::{CallError, ChainError};
use jsonrpsee::types::ErrorObjectOwned;

pub(crate) type Answer<T> = Result<T, ErrorObjectOwned>;

/// Malformed parameters.
pub(crate) fn invalid(why: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32602, why, None::<()>)
}

/// A request that cannot be served.
pub(crate) fn refused(why: impl Into<String>) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32000, why, None::<()>)
}

pub(crate) fn chain(e: ChainError) -> ErrorObjectOwned {
    match e {
        ChainError::Refused(why) => refused(why),
        e => ErrorObjectOwned::owned(-32603, e.to_string(), None::<()>),
    }
}

/// Code 3 and the revert data, where clients look for it.
pub(crate) fn call(e: CallError) -> ErrorObjectOwned {
    match e {
        CallError::Reverted(ref data) => ErrorObjectOwned::owned(3, e.to_string(), Some(data)),
        CallError::Chain(e) => chain(e),
        e => refused(e.to_string()),
    }
}
