// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

import {IIsobit, IInferenceCallback} from "../src/IIsobit.sol";
import {Tensors} from "../src/Tensors.sol";

/// @title A contract that asks which digit an image shows, and is told in a later block.
contract DigitReader is IInferenceCallback {
    IIsobit constant LEDGER = IIsobit(0x0000000000000000000000000000000000150b17);
    uint16 constant REPLICATED_3 = 0x0103;
    uint64 constant CALLBACK_GAS = 500_000;

    bytes32 public immutable model;
    mapping(bytes32 job => address) public askers;

    /// `confidence` in millionths.
    event Read(address indexed asker, bytes32 indexed job, uint256 digit, int256 confidence);
    event Failed(address indexed asker, bytes32 indexed job, bool settled, uint16 failure);

    constructor(bytes32 model_) {
        model = model_;
    }

    /// What to send with `ask`, for a run of `cost` units.
    function price(uint64 cost) external view returns (uint256) {
        return LEDGER.quote(model, cost, REPLICATED_3, CALLBACK_GAS);
    }

    /// Asks about an 8 by 8 image of pixels from 0 to 16.
    function ask(uint8[64] calldata pixels) external payable returns (bytes32 job) {
        int256[] memory values = new int256[](64);
        for (uint256 i = 0; i < 64; i++) values[i] = int256(uint256(pixels[i])) * 625; // sixteenths, four decimals
        uint64[] memory shape = new uint64[](4);
        (shape[0], shape[1], shape[2], shape[3]) = (1, 1, 8, 8);
        bytes memory tensors = Tensors.floats(Tensors.begin(), "image", shape, values, 4);
        job = LEDGER.request{value: msg.value}(model, tensors, 0, REPLICATED_3, 0, CALLBACK_GAS);
        askers[job] = msg.sender;
    }

    /// Asks, and reverts: nothing is left of it, neither the job nor the coins.
    function askAndRevert(uint8[64] calldata pixels) external payable {
        this.ask{value: msg.value}(pixels);
        revert("changed my mind");
    }

    /// Asks, and undoes only the asking: the coins come back to the caller.
    function askAndCatch(uint8[64] calldata pixels) external payable {
        try this.askAndRevert{value: msg.value}(pixels) {} catch {}
        (bool sent,) = msg.sender.call{value: address(this).balance}("");
        require(sent);
    }

    function onInference(bytes32 job, bool settled, uint16 failure, bytes calldata tensors) external {
        require(msg.sender == address(LEDGER), "only the ledger tells");
        address asker = askers[job];
        if (!settled || failure != 0 || tensors.length == 0) {
            emit Failed(asker, job, settled, failure);
            return;
        }
        (, bytes memory content) = Tensors.tensor(tensors, 0);
        uint256 best = 0;
        int256 most = -1;
        for (uint256 digit = 0; digit < 10; digit++) {
            int256 p = Tensors.floatAt(content, digit, 6);
            if (p > most) (best, most) = (digit, p);
        }
        emit Read(asker, job, best, most);
    }

    /// Coins from anybody. What is left of escrows comes back without it.
    receive() external payable {}
}
