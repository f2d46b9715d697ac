//! The ledger's interface to contracts and wallets: `contracts/src/IIsobit.sol`, which is read at compile time.

#![allow(missing_docs)]

use alloy_sol_types::sol;

sol!("../../contracts/src/IIsobit.sol");
sol!("../../contracts/src/IOpenGradient.sol");
