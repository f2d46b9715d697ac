// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

import {IIsobit} from "./IIsobit.sol";
import {IOpenGradient} from "./IOpenGradient.sol";

/// @title Prices on the chain, and inference on them, as OpenGradient's workflows ask for it.
/// @notice It is at 0x00000000000000000000000000000000000000F5 on every Isobit chain. A pair has one of two sources. Validators that
/// have prices sign them along with their votes (vote extensions): the median by stake of more than two thirds of it is the price of
/// a minute, whoever brings the signatures (`report`). Other pairs have the candles that an operator sets (`post`), who is named in
/// the genesis. Once validators have reported a pair it is theirs.
/// @dev Prices are on the chain like anything else, so whoever executes a block again has the same ones.
contract PriceFeed {
    IIsobit private constant LEDGER = IIsobit(0x0000000000000000000000000000000000150b17);
    IOpenGradient private constant INFERENCE = IOpenGradient(0x00000000000000000000000000000000000000F4);
    /// @notice A price that validators report is `price / 10^18`.
    int64 public constant DECIMALS = 18;
    /// @notice How many minutes of what validators report are kept: a week.
    uint256 public constant MINUTES = 10080;
    bytes32 private constant DOMAIN_TYPE =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 private constant QUOTE_TYPE = keccak256("Quote(string pair,uint128 price)");
    bytes32 private constant REPORT_TYPE = keccak256(
        "PriceReport(uint64 height,bytes32 block,uint64 minute,Quote[] quotes)Quote(string pair,uint128 price)"
    );
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

    /// @notice The price of a pair, as `BASE/QUOTE`, in units of `10^-DECIMALS`.
    struct Quote {
        string pair;
        uint128 price;
    }

    /// @notice What one validator says: its quotes in ascending order of `keccak256(pair)`, and its signature (EIP-712, r, s, v) over
    /// `PriceReport(height, block, minute, quotes)`.
    struct SignedQuotes {
        Quote[] quotes;
        bytes signature;
    }

    /// @notice Who sets candles. It is in the first slot, which the genesis fills.
    address public operator;
    /// @notice The latest minute since 1970 of which validators have reported a price.
    uint64 public minute;
    /// @dev By the hash of pair and duration, candles by their number since 1970.
    mapping(bytes32 => mapping(uint256 => Candle)) private _candles;
    mapping(bytes32 => mapping(uint256 => bool)) private _known;
    /// @dev The number of the newest candle, plus one.
    mapping(bytes32 => uint256) private _end;

    /// @dev By the hash of a pair: the latest minute that validators have reported.
    mapping(bytes32 => uint64) private _latest;
    /// @dev By the hash of a pair, and the minute modulo `MINUTES`: the minute times 2^128, and the price.
    mapping(bytes32 => mapping(uint256 => uint256)) private _reported;

    event Posted(string base, string quote, uint32 minutesEach, uint256 first, uint256 count);
    /// @notice What validators agree that a pair was worth in a minute since 1970.
    event Reported(string pair, uint64 indexed minute, uint128 price);
    event OperatorChanged(address indexed before, address indexed now_);

    /// @notice Only the operator sets prices.
    error NotTheOperator(address caller, address operator);
    /// @notice Validators report this pair; the operator cannot set it any more.
    error ValidatorsReport(string base, string quote);
    /// @notice A report that is not of validators, not of a block of this chain, or not in order.
    error InvalidReport(string why);
    /// @notice Too little of the stake has said what a pair is worth: it takes more than two thirds.
    error NoMajority(string pair, uint256 weight, uint256 total);
    /// @notice A candle of the query has not been posted, or no price in its time has been reported.
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
        if (_latest[_pair(base, quote)] != 0) revert ValidatorsReport(base, quote);
        bytes32 key = _key(base, quote, minutesEach);
        for (uint256 i = 0; i < candles_.length; i++) {
            _candles[key][first + i] = candles_[i];
            _known[key][first + i] = true;
        }
        if (first + candles_.length > _end[key]) _end[key] = first + candles_.length;
        emit Posted(base, quote, minutesEach, first, candles_.length);
    }

    /// @notice Sets the prices of a minute to the medians of what validators signed along with their votes for a block of that
    /// minute. Anybody can bring them.
    /// @param height the block's number; it is one of the last 256
    /// @param minute_ its time in minutes since 1970
    /// @param pairs which pairs to set, in ascending order of `keccak256(pair)`; each later than what is known of it
    /// @param said what validators signed, in ascending order of their addresses
    function report(uint64 height, uint64 minute_, string[] calldata pairs, SignedQuotes[] calldata said) external {
        if (uint256(minute_) * 60 > block.timestamp) revert InvalidReport("it is of the future");
        (uint256[] memory weights, uint256 total) = _weights(height, minute_, said);
        uint256[] memory read = new uint256[](said.length);
        bytes32 before = 0;
        for (uint256 i = 0; i < pairs.length; i++) {
            bytes32 pair = keccak256(bytes(pairs[i]));
            if (pair <= before) revert InvalidReport("the pairs are not in ascending order of their hashes");
            before = pair;
            if (minute_ <= _latest[pair]) revert InvalidReport("there is a price of this minute or a later one");
            uint128 price = _median(pairs[i], said, weights, read, total);
            _latest[pair] = minute_;
            _reported[pair][minute_ % MINUTES] = uint256(minute_) << 128 | price;
            emit Reported(pairs[i], minute_, price);
        }
        if (minute_ > minute && pairs.length > 0) minute = minute_;
    }

    /// @notice The latest price of a pair that validators report, and its minute since 1970; zeros if they do not.
    function latest(string calldata base, string calldata quote) external view returns (uint128 price, uint64 minute_) {
        bytes32 pair = _pair(base, quote);
        minute_ = _latest[pair];
        if (minute_ != 0) price = uint128(_reported[pair][minute_ % MINUTES]);
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
        bytes32 pair = _pair(query.base, query.quote);
        bytes32 key = _key(query.base, query.quote, query.candle_duration_in_mins);
        bool reported = _latest[pair] != 0;
        uint256 end = reported ? _closed(pair, query) : _end[key];
        if (end < rows) revert NoCandle(query.base, query.quote, query.candle_duration_in_mins, 0);
        numbers = new IOpenGradient.Number[](rows * columns);
        for (uint256 row = 0; row < rows; row++) {
            uint256 number = query.order == 0 ? end - rows + row : end - 1 - row;
            Candle memory candle = reported ? _candleOf(pair, query, number) : _candles[key][number];
            if (!(reported ? candle.decimals != 0 : _known[key][number])) {
                revert NoCandle(query.base, query.quote, query.candle_duration_in_mins, number);
            }
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

    /// @dev How many candles of this duration are over, by the latest minute reported.
    function _closed(bytes32 pair, HistoricalInputQuery memory query) private view returns (uint256) {
        if (query.candle_duration_in_mins == 0) revert InvalidQuery("candles of no time");
        if (uint256(query.total_candles) * query.candle_duration_in_mins > MAX_NUMBERS) {
            revert InvalidQuery("it asks for more than 4096 minutes");
        }
        for (uint256 i = 0; i < query.candle_types.length; i++) {
            if (query.candle_types[i] == 4) revert InvalidQuery("validators report prices, and no volume");
        }
        return (uint256(_latest[pair]) + 1) / query.candle_duration_in_mins;
    }

    /// @dev A candle of the prices that were reported in its time; without decimals if there are none.
    function _candleOf(bytes32 pair, HistoricalInputQuery memory query, uint256 number)
        private
        view
        returns (Candle memory candle)
    {
        uint256 first = number * query.candle_duration_in_mins;
        for (uint256 when = first; when < first + query.candle_duration_in_mins; when++) {
            uint256 slot = _reported[pair][when % MINUTES];
            if (slot >> 128 != when) continue;
            int128 price = int128(uint128(slot));
            if (candle.decimals == 0) {
                (candle.open, candle.high, candle.low, candle.decimals) = (price, price, price, DECIMALS);
            }
            if (price > candle.high) candle.high = price;
            if (price < candle.low) candle.low = price;
            candle.close = price;
        }
    }

    /// @dev The weights of those who signed, and that of all validators.
    function _weights(uint64 height, uint64 minute_, SignedQuotes[] calldata said)
        private
        view
        returns (uint256[] memory weights, uint256 total)
    {
        bytes32 hash = blockhash(height);
        if (hash == 0) revert InvalidReport("its block is not one of the last 256");
        bytes32 domain = keccak256(
            abi.encode(DOMAIN_TYPE, keccak256("Isobit"), keccak256("1"), block.chainid, address(this))
        );
        (address[] memory validators, uint64[] memory stakes) = LEDGER.validators();
        for (uint256 i = 0; i < stakes.length; i++) {
            total += stakes[i];
        }
        weights = new uint256[](said.length);
        uint256 next = 0;
        for (uint256 i = 0; i < said.length; i++) {
            bytes32 content = keccak256(abi.encode(REPORT_TYPE, height, hash, minute_, _hash(said[i].quotes)));
            address signer = _signer(keccak256(abi.encodePacked("\x19\x01", domain, content)), said[i].signature);
            while (next < validators.length && validators[next] != signer) {
                next++;
            }
            if (next == validators.length) revert InvalidReport("who signed is no validator, or out of order");
            weights[i] = stakes[next++];
        }
    }

    function _hash(Quote[] calldata quotes) private pure returns (bytes32) {
        bytes32[] memory hashes = new bytes32[](quotes.length);
        for (uint256 i = 0; i < quotes.length; i++) {
            hashes[i] = keccak256(abi.encode(QUOTE_TYPE, keccak256(bytes(quotes[i].pair)), quotes[i].price));
        }
        return keccak256(abi.encodePacked(hashes));
    }

    function _signer(bytes32 digest, bytes calldata signature) private pure returns (address) {
        if (signature.length != 65) revert InvalidReport("a signature has 65 bytes");
        return ecrecover(digest, uint8(signature[64]), bytes32(signature[:32]), bytes32(signature[32:64]));
    }

    /// @dev The least price such that those who say so much or less have half of the weight of those who say anything. `read` is how
    /// far each one's quotes have been read: pairs come in order.
    function _median(
        string calldata name,
        SignedQuotes[] calldata said,
        uint256[] memory weights,
        uint256[] memory read,
        uint256 total
    ) private pure returns (uint128) {
        bytes32 pair = keccak256(bytes(name));
        // Price times 2^128 plus weight, in ascending order.
        uint256[] memory sorted = new uint256[](said.length);
        (uint256 n, uint256 weight) = (0, 0);
        for (uint256 i = 0; i < said.length; i++) {
            Quote[] calldata quotes = said[i].quotes;
            uint256 here = read[i];
            while (here < quotes.length && keccak256(bytes(quotes[here].pair)) < pair) {
                here++;
            }
            read[i] = here;
            if (here == quotes.length || keccak256(bytes(quotes[here].pair)) != pair) continue;
            uint128 price = quotes[here].price;
            if (price == 0 || price > uint128(type(int128).max)) continue;
            uint256 one = uint256(price) << 128 | weights[i];
            uint256 place = n++;
            for (; place > 0 && sorted[place - 1] > one; place--) {
                sorted[place] = sorted[place - 1];
            }
            sorted[place] = one;
            weight += weights[i];
        }
        if (weight * 3 <= total * 2) revert NoMajority(name, weight, total);
        uint256 sum = 0;
        for (uint256 i = 0; i < n; i++) {
            sum += uint128(sorted[i]);
            if (sum * 2 >= weight) return uint128(sorted[i] >> 128);
        }
        revert InvalidReport("no price"); // more than nothing has a median
    }

    function _pair(string memory base, string memory quote) private pure returns (bytes32) {
        return keccak256(bytes(string.concat(base, "/", quote)));
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
