// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

import {IOpenGradient} from "./IOpenGradient.sol";

/// @title Prices that an operator sets, and inference on them, as OpenGradient's workflows ask for it.
/// @notice It is at 0x00000000000000000000000000000000000000F5 on every Isobit chain. The operator is named in the genesis; who has
/// none there has a feed that nobody can write.
/// @dev Prices are on the chain like anything else, so whoever executes a block again has the same ones.
contract PriceFeed {
    IOpenGradient private constant INFERENCE = IOpenGradient(0x00000000000000000000000000000000000000F4);
    /// @dev Most numbers of one query.
    uint256 private constant MAX_NUMBERS = 4096;

    /// @notice A candle: prices and volume, each `value / 10^decimals`. Its numbers are those of OpenGradient's candle types.
    struct Candle {
        int128 high;
        int128 low;
        int128 open;
        int128 close;
        int128 volume;
        int64 decimals;
    }

    /// @notice What is asked for: the last candles of a pair. `order` 0: the oldest first, 1: the newest first.
    /// `candle_types` 0 high, 1 low, 2 open, 3 close, 4 volume.
    struct HistoricalInputQuery {
        string base;
        string quote;
        uint32 total_candles;
        uint32 candle_duration_in_mins;
        uint8 order;
        uint8[] candle_types;
    }

    /// @notice Who sets prices. It is the first slot, which the genesis fills.
    address public operator;
    /// @dev By the hash of pair and duration, candles by their number since 1970.
    mapping(bytes32 => mapping(uint256 => Candle)) private _candles;
    mapping(bytes32 => mapping(uint256 => bool)) private _known;
    /// @dev The number of the newest candle, plus one.
    mapping(bytes32 => uint256) private _end;

    event Posted(string base, string quote, uint32 minutesEach, uint256 first, uint256 count);
    event OperatorChanged(address indexed before, address indexed now_);

    /// @notice Only the operator sets prices.
    error NotTheOperator(address caller, address operator);
    /// @notice A candle of the query has not been posted.
    error NoCandle(string base, string quote, uint32 minutesEach, uint256 number);
    /// @notice A query that asks for nothing, for too much, or for a type or order that there is not.
    error InvalidQuery(string why);

    /// @notice Sets candles of a pair that follow each other; the first has this number: minutes since 1970 over the duration.
    /// What was set before for the same time is replaced.
    function post(
        string calldata base,
        string calldata quote,
        uint32 minutesEach,
        uint256 first,
        Candle[] calldata candles_
    ) external {
        if (msg.sender != operator) revert NotTheOperator(msg.sender, operator);
        if (minutesEach == 0) revert InvalidQuery("candles of no time");
        bytes32 key = _key(base, quote, minutesEach);
        for (uint256 i = 0; i < candles_.length; i++) {
            _candles[key][first + i] = candles_[i];
            _known[key][first + i] = true;
        }
        if (first + candles_.length > _end[key]) _end[key] = first + candles_.length;
        emit Posted(base, quote, minutesEach, first, candles_.length);
    }

    /// @notice Hands the feed over.
    function setOperator(address next) external {
        if (msg.sender != operator) revert NotTheOperator(msg.sender, operator);
        emit OperatorChanged(operator, next);
        operator = next;
    }

    /// @notice The numbers of a query, a row for each candle, and their shape.
    function queryCandles(HistoricalInputQuery memory query)
        public
        view
        returns (IOpenGradient.Number[] memory numbers, uint32[] memory shape)
    {
        uint256 columns = query.candle_types.length;
        uint256 rows = query.total_candles;
        if (rows == 0 || columns == 0) revert InvalidQuery("it asks for nothing");
        if (rows * columns > MAX_NUMBERS) revert InvalidQuery("it asks for more than 4096 numbers");
        if (query.order > 1) revert InvalidQuery("the order is 0 (oldest first) or 1 (newest first)");
        bytes32 key = _key(query.base, query.quote, query.candle_duration_in_mins);
        uint256 end = _end[key];
        if (end < rows) revert NoCandle(query.base, query.quote, query.candle_duration_in_mins, 0);
        numbers = new IOpenGradient.Number[](rows * columns);
        for (uint256 row = 0; row < rows; row++) {
            uint256 number = query.order == 0 ? end - rows + row : end - 1 - row;
            if (!_known[key][number]) {
                revert NoCandle(query.base, query.quote, query.candle_duration_in_mins, number);
            }
            Candle memory candle = _candles[key][number];
            for (uint256 i = 0; i < columns; i++) {
                numbers[row * columns + i] =
                    IOpenGradient.Number(_field(candle, query.candle_types[i]), candle.decimals);
            }
        }
        shape = new uint32[](2);
        (shape[0], shape[1]) = (uint32(rows), uint32(columns));
    }

    /// @notice Runs a model on the last candles of a pair: its one input of this name, candles by types.
    function runInferenceOnPriceFeed(
        string calldata modelId,
        string calldata inputName,
        HistoricalInputQuery calldata query
    ) external returns (IOpenGradient.ModelOutput memory) {
        (IOpenGradient.Number[] memory numbers, uint32[] memory shape) = queryCandles(query);
        IOpenGradient.ModelInferenceRequest memory request;
        request.modelCID = modelId;
        request.input.numbers = new IOpenGradient.NumberTensor[](1);
        request.input.numbers[0] = IOpenGradient.NumberTensor(inputName, numbers, shape);
        return INFERENCE.runModelInference(request);
    }

    function _key(string memory base, string memory quote, uint32 minutesEach) private pure returns (bytes32) {
        return keccak256(abi.encode(base, quote, minutesEach));
    }

    function _field(Candle memory candle, uint8 kind) private pure returns (int128) {
        if (kind == 0) return candle.high;
        if (kind == 1) return candle.low;
        if (kind == 2) return candle.open;
        if (kind == 3) return candle.close;
        if (kind == 4) return candle.volume;
        revert InvalidQuery("a candle has the types 0 to 4");
    }
}
