// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.20;

/// @title Tensors of inputs and outputs, in the ledger's encoding `isobitV1`.
/// @notice `isobitV1`, then for each tensor: length of the name (8 bytes, little-endian as all numbers here), the name,
/// ONNX's number of the element type (4), the rank (4), the extents (8 each), the length of the content (8), the content.
/// Floats are given and read as decimal fixed-point numbers, since Solidity has none: `value / 10^decimals`.
library Tensors {
    uint32 internal constant FLOAT = 1;
    uint32 internal constant INT64 = 7;

    error Malformed();
    error NotFinite();

    /// @notice The beginning of a set. Append tensors to it.
    function begin() internal pure returns (bytes memory) {
        return "isobitV1";
    }

    /// @notice A float32 tensor of fixed-point numbers, each rounded to the nearest float, ties to even.
    function floats(bytes memory set, string memory name, uint64[] memory shape, int256[] memory values, uint8 decimals)
        internal
        pure
        returns (bytes memory)
    {
        bytes memory content = new bytes(4 * values.length);
        for (uint256 i = 0; i < values.length; i++) {
            _put(content, 4 * i, toFloat(values[i], decimals), 4);
        }
        return _append(set, name, FLOAT, shape, content);
    }

    /// @notice An int64 tensor.
    function ints(bytes memory set, string memory name, uint64[] memory shape, int64[] memory values)
        internal
        pure
        returns (bytes memory)
    {
        bytes memory content = new bytes(8 * values.length);
        for (uint256 i = 0; i < values.length; i++) {
            _put(content, 8 * i, uint64(values[i]), 8);
        }
        return _append(set, name, INT64, shape, content);
    }

    /// @notice The content of the tensor at `index` of a set, with its element type.
    function tensor(bytes memory set, uint256 index) internal pure returns (uint32 dtype, bytes memory content) {
        if (set.length < 8) revert Malformed();
        uint256 p = 8;
        for (uint256 i = 0;; i++) {
            p += 8 + _get(set, p, 8);
            dtype = uint32(_get(set, p, 4));
            p += 8 + 8 * _get(set, p + 4, 4);
            uint256 length = _get(set, p, 8);
            p += 8;
            if (i == index) {
                if (p + length > set.length) revert Malformed();
                content = new bytes(length);
                for (uint256 j = 0; j < length; j++) content[j] = set[p + j];
                return (dtype, content);
            }
            p += length;
        }
    }

    /// @notice Element `index` of a float32 tensor's content as a fixed-point number, rounded towards zero.
    function floatAt(bytes memory content, uint256 index, uint8 decimals) internal pure returns (int256) {
        uint256 bits = _get(content, 4 * index, 4);
        uint256 exponent = (bits >> 23) & 0xff;
        if (exponent == 0xff) revert NotFinite();
        uint256 mantissa = bits & 0x7fffff;
        if (exponent == 0) exponent = 1;
        else mantissa |= 0x800000;
        uint256 scaled = mantissa * 10 ** decimals;
        // value = mantissa * 2^(exponent - 150)
        uint256 magnitude = exponent >= 150 ? scaled << (exponent - 150) : scaled >> (150 - exponent);
        return bits >> 31 == 1 ? -int256(magnitude) : int256(magnitude);
    }

    /// @notice Element `index` of an int64 tensor's content.
    function intAt(bytes memory content, uint256 index) internal pure returns (int64) {
        return int64(uint64(_get(content, 8 * index, 8)));
    }

    /// @notice The float32 nearest to `value / 10^decimals`, as its bits; ties to even.
    function toFloat(int256 value, uint8 decimals) internal pure returns (uint32) {
        if (value == 0) return 0;
        uint32 sign = value < 0 ? 0x80000000 : 0;
        uint256 n = value < 0 ? uint256(-value) : uint256(value);
        uint256 d = 10 ** decimals;
        require(n < 1 << 127 && decimals <= 30, "at most 127 bits and 30 decimals");
        // Scale so that 2^24 <= n/d < 2^25: one bit more than a float has, the rest decides about rounding.
        int256 e = 0;
        while (n / d >= 1 << 25) {
            d <<= 1;
            e++;
        }
        while (n / d < 1 << 24) {
            n <<= 1;
            e--;
        }
        uint256 q = n / d;
        bool rest = n % d != 0;
        // value = q * 2^e; the float's last bit is 2^(e + 1), or 2^-149 for a subnormal.
        int256 last = e + 1 < -149 ? int256(-149) : e + 1;
        uint256 shift = uint256(last - e);
        if (shift > 30) return sign;
        uint256 half = 1 << (shift - 1);
        uint256 low = q & ((1 << shift) - 1);
        q >>= shift;
        if (low > half || (low == half && (rest || q & 1 == 1))) q++;
        if (q >= 1 << 24) {
            q >>= 1;
            last++;
        }
        if (q < 1 << 23) return sign | uint32(q);
        uint256 exponent = uint256(last + 150);
        if (exponent >= 0xff) return sign | 0x7f800000;
        return sign | uint32(exponent << 23) | uint32(q & 0x7fffff);
    }

    function _append(bytes memory set, string memory name, uint32 dtype, uint64[] memory shape, bytes memory content)
        private
        pure
        returns (bytes memory)
    {
        bytes memory head = new bytes(8 + bytes(name).length + 16 + 8 * shape.length);
        uint256 p = bytes(name).length;
        _put(head, 0, p, 8);
        for (uint256 i = 0; i < p; i++) head[8 + i] = bytes(name)[i];
        p += 8;
        _put(head, p, dtype, 4);
        _put(head, p + 4, shape.length, 4);
        for (uint256 i = 0; i < shape.length; i++) _put(head, p + 8 + 8 * i, shape[i], 8);
        _put(head, head.length - 8, content.length, 8);
        return bytes.concat(set, head, content);
    }

    function _put(bytes memory to, uint256 offset, uint256 value, uint256 n) private pure {
        for (uint256 i = 0; i < n; i++) to[offset + i] = bytes1(uint8(value >> (8 * i)));
    }

    function _get(bytes memory data, uint256 offset, uint256 n) private pure returns (uint256 value) {
        if (offset + n > data.length) revert Malformed();
        for (uint256 i = 0; i < n; i++) value |= uint256(uint8(data[offset + i])) << (8 * i);
    }
}
