// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

import {IIsobit, IInferenceCallback} from "./IIsobit.sol";
import {WrappedIso} from "./WrappedIso.sol";

/// @title The till: inferences paid for by a signature (x402, scheme `exact`), settled through the ledger's own escrow.
/// @notice It is at 0x0000000000000000000000000000000000150b19 on every Isobit chain. Whoever signs an EIP-3009 authorization of Wrapped
/// ISO to it pays for the inference that is asked for with it. What the inference does not cost goes back to who has paid.
/// @dev Anybody may hand in the authorization alone, at the token, before it comes here: the tokens are here then all the same,
/// and it is good for one inference still. The token tells which authorization was used, so no other can claim them.
contract InferenceTill is IInferenceCallback {
    IIsobit private constant LEDGER = IIsobit(0x0000000000000000000000000000000000150b17);
    WrappedIso private constant TOKEN = WrappedIso(payable(0x0000000000000000000000000000000000150b18));
    /// @dev Gas to give the rest back.
    uint64 private constant CALLBACK_GAS = 200_000;

    /// @notice A payment by signature, as x402 carries it.
    struct Authorization {
        address from;
        uint256 value;
        uint256 validAfter;
        uint256 validBefore;
        bytes32 nonce;
        bytes signature;
    }

    struct Payment {
        address payer;
        uint256 escrow;
    }

    /// @notice Who has paid for a job, and how much of it is in escrow.
    mapping(bytes32 => Payment) public payments;
    /// @notice Whether an authorization was good for an inference already.
    mapping(address => mapping(bytes32 => bool)) public spent;

    /// @notice An inference was paid for.
    event Paid(bytes32 indexed job, address indexed payer, uint256 value);
    /// @notice What an inference did not cost went back, as tokens.
    event Returned(bytes32 indexed job, address indexed payer, uint256 value);

    /// @notice The authorization was used for an inference, or cancelled.
    error AlreadySpent(address payer, bytes32 nonce);
    /// @notice Only the ledger calls back.
    error NotTheLedger();

    /// @dev Coins of unwrapped tokens and of the ledger.
    receive() external payable {}

    /// @notice Asks for an inference with the signed payment. See `IIsobit.request`.
    function request(
        Authorization calldata paid,
        bytes32 model,
        bytes calldata tensors,
        uint64 seed,
        uint16 level
    ) external returns (bytes32 job) {
        _collect(paid);
        TOKEN.withdraw(paid.value);
        job = LEDGER.request{value: paid.value}(model, tensors, seed, level, 0, CALLBACK_GAS);
        uint256 callbackFee = LEDGER.quote(model, 0, level, CALLBACK_GAS) - LEDGER.quote(model, 0, level, 0);
        payments[job] = Payment(paid.from, paid.value - callbackFee);
        emit Paid(job, paid.from, paid.value);
    }

    /// @notice What the callback costs, beyond what `IIsobit.quote` says for no callback.
    function callbackGas() external pure returns (uint64) {
        return CALLBACK_GAS;
    }

    /// @inheritdoc IInferenceCallback
    function onInference(bytes32 job, bool, uint16, bytes calldata) external {
        if (msg.sender != address(LEDGER)) revert NotTheLedger();
        giveBack(job);
    }

    /// @notice Gives back what a job that is over has not cost; the ledger's callback does it, and if that fails anybody can.
    function giveBack(bytes32 job) public {
        Payment memory payment = payments[job];
        IIsobit.Answer memory answer = LEDGER.answer(job);
        if (payment.payer == address(0) || !(answer.settled || answer.refunded)) return;
        delete payments[job];
        uint256 rest = payment.escrow - answer.paid;
        if (rest == 0) return;
        TOKEN.deposit{value: rest}();
        TOKEN.transfer(payment.payer, rest);
        emit Returned(job, payment.payer, rest);
    }

    function _collect(Authorization calldata paid) private {
        if (spent[paid.from][paid.nonce]) revert AlreadySpent(paid.from, paid.nonce);
        spent[paid.from][paid.nonce] = true;
        bytes32 used = TOKEN.authorizationOf(paid.from, paid.nonce);
        if (used == 0) {
            TOKEN.transferWithAuthorization(
                paid.from, address(this), paid.value, paid.validAfter, paid.validBefore, paid.nonce, paid.signature
            );
            return;
        }
        bytes32 mine = keccak256(
            abi.encode(
                TOKEN.TRANSFER_WITH_AUTHORIZATION_TYPEHASH(),
                paid.from,
                address(this),
                paid.value,
                paid.validAfter,
                paid.validBefore,
                paid.nonce
            )
        );
        if (used != mine) revert AlreadySpent(paid.from, paid.nonce);
    }
}
