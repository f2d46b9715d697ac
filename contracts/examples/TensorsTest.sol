// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

import {Tensors} from "../src/Tensors.sol";

/// @title The library's functions from outside, for tests.
contract TensorsTest {
    function toFloat(int256 value, uint8 decimals) external pure returns (uint32) {
        return Tensors.toFloat(value, decimals);
    }

    function floatAt(bytes calldata content, uint256 index, uint8 decimals) external pure returns (int256) {
        return Tensors.floatAt(content, index, decimals);
    }

    function floats(string calldata name, uint64[] calldata shape, int256[] calldata values, uint8 decimals)
        external
        pure
        returns (bytes memory)
    {
        return Tensors.floats(Tensors.begin(), name, shape, values, decimals);
    }
}
