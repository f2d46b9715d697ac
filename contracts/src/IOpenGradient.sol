// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

/// @title OpenGradient's interface to inference, as its SDK and contracts call it.
/// @notice A call's result is there in the same transaction: the network runs the inference first, as a job of the ledger, and the
/// transaction waits for it outside of the chain. In `eth_call` and `eth_estimateGas` of a new inference the output is empty
/// and `is_simulation_result` is true.
interface IOpenGradient {
    /// @notice The number `value / 10^decimals`.
    struct Number {
        int128 value;
        int128 decimals;
    }

    struct NumberTensor {
        string name;
        Number[] values;
        uint32[] shape;
    }

    struct StringTensor {
        string name;
        string[] values;
    }

    /// @notice A tensor as JSON: of types, or with values, that numbers cannot carry.
    struct JsonScalar {
        string name;
        string value;
    }

    struct ModelInput {
        NumberTensor[] numbers;
        StringTensor[] strings;
    }

    struct ModelOutput {
        NumberTensor[] numbers;
        StringTensor[] strings;
        JsonScalar[] jsons;
        bool is_simulation_result;
    }

    struct ModelInferenceRequest {
        uint8 mode;
        string modelCID;
        ModelInput input;
    }

    event InferenceResult(ModelOutput output);
    event ModelInferenceEvent(string inferenceID, ModelInferenceRequest request, ModelOutput response);

    /// @notice At the hub, 0x8383C9bD7462F12Eb996DD02F78234C0421A6FaE.
    /// @param modelId the model's content address in hexadecimal, or its name
    /// @param inferenceMode 0: signed; 1 (proved) and 2 (attested) are not settled yet and revert
    function run(string calldata modelId, uint8 inferenceMode, ModelInput calldata modelInput)
        external
        returns (ModelOutput memory);

    /// @notice At the precompile, 0x00000000000000000000000000000000000000F4.
    function runModelInference(ModelInferenceRequest calldata request) external returns (ModelOutput memory);
}
