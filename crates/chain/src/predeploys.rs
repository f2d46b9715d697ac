//! Contracts that every chain has from its first block on. Their sources are in `contracts/src`, what they compile to beside them.

use std::sync::LazyLock;

use alloy_primitives::{Address, Bytes, address, hex};
use alloy_sol_types::sol;
use serde_json::Value;

/// The chain's coin as an ERC-20 token (`WrappedIso.sol`).
pub const WISO: Address = address!("0x0000000000000000000000000000000000150b18");
/// The till of inferences that are paid for by a signature (`InferenceTill.sol`).
pub const TILL: Address = address!("0x0000000000000000000000000000000000150b19");

/// Prices that validators report, or an operator sets (`PriceFeed.sol`).
pub const PRICES: Address = address!("0x00000000000000000000000000000000000000f5");
/// Workflows that are run again and again (`WorkflowScheduler.sol`).
pub const SCHEDULER: Address = address!("0x7179724De4e7FF9271FA40C0337c7f90C0508eF6");

const ARTIFACTS: [(Address, &str); 4] = [
    (PRICES, include_str!("../../../contracts/artifacts/PriceFeed.json")),
    (SCHEDULER, include_str!("../../../contracts/artifacts/WorkflowScheduler.json")),
    (WISO, include_str!("../../../contracts/artifacts/WrappedIso.json")),
    (TILL, include_str!("../../../contracts/artifacts/InferenceTill.json")),
];

sol! {
    /// What programs call of Wrapped ISO.
    #[allow(missing_docs)]
    interface IWrappedIso {
        function balanceOf(address owner) external view returns (uint256);
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes calldata signature) external;
        function deposit() external payable;
    }

    /// What is signed to pay with Wrapped ISO (EIP-3009).
    #[allow(missing_docs)]
    #[derive(Debug, PartialEq, Eq)]
    struct TransferWithAuthorization {
        address from;
        address to;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
    }

    /// What programs call of the price feed, and what validators sign for it.
    #[allow(missing_docs)]
    interface IPriceFeed {
        struct Quote {
            string pair;
            uint128 price;
        }

        struct PriceReport {
            uint64 height;
            bytes32 block;
            uint64 minute;
            Quote[] quotes;
        }

        struct SignedQuotes {
            Quote[] quotes;
            bytes signature;
        }

        struct Number {
            int128 value;
            int64 decimals;
        }

        struct Candle {
            int128 high;
            int128 low;
            int128 open;
            int128 close;
            int128 volume;
            int64 decimals;
        }

        struct HistoricalInputQuery {
            string base;
            string quote;
            uint32 total_candles;
            uint32 candle_duration_in_mins;
            uint8 order;
            uint8[] candle_types;
        }

        function report(uint64 height, uint64 minute, string[] calldata pairs, SignedQuotes[] calldata said) external;
        function latest(string calldata base, string calldata quote) external view returns (uint128 price, uint64 minute);
        function queryCandles(HistoricalInputQuery memory query) external view returns (Number[] memory numbers, uint32[] memory shape);
        function post(string calldata base, string calldata quote, uint32 minutesEach, uint256 first, Candle[] calldata candles) external;
    }

    /// What programs call of the scheduler of workflows.
    #[allow(missing_docs)]
    interface IWorkflowScheduler {
        function due(uint256 time) external view returns (uint256[] memory numbers);
        function execute(uint256 number) external;
    }

    /// What programs call of the till.
    #[allow(missing_docs)]
    interface IInferenceTill {
        struct Authorization {
            address from;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
            bytes signature;
        }

        function request(Authorization calldata paid, bytes32 model, bytes calldata tensors, uint64 seed, uint16 level) external returns (bytes32 job);
        function callbackGas() external pure returns (uint64);
    }
}

/// Address and code of each.
pub(crate) fn all() -> &'static [(Address, Bytes)] {
    static ALL: LazyLock<Vec<(Address, Bytes)>> = LazyLock::new(|| {
        let code = |text: &str| {
            let json: Value = serde_json::from_str(text).ok()?;
            hex::decode(json.get("deployedBytecode")?.as_str()?).ok().map(Bytes::from)
        };
        let one =
            |(address, text): (Address, &str)| (address, code(text).expect("our own contracts have code"));
        ARTIFACTS.into_iter().map(one).collect()
    });
    &ALL
}
