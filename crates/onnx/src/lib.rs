//! ONNX on the wire: protobuf, external data, limits.
